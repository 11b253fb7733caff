// The runner of a request's filters, those of its listener before those of its route: keeps where each phase and each body direction stands, over waits. Embedded in the exchange.
// What filters are promised (filter.h) is kept here, whatever the exchange does in between: a hook that waits is not called
// before a resume, what follows the end of a message reaches nobody, and every filter that waits is cancelled once.
#pragma once

#include "filter/filter.h"

#include <stdint.h>

enum { MOON_CHAIN_MAX_COUNT = 64 }; // a bit of a mask each

// The filters of a listener or a route, compiled once; shared by all their exchanges.
struct moon_chain {
    const struct moon_filter *filters;
    uint16_t count;
    bool has_request_body, has_response_body; // some filter reads that body
    bool has_preread;                         // some filter looks at connections
    bool has_messages;                        // some filter reads WebSocket messages
    bool is_code;                             // some filter stands on code
    bool has_certificate;                     // some filter has a say about certificates
    uint8_t phases;  // bit 1 << enum moon_phase: some filter has a hook for it
    bool may_answer; // some filter may: backends are optional
};

// Takes what comes out of the last body filter; results as ops->pass.
typedef ssize_t moon_chain_sink_fn(struct moon_flow *flow, enum moon_direction direction,
                                   struct moon_slice bytes, bool end);

// Adds what a filter's type has to what the chain knows of its filters.
void moon_chain_note(struct moon_chain *chain, const struct moon_filter_type *type);

// Whether no filter has anything to do with exchanges: of plugins that have a say about connections alone.
static inline bool moon_chain_is_idle(const struct moon_chain *chain)
{
    return !chain->phases && !chain->has_request_body && !chain->has_response_body &&
           !chain->has_messages;
}

struct moon_chain_run {
    const struct moon_filter *front, *back; // the filters of the listener, and those of the route
    uint16_t front_count, count;            // of the first, of both
    bool has_request_body, has_response_body, has_messages;
    uint8_t phases; // as those of the two chains
    void **states;  // one a filter, in the arena
    moon_chain_sink_fn *sink;
    uint16_t head_at;       // filter of the head phase now running
    int16_t waiting_head;   // filter that waits in a head hook, -1: none
    int16_t body_at[2];     // per direction: filter whose body hook is on the stack, -1: none
    uint16_t message_at[2]; // per direction: filter that has the message
    // Per direction, a bit each filter: its body hook, or that of messages, waits; it may be called again; it has passed the end on.
    uint64_t waiting_body[2], woken_body[2], ended_body[2];
};

// `front` and `chain`, together at most MOON_CHAIN_MAX_COUNT; NULL or empty costs nothing. Allocates the states in the flow's arena.
void moon_chain_run_init(struct moon_chain_run *run, const struct moon_chain *front,
                         const struct moon_chain *chain, struct moon_flow *flow,
                         moon_chain_sink_fn *sink);
// Starts a phase at its first filter, or goes on at the one that waited. NEXT: all have run.
enum moon_verdict moon_chain_start(struct moon_chain_run *run, struct moon_flow *flow,
                                   enum moon_phase phase);
enum moon_verdict moon_chain_continue(struct moon_chain_run *run, struct moon_flow *flow,
                                      enum moon_phase phase);
// Whether a head hook waits / a body hook of that direction.
bool moon_chain_head_waits(const struct moon_chain_run *run);
bool moon_chain_body_waits(const struct moon_chain_run *run, enum moon_direction direction);
// Somebody called resume: every body hook that waits may be called again, by the next push that gets there.
void moon_chain_wake(struct moon_chain_run *run);
// Pushes bytes, or the end, through all body filters of a direction into the sink; results as ops->pass.
ssize_t moon_chain_push(struct moon_chain_run *run, struct moon_flow *flow,
                        enum moon_direction direction, struct moon_slice bytes, bool end);
// From inside a body hook: on to the next one.
ssize_t moon_chain_pass(struct moon_chain_run *run, struct moon_flow *flow,
                        enum moon_direction direction, struct moon_slice bytes, bool end);
// Begins a message at its first filter, or goes on (`is_again`) at the one that waited. A tunnel has no bodies: what waits is kept
// where that of bodies was, and moon_chain_body_waits, moon_chain_wake and moon_chain_cancel are for both.
enum moon_verdict moon_chain_message(struct moon_chain_run *run, struct moon_flow *flow,
                                     struct moon_websocket_message *message, bool is_again);
// Calls `cancel` of every filter that waits, once each, wherever and how often it waits; nothing waits after it.
void moon_chain_cancel(struct moon_chain_run *run, struct moon_flow *flow);
