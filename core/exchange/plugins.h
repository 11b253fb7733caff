// The filters of an object as a chain: the plugins it lists, then its own functions. The section's registry is a
// struct moon_filter_registry.
#pragma once

#include "conf/conf.h"

struct moon_chain;

struct moon_plugins_args {
    const struct moon_compile *compile;
    const struct moon_object *object;
    struct moon_slice name; // of the object, unique among its kind: what its functions are known by
    bool has_prefix;        // what the object matches is one path prefix
};

// *answers becomes true when a plugin ends every request. True, or false with all problems in the report; the chain wants
// moon_plugins_fini either way.
bool moon_plugins_compile(const struct moon_plugins_args *args, struct moon_chain *chain,
                          bool *answers);
void moon_plugins_fini(struct moon_chain *chain);
