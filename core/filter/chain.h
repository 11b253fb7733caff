// The runner of a route's filters: keeps where each phase and each body direction stands, over waits. Embedded in the exchange.
#pragma once

#include "filter/filter.h"

#include <stdint.h>

// A route's filters, compiled once; shared by all its exchanges.
struct moon_chain {
    const struct moon_filter *filters;
    uint16_t count;
    bool has_request_body, has_response_body; // some filter reads that body
};

// Takes what comes out of the last body filter; results as ops->pass.
typedef ssize_t moon_chain_sink_fn(struct moon_flow *flow, enum moon_direction direction,
                                   struct moon_slice bytes, bool end);

struct moon_chain_run {
    const struct moon_chain *chain;
    void **states; // one a filter, in the arena
    moon_chain_sink_fn *sink;
    uint16_t head_at;     // filter of the head phase now running
    uint16_t body_at[2];  // filter whose body hook is on the stack, per direction
    int16_t waiting_head; // filter that waits in a head hook, -1: none
    int16_t waiting_body[2];
};

// `chain` NULL or empty costs nothing. Allocates the states in the flow's arena.
void moon_chain_run_init(struct moon_chain_run *run, const struct moon_chain *chain,
                         struct moon_flow *flow, moon_chain_sink_fn *sink);
// Starts a phase at its first filter, or goes on at the one that waited. NEXT: all have run.
enum moon_verdict moon_chain_start(struct moon_chain_run *run, struct moon_flow *flow,
                                   enum moon_phase phase);
enum moon_verdict moon_chain_continue(struct moon_chain_run *run, struct moon_flow *flow,
                                      enum moon_phase phase);
// Pushes bytes through all body filters of a direction into the sink; results as ops->pass.
ssize_t moon_chain_push(struct moon_chain_run *run, struct moon_flow *flow,
                        enum moon_direction direction, struct moon_slice bytes, bool end);
// From inside a body hook: on to the next one.
ssize_t moon_chain_pass(struct moon_chain_run *run, struct moon_flow *flow,
                        enum moon_direction direction, struct moon_slice bytes, bool end);
// Calls `cancel` of every filter that waits; nothing waits after it.
void moon_chain_cancel(struct moon_chain_run *run, struct moon_flow *flow);
