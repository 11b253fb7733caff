// Action: what a matched route does. Compiled from the same objects, in the same order, as the routes: index equals index.
#pragma once

#include "conf/conf.h"
#include "filter/chain.h"
#include "upstream/balance/split.h"

struct moon_action {
    const char *name; // of the route, for logs and counters
    struct moon_chain chain;
    struct moon_split split; // over its backends
};

struct moon_actions;

// Part: struct moon_actions *. Its registry is a NULL-terminated array of const struct moon_filter_type *.
extern const struct moon_section moon_action_section;

const struct moon_actions *moon_snapshot_actions(const struct moon_snapshot *snapshot);
const struct moon_action *moon_actions_at(const struct moon_actions *actions, int index);
