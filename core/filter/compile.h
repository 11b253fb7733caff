// What the compile function of a filter gets besides its table: where the table stands, for messages, and what its route is
// like. Everything here runs on the builder, where running out of memory aborts.
#pragma once

#include "conf/report.h"

#include <stdbool.h>

struct moon_filter_compile {
    struct moon_report *report;
    struct moon_place place;
    const char *title; // of the object: `route "users"`
    const char *path;  // of the plugin in it: "plugins[2]"
    bool has_prefix;   // all requests of the route share one path prefix (moon_flow.matched_prefix)
};

// Reports a problem at a key below the plugin's: "set.x-via", "remove[2]"; NULL: the plugin as a whole. Always MOON_ECONFIG.
int moon_filter_problem(const struct moon_filter_compile *at, const char *key, const char *hint,
                        const char *format, ...) __attribute__((format(printf, 4, 5)));
// A malloc'd copy, NUL behind it; free its ptr.
struct moon_slice moon_filter_copy(struct moon_slice text);
void moon_filter_copy_free(struct moon_slice copy);
// malloc of `count` zeroed items, never NULL.
void *moon_filter_alloc(size_t count, size_t len);
