// See stream_route.h.
#include "route/stream_route.h"

#include "route/listener.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

static const struct moon_value *names_of(const struct moon_object *route)
{
    return moon_value_get(&route->value, "listeners");
}

static const struct moon_listener *find(const struct moon_listeners *all, struct moon_slice name)
{
    for (size_t i = 0; i < all->count; i++)
        if (all->listeners[i].is_named &&
            moon_slice_equal(moon_slice_from(all->listeners[i].name), name))
            return &all->listeners[i];
    return NULL;
}

static bool is_stream(const struct moon_listener *listener)
{
    return listener && !moon_protocol_is_http(listener->front.protocol);
}

bool moon_route_is_stream(const struct moon_listeners *listeners, const struct moon_object *route)
{
    const struct moon_value *names = names_of(route);
    for (uint32_t i = 0; listeners && names && i < names->table.item_count; i++)
        if (is_stream(find(listeners, names->table.items[i].string)))
            return true;
    return false;
}

struct reading {
    const struct moon_compile *compile;
    const struct moon_listeners *listeners;
    const struct moon_object *route;
    int index; // of the route
    int *of_listener;
};

// `what` with a name behind it, and a line where it is not 0.
static bool tell(const struct reading *at, const char *path, const char *hint, const char *what,
                 const char *name, unsigned line)
{
    char where[32] = "";
    if (line)
        snprintf(where, sizeof where, ", in line %u", line);
    moon_report_addf(at->compile->report, at->route->place,
                     moon_object_title(at->compile->model, at->route), path, hint, "%s \"%s\"%s",
                     what, name, where);
    return false;
}

// What has no meaning where bytes pass as they are.
static bool check_keys(const struct reading *at, const struct moon_listener *first)
{
    static const char *const keys[] = {"hosts",    "path",          "methods",     "headers",
                                       "query",    "matches",       "plugins",     "retry",
                                       "grpc",     "rewrite",       "access",      "log",
                                       "balancer", "header_filter", "body_filter", NULL};
    static const char *const timeouts[] = {"request", "response", NULL};
    const char *protocol = moon_protocol_name(first->front.protocol);
    const struct moon_value *given = moon_value_get(&at->route->value, "timeouts");
    bool is_fine = true;
    for (const char *const *key = keys; *key; key++)
        if (moon_value_get(&at->route->value, *key))
            is_fine = tell(at, *key, "bytes pass as they are: remove it",
                           "has no meaning for a listener with protocol", protocol, 0);
    for (const char *const *key = timeouts; *key; key++)
        if (moon_value_get(given, *key))
            is_fine = tell(at, "timeouts", "it has timeouts = { idle = 60 } alone",
                           "there are no requests on a listener with protocol", protocol, 0);
    return is_fine;
}

// One protocol for all, and each listener its one route: the first, where more than one is no error.
static bool claim(const struct reading *at, uint32_t item, const struct moon_listener *first)
{
    char path[32];
    struct moon_slice name = names_of(at->route)->table.items[item].string;
    const struct moon_listener *listener = find(at->listeners, name);
    snprintf(path, sizeof path, "listeners[%u]", item + 1);
    if (!listener) // told by whoever reads names
        return true;
    if (listener->front.protocol != first->front.protocol)
        return tell(at, path, "give each protocol a route of its own",
                    "it has another protocol than", first->name, 0);
    int *owner = &at->of_listener[listener - at->listeners->listeners];
    if (*owner < 0) {
        *owner = at->index;
        return true;
    }
    if (at->route->is_lenient || *owner == at->index)
        return true;
    return tell(at, path, "a listener of bytes has one route: give weights to its backends",
                "there is a route already for", listener->name,
                at->compile->objects[*owner]->place.line);
}

static bool read_one(const struct reading *at)
{
    const struct moon_value *names = names_of(at->route);
    const struct moon_listener *first = NULL;
    bool is_fine = true;
    for (uint32_t i = 0; i < names->table.item_count && !first; i++) {
        const struct moon_listener *listener = find(at->listeners, names->table.items[i].string);
        first = is_stream(listener) ? listener : NULL;
    }
    assert(first); // else it were no stream route
    for (uint32_t i = 0; i < names->table.item_count; i++)
        is_fine = claim(at, i, first) && is_fine;
    return check_keys(at, first) && is_fine;
}

// Such a name is told by whoever reads names; it may be meant for a listener that seems to have no route.
static bool has_unknown_name(const struct reading *at)
{
    for (size_t i = 0; i < at->compile->object_count; i++) {
        const struct moon_value *names = names_of(at->compile->objects[i]);
        for (uint32_t k = 0; names && k < names->table.item_count; k++)
            if (!find(at->listeners, names->table.items[k].string))
                return true;
    }
    return false;
}

// A listener that nothing serves is a mistake where its producer writes all at once.
static bool check_served(const struct reading *at)
{
    bool is_fine = true;
    if (has_unknown_name(at))
        return true;
    for (size_t i = 0; i < at->listeners->count; i++) {
        const struct moon_listener *listener = &at->listeners->listeners[i];
        if (!is_stream(listener) || at->of_listener[i] >= 0 || listener->is_lenient)
            continue;
        moon_report_addf(at->compile->report, listener->place, "listener", "name",
                         "add moongate.route { listeners = { ... }, backends = ... }",
                         "no route names the listener \"%s\"", listener->name);
        is_fine = false;
    }
    return is_fine;
}

bool moon_stream_routes_read(const struct moon_compile *compile, int **of_listener)
{
    struct reading at = {.compile = compile,
                         .listeners = moon_snapshot_listeners(compile->snapshot)};
    size_t count = at.listeners ? at.listeners->count : 0;
    bool is_fine = true;
    at.of_listener = malloc((count + 1) * sizeof *at.of_listener);
    if (!at.of_listener)
        abort();
    for (size_t i = 0; i < count; i++)
        at.of_listener[i] = -1;
    *of_listener = at.of_listener;
    for (size_t i = 0; i < compile->object_count; i++) {
        at.route = compile->objects[i];
        at.index = (int)i;
        if (moon_route_is_stream(at.listeners, at.route))
            is_fine = read_one(&at) && is_fine;
    }
    return !at.listeners || (check_served(&at) && is_fine);
}
