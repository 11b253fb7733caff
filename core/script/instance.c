// Instances compared and numbered, so that a configuration whose plugins are as they were finds their tables in every VM.
#include "script/instance.h"

#include "script/code.h"

#include <stdlib.h>
#include <string.h>

// ---- values

static uint64_t hash_bytes(const void *bytes, size_t len, uint64_t hash)
{
    const unsigned char *at = bytes;
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ at[i]) * UINT64_C(0x100000001b3); // FNV-1a
    return hash;
}

uint64_t moon_value_hash(const struct moon_value *value, uint64_t seed)
{
    uint64_t hash =
        hash_bytes(&value->kind, sizeof value->kind, seed ^ UINT64_C(0xcbf29ce484222325));
    switch (value->kind) {
    case MOON_VALUE_NIL:
    case MOON_VALUE_FUNCTION:
        return hash;
    case MOON_VALUE_BOOL:
        return hash_bytes(&value->boolean, sizeof value->boolean, hash);
    case MOON_VALUE_NUMBER:
        return hash_bytes(&value->number, sizeof value->number, hash);
    case MOON_VALUE_STRING:
        return hash_bytes(value->string.ptr, value->string.len, hash);
    case MOON_VALUE_TABLE:
        for (uint32_t i = 0; i < value->table.item_count; i++)
            hash = moon_value_hash(&value->table.items[i], hash);
        for (uint32_t i = 0; i < value->table.entry_count; i++) {
            const struct moon_entry *entry = &value->table.entries[i];
            hash = moon_value_hash(&entry->value, hash_bytes(entry->key.ptr, entry->key.len, hash));
        }
        return hash;
    }
    return hash;
}

static bool values_equal(const struct moon_value *a, const struct moon_value *b)
{
    if (a->kind != b->kind)
        return false;
    switch (a->kind) {
    case MOON_VALUE_NIL:
    case MOON_VALUE_FUNCTION:
        return true;
    case MOON_VALUE_BOOL:
        return a->boolean == b->boolean;
    case MOON_VALUE_NUMBER:
        return a->number == b->number;
    case MOON_VALUE_STRING:
        return moon_slice_equal(a->string, b->string);
    case MOON_VALUE_TABLE:
        break;
    }
    if (a->table.item_count != b->table.item_count || a->table.entry_count != b->table.entry_count)
        return false;
    for (uint32_t i = 0; i < a->table.item_count; i++)
        if (!values_equal(&a->table.items[i], &b->table.items[i]))
            return false;
    for (uint32_t i = 0; i < a->table.entry_count; i++)
        if (!moon_slice_equal(a->table.entries[i].key, b->table.entries[i].key) ||
            !values_equal(&a->table.entries[i].value, &b->table.entries[i].value))
            return false;
    return true;
}

bool moon_instance_equal(const struct moon_instance *a, const struct moon_instance *b)
{
    return a->hash == b->hash && strcmp(a->plugin->name, b->plugin->name) == 0 &&
           values_equal(&a->value, &b->value);
}

// ---- numbering

static int compare(const void *left, const void *right)
{
    const struct moon_instance *a = *(struct moon_instance *const *)left,
                               *b = *(struct moon_instance *const *)right;
    return (a->hash > b->hash) - (a->hash < b->hash);
}

// The instances that are there, in order of their hashes; free it.
static struct moon_instance **sorted(const struct moon_code *code, size_t *count)
{
    struct moon_instance **list = malloc((code->instance_count + 1) * sizeof *list);
    if (!list)
        abort();
    *count = 0;
    for (size_t i = 0; i < code->instance_count; i++)
        if (code->instances[i])
            list[(*count)++] = code->instances[i];
    if (*count)
        qsort((void *)list, *count, sizeof *list, compare);
    return list;
}

// One of a sorted list that equals `instance`, from *at on, which moves to the first that could.
static const struct moon_instance *find(struct moon_instance *const *list, size_t count, size_t *at,
                                        const struct moon_instance *instance)
{
    while (*at < count && list[*at]->hash < instance->hash)
        ++*at;
    for (size_t i = *at; i < count && list[i]->hash == instance->hash; i++)
        if (moon_instance_equal(list[i], instance))
            return list[i];
    return NULL;
}

void moon_instances_number(struct moon_code *code, const struct moon_code *before, uint32_t *next)
{
    static const struct moon_code none = {0};
    size_t count, old_count, at = 0, own_at = 0;
    struct moon_instance **list = sorted(code, &count);
    struct moon_instance **old = sorted(before ? before : &none, &old_count);
    for (size_t i = 0; i < count; i++) {
        const struct moon_instance *same = find(old, old_count, &at, list[i]);
        if (!same)
            same = find(list, i, &own_at, list[i]); // those already numbered
        list[i]->conf_id = same ? same->conf_id : (*next)++;
    }
    free((void *)list);
    free((void *)old);
}
