// Edits of a header table that a plugin's configuration lists: set, then add, then remove. One name takes part in one list
// only (Gateway API, HTTPHeaderFilter), so the order shows nowhere else.
#pragma once

#include "filter/compile.h"

struct moon_arena;
struct moon_header_edits;
struct moon_headers;
struct moon_schema;

// set = { name = value | { value, ... } }, add = the same, remove = { name, ... }.
extern const struct moon_schema moon_header_edits_schema;
// Header names as keys, texts or lists of texts as values.
extern const struct moon_schema moon_header_values_schema;

// Of a plugin's whole table. 0, or MOON_ECONFIG with everything that is wrong in the report. *out is new, never NULL.
int moon_header_edits_compile(const struct moon_filter_compile *at, const struct moon_value *value,
                              bool is_request, struct moon_header_edits **out);
// Of the one table at `key`, taken as `set` of a response.
int moon_header_edits_compile_set(const struct moon_filter_compile *at,
                                  const struct moon_value *value, const char *key,
                                  struct moon_header_edits **out);
// NULL is fine.
void moon_header_edits_free(struct moon_header_edits *edits);
// 0 or -ENOMEM. The table borrows names and values of `edits`.
int moon_header_edits_apply(const struct moon_header_edits *edits, struct moon_headers *headers,
                            struct moon_arena *arena);
