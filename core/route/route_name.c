// The name of a route that was given none: its first match written out, so that two routes have the same one only when they
// begin with the same match.
#include "route/route.h"

#include <stdio.h>
#include <stdlib.h>

static const struct moon_value *at_least(const struct moon_value *list)
{
    return list && list->table.item_count ? &list->table.items[0] : NULL;
}

static void put_text(FILE *out, struct moon_slice text)
{
    fwrite(text.ptr, 1, text.len, out);
}

static void put_list(FILE *out, const struct moon_value *list)
{
    for (uint32_t i = 0; i < list->table.item_count; i++) {
        fputs(i ? "," : "", out);
        put_text(out, list->table.items[i].string);
    }
}

static void put_methods(FILE *out, const struct moon_value *list)
{
    if (!list)
        return;
    put_list(out, list);
    fputs(" ", out);
}

// "=" or "~" and the text of { exact = } or { regex = }, or a text as it is.
static void put_value(FILE *out, const struct moon_value *value, const char *equal)
{
    struct moon_slice regex = moon_value_string(value, "regex", MOON_SLICE(""));
    if (value->kind == MOON_VALUE_STRING) {
        put_text(out, value->string);
        return;
    }
    fputs(regex.len ? "~" : equal, out);
    put_text(out, regex.len ? regex : moon_value_string(value, "exact", MOON_SLICE("")));
}

static void put_conditions(FILE *out, const struct moon_value *table, const char *mark)
{
    for (uint32_t i = 0; table && i < table->table.entry_count; i++) {
        const struct moon_entry *entry = &table->table.entries[i];
        fputs(mark, out);
        put_text(out, entry->key);
        fputs(entry->value.kind == MOON_VALUE_STRING ? "=" : "", out);
        put_value(out, &entry->value, "=");
    }
}

// "shop.Orders/Get"; "*" for any, "~" before an expression.
static void put_grpc(FILE *out, const struct moon_value *grpc)
{
    const struct moon_value *service = moon_value_get(grpc, "service"),
                            *method = moon_value_get(grpc, "method");
    fputs("grpc ", out);
    if (service)
        put_value(out, service, "");
    else
        fputs("*", out);
    fputs("/", out);
    if (method)
        put_value(out, method, "");
    else
        fputs("*", out);
}

static void put_match(FILE *out, const struct moon_value *route, const struct moon_value *match)
{
    const struct moon_value *grpc = moon_value_get(match, "grpc");
    const struct moon_value *host = at_least(moon_value_get(route, "hosts"));
    const struct moon_value *path = moon_value_get(match, "path");
    put_methods(out, moon_value_get(match, "methods"));
    if (host)
        put_text(out, host->string);
    if (host && grpc)
        fputs(" ", out);
    if (host && path && path->kind == MOON_VALUE_TABLE)
        fputs(" ", out);
    if (grpc)
        put_grpc(out, grpc);
    else if (path)
        put_value(out, path, "=");
    else
        fputs("/", out);
    put_conditions(out, moon_value_get(match, "headers"), " ");
    put_conditions(out, moon_value_get(match, "query"), " ?");
}

// The names of its listeners, where nothing else says which requests it takes.
static const struct moon_value *bare_listeners(const struct moon_value *route)
{
    static const char *const keys[] = {"hosts",   "path",  "grpc",   "methods",
                                       "headers", "query", "matches"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (moon_value_get(route, keys[i]))
            return NULL;
    return at_least(moon_value_get(route, "listeners")) ? moon_value_get(route, "listeners") : NULL;
}

char *moon_route_name(const struct moon_value *route)
{
    const struct moon_value *name = moon_value_get_kind(route, "name", MOON_VALUE_STRING);
    const struct moon_value *first = at_least(moon_value_get(route, "matches"));
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    if (!out)
        abort();
    const struct moon_value *listeners = bare_listeners(route);
    if (name)
        put_text(out, name->string);
    else if (listeners)
        put_list(out, listeners);
    else
        put_match(out, route, first ? first : route);
    if (fclose(out) != 0)
        abort();
    for (size_t i = 0; i < len; i++) // it goes to logs
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            text[i] = '?';
    return text;
}
