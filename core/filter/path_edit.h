// A new path for a request, as redirect and url-rewrite know it: `path = "/new"` replaces it whole, `path = { prefix = "/new" }`
// replaces what the route matched of it (Gateway API, HTTPPathModifier).
#pragma once

#include "filter/compile.h"

struct moon_arena;
struct moon_schema;

enum moon_path_edit_kind { MOON_PATH_KEEP, MOON_PATH_FULL, MOON_PATH_PREFIX };

struct moon_path_edit {
    enum moon_path_edit_kind kind;
    struct moon_slice text; // canonical; of a prefix without a slash at its end
};

extern const struct moon_schema moon_path_edit_schema; // of the table form
#define MOON_PATH_EDIT_EXPECTED \
    "\"/new\" for the whole path, or { prefix = \"/new\" } for what the route matched"

// Reads `path` of the plugin's table, which its schema has checked. 0 or MOON_ECONFIG. Free edit->text with
// moon_filter_copy_free.
int moon_path_edit_compile(const struct moon_filter_compile *at, const struct moon_value *value,
                           struct moon_path_edit *edit);
// The new path, canonical, in the arena (or `path` itself); the query is not its business. `matched` is what the route
// matched, without a slash at its end; a path that does not start with it is kept. ptr NULL: refused, *reason says why.
struct moon_slice moon_path_edit_apply(const struct moon_path_edit *edit, struct moon_arena *arena,
                                       struct moon_slice path, struct moon_slice matched,
                                       const char **reason);
