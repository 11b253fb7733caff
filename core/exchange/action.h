// Action: what a matched route does. Compiled from the same objects, in the same order, as the routes: index equals index.
#pragma once

#include "conf/conf.h"
#include "filter/chain.h"

struct moon_upstream;

struct moon_action {
    const char *name; // of the route, for logs and counters
    uint32_t series;  // the id of its name there
    struct moon_chain chain;
    const struct moon_upstream *upstream; // NULL: the chain answers every request
    uint32_t prefix_len;                  // of the path prefix that the route matches; 0 for "/"
    bool answers;                         // no request gets beyond the access phase
};

struct moon_actions;

// Part: struct moon_actions *. Its registry is a NULL-terminated array of const struct moon_filter_type *.
extern const struct moon_section moon_action_section;

const struct moon_actions *moon_snapshot_actions(const struct moon_snapshot *snapshot);
const struct moon_action *moon_actions_at(const struct moon_actions *actions, int index);
