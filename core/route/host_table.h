// Host table: names to whoever is meant by them: the exact one, then the longest wildcard, then whoever takes every name. For names
// that come without a request: SNI. Immutable, shared by workers.
#pragma once

#include "base/slice.h"

#include <stddef.h>

struct moon_host_table;

struct moon_host_entry {
    struct moon_slice host; // bare (host.h), in lower case; outlives the table
    int value;              // from 0 on
};

// Copies the entries. Of equal hosts the first given holds.
struct moon_host_table *moon_host_table_new(const struct moon_host_entry *entries, size_t count);
// NULL is fine.
void moon_host_table_free(struct moon_host_table *table);
// `name` in lower case; empty: none was said. -1: nobody is meant, as by a NULL table.
int moon_host_table_find(const struct moon_host_table *table, struct moon_slice name);
