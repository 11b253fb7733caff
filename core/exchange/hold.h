// Hold: one worker's hold on a snapshot. The worker takes one reference whatever the number of its exchanges, which are counted
// in a plain integer; a snapshot that was replaced is let go when the last of them has ended (DESIGN 4).
//
//   service->hold (newest) <- every new exchange; older holds live on through the exchanges that stand on them
#pragma once

#include "conf/conf.h"

struct moon_actions;
struct moon_listener_plugins;
struct moon_listeners;
struct moon_format;
struct moon_routes;
struct moon_upstreams;

struct moon_hold {
    struct moon_snapshot *snapshot;
    const struct moon_listeners *listeners;
    const struct moon_listener_plugins *listener_plugins;
    const struct moon_routes *routes;
    const struct moon_actions *actions;
    const struct moon_upstreams *upstreams; // that the actions' backends are indexes of
    const struct moon_format *log_format;   // of the access log; NULL: there is none
    uint32_t exchange_count;
    bool is_current; // the service's newest
};

// Takes a reference of its own. Aborts when out of memory.
struct moon_hold *moon_hold_new(struct moon_snapshot *snapshot);
struct moon_hold *moon_hold_ref(struct moon_hold *hold);
// NULL is fine.
void moon_hold_unref(struct moon_hold *hold);
// Replaced by a newer one: freed now, or with its last exchange. NULL is fine.
void moon_hold_retire(struct moon_hold *hold);
