// What the unit tests of route/ share: routes written as values, and requests that go through the parser.
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h> // after what it needs

#include "base/arena.h"
#include "base/err.h"
#include "http/head.h"
#include "route/route.h"

#include <stdio.h>
#include <stdlib.h>

// As in a script: TABLE(KEY("path", TEXT("/")), KEY("hosts", LIST(TEXT("a.example")))).
#define TEXT(literal) \
    ((struct moon_value){.kind = MOON_VALUE_STRING, .string = MOON_SLICE(literal)})
#define LIST(...)                                                                  \
    ((struct moon_value){                                                          \
        .kind = MOON_VALUE_TABLE,                                                  \
        .table = {.items = (const struct moon_value[]){__VA_ARGS__},               \
                  .item_count = sizeof((const struct moon_value[]){__VA_ARGS__}) / \
                                sizeof(struct moon_value)}})
#define TABLE(...)                                                                  \
    ((struct moon_value){                                                           \
        .kind = MOON_VALUE_TABLE,                                                   \
        .table = {.entries = (const struct moon_entry[]){__VA_ARGS__},              \
                  .entry_count = sizeof((const struct moon_entry[]){__VA_ARGS__}) / \
                                 sizeof(struct moon_entry)}})
#define EMPTY ((struct moon_value){.kind = MOON_VALUE_TABLE})
#define KEY(key, ...)                \
    {                                \
        MOON_SLICE(key), __VA_ARGS__ \
    }
#define HOSTS(...) KEY("hosts", LIST(__VA_ARGS__))
#define PATH(literal) KEY("path", TEXT(literal))
#define EXACT(literal) KEY("path", TABLE(KEY("exact", TEXT(literal))))
#define REGEX(literal) KEY("path", TABLE(KEY("regex", TEXT(literal))))
#define METHODS(...) KEY("methods", LIST(__VA_ARGS__))

struct routes {
    struct moon_model *model;
    struct moon_report *report;
    struct moon_snapshot *snapshot; // NULL until compiled
    struct moon_route_scratch *scratch;
};

static inline struct routes routes_new(void)
{
    return (struct routes){moon_model_new(), moon_report_new(), NULL,
                           moon_route_scratch_new(32768)};
}

static inline void routes_free(struct routes *routes)
{
    moon_snapshot_unref(routes->snapshot);
    moon_report_free(routes->report);
    moon_model_free(routes->model);
    moon_route_scratch_free(routes->scratch);
}

// The place is line 1 for the first, and so on.
static inline void routes_add(struct routes *routes, struct moon_value value)
{
    struct moon_object object = {.kind = "route", .place = {"test.lua", 0}, .value = value};
    object.place.line = (unsigned)moon_model_count(routes->model) + 1;
    moon_model_add(routes->model, &object);
}

static inline int routes_no_compile(const struct moon_compile *compile, void **part)
{
    (void)compile;
    *part = NULL;
    return 0;
}

static inline void routes_no_unref(void *part)
{
    (void)part;
}

static inline int routes_try_compile(struct routes *routes)
{
    // "name" belongs to a room above
    static const struct moon_schema_key name_keys[] = {{.name = "name", .types = MOON_TYPE_STRING},
                                                       {.name = NULL}};
    static const struct moon_schema name_schema = {name_keys, NULL, NULL};
    static const struct moon_section names = {.name = "names",
                                              .kind = "route",
                                              .schema = &name_schema,
                                              .compile = routes_no_compile,
                                              .unref = routes_no_unref};
    static const struct moon_section *const sections[] = {&names, &moon_route_section};
    struct moon_conf_args args = {
        .model = routes->model, .sections = sections, .section_count = 2, .report = routes->report};
    return moon_conf_compile(&args, &routes->snapshot);
}

static inline void routes_compile(struct routes *routes)
{
    if (routes_try_compile(routes) != 0)
        fail_msg("%s", moon_report_text(routes->report));
}

// One request through the parser. `fields`: lines with CRLF, without Host; host NULL: HTTP/1.0 without one.
static inline int routes_find(struct routes *routes, const char *method, const char *host,
                              const char *target, const char *fields)
{
    char text[8192], host_line[300] = "";
    struct moon_arena_pool *pool = moon_arena_pool_new(4);
    struct moon_arena *arena = moon_arena_new(pool, 1 << 20);
    struct moon_head head;
    struct moon_fault fault = {0, NULL};
    if (host)
        snprintf(host_line, sizeof host_line, "Host: %s\r\n", host);
    int len = snprintf(text, sizeof text, "%s %s HTTP/1.%d\r\n%s%s\r\n", method, target,
                       host != NULL, host_line, fields ? fields : "");
    assert_true(len > 0 && (size_t)len < sizeof text);
    if (moon_request_parse(arena, (struct moon_slice){text, (size_t)len}, &moon_head_limits_default,
                           &head, &fault) != 0)
        fail_msg("%s %s: %s", method, target, fault.reason);
    int got = moon_routes_find(moon_snapshot_routes(routes->snapshot), 0, &head, routes->scratch);
    moon_arena_free(arena);
    moon_arena_pool_free(pool);
    return got;
}
