// See scope.h.
#include "route/scope.h"

#include "route/host.h"
#include "route/index.h"
#include "route/listener.h"
#include "route/match.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct reading {
    const struct moon_compile *compile;
    const struct moon_listeners *listeners; // NULL: there are none, or they are told to be wrong
    const struct moon_object *object;
    struct moon_scopes *scopes;
};

static void *zeroed(size_t count, size_t len)
{
    void *out = calloc(count + 1, len);
    if (!out)
        abort();
    return out;
}

static const struct moon_value *names_of(const struct moon_object *route)
{
    return moon_value_get(&route->value, "listeners");
}

static bool is_named(const struct moon_value *names, const struct moon_listener *listener)
{
    for (uint32_t i = 0; listener->is_named && i < names->table.item_count; i++)
        if (moon_slice_equal(names->table.items[i].string, moon_slice_from(listener->name)))
            return true;
    return false;
}

static bool has_route(const struct moon_object *route, const struct moon_listener *listener)
{
    const struct moon_value *names = names_of(route);
    if (!moon_protocol_is_http(listener->front.protocol))
        return false;
    return !names || is_named(names, listener);
}

// ---- what a route names

static void unknown_name(const struct reading *at, const char *path, struct moon_slice name)
{
    const char **names = zeroed(at->listeners->count, sizeof *names);
    size_t count = 0;
    char hint[160];
    for (size_t i = 0; i < at->listeners->count; i++)
        if (at->listeners->listeners[i].is_named)
            names[count++] = at->listeners->listeners[i].name;
    const char *nearest = moon_nearest_name(name, names);
    if (nearest)
        snprintf(hint, sizeof hint, "did you mean \"%s\"?", nearest);
    else
        snprintf(hint, sizeof hint, "name it with moongate.listener { name = ... }");
    moon_report_addf(at->compile->report, at->object->place,
                     moon_object_title(at->compile->model, at->object), path, hint,
                     "there is no listener \"%.*s\"", MOON_SLICE_ARG(name));
    free((void *)names);
}

static bool check_name(const struct reading *at, const char *path, struct moon_slice name)
{
    for (size_t i = 0; i < at->listeners->count; i++) {
        const struct moon_listener *listener = &at->listeners->listeners[i];
        if (!listener->is_named || !moon_slice_equal(moon_slice_from(listener->name), name))
            continue;
        if (!at->scopes->of_listener[i] && moon_protocol_is_http(listener->front.protocol))
            at->scopes->of_listener[i] = at->scopes->count++;
        return true;
    }
    unknown_name(at, path, name);
    return false;
}

static bool check_names(const struct reading *at)
{
    const struct moon_value *names = names_of(at->object);
    bool is_fine = true;
    char path[32];
    if (names->table.item_count == 0 && !at->object->is_lenient) {
        moon_report_addf(at->compile->report, at->object->place,
                         moon_object_title(at->compile->model, at->object), "listeners",
                         "leave listeners out to serve all of them",
                         "an empty list takes no request");
        return false;
    }
    for (uint32_t i = 0; i < names->table.item_count; i++) {
        snprintf(path, sizeof path, "listeners[%u]", i + 1);
        is_fine = check_name(at, path, names->table.items[i].string) && is_fine;
    }
    return is_fine || at->object->is_lenient;
}

// ---- whether any request gets to a route

static bool has_common_host(const struct moon_match *match, const struct moon_listener *listener)
{
    if (match->host_count == 0)
        return true;
    for (uint32_t i = 0; i < match->host_count; i++)
        if (moon_hosts_meet(match->hosts[i], listener->hostname))
            return true;
    return false;
}

// `match`: any of the route's, they share their hosts.
static bool check_hosts(const struct reading *at, const struct moon_match *match)
{
    for (size_t i = 0; i < at->listeners->count; i++)
        if (has_route(at->object, &at->listeners->listeners[i]) &&
            has_common_host(match, &at->listeners->listeners[i]))
            return true;
    moon_report_addf(
        at->compile->report, at->object->place, moon_object_title(at->compile->model, at->object),
        "hosts", "a host must be one that the hostname of a listener takes",
        "no listener%s takes any of these hosts", names_of(at->object) ? " of the route" : "");
    return false;
}

// ---- parting

static void fill(struct moon_scope *scope, const struct moon_compile *compile,
                 const struct moon_match *matches, size_t count,
                 const struct moon_listener *listener)
{
    scope->own = zeroed(count, sizeof *scope->own);
    for (size_t i = 0; i < count; i++) {
        const struct moon_object *route = compile->objects[matches[i].index];
        if (listener ? has_route(route, listener) : !names_of(route))
            scope->own[scope->count++] = matches[i];
    }
    scope->matches = scope->own;
}

static void part(const struct reading *at, const struct moon_match *matches, size_t count,
                 size_t listener_count)
{
    struct moon_scopes *scopes = at->scopes;
    scopes->items = zeroed(scopes->count, sizeof *scopes->items);
    scopes->is_first_used = listener_count == 0;
    for (size_t i = 0; i < listener_count; i++) {
        uint32_t scope = scopes->of_listener[i];
        scopes->is_first_used |= scope == 0;
        if (scope)
            fill(&scopes->items[scope], at->compile, matches, count, &at->listeners->listeners[i]);
    }
    if (scopes->count == 1) {
        scopes->items[0].matches = matches;
        scopes->items[0].count = count;
    } else if (scopes->is_first_used) {
        fill(&scopes->items[0], at->compile, matches, count, NULL);
    }
}

// ---- public

bool moon_scopes_read(const struct moon_compile *compile, const struct moon_match *matches,
                      size_t count, struct moon_scopes *out)
{
    struct reading at = {compile, moon_snapshot_listeners(compile->snapshot), NULL, out};
    size_t listener_count = at.listeners ? at.listeners->count : 0;
    bool is_fine = true;
    *out = (struct moon_scopes){.count = 1};
    out->of_listener = zeroed(listener_count, sizeof *out->of_listener);
    for (size_t i = 0; at.listeners && i < compile->object_count; i++) {
        at.object = compile->objects[i];
        if (names_of(at.object))
            is_fine = check_names(&at) && is_fine;
    }
    for (size_t i = 0; at.listeners && is_fine && i < count; i++) {
        at.object = compile->objects[matches[i].index];
        bool is_first = i == 0 || matches[i - 1].index != matches[i].index;
        if (is_first && matches[i].host_count && !at.object->is_lenient)
            is_fine = check_hosts(&at, &matches[i]) && is_fine;
    }
    part(&at, matches, count, listener_count);
    return is_fine;
}

static void index_scope(struct moon_scope *scope)
{
    bool has_grpc = false;
    for (size_t i = 0; i < scope->count; i++)
        has_grpc = has_grpc || scope->matches[i].grpc;
    scope->index = moon_index_new(scope->matches, scope->count, false);
    if (has_grpc)
        scope->grpc = moon_index_new(scope->matches, scope->count, true);
}

void moon_scopes_index(struct moon_scopes *scopes)
{
    for (uint32_t i = 0; i < scopes->count; i++)
        if (i || scopes->is_first_used)
            index_scope(&scopes->items[i]);
}

void moon_scopes_fini(struct moon_scopes *scopes)
{
    for (uint32_t i = 0; i < scopes->count; i++) {
        moon_index_free(scopes->items[i].index);
        moon_index_free(scopes->items[i].grpc);
        free(scopes->items[i].own);
    }
    free(scopes->items);
    free(scopes->of_listener);
}
