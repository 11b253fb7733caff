// The check of values against schemas: every problem is found, each with its key path and what would be right.
#include "conf/schema.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { PATH_LEN = 256, KEY_MAX_COUNT = 128 };

struct checking {
    const struct moon_schema_check *check;
    char path[PATH_LEN];
    bool is_fine;
};

static bool check_table(struct checking *at, const struct moon_value *value,
                        const struct moon_schema *const *schemas, size_t schema_count);

// The value as a person would write it.
static void describe(const struct moon_value *value, char *to, size_t cap)
{
    switch (value->kind) {
    case MOON_VALUE_STRING:
        snprintf(to, cap, "\"%.*s\"", (int)(value->string.len < 60 ? value->string.len : 60),
                 value->string.ptr);
        return;
    case MOON_VALUE_NUMBER:
        snprintf(to, cap, "%.14g", value->number);
        return;
    case MOON_VALUE_BOOL:
        snprintf(to, cap, "%s", value->boolean ? "true" : "false");
        return;
    case MOON_VALUE_NIL:
    case MOON_VALUE_TABLE:
    case MOON_VALUE_FUNCTION:
        snprintf(to, cap, "%s", moon_value_kind_name(value->kind));
        return;
    }
}

static void problem(struct checking *at, const char *hint, const char *message, const char *found)
{
    const struct moon_schema_check *check = at->check;
    at->is_fine = false;
    moon_report_addf(check->report, check->place, check->object, at->path[0] ? at->path : NULL,
                     hint, "%s%s", message, found);
}

static void wrong_value(struct checking *at, const struct moon_schema_key *key,
                        const struct moon_value *value, const char *near)
{
    char found[80], hint[PATH_LEN];
    describe(value, found, sizeof found);
    int used =
        snprintf(hint, sizeof hint, "expected %s", key->expected ? key->expected : "another value");
    if (near && used > 0 && (size_t)used < sizeof hint)
        snprintf(hint + used, sizeof hint - (size_t)used, "; did you mean \"%s\"?", near);
    problem(at, hint, "found ", found);
}

static bool is_choice(const struct moon_schema_key *key, struct moon_slice text)
{
    for (const char *const *choice = key->choices; *choice; choice++)
        if (moon_slice_equal(moon_slice_from(*choice), text))
            return true;
    return false;
}

static void check_number(struct checking *at, const struct moon_schema_key *key,
                         const struct moon_value *value)
{
    bool is_bounded = key->min != 0 || key->max != 0;
    if (isnan(value->number) ||
        (is_bounded && (value->number < key->min || value->number > key->max)) ||
        (key->is_integer && value->number != floor(value->number)))
        wrong_value(at, key, value, NULL);
}

static void check_value(struct checking *at, const struct moon_schema_key *key,
                        const struct moon_value *value)
{
    if (key->is_later) {
        problem(at, NULL, "not supported yet", "");
        return;
    }
    if (!(key->types & (1u << value->kind))) {
        wrong_value(at, key, value, NULL);
        return;
    }
    switch (value->kind) {
    case MOON_VALUE_NUMBER:
        check_number(at, key, value);
        return;
    case MOON_VALUE_STRING:
        if (key->choices && !is_choice(key, value->string))
            wrong_value(at, key, value, moon_nearest_name(value->string, key->choices));
        return;
    case MOON_VALUE_TABLE:
        if (key->table)
            check_table(at, value, &key->table, 1);
        return;
    case MOON_VALUE_NIL:
    case MOON_VALUE_BOOL:
    case MOON_VALUE_FUNCTION:
        return;
    }
}

static const struct moon_schema_key *find_key(const struct moon_schema *const *schemas,
                                              size_t count, struct moon_slice name)
{
    for (size_t i = 0; i < count; i++)
        for (const struct moon_schema_key *key = schemas[i]->keys; key->name; key++)
            if (moon_slice_equal(moon_slice_from(key->name), name))
                return key;
    for (size_t i = 0; i < count; i++)
        if (schemas[i]->entry)
            return schemas[i]->entry;
    return NULL;
}

static void unknown_key(struct checking *at, const struct moon_schema *const *schemas, size_t count,
                        struct moon_slice name)
{
    const char *names[KEY_MAX_COUNT + 1];
    size_t used = 0;
    char hint[PATH_LEN];
    for (size_t i = 0; i < count; i++)
        for (const struct moon_schema_key *key = schemas[i]->keys;
             key->name && used < KEY_MAX_COUNT; key++)
            names[used++] = key->name;
    names[used] = NULL;
    const char *near = moon_nearest_name(name, names);
    if (near)
        snprintf(hint, sizeof hint, "did you mean \"%s\"?", near);
    problem(at, near ? hint : NULL, "unknown key", "");
}

static void check_entries(struct checking *at, const struct moon_value *value,
                          const struct moon_schema *const *schemas, size_t count)
{
    size_t before = strlen(at->path);
    for (uint32_t i = 0; i < value->table.entry_count; i++) {
        const struct moon_entry *entry = &value->table.entries[i];
        snprintf(at->path + before, sizeof at->path - before, "%s%.*s", before ? "." : "",
                 MOON_SLICE_ARG(entry->key));
        const struct moon_schema_key *key = find_key(schemas, count, entry->key);
        if (key)
            check_value(at, key, &entry->value);
        else
            unknown_key(at, schemas, count, entry->key);
        at->path[before] = '\0';
    }
}

static void check_items(struct checking *at, const struct moon_value *value,
                        const struct moon_schema *const *schemas, size_t count)
{
    size_t before = strlen(at->path);
    const struct moon_schema_key *item = NULL;
    for (size_t i = 0; i < count; i++)
        item = schemas[i]->item ? schemas[i]->item : item;
    for (uint32_t i = 0; i < value->table.item_count; i++) {
        snprintf(at->path + before, sizeof at->path - before, "[%u]", i + 1);
        if (item)
            check_value(at, item, &value->table.items[i]);
        else
            problem(at, "every value needs a key: key = value", "a value without a key", "");
        at->path[before] = '\0';
        if (!item)
            return;
    }
}

static void check_required(struct checking *at, const struct moon_value *value,
                           const struct moon_schema *schema)
{
    size_t before = strlen(at->path);
    for (const struct moon_schema_key *key = schema->keys; key->name; key++) {
        char hint[PATH_LEN];
        if (!key->is_required || moon_value_get(value, key->name))
            continue;
        snprintf(at->path + before, sizeof at->path - before, "%s%s", before ? "." : "", key->name);
        snprintf(hint, sizeof hint, "expected %s", key->expected ? key->expected : "a value");
        problem(at, hint, "missing", "");
        at->path[before] = '\0';
    }
}

static bool check_table(struct checking *at, const struct moon_value *value,
                        const struct moon_schema *const *schemas, size_t schema_count)
{
    check_items(at, value, schemas, schema_count);
    check_entries(at, value, schemas, schema_count);
    for (size_t i = 0; i < schema_count; i++)
        check_required(at, value, schemas[i]);
    return at->is_fine;
}

bool moon_schema_check(const struct moon_schema_check *check, const struct moon_value *value,
                       const struct moon_schema *const *schemas, size_t schema_count)
{
    struct checking at = {.check = check, .is_fine = true};
    snprintf(at.path, sizeof at.path, "%s", check->path ? check->path : "");
    return check_table(&at, value, schemas, schema_count);
}
