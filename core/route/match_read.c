// Reads moongate.route { hosts, path, grpc, methods, headers, query, matches } into matches. Every problem is told with its key path
// and what would be right; values that no request can ever have are problems, too.
#include "route/match.h"

#include "base/arena.h"
#include "base/err.h"
#include "base/regex.h"
#include "http/head.h"
#include "route/host.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { PATH_ARENA_LEN = 65536, KEY_LEN = 256, TEXT_LEN = 512 };

// ---- what tables may hold

static const char path_expected[] =
    "a path such as \"/users\", { exact = \"/users\" } or { regex = \"/v[0-9]+/.*\" }";
static const char value_expected[] = "a text or { regex = \"...\" }";

static const struct moon_schema_key text_keys[] = {
    {.name = "exact", .types = MOON_TYPE_STRING, .expected = "a text"},
    {.name = "regex", .types = MOON_TYPE_STRING, .expected = "a regular expression"},
    {.name = NULL},
};
static const struct moon_schema text_schema = {text_keys, NULL, NULL};
static const char service_expected[] = "a service such as \"shop.Orders\" or { regex = \"...\" }";
static const char method_expected[] = "a method such as \"Get\" or { regex = \"...\" }";
static const struct moon_schema_key grpc_keys[] = {
    {.name = "service",
     .types = MOON_TYPE_STRING | MOON_TYPE_TABLE,
     .table = &text_schema,
     .expected = service_expected},
    {.name = "method",
     .types = MOON_TYPE_STRING | MOON_TYPE_TABLE,
     .table = &text_schema,
     .expected = method_expected},
    {.name = NULL},
};
static const struct moon_schema grpc_schema = {grpc_keys, NULL, NULL};
static const struct moon_schema_key no_keys[] = {{.name = NULL}};
static const struct moon_schema_key text_entry = {
    .types = MOON_TYPE_STRING | MOON_TYPE_TABLE, .table = &text_schema, .expected = value_expected};
static const struct moon_schema texts_schema = {no_keys, NULL, &text_entry};
static const struct moon_schema_key method_item = {.types = MOON_TYPE_STRING,
                                                   .expected = "a method such as \"GET\""};
static const struct moon_schema methods_schema = {no_keys, &method_item, NULL};
static const struct moon_schema_key host_item = {.types = MOON_TYPE_STRING,
                                                 .expected = "a host such as \"api.example.com\""};
static const struct moon_schema hosts_schema = {no_keys, &host_item, NULL};
static const struct moon_schema_key listener_item = {.types = MOON_TYPE_STRING,
                                                     .expected = "the name of a listener"};
static const struct moon_schema listeners_schema = {no_keys, &listener_item, NULL};

#define MATCH_KEYS                                                         \
    {.name = "path",                                                       \
     .types = MOON_TYPE_STRING | MOON_TYPE_TABLE,                          \
     .table = &text_schema,                                                \
     .expected = path_expected},                                           \
        {.name = "grpc",                                                   \
         .types = MOON_TYPE_TABLE,                                         \
         .table = &grpc_schema,                                            \
         .expected = "a table such as { service = \"shop.Orders\" }"},     \
        {.name = "methods",                                                \
         .types = MOON_TYPE_TABLE,                                         \
         .table = &methods_schema,                                         \
         .expected = "a list such as { \"GET\", \"POST\" }"},              \
        {.name = "headers",                                                \
         .types = MOON_TYPE_TABLE,                                         \
         .table = &texts_schema,                                           \
         .expected = "a table such as { [\"x-env\"] = \"test\" }"},        \
    {                                                                      \
        .name = "query", .types = MOON_TYPE_TABLE, .table = &texts_schema, \
        .expected = "a table such as { page = \"2\" }"                     \
    }

static const struct moon_schema_key match_keys[] = {MATCH_KEYS, {.name = NULL}};
static const struct moon_schema one_match_schema = {match_keys, NULL, NULL};
static const struct moon_schema_key match_item = {
    .types = MOON_TYPE_TABLE,
    .table = &one_match_schema,
    .expected = "a table such as { path = \"/users\", methods = { \"GET\" } }"};
static const struct moon_schema matches_schema = {no_keys, &match_item, NULL};
static const struct moon_schema_key route_keys[] = {
    MATCH_KEYS,
    {.name = "hosts",
     .types = MOON_TYPE_TABLE,
     .table = &hosts_schema,
     .expected = "a list such as { \"api.example.com\", \"*.example.org\" }"},
    {.name = "matches",
     .types = MOON_TYPE_TABLE,
     .table = &matches_schema,
     .expected = "a list such as { { path = \"/a\" }, { path = \"/b\" } }"},
    {.name = "listeners",
     .types = MOON_TYPE_TABLE,
     .table = &listeners_schema,
     .expected = "a list of names of listeners"},
    {.name = NULL},
};
const struct moon_schema moon_match_schema = {route_keys, NULL, NULL};

// ---- problems

struct reading {
    const struct moon_match_reading *all;
    const struct moon_object *object;
    char prefix[32]; // of key paths: "" or "matches[2]."
    bool is_fine;
};

static void problem(struct reading *at, const char *key, const char *hint, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static void problem(struct reading *at, const char *key, const char *hint, const char *format, ...)
{
    const struct moon_compile *compile = at->all->compile;
    char path[KEY_LEN], text[TEXT_LEN];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    snprintf(path, sizeof path, "%s%s", at->prefix, key);
    moon_report_addf(compile->report, at->object->place,
                     moon_object_title(compile->model, at->object), path, hint, "%s", text);
    at->is_fine = false;
}

static struct moon_slice copy(const struct reading *at, struct moon_slice text)
{
    struct moon_slice out = moon_arena_try_copy(at->all->arena, text);
    if (!out.ptr)
        abort();
    return out;
}

static struct moon_slice copy_lower(const struct reading *at, struct moon_slice text)
{
    struct moon_slice out = copy(at, text);
    for (size_t i = 0; i < out.len; i++)
        if (out.ptr[i] >= 'A' && out.ptr[i] <= 'Z')
            ((char *)out.ptr)[i] |= 0x20;
    return out;
}

static struct moon_regex *read_regex(struct reading *at, const char *key, struct moon_slice pattern)
{
    struct moon_regex_fault fault;
    struct moon_regex *regex = moon_regex_new(pattern, &fault);
    if (!regex)
        problem(at, key, "a regular expression of PCRE2; it must match the whole text",
                "\"%.*s\": %s at offset %zu", MOON_SLICE_ARG(pattern), fault.text, fault.offset);
    return regex;
}

// ---- hosts

static void read_host(struct reading *at, struct moon_slice host, uint32_t i,
                      struct moon_slice *out)
{
    char key[32];
    snprintf(key, sizeof key, "hosts[%u]", i + 1);
    const char *hint = moon_host_hint(host);
    if (hint) {
        problem(at, key, hint, "found \"%.*s\", which is not a host to match",
                MOON_SLICE_ARG(host));
        return;
    }
    *out = copy_lower(at, moon_host_bare(host));
}

static const struct moon_slice *read_hosts(struct reading *at, uint32_t *count)
{
    const struct moon_value *list = moon_value_get(&at->object->value, "hosts");
    *count = list ? list->table.item_count : 0;
    if (list && *count == 0)
        problem(at, "hosts", "leave hosts out to take every host",
                "an empty list takes no request");
    struct moon_slice *hosts = moon_arena_zalloc(at->all->arena, (*count + 1) * sizeof *hosts);
    for (uint32_t i = 0; i < *count; i++)
        read_host(at, list->table.items[i].string, i, &hosts[i]);
    return hosts;
}

// ---- paths

// Told when no request has this path: it is not in the form that paths are matched in.
static bool is_canonical(struct reading *at, const char *key, struct moon_slice path)
{
    static const char hint[] = "a path that starts with \"/\", such as \"/users\"";
    const char *reason = NULL;
    if (path.len == 0 || path.ptr[0] != '/' || memchr(path.ptr, '?', path.len) ||
        memchr(path.ptr, '#', path.len)) {
        problem(at, key, hint, "found \"%.*s\", which is not a path", MOON_SLICE_ARG(path));
        return false;
    }
    struct moon_arena_pool *pool = moon_arena_pool_new(4);
    struct moon_arena *arena = moon_arena_new(pool, PATH_ARENA_LEN);
    struct moon_slice canonical = moon_path_normalise(arena, path, MOON_SLASH_REJECT, &reason);
    bool is_same = canonical.ptr && moon_slice_equal(canonical, path);
    if (!canonical.ptr)
        problem(at, key, hint, "no request ever has the path \"%.*s\": %s", MOON_SLICE_ARG(path),
                reason);
    else if (!is_same)
        problem(at, key, NULL,
                "found \"%.*s\"; requests are matched in canonical form, write \"%.*s\"",
                MOON_SLICE_ARG(path), MOON_SLICE_ARG(canonical));
    moon_arena_free(arena);
    moon_arena_pool_free(pool);
    return is_same;
}

static void read_plain_path(struct reading *at, const char *key, struct moon_slice path,
                            struct moon_match *match)
{
    size_t segments = 0;
    if (!is_canonical(at, key, path))
        return;
    for (size_t i = 0; i < path.len; i++)
        segments += path.ptr[i] == '/';
    if (segments > MOON_PATH_SEGMENTS_MAX)
        problem(at, key, "at most 128 segments", "a path of %zu segments", segments);
    if (match->kind == MOON_PATH_PREFIX && path.ptr[path.len - 1] == '/')
        path.len--;
    match->path = copy(at, path);
}

// { exact = } or { regex = }: which, or NULL when told that it is neither or both.
static const struct moon_value *only_one(struct reading *at, const char *key,
                                         const struct moon_value *table, const char *expected)
{
    const struct moon_value *exact = moon_value_get(table, "exact"),
                            *regex = moon_value_get(table, "regex");
    char hint[160];
    if (!exact == !regex) {
        snprintf(hint, sizeof hint, "expected %s", expected);
        problem(at, key, hint, exact ? "either exact or regex, not both" : "an empty table");
        return NULL;
    }
    return exact ? exact : regex;
}

static void read_path(struct reading *at, const struct moon_value *table, struct moon_match *match)
{
    const struct moon_value *path = moon_value_get(table, "path");
    match->kind = MOON_PATH_PREFIX;
    match->path = MOON_SLICE("");
    if (!path)
        return;
    if (path->kind == MOON_VALUE_STRING) {
        read_plain_path(at, "path", path->string, match);
        return;
    }
    const struct moon_value *text = only_one(at, "path", path, path_expected);
    if (text && text == moon_value_get(path, "exact")) {
        match->kind = MOON_PATH_EXACT;
        read_plain_path(at, "path.exact", text->string, match);
    } else if (text) {
        match->kind = MOON_PATH_REGEX;
        match->path = copy(at, text->string);
        match->regex = read_regex(at, "path.regex", text->string);
    }
}

// ---- gRPC

static bool is_grpc_name(struct moon_slice text, bool has_dots)
{
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        bool is_word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '_' || c == '-';
        if (!is_word && !(has_dots && c == '.'))
            return false;
    }
    return text.len > 0;
}

// "grpc.service" or "grpc.method".
static void read_grpc_part(struct reading *at, const struct moon_value *table, const char *name,
                           const char *expected, struct moon_grpc_part *part)
{
    const struct moon_value *value = moon_value_get(table, name), *text = value;
    char key[32], inner[40], hint[96];
    snprintf(key, sizeof key, "grpc.%s", name);
    snprintf(inner, sizeof inner, "grpc.%s.regex", name);
    snprintf(hint, sizeof hint, "expected %s", expected);
    if (value && value->kind == MOON_VALUE_TABLE)
        text = only_one(at, key, value, expected);
    if (!text)
        return;
    part->text = copy(at, text->string);
    if (text != value && text == moon_value_get(value, "regex"))
        part->regex = read_regex(at, inner, text->string);
    else if (!is_grpc_name(text->string, name[0] == 's'))
        problem(at, key, hint, "no call ever has the %s \"%.*s\"", name,
                MOON_SLICE_ARG(text->string));
}

static bool is_exact(const struct moon_grpc_part *part)
{
    return part->text.len && !part->regex;
}

// As a path, so that the index finds it: see struct moon_match.
static void place_grpc(struct reading *at, const struct moon_grpc_match *grpc,
                       struct moon_match *match)
{
    struct moon_slice service = grpc->service.text, method = grpc->method.text;
    bool is_named = service.len || method.len;
    match->grpc = grpc;
    match->kind = is_named ? MOON_PATH_REGEX : MOON_PATH_PREFIX;
    match->path = MOON_SLICE("");
    if (!is_exact(&grpc->service))
        return;
    bool is_whole = is_exact(&grpc->method);
    match->kind = is_whole ? MOON_PATH_EXACT : MOON_PATH_PREFIX;
    match->path = moon_arena_try_format(at->all->arena, "/%.*s%s%.*s", MOON_SLICE_ARG(service),
                                        is_whole ? "/" : "", (int)(is_whole ? method.len : 0),
                                        is_whole ? method.ptr : "");
    if (!match->path.ptr)
        abort();
}

static void read_grpc(struct reading *at, const struct moon_value *table, struct moon_match *match)
{
    static const char *const keys[] = {"path", "methods", "query"};
    struct moon_grpc_match *grpc = moon_arena_zalloc(at->all->arena, sizeof *grpc);
    const struct moon_value *value = moon_value_get(table, "grpc");
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (moon_value_get(table, keys[i]))
            problem(at, keys[i], "a call is matched by grpc and headers",
                    "beside grpc it has no meaning");
    read_grpc_part(at, value, "service", service_expected, &grpc->service);
    read_grpc_part(at, value, "method", method_expected, &grpc->method);
    place_grpc(at, grpc, match);
}

// ---- methods

static void unknown_method(struct reading *at, const char *key, struct moon_slice name)
{
    static const char *const known[] = {"GET",   "HEAD",    "POST",  "PUT",     "DELETE",
                                        "PATCH", "OPTIONS", "TRACE", "CONNECT", NULL};
    char upper[32], hint[64];
    size_t len = name.len < sizeof upper - 1 ? name.len : sizeof upper - 1;
    for (size_t i = 0; i < len; i++)
        upper[i] =
            (char)(name.ptr[i] >= 'a' && name.ptr[i] <= 'z' ? name.ptr[i] - 32 : name.ptr[i]);
    upper[len] = '\0';
    bool is_lower = moon_method_from((struct moon_slice){upper, len}) != MOON_METHOD_OTHER;
    const char *near = is_lower ? upper : moon_nearest_name((struct moon_slice){upper, len}, known);
    snprintf(hint, sizeof hint,
             is_lower ? "methods are upper-case: \"%s\"" : "did you mean \"%s\"?",
             near ? near : "");
    problem(at, key, near ? hint : "a method such as \"GET\"", "there is no method \"%.*s\"",
            MOON_SLICE_ARG(name));
}

static int compare_slices(struct moon_slice a, struct moon_slice b)
{
    size_t len = a.len < b.len ? a.len : b.len;
    int order = len ? memcmp(a.ptr, b.ptr, len) : 0;
    return order ? order : (a.len > b.len) - (a.len < b.len);
}

static int compare_names(const void *a, const void *b)
{
    return compare_slices(*(const struct moon_slice *)a, *(const struct moon_slice *)b);
}

static void read_methods(struct reading *at, const struct moon_value *table,
                         struct moon_match *match)
{
    const struct moon_value *list = moon_value_get(table, "methods");
    uint32_t count = list ? list->table.item_count : 0;
    if (list && count == 0)
        problem(at, "methods", "leave methods out to take every method",
                "an empty list takes no request");
    struct moon_slice *extensions =
        moon_arena_zalloc(at->all->arena, (count + 1) * sizeof *extensions);
    for (uint32_t i = 0; i < count; i++) {
        struct moon_slice name = list->table.items[i].string;
        enum moon_method id = moon_method_from(name);
        char key[32];
        snprintf(key, sizeof key, "methods[%u]", i + 1);
        if (id == MOON_METHOD_OTHER)
            unknown_method(at, key, name);
        if (id == MOON_METHOD_EXTENSION)
            extensions[match->extension_count++] = copy(at, name);
        match->methods |= (uint16_t)(1u << id);
    }
    if (match->extension_count)
        qsort(extensions, match->extension_count, sizeof *extensions, compare_names);
    match->extensions = extensions;
}

// ---- headers and query

static void read_value(struct reading *at, const char *key, const struct moon_value *value,
                       struct moon_condition *condition)
{
    char inner[KEY_LEN + 8];
    const struct moon_value *text = value;
    if (value->kind == MOON_VALUE_TABLE)
        text = only_one(at, key, value, value_expected);
    if (!text)
        return;
    condition->value = copy(at, text->string);
    if (text != value && text == moon_value_get(value, "regex")) {
        snprintf(inner, sizeof inner, "%s.regex", key);
        condition->regex = read_regex(at, inner, text->string);
        return;
    }
    struct moon_slice trimmed = moon_slice_trim(text->string);
    if (!condition->is_query &&
        (trimmed.len != text->string.len || !moon_header_value_is_valid(trimmed)))
        problem(at, key, "without blanks at its ends and without controls",
                "no request ever has the value \"%.*s\"", MOON_SLICE_ARG(text->string));
}

static void read_conditions(struct reading *at, const struct moon_value *table, const char *kind,
                            struct moon_condition *out)
{
    char key[KEY_LEN];
    for (uint32_t i = 0; table && i < table->table.entry_count; i++) {
        const struct moon_entry *entry = &table->table.entries[i];
        struct moon_condition *condition = &out[i];
        condition->is_query = kind[0] == 'q';
        condition->name = condition->is_query ? copy(at, entry->key) : copy_lower(at, entry->key);
        condition->header_id =
            condition->is_query ? MOON_H_OTHER : (uint8_t)moon_header_id(entry->key);
        snprintf(key, sizeof key, "%s.%.*s", kind, MOON_SLICE_ARG(entry->key));
        if (entry->key.len == 0 || (!condition->is_query && !moon_header_name_is_valid(entry->key)))
            problem(at, key, NULL, "not a name of a %s",
                    condition->is_query ? "query parameter" : "header");
        for (uint32_t k = 0; k < i; k++)
            if (moon_slice_equal(out[k].name, condition->name))
                problem(at, key, "names of headers know no case", "the header is named twice");
        read_value(at, key, &entry->value, condition);
    }
}

// Of its place in a match: equalities, then expressions; headers, then query; by name.
static int compare_places(const void *a, const void *b)
{
    const struct moon_condition *x = a, *y = b;
    if (!x->regex != !y->regex)
        return x->regex ? 1 : -1;
    if (x->is_query != y->is_query)
        return x->is_query ? 1 : -1;
    return compare_slices(x->name, y->name);
}

static void read_all_conditions(struct reading *at, const struct moon_value *table,
                                struct moon_match *match)
{
    const struct moon_value *headers = moon_value_get(table, "headers"),
                            *query = moon_value_get(table, "query");
    match->header_count = headers ? headers->table.entry_count : 0;
    match->condition_count = match->header_count + (query ? query->table.entry_count : 0);
    struct moon_condition *conditions =
        moon_arena_zalloc(at->all->arena, (match->condition_count + 1) * sizeof *conditions);
    read_conditions(at, headers, "headers", conditions);
    read_conditions(at, query, "query", conditions + match->header_count);
    if (match->condition_count > 1)
        qsort(conditions, match->condition_count, sizeof *conditions, compare_places);
    while (match->equality_count < match->condition_count &&
           !conditions[match->equality_count].regex)
        match->equality_count++;
    match->conditions = conditions;
}

// ---- a route

static void read_match(struct reading *at, const struct moon_value *table, struct moon_match *match)
{
    if (moon_value_get(table, "grpc"))
        read_grpc(at, table, match);
    else
        read_path(at, table, match);
    read_methods(at, table, match);
    read_all_conditions(at, table, match);
}

static struct moon_match *add_match(struct moon_match_reading *all)
{
    if (all->count == all->cap) {
        all->cap = all->cap ? all->cap * 2 : 64;
        all->matches = realloc(all->matches, all->cap * sizeof *all->matches);
        if (!all->matches)
            abort();
    }
    all->matches[all->count] = (struct moon_match){0};
    return &all->matches[all->count++];
}

static void check_matches(struct reading *at, const struct moon_value *list)
{
    static const char *const keys[] = {"path", "grpc", "methods", "headers", "query"};
    if (list->table.item_count == 0)
        problem(at, "matches", "leave matches out to take every request",
                "an empty list takes no request");
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (moon_value_get(&at->object->value, keys[i]))
            problem(at, keys[i], "write it into each of the matches",
                    "beside matches it has no meaning");
}

bool moon_match_read(struct moon_match_reading *reading, size_t index)
{
    struct reading at = {
        .all = reading, .object = reading->compile->objects[index], .is_fine = true};
    const struct moon_value *list = moon_value_get(&at.object->value, "matches");
    uint32_t count = list ? list->table.item_count : 1, host_count;
    const struct moon_slice *hosts = read_hosts(&at, &host_count);
    if (list)
        check_matches(&at, list);
    for (uint32_t i = 0; i < count; i++) {
        struct moon_match *match = add_match(reading);
        match->hosts = hosts;
        match->host_count = host_count;
        match->index = (int)index;
        if (list)
            snprintf(at.prefix, sizeof at.prefix, "matches[%u].", i + 1);
        read_match(&at, list ? &list->table.items[i] : &at.object->value, match);
    }
    return at.is_fine;
}

void moon_match_fini(struct moon_match *match)
{
    moon_regex_free(match->regex);
    if (match->grpc) {
        moon_regex_free(match->grpc->service.regex);
        moon_regex_free(match->grpc->method.regex);
    }
    for (uint32_t i = 0; i < match->condition_count; i++)
        moon_regex_free(match->conditions[i].regex);
}

static int compare_conditions(const struct moon_condition *a, const struct moon_condition *b)
{
    int order = compare_places(a, b);
    return order ? order : compare_slices(a->value, b->value);
}

static int compare_parts(const struct moon_grpc_part *a, const struct moon_grpc_part *b)
{
    if (!a->regex != !b->regex)
        return a->regex ? 1 : -1;
    return compare_slices(a->text, b->text);
}

static int compare_grpc(const struct moon_grpc_match *a, const struct moon_grpc_match *b)
{
    if (!a || !b)
        return (a != NULL) - (b != NULL);
    int order = compare_parts(&a->service, &b->service);
    return order ? order : compare_parts(&a->method, &b->method);
}

int moon_match_compare(const struct moon_match *a, const struct moon_match *b)
{
    if (a->kind != b->kind)
        return a->kind < b->kind ? -1 : 1;
    if (a->methods != b->methods)
        return a->methods < b->methods ? -1 : 1;
    int order = compare_grpc(a->grpc, b->grpc);
    if (!order)
        order = compare_slices(a->path, b->path);
    for (uint32_t i = 0; !order && i < a->extension_count && i < b->extension_count; i++)
        order = compare_slices(a->extensions[i], b->extensions[i]);
    for (uint32_t i = 0; !order && i < a->condition_count && i < b->condition_count; i++)
        order = compare_conditions(&a->conditions[i], &b->conditions[i]);
    if (!order && a->extension_count != b->extension_count)
        order = a->extension_count < b->extension_count ? -1 : 1;
    if (!order && a->condition_count != b->condition_count)
        order = a->condition_count < b->condition_count ? -1 : 1;
    return order;
}
