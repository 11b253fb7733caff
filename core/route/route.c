// The route section: reads all matches, refuses what could never be chosen or told apart, and builds the index.
#include "route/route.h"
#include "route/listener.h"

#include "base/arena.h"
#include "base/err.h"
#include "http/grpc.h"
#include "route/index.h"
#include "route/match.h"
#include "route/scope.h"
#include "route/stream_route.h"

#include <stdlib.h>
#include <string.h>

struct moon_routes {
    struct moon_arena_pool *pool;
    struct moon_arena *arena; // texts and lists of the matches
    struct moon_match *matches;
    size_t match_count;
    struct moon_scopes scopes;
    struct moon_stream_routes streams;
};

static void routes_unref(void *part)
{
    struct moon_routes *routes = part;
    if (!routes)
        return;
    moon_scopes_fini(&routes->scopes);
    for (size_t i = 0; i < routes->match_count; i++)
        moon_match_fini(&routes->matches[i]);
    free(routes->matches);
    moon_stream_routes_fini(&routes->streams);
    moon_arena_free(routes->arena);
    moon_arena_pool_free(routes->pool);
    free(routes);
}

static void *zeroed(size_t count, size_t len)
{
    void *out = calloc(count + 1, len);
    if (!out)
        abort();
    return out;
}

// ---- what may be there only once

// A match under one of its hosts, or a name.
struct claim {
    struct moon_slice text; // host or name
    const struct moon_match *match;
    size_t index; // of the object
    struct shade *shade;
};

// What is known of one match under one of its hosts, over all scopes: it is none only where others hide it in every one.
struct shade {
    uint32_t scope_count, hidden_count;
};

static int compare_claims(const void *x, const void *y)
{
    const struct claim *a = x, *b = y;
    size_t len = a->text.len < b->text.len ? a->text.len : b->text.len;
    int order = len ? memcmp(a->text.ptr, b->text.ptr, len) : 0;
    if (!order && a->text.len != b->text.len)
        order = a->text.len < b->text.len ? -1 : 1;
    if (!order && a->match)
        order = moon_match_compare(a->match, b->match);
    return order;
}

static int compare_claims_in_order(const void *x, const void *y)
{
    const struct claim *a = x, *b = y;
    int order = compare_claims(x, y);
    if (order)
        return order;
    if (a->index != b->index)
        return a->index < b->index ? -1 : 1;
    return a->match < b->match ? -1 : a->match > b->match;
}

// Of a claim that an earlier one, its `first`, has made already. True: it is a problem, and told.
typedef bool tell_fn(const struct moon_compile *compile, const struct claim *claim,
                     const struct claim *first);

static bool check_claims(const struct moon_compile *compile, struct claim *claims, size_t count,
                         tell_fn *tell)
{
    bool is_fine = true;
    qsort(claims, count, sizeof *claims, compare_claims_in_order);
    for (size_t i = 1, first = 0; i < count; i++) {
        if (compare_claims(&claims[first], &claims[i]) != 0) {
            first = i;
            continue;
        }
        is_fine = !tell(compile, &claims[i], &claims[first]) && is_fine;
    }
    return is_fine;
}

static bool tell_match(const struct moon_compile *compile, const struct claim *claim,
                       const struct claim *first)
{
    const struct moon_object *object = compile->objects[claim->index];
    const char *star = claim->text.len && claim->text.ptr[0] == '.' ? "*" : "";
    const char *title = moon_object_title(compile->model, object);
    unsigned line = compile->objects[first->index]->place.line;
    if (++claim->shade->hidden_count < claim->shade->scope_count)
        return false;
    if (claim->text.len)
        moon_report_addf(compile->report, object->place, title, NULL,
                         "the first would take every request; remove one",
                         "for the host \"%s%.*s\" the same match stands in line %u already", star,
                         MOON_SLICE_ARG(claim->text), line);
    else
        moon_report_addf(compile->report, object->place, title, NULL,
                         "the first would take every request; remove one",
                         "the same match stands in line %u already", line);
    return true;
}

static bool tell_name(const struct moon_compile *compile, const struct claim *claim,
                      const struct claim *first)
{
    const struct moon_object *object = compile->objects[claim->index];
    bool is_given = moon_value_get(&object->value, "name") != NULL;
    moon_report_addf(compile->report, object->place, moon_object_title(compile->model, object),
                     "name",
                     is_given ? "names are unique"
                              : "without a name it is called by its first match; give it one",
                     "\"%.*s\" is the name of the route in line %u", MOON_SLICE_ARG(claim->text),
                     compile->objects[first->index]->place.line);
    return true;
}

// The claims of a scope; those of one match stand in the shades from its place in `firsts` on.
static size_t claims_of(const struct moon_scope *scope, const size_t *firsts, struct shade *shades,
                        struct claim *claims)
{
    size_t count = 0;
    for (size_t i = 0; i < scope->count; i++) {
        const struct moon_match *match = &scope->matches[i];
        struct shade *shade = &shades[firsts[match->serial]];
        for (uint32_t k = 0; k < match->host_count; k++)
            claims[count++] =
                (struct claim){match->hosts[k], match, (size_t)match->index, &shade[k]};
        if (match->host_count == 0)
            claims[count++] = (struct claim){MOON_SLICE(""), match, (size_t)match->index, shade};
    }
    return count;
}

static bool check_matches(const struct moon_compile *compile, const struct moon_routes *routes)
{
    size_t all = 0;
    bool is_fine = true;
    size_t *firsts = zeroed(routes->match_count, sizeof *firsts);
    for (size_t i = 0; i < routes->match_count; i++) {
        firsts[i] = all;
        all += routes->matches[i].host_count + 1;
    }
    struct claim *claims = zeroed(all, sizeof *claims);
    struct shade *shades = zeroed(all, sizeof *shades);
    for (uint32_t i = 0; i < routes->scopes.count; i++) {
        size_t count = claims_of(&routes->scopes.items[i], firsts, shades, claims);
        for (size_t k = 0; k < count; k++)
            claims[k].shade->scope_count++;
    }
    for (uint32_t i = 0; i < routes->scopes.count; i++) {
        size_t count = claims_of(&routes->scopes.items[i], firsts, shades, claims);
        is_fine = check_claims(compile, claims, count, tell_match) && is_fine;
    }
    free(firsts);
    free(shades);
    free(claims);
    return is_fine;
}

static bool check_names(const struct moon_compile *compile)
{
    struct claim *claims = zeroed(compile->object_count, sizeof *claims);
    for (size_t i = 0; i < compile->object_count; i++)
        claims[i].text = moon_slice_from(moon_route_name(&compile->objects[i]->value));
    for (size_t i = 0; i < compile->object_count; i++)
        claims[i].index = i;
    bool is_fine = check_claims(compile, claims, compile->object_count, tell_name);
    for (size_t i = 0; i < compile->object_count; i++)
        free((void *)claims[i].text.ptr);
    free(claims);
    return is_fine;
}

// ---- the section

// Where they are wrong, routes of different ones would seem the same.
static bool has_listeners(const struct moon_model *model)
{
    for (size_t i = 0; i < moon_model_count(model); i++)
        if (strcmp(moon_model_at(model, i)->kind, "listener") == 0)
            return true;
    return false;
}

static int routes_compile(const struct moon_compile *compile, void **part)
{
    struct moon_routes *routes = calloc(1, sizeof *routes);
    bool is_fine = true;
    if (!routes)
        abort();
    routes->pool = moon_arena_pool_new(0);
    routes->arena = moon_arena_new(routes->pool, SIZE_MAX);
    struct moon_match_reading reading = {.compile = compile, .arena = routes->arena};
    const struct moon_listeners *listeners = moon_snapshot_listeners(compile->snapshot);
    for (size_t i = 0; i < compile->object_count; i++)
        if (!moon_route_is_stream(listeners, compile->objects[i]))
            is_fine = moon_match_read(&reading, i) && is_fine;
    is_fine = moon_stream_routes_read(compile, &routes->streams) && is_fine;
    routes->matches = reading.matches;
    routes->match_count = reading.count;
    for (size_t i = 0; i < routes->match_count; i++)
        routes->matches[i].serial = (uint32_t)i;
    if (is_fine)
        is_fine = moon_scopes_read(compile, routes->matches, routes->match_count, &routes->scopes);
    if (is_fine && (listeners || !has_listeners(compile->model)))
        is_fine = check_matches(compile, routes);
    if (is_fine)
        is_fine = check_names(compile);
    if (!is_fine) {
        routes_unref(routes);
        return MOON_ECONFIG;
    }
    moon_scopes_index(&routes->scopes);
    *part = routes;
    return 0;
}

// Indexes are made of the routes and of the listeners that they are for.
static bool routes_are_same(const struct moon_snapshot *before, const struct moon_snapshot *now)
{
    return moon_snapshot_listeners(before) == moon_snapshot_listeners(now);
}

const struct moon_section moon_route_section = {
    .name = "routes",
    .kind = "route",
    .schema = &moon_match_schema,
    .is_same = routes_are_same,
    .compile = routes_compile,
    .unref = routes_unref,
};

const struct moon_routes *moon_snapshot_routes(const struct moon_snapshot *snapshot)
{
    return moon_snapshot_part(snapshot, moon_route_section.name);
}

int moon_routes_find(const struct moon_routes *routes, int listener, const struct moon_head *head,
                     struct moon_route_scratch *scratch)
{
    const struct moon_scopes *scopes = &routes->scopes;
    const struct moon_scope *scope = &scopes->items[scopes->of_listener[listener]];
    int got = -1;
    if (scope->grpc && moon_grpc_is_call(head))
        got = moon_index_find(scope->grpc, head, scratch);
    return got == -1 ? moon_index_find(scope->index, head, scratch) : got;
}

int moon_routes_stream(const struct moon_routes *routes, int listener, struct moon_slice sni)
{
    return moon_stream_routes_find(&routes->streams, listener, sni);
}
