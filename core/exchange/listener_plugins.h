// The plugins that moongate.listener { ... } lists: they run before those of the route, in every phase, and for requests that no
// route takes. Indexes are those of the listeners.
#pragma once

#include "conf/conf.h"

struct moon_chain;
struct moon_listener_plugins;

// Part: struct moon_listener_plugins *. Stands after the actions. Its registry is that of the actions.
extern const struct moon_section moon_listener_plugins_section;

const struct moon_listener_plugins *
moon_snapshot_listener_plugins(const struct moon_snapshot *snapshot);
// NULL: it has none.
const struct moon_chain *moon_listener_plugins_at(const struct moon_listener_plugins *all,
                                                  int index);
// The same chain where it has a say about certificates (filter/opening.h); NULL: it has none.
const struct moon_chain *moon_listener_plugins_certificate(const struct moon_listener_plugins *all,
                                                           int index);
