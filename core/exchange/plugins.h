// The plugins that an object lists, as a chain. The section's registry is a NULL-terminated array of
// const struct moon_filter_type *.
#pragma once

#include "conf/conf.h"

struct moon_chain;

// `has_prefix`: what the object matches is one path prefix. *answers becomes true when a plugin ends every request. True, or
// false with all problems in the report; the chain wants moon_plugins_fini either way.
bool moon_plugins_compile(const struct moon_compile *compile, const struct moon_object *object,
                          bool has_prefix, struct moon_chain *chain, bool *answers);
void moon_plugins_fini(struct moon_chain *chain);
