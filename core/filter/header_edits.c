// Header edits: checked and flattened when the configuration is compiled, one pass over a short array per message.
#include "filter/header_edits.h"

#include "base/err.h"
#include "conf/schema.h"
#include "http/headers.h"

#include <stdio.h>
#include <stdlib.h>

enum edit_kind { EDIT_SET, EDIT_ADD, EDIT_REMOVE };

struct edit {
    enum edit_kind kind;
    struct moon_slice name, value; // own copies
};

struct moon_header_edits {
    struct edit *edits;
    uint32_t count, cap;
};

struct compiling {
    const struct moon_filter_compile *at;
    struct moon_header_edits *edits;
    bool is_request;
    bool is_fine;
};

static const struct moon_schema_key text_key = {.types = MOON_TYPE_STRING, .expected = "a text"};
static const struct moon_schema_key name_key = {.types = MOON_TYPE_STRING,
                                                .expected = "a header name"};
static const struct moon_schema_key no_keys[] = {{.name = NULL}};
static const struct moon_schema text_list_schema = {no_keys, &text_key, NULL};
static const struct moon_schema_key value_key = {.types = MOON_TYPE_STRING | MOON_TYPE_TABLE,
                                                 .table = &text_list_schema,
                                                 .expected = "a text, or a list of texts"};
static const struct moon_schema name_list_schema = {no_keys, &name_key, NULL};

const struct moon_schema moon_header_values_schema = {no_keys, NULL, &value_key};

static const struct moon_schema_key edit_keys[] = {
    {.name = "set",
     .types = MOON_TYPE_TABLE,
     .table = &moon_header_values_schema,
     .expected = "{ [\"name\"] = \"value\" }"},
    {.name = "add",
     .types = MOON_TYPE_TABLE,
     .table = &moon_header_values_schema,
     .expected = "{ [\"name\"] = \"value\" }"},
    {.name = "remove",
     .types = MOON_TYPE_TABLE,
     .table = &name_list_schema,
     .expected = "a list of header names"},
    {.name = NULL},
};
const struct moon_schema moon_header_edits_schema = {edit_keys, NULL, NULL};

// Fields with one value, whatever the grammar of lists says: a second one is read in two ways.
#define BIT(id) (UINT64_C(1) << MOON_H_##id)
static const uint64_t singletons =
    BIT(AUTHORIZATION) | BIT(CONTENT_TYPE) | BIT(CONTENT_RANGE) | BIT(DATE) | BIT(ETAG) |
    BIT(EXPECT) | BIT(FROM) | BIT(IF_MODIFIED_SINCE) | BIT(LAST_MODIFIED) | BIT(LOCATION) |
    BIT(MAX_FORWARDS) | BIT(ORIGIN) | BIT(REFERER) | BIT(RETRY_AFTER) | BIT(USER_AGENT);
#undef BIT

// Why a plugin may not touch that name; NULL: it may.
static const char *refusal(enum moon_header_id id, bool is_request)
{
    switch ((unsigned)id) {
    case MOON_H_HOST:
        return is_request ? "the host is changed by { \"url-rewrite\", hostname = ... }" : NULL;
    case MOON_H_CONTENT_LENGTH:
    case MOON_H_TRANSFER_ENCODING:
        return "the gateway frames every message itself";
    case MOON_H_CONNECTION:
    case MOON_H_KEEP_ALIVE:
    case MOON_H_PROXY_CONNECTION:
    case MOON_H_PROXY_AUTHENTICATE:
    case MOON_H_PROXY_AUTHORIZATION:
    case MOON_H_TE:
    case MOON_H_TRAILER:
    case MOON_H_UPGRADE:
    case MOON_H_HTTP2_SETTINGS:
        return "it belongs to one connection and is never passed on";
    default:
        return NULL;
    }
}

static bool problem(struct compiling *c, const char *key, struct moon_slice name,
                    const char *message, const char *hint)
{
    moon_filter_problem(c->at, key, hint, "\"%.*s\" %s", MOON_SLICE_ARG(name), message);
    c->is_fine = false;
    return false;
}

static bool is_taken(const struct moon_header_edits *edits, struct moon_slice name)
{
    for (uint32_t i = 0; i < edits->count; i++)
        if (moon_slice_equal_fold(edits->edits[i].name, name))
            return true;
    return false;
}

static bool check_name(struct compiling *c, const char *key, struct moon_slice name, bool is_added)
{
    enum moon_header_id id = moon_header_id(name);
    const char *hint = refusal(id, c->is_request);
    if (!moon_header_name_is_valid(name))
        return problem(c, key, name, "is no header name", "letters, digits and -");
    if (hint)
        return problem(c, key, name, "cannot be changed here", hint);
    if (is_added && (singletons >> id & 1))
        return problem(c, key, name, "has one value only", "use set");
    if (is_taken(c->edits, name))
        return problem(c, key, name, "is named twice",
                       "one action for each name; a list of values sets several");
    return true;
}

static void append(struct moon_header_edits *edits, enum edit_kind kind, struct moon_slice name,
                   struct moon_slice value)
{
    if (edits->count == edits->cap) {
        edits->cap = edits->cap ? edits->cap * 2 : 4;
        edits->edits = realloc(edits->edits, edits->cap * sizeof *edits->edits);
        if (!edits->edits)
            abort();
    }
    edits->edits[edits->count++] =
        (struct edit){kind, moon_filter_copy(name), moon_filter_copy(value)};
}

static void compile_value(struct compiling *c, const char *key, enum edit_kind kind,
                          const struct moon_slice *name, const struct moon_value *value)
{
    if (moon_header_value_is_valid(value->string))
        append(c->edits, kind, *name, moon_slice_trim(value->string));
    else
        problem(c, key, *name, "has a value with control characters",
                "a header value holds no CR, LF or NUL");
}

// One name with a value, or a list of values of which a set replaces with the first.
static void compile_entry(struct compiling *c, const char *list, enum edit_kind kind,
                          const struct moon_entry *entry)
{
    char key[160];
    snprintf(key, sizeof key, "%s.%.*s", list, MOON_SLICE_ARG(entry->key));
    const struct moon_value *values = &entry->value;
    uint32_t count = 1;
    if (entry->value.kind == MOON_VALUE_TABLE) {
        values = entry->value.table.items;
        count = entry->value.table.item_count;
    }
    bool is_repeated = kind == EDIT_ADD || count > 1;
    if (!check_name(c, key, entry->key, is_repeated))
        return;
    if (count == 0)
        problem(c, key, entry->key, "has no value", "remove takes names away");
    for (uint32_t i = 0; i < count; i++)
        compile_value(c, key, i ? EDIT_ADD : kind, &entry->key, &values[i]);
}

static void compile_entries(struct compiling *c, const struct moon_value *value, const char *key,
                            enum edit_kind kind)
{
    const struct moon_value *table = moon_value_get_kind(value, key, MOON_VALUE_TABLE);
    for (uint32_t i = 0; table && i < table->table.entry_count; i++)
        compile_entry(c, key, kind, &table->table.entries[i]);
}

static void compile_names(struct compiling *c, const struct moon_value *value)
{
    const struct moon_value *list = moon_value_get_kind(value, "remove", MOON_VALUE_TABLE);
    for (uint32_t i = 0; list && i < list->table.item_count; i++) {
        char key[32];
        struct moon_slice name = list->table.items[i].string;
        snprintf(key, sizeof key, "remove[%u]", i + 1);
        if (check_name(c, key, name, false))
            append(c->edits, EDIT_REMOVE, name, MOON_SLICE(""));
    }
}

int moon_header_edits_compile(const struct moon_filter_compile *at, const struct moon_value *value,
                              bool is_request, struct moon_header_edits **out)
{
    struct compiling c = {at, moon_filter_alloc(1, sizeof **out), is_request, true};
    compile_entries(&c, value, "set", EDIT_SET);
    compile_entries(&c, value, "add", EDIT_ADD);
    compile_names(&c, value);
    *out = c.edits;
    return c.is_fine ? 0 : MOON_ECONFIG;
}

int moon_header_edits_compile_set(const struct moon_filter_compile *at,
                                  const struct moon_value *value, const char *key,
                                  struct moon_header_edits **out)
{
    struct compiling c = {at, moon_filter_alloc(1, sizeof **out), false, true};
    compile_entries(&c, value, key, EDIT_SET);
    *out = c.edits;
    return c.is_fine ? 0 : MOON_ECONFIG;
}

void moon_header_edits_free(struct moon_header_edits *edits)
{
    if (!edits)
        return;
    for (uint32_t i = 0; i < edits->count; i++) {
        moon_filter_copy_free(edits->edits[i].name);
        moon_filter_copy_free(edits->edits[i].value);
    }
    free(edits->edits);
    free(edits);
}

int moon_header_edits_apply(const struct moon_header_edits *edits, struct moon_headers *headers,
                            struct moon_arena *arena)
{
    int err = 0;
    for (uint32_t i = 0; i < edits->count && !err; i++) {
        const struct edit *edit = &edits->edits[i];
        switch (edit->kind) {
        case EDIT_SET:
            err = moon_headers_set(headers, arena, edit->name, edit->value);
            break;
        case EDIT_ADD:
            err = moon_headers_add(headers, arena, edit->name, edit->value);
            break;
        case EDIT_REMOVE:
            moon_headers_del(headers, edit->name);
            break;
        }
    }
    return err;
}
