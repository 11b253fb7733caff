// See host_table.h: a sorted array, asked once for the name and once for what stands behind each of its dots.
#include "route/host_table.h"

#include <stdlib.h>
#include <string.h>

struct item {
    struct moon_slice host;
    int value;
    size_t serial;
};

struct moon_host_table {
    size_t count;
    struct item items[];
};

static int compare_hosts(struct moon_slice a, struct moon_slice b)
{
    size_t len = a.len < b.len ? a.len : b.len;
    int order = len ? memcmp(a.ptr, b.ptr, len) : 0;
    return order ? order : (a.len > b.len) - (a.len < b.len);
}

static int compare_items(const void *x, const void *y)
{
    const struct item *a = x, *b = y;
    int order = compare_hosts(a->host, b->host);
    return order ? order : (a->serial > b->serial) - (a->serial < b->serial);
}

struct moon_host_table *moon_host_table_new(const struct moon_host_entry *entries, size_t count)
{
    struct moon_host_table *table = calloc(1, sizeof *table + count * sizeof table->items[0]);
    if (!table)
        abort();
    for (size_t i = 0; i < count; i++)
        table->items[i] = (struct item){entries[i].host, entries[i].value, i};
    if (count)
        qsort(table->items, count, sizeof table->items[0], compare_items);
    for (size_t i = 0; i < count; i++)
        if (table->count == 0 ||
            compare_hosts(table->items[table->count - 1].host, table->items[i].host) != 0)
            table->items[table->count++] = table->items[i];
    return table;
}

void moon_host_table_free(struct moon_host_table *table)
{
    free(table);
}

static int find(const struct moon_host_table *table, struct moon_slice host)
{
    size_t from = 0, to = table->count;
    while (from < to) {
        size_t middle = from + (to - from) / 2;
        int order = compare_hosts(host, table->items[middle].host);
        if (order == 0)
            return table->items[middle].value;
        if (order < 0)
            to = middle;
        else
            from = middle + 1;
    }
    return -1;
}

int moon_host_table_find(const struct moon_host_table *table, struct moon_slice name)
{
    if (!table)
        return -1;
    int found = name.len && name.ptr[0] != '.' ? find(table, name) : -1;
    for (size_t i = 1; i < name.len && found < 0; i++)
        if (name.ptr[i] == '.')
            found = find(table, moon_slice_skip(name, i));
    return found < 0 ? find(table, MOON_SLICE("")) : found;
}
