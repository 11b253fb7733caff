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

// Which requests end in the chain: every one, or those its functions choose.
struct moon_plugins_answer {
    bool always, may;
};

// True, or false with all problems in the report; the chain wants moon_plugins_fini either way. *answer is zeroed before.
bool moon_plugins_compile(const struct moon_plugins_args *args, struct moon_chain *chain,
                          struct moon_plugins_answer *answer);
void moon_plugins_fini(struct moon_chain *chain);
