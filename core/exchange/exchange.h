// Exchange: one request and its response, from the first event of its downstream lane to the end of its log phase.
//
//   lane open -> head -> route -> rewrite -> access -> upstream (or built-in, or own answer)
//             -> header_filter -> bodies both ways -> lanes given back -> log -> arena freed
//
// An exchange lives in its own arena, belongs to its worker and frees itself. edge/ only opens it.
#pragma once

#include "base/list.h"
#include "obs/format.h"

#include <stdbool.h>
#include <stdint.h>

struct moon_exchange;
struct moon_hold;
struct moon_lane;
struct moon_names;
struct moon_pool;
struct moon_resources;
struct moon_route_scratch;
struct moon_snapshot;

// What the exchanges of one worker stand on; made by gateway/, changed as a whole when a new snapshot arrives.
struct moon_service {
    struct moon_resources *res;
    struct moon_pool *pool;
    struct moon_hold *hold;   // of the newest snapshot
    struct moon_names *names; // where calls find the addresses of hosts
    struct moon_list calls;   // of struct moon_call, those under way
    uint32_t call_count;
    bool has_stopped_calls; // none begins any more
    struct moon_route_scratch *route_scratch;
    struct moon_format_clock log_clock;
    uint64_t date_ms; // second that `date` stands for
    char date[32];    // IMF-fixdate (RFC 9110 5.6.7), NUL-terminated
};

// Where a connection came in: of the port, shared by its connections. The edge's; valid as long as their links.
struct moon_arrival {
    uint32_t bind; // of the listeners of the newest snapshot
    struct moon_hold *
        // where the port is gone: the last that had it, which its connections stand on; else NULL
        hold;
};

// Puts a snapshot into service: what begins from now on stands on it. Settings change for all (res->settings).
void moon_service_switch(struct moon_service *service, struct moon_snapshot *snapshot);
// Lets go of the newest snapshot; no exchange is left.
void moon_service_fini(struct moon_service *service);
// For the open event of a server link: makes an exchange and attaches it to the lane.
void moon_exchange_open(struct moon_service *service, struct moon_lane *down,
                        const struct moon_arrival *arrival);
// Tells both sides of every WebSocket 1001 and gives them a moment to answer: shortly before the end of a drain.
void moon_exchange_close_websockets(struct moon_service *service);
// Breaks off every exchange and tunnel of the worker, waiting log phases included: the end of a drain.
void moon_exchange_stop_all(struct moon_service *service);
