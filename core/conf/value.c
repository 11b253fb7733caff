// Reading plain-data values.
#include "conf/value.h"

#include <stdlib.h>

static bool tables_equal(const struct moon_value *a, const struct moon_value *b)
{
    if (a->table.item_count != b->table.item_count || a->table.entry_count != b->table.entry_count)
        return false;
    for (uint32_t i = 0; i < a->table.item_count; i++)
        if (!moon_value_equal(&a->table.items[i], &b->table.items[i]))
            return false;
    for (uint32_t i = 0; i < a->table.entry_count; i++) {
        const struct moon_entry *x = &a->table.entries[i], *y = &b->table.entries[i];
        if (!moon_slice_equal(x->key, y->key) || !moon_value_equal(&x->value, &y->value))
            return false;
    }
    return true;
}

bool moon_value_equal(const struct moon_value *a, const struct moon_value *b)
{
    if (a->kind != b->kind)
        return false;
    switch (a->kind) {
    case MOON_VALUE_NIL:
        return true;
    case MOON_VALUE_BOOL:
        return a->boolean == b->boolean;
    case MOON_VALUE_NUMBER:
        return a->number == b->number;
    case MOON_VALUE_STRING:
        return moon_slice_equal(a->string, b->string);
    case MOON_VALUE_TABLE:
        return tables_equal(a, b);
    case MOON_VALUE_FUNCTION:
        return false;
    }
    return false;
}

const struct moon_value *moon_value_get(const struct moon_value *table, const char *key)
{
    struct moon_slice name = moon_slice_from(key);
    if (!table || table->kind != MOON_VALUE_TABLE)
        return NULL;
    for (uint32_t i = 0; i < table->table.entry_count; i++)
        if (moon_slice_equal(table->table.entries[i].key, name))
            return &table->table.entries[i].value;
    return NULL;
}

const struct moon_value *moon_value_get_kind(const struct moon_value *table, const char *key,
                                             enum moon_value_kind kind)
{
    const struct moon_value *value = moon_value_get(table, key);
    return value && value->kind == kind ? value : NULL;
}

double moon_value_number(const struct moon_value *table, const char *key, double absent)
{
    const struct moon_value *value = moon_value_get_kind(table, key, MOON_VALUE_NUMBER);
    return value ? value->number : absent;
}

uint32_t moon_value_ms(const struct moon_value *table, const char *key, double absent_s)
{
    return (uint32_t)(moon_value_number(table, key, absent_s) * 1000 + 0.5);
}

bool moon_value_bool(const struct moon_value *table, const char *key, bool absent)
{
    const struct moon_value *value = moon_value_get_kind(table, key, MOON_VALUE_BOOL);
    return value ? value->boolean : absent;
}

struct moon_slice moon_value_string(const struct moon_value *table, const char *key,
                                    struct moon_slice absent)
{
    const struct moon_value *value = moon_value_get_kind(table, key, MOON_VALUE_STRING);
    return value ? value->string : absent;
}

const char *moon_value_kind_name(enum moon_value_kind kind)
{
    switch (kind) {
    case MOON_VALUE_NIL:
        return "nothing";
    case MOON_VALUE_BOOL:
        return "a boolean";
    case MOON_VALUE_NUMBER:
        return "a number";
    case MOON_VALUE_STRING:
        return "a string";
    case MOON_VALUE_TABLE:
        return "a table";
    case MOON_VALUE_FUNCTION:
        return "a function";
    }
    return "something";
}

char *moon_path_beside(const struct moon_place *place, struct moon_slice name)
{
    const char *slash = place->file ? strrchr(place->file, '/') : NULL;
    size_t dir_len =
        slash && name.len && name.ptr[0] != '/' ? (size_t)(slash - place->file) + 1 : 0;
    char *path = malloc(dir_len + name.len + 1);
    if (!path)
        abort();
    if (dir_len)
        memcpy(path, place->file, dir_len);
    memcpy(path + dir_len, name.ptr, name.len);
    path[dir_len + name.len] = '\0';
    return path;
}
