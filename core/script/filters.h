// What script/ brings into the chains of routes: plugins in Lua by name, and functions that stand in a route.
#pragma once

#include "filter/source.h"

extern const struct moon_filter_source moon_script_filter_source;
