// Where a route's filters come from when its configuration is compiled: types in C by name, and a source of those that exist
// only there: plugins in Lua and functions that stand in a route. script/ fills the source in; exchange/ asks it.
#pragma once

#include "filter/filter.h"

struct moon_code;

struct moon_filter_source {
    // The plugin of that name with its table. 0 and *out; -ENOENT: there is none; MOON_ECONFIG: the report says why.
    int (*plugin)(struct moon_code *code, const struct moon_filter_compile *at,
                  struct moon_slice name, const struct moon_value *value, struct moon_filter *out);
    // The functions among the keys of an object ("route", its name). 0 and *out; -ENOENT: it has none.
    int (*functions)(struct moon_code *code, const char *kind, struct moon_slice name,
                     const struct moon_value *object, struct moon_filter *out);
};

struct moon_filter_registry {
    const struct moon_filter_type *const *types; // NULL-terminated; NULL: none
    const struct moon_filter_source *source;     // NULL: none
};
