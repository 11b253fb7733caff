// Nanoseconds per route lookup: 10,000 routes over 1,000 hosts (each: 3 exact paths, 4 prefixes, 1 by method, 1 by header, 1
// regex) against the 10 routes of one such host. What a lookup costs in a small table and in a large one whose working set is
// small (64 routes) should hardly differ; uniform traffic, half of which misses, pays for cache misses. The last rows look up the
// listener first: one that takes every host, as most ports have, and 1,000 on one port that differ by hostname.
//
// Requests are rebuilt in one warm head before each lookup, as if just parsed; a loop without lookups is subtracted.
#include "conf/conf.h"
#include "http/head.h"
#include "route/listener.h"
#include "route/route.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { HOSTS = 1000, PER_HOST = 10, LOOKUPS = 1 << 15, TURNS = 100, TEXT_LEN = 160 };

enum kind { EXACT, PREFIX, METHOD, HEADER, REGEX, MISS_PATH, MISS_HOST };

// One request, compact: what differs between requests.
struct request {
    uint16_t host_len, path_len;
    uint8_t method;
    bool has_header;
    int expected;
    char text[88]; // host, path
};

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void fail(const char *what)
{
    fprintf(stderr, "route_micro: %s\n", what);
    exit(1);
}

static uint32_t next_random(uint64_t *seed)
{
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*seed >> 33);
}

// ---- the model

static struct moon_value text_value(struct moon_model *model, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static struct moon_value text_value(struct moon_model *model, const char *format, ...)
{
    char text[TEXT_LEN];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return (struct moon_value){.kind = MOON_VALUE_STRING,
                               .string = moon_model_copy(model, moon_slice_from(text))};
}

static struct moon_value list_of(struct moon_model *model, struct moon_value item)
{
    struct moon_value *items = moon_model_alloc(model, sizeof *items);
    struct moon_value out = {.kind = MOON_VALUE_TABLE};
    *items = item;
    out.table.items = items;
    out.table.item_count = 1;
    return out;
}

static struct moon_value table_of(struct moon_model *model, const char *key,
                                  struct moon_value value)
{
    struct moon_entry *entries = moon_model_alloc(model, sizeof *entries);
    struct moon_value out = {.kind = MOON_VALUE_TABLE};
    entries[0] = (struct moon_entry){moon_slice_from(key), value};
    out.table.entries = entries;
    out.table.entry_count = 1;
    return out;
}

static enum kind kind_of(int route)
{
    static const enum kind kinds[PER_HOST] = {EXACT,  EXACT,  EXACT,  PREFIX, PREFIX,
                                              PREFIX, PREFIX, METHOD, HEADER, REGEX};
    return kinds[route];
}

static void add_route(struct moon_model *model, int host, int route)
{
    enum kind kind = kind_of(route);
    struct moon_entry *entries = moon_model_alloc(model, 4 * sizeof *entries);
    struct moon_object object = {.kind = "route", .place = {"bench", 0}};
    struct moon_value path = text_value(model, "/api/service-%d/items", route);
    uint32_t count = 0;
    object.place.line = (unsigned)(host * PER_HOST + route + 1);
    if (kind == EXACT)
        path = table_of(model, "exact", text_value(model, "/api/exact-%d/list", route));
    if (kind == METHOD || kind == HEADER) // more precise forms of route 3
        path = text_value(model, "/api/service-3/items");
    if (kind == REGEX)
        path = table_of(model, "regex", text_value(model, "/v[0-9]+/things/[a-z]+"));
    if (kind == HEADER)
        entries[count++] = (struct moon_entry){MOON_SLICE("headers"),
                                               table_of(model, "x-env", text_value(model, "test"))};
    entries[count++] = (struct moon_entry){
        MOON_SLICE("hosts"), list_of(model, text_value(model, "host-%d.example.com", host))};
    if (kind == METHOD)
        entries[count++] =
            (struct moon_entry){MOON_SLICE("methods"), list_of(model, text_value(model, "POST"))};
    entries[count++] = (struct moon_entry){MOON_SLICE("path"), path};
    object.value.kind = MOON_VALUE_TABLE;
    object.value.table.entries = entries;
    object.value.table.entry_count = count;
    moon_model_add(model, &object);
}

static void add_listener(struct moon_model *model, int host)
{
    struct moon_entry *entries = moon_model_alloc(model, 2 * sizeof *entries);
    struct moon_object object = {.kind = "listener", .place = {"bench", 0}};
    entries[0] =
        (struct moon_entry){MOON_SLICE("hostname"), text_value(model, "host-%d.example.com", host)};
    entries[1] = (struct moon_entry){MOON_SLICE("port"), {.kind = MOON_VALUE_NUMBER, .number = 80}};
    object.value.kind = MOON_VALUE_TABLE;
    object.value.table.entries = host < 0 ? entries + 1 : entries;
    object.value.table.entry_count = host < 0 ? 1 : 2;
    moon_model_add(model, &object);
}

// `listeners`: so many, each of a host; 1: one of every host; 0: routes alone.
static struct moon_snapshot *compile(int hosts, int listeners, double *took_ns)
{
    static const struct moon_section *const sections[] = {&moon_listener_section,
                                                          &moon_route_section};
    struct moon_model *model = moon_model_new();
    struct moon_report *report = moon_report_new();
    struct moon_snapshot *snapshot = NULL;
    for (int host = 0; host < hosts; host++)
        for (int route = 0; route < PER_HOST; route++)
            add_route(model, host, route);
    for (int i = 0; i < listeners; i++)
        add_listener(model, listeners == 1 ? -1 : i);
    double start = now_ns();
    struct moon_conf_args args = {.model = model,
                                  .sections = sections + !listeners,
                                  .section_count = listeners ? 2 : 1,
                                  .report = report};
    if (moon_conf_compile(&args, &snapshot) != 0)
        fail(moon_report_text(report));
    *took_ns = now_ns() - start;
    moon_report_free(report);
    moon_model_free(model);
    return snapshot;
}

// ---- requests

static struct request make_request(int host, int route, enum kind kind)
{
    struct request request = {.method = kind == METHOD ? MOON_METHOD_POST : MOON_METHOD_GET,
                              .has_header = kind == HEADER,
                              .expected = kind < MISS_PATH ? host * PER_HOST + route : -1};
    char *path;
    int len = snprintf(request.text, sizeof request.text,
                       kind == MISS_HOST ? "unknown-%d.example.org" : "host-%d.example.com", host);
    request.host_len = (uint16_t)len;
    path = request.text + len;
    size_t room = sizeof request.text - (size_t)len;
    if (kind == EXACT)
        len = snprintf(path, room, "/api/exact-%d/list", route);
    else if (kind == REGEX)
        len = snprintf(path, room, "/v%d/things/abc", host);
    else if (kind == MISS_PATH)
        len = snprintf(path, room, "/other/service-%d/items/17", route);
    else
        len = snprintf(path, room, "/api/service-%d/items/17", kind == PREFIX ? route : 3);
    request.path_len = (uint16_t)len;
    return request;
}

// `hot` > 0: so many routes in all. `misses`: every second request has no route.
static struct request *make_requests(int hosts, int hot, bool misses)
{
    uint64_t seed = 42;
    struct request *requests = calloc(LOOKUPS, sizeof *requests);
    if (!requests)
        fail("no memory");
    for (int i = 0; i < LOOKUPS; i++) {
        if (hot && i >= hot) {
            requests[i] = requests[next_random(&seed) % (uint32_t)hot];
            continue;
        }
        int host = (int)(next_random(&seed) % (uint32_t)hosts);
        int route = (int)(next_random(&seed) % PER_HOST);
        enum kind kind = kind_of(route);
        if (misses && i % 2)
            kind = i % 4 == 1 ? MISS_PATH : MISS_HOST;
        requests[i] = make_request(host, route, kind);
    }
    return requests;
}

static void prepare(struct moon_head *head, char *text, const struct request *request)
{
    memcpy(text, request->text, sizeof request->text);
    head->host.host = (struct moon_slice){text, request->host_len};
    head->target.path = (struct moon_slice){text + request->host_len, request->path_len};
    head->method_id = request->method;
    head->headers.count = request->has_header ? 4 : 3;
}

static int find(const struct moon_listeners *listeners, const struct moon_routes *routes,
                const struct moon_head *head, struct moon_route_scratch *scratch)
{
    int listener = listeners ? moon_listeners_find(listeners, 0, false, head, scratch) : 0;
    return listener < 0 ? -1 : moon_routes_find(routes, listener, head, scratch);
}

// The best of several turns, without what rebuilding the requests costs.
static double measure(const struct moon_snapshot *snapshot, const struct request *requests)
{
    const struct moon_routes *routes = moon_snapshot_routes(snapshot);
    const struct moon_listeners *listeners = moon_snapshot_listeners(snapshot);
    struct moon_route_scratch *scratch = moon_route_scratch_new(32768);
    struct moon_field fields[4] = {
        {MOON_SLICE("Host"), MOON_SLICE("host"), MOON_H_HOST, false},
        {MOON_SLICE("User-Agent"), MOON_SLICE("bench"), MOON_H_USER_AGENT, false},
        {MOON_SLICE("Accept"), MOON_SLICE("*/*"), MOON_H_ACCEPT, false},
        {MOON_SLICE("X-Env"), MOON_SLICE("test"), MOON_H_OTHER, false}};
    struct moon_head head = {.headers = {fields, 3, 4, UINT64_MAX}, .minor = 1};
    char text[sizeof requests->text];
    double with = 1e18, without = 1e18;
    for (int turn = 0; turn < 2 * TURNS; turn++) {
        bool is_empty = turn % 2;
        double start = now_ns();
        for (int i = 0; i < LOOKUPS; i++) {
            prepare(&head, text, &requests[i]);
            __asm__ volatile("" ::"r"(&head), "r"(text) : "memory");
            int got = is_empty ? requests[i].expected : find(listeners, routes, &head, scratch);
            if (got != requests[i].expected)
                fail("a wrong route");
        }
        double took = (now_ns() - start) / LOOKUPS, *best = is_empty ? &without : &with;
        *best = took < *best ? took : *best;
    }
    moon_route_scratch_free(scratch);
    return with - without;
}

static double report(const char *name, const struct moon_snapshot *snapshot, int hosts, int hot,
                     bool misses, double base)
{
    struct request *requests = make_requests(hosts, hot, misses);
    double took = measure(snapshot, requests);
    if (base > 0)
        printf("%-52s %8.1f ns a lookup, %.2f of the first\n", name, took, took / base);
    else
        printf("%-52s %8.1f ns a lookup\n", name, took);
    free(requests);
    return took;
}

int main(void)
{
    double small_ns, large_ns, ns;
    struct moon_snapshot *small = compile(1, 0, &small_ns), *large = compile(HOSTS, 0, &large_ns);
    struct moon_snapshot *one = compile(HOSTS, 1, &ns), *many = compile(HOSTS, HOSTS, &ns);
    printf("%-52s %8.1f ms\n", "compiling 10,000 routes", large_ns / 1e6);
    double base = report("10 routes in all", small, 1, 64, false, 0);
    report("10,000 routes, 64 of them in use", large, HOSTS, 64, false, base);
    report("10,000 routes, all of them in use", large, HOSTS, 0, false, base);
    report("10,000 routes, all in use, every second one misses", large, HOSTS, 0, true, base);
    report("  the same, after the one listener of its port", one, HOSTS, 0, true, base);
    report("  the same, after 1,000 listeners of its port", many, HOSTS, 0, true, base);
    report("10,000 routes, 64 in use, 1,000 listeners", many, HOSTS, 64, false, base);
    moon_snapshot_unref(one);
    moon_snapshot_unref(many);
    moon_snapshot_unref(small);
    moon_snapshot_unref(large);
    return 0;
}
