// See stream_route.h.
#include "route/stream_route.h"

#include "route/host.h"
#include "route/host_table.h"
#include "route/listener.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

// A host of a route at one of its listeners.
struct claim {
    int listener, route;
    uint32_t item;          // of the route's listeners
    struct moon_slice host; // of out->hosts; empty: every name
};

struct reading {
    const struct moon_compile *compile;
    const struct moon_listeners *listeners;
    const struct moon_object *route;
    int index; // of the route
    struct moon_stream_routes *out;
    size_t host_at; // its first host there
    struct claim *claims;
    size_t claim_count;
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
    static const char *const keys[] = {
        "path",     "methods",       "headers",     "query",           "matches",
        "retry",    "grpc",          "rewrite",     "access",          "log",
        "balancer", "header_filter", "body_filter", "websocket_frame", NULL};
    static const char *const connections[] = {"preread", "plugins", NULL};
    static const char *const timeouts[] = {"request", "response", NULL};
    const char *protocol = moon_protocol_name(first->front.protocol);
    const struct moon_value *given = moon_value_get(&at->route->value, "timeouts");
    bool is_fine = true;
    if (first->front.protocol != MOON_PROTOCOL_TLS && moon_value_get(&at->route->value, "hosts"))
        is_fine = tell(at, "hosts", "bytes pass as they are: remove it",
                       "has no meaning for a listener with protocol", protocol, 0);
    for (const char *const *key = connections; *key; key++)
        if (first->front.protocol == MOON_PROTOCOL_UDP && moon_value_get(&at->route->value, *key))
            is_fine = tell(at, *key, "there are no connections: remove it",
                           "has no meaning for a listener with protocol", protocol, 0);
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

// ---- hosts

static bool read_host(const struct reading *at, struct moon_slice text, uint32_t item)
{
    struct moon_stream_routes *out = at->out;
    const char *hint = moon_host_hint(text);
    char path[32];
    snprintf(path, sizeof path, "hosts[%u]", item + 1);
    if (hint)
        return tell(at, path, hint, "not a host to match:", text.ptr, 0);
    struct moon_slice bare = moon_host_bare(text);
    char *copy = moon_slice_dup(bare);
    out->hosts = realloc(out->hosts, (out->host_count + 1) * sizeof *out->hosts);
    if (!copy || !out->hosts)
        abort();
    for (size_t i = 0; i < bare.len; i++)
        if (copy[i] >= 'A' && copy[i] <= 'Z')
            copy[i] |= 0x20;
    out->hosts[out->host_count++] = (struct moon_slice){copy, bare.len};
    return true;
}

// The hosts of the route; `hosts` left out is every one.
static bool read_hosts(struct reading *at)
{
    const struct moon_value *list = moon_value_get(&at->route->value, "hosts");
    bool is_fine = true;
    at->host_at = at->out->host_count;
    if (list && list->table.item_count == 0)
        return tell(at, "hosts", "leave hosts out to take every name", "takes no connection:", "{}",
                    0);
    for (uint32_t i = 0; list && i < list->table.item_count; i++)
        is_fine = read_host(at, list->table.items[i].string, i) && is_fine;
    return is_fine;
}

// ---- claims

static bool tell_claimed(struct reading *at, const struct claim *claim, int owner)
{
    const struct moon_listener *listener = &at->listeners->listeners[claim->listener];
    const char *star = claim->host.len && claim->host.ptr[0] == '.' ? "*" : "";
    unsigned line = at->compile->objects[owner]->place.line;
    char path[32], name[300];
    at->route = at->compile->objects[claim->route];
    snprintf(path, sizeof path, "listeners[%u]", claim->item + 1);
    if (listener->front.protocol != MOON_PROTOCOL_TLS)
        return tell(at, path, "a listener of bytes has one route: give weights to its backends",
                    "there is a route already for", listener->name, line);
    if (claim->host.len == 0)
        return tell(at, path, "give one of them hosts",
                    "there is a route already for every name of", listener->name, line);
    snprintf(name, sizeof name, "%s%.*s", star, MOON_SLICE_ARG(claim->host));
    return tell(at, "hosts", "the first would have every connection; remove one",
                "there is a route already for", name, line);
}

static int compare_places(const struct claim *a, const struct claim *b)
{
    size_t len = a->host.len < b->host.len ? a->host.len : b->host.len;
    if (a->listener != b->listener)
        return a->listener < b->listener ? -1 : 1;
    int order = len ? memcmp(a->host.ptr, b->host.ptr, len) : 0;
    return order ? order : (a->host.len > b->host.len) - (a->host.len < b->host.len);
}

static int compare_claims(const void *x, const void *y)
{
    const struct claim *a = x, *b = y;
    int order = compare_places(a, b);
    return order ? order : (a->route > b->route) - (a->route < b->route);
}

// Sorts them, and leaves the first of each place; a second is a problem, where its producer writes all at once.
static bool part_claims(struct reading *at)
{
    size_t kept = 0;
    bool is_fine = true;
    if (at->claim_count)
        qsort(at->claims, at->claim_count, sizeof *at->claims, compare_claims);
    for (size_t i = 0; i < at->claim_count; i++) {
        const struct claim *claim = &at->claims[i];
        const struct claim *first = kept ? &at->claims[kept - 1] : NULL;
        if (!first || compare_places(first, claim) != 0)
            at->claims[kept++] = *claim;
        else if (first->route != claim->route && !at->compile->objects[claim->route]->is_lenient)
            is_fine = tell_claimed(at, claim, first->route) && is_fine;
    }
    at->claim_count = kept;
    return is_fine;
}

static void add_claim(struct reading *at, uint32_t item, int listener, struct moon_slice host)
{
    at->claims = realloc(at->claims, (at->claim_count + 1) * sizeof *at->claims);
    if (!at->claims)
        abort();
    at->claims[at->claim_count++] = (struct claim){listener, at->index, item, host};
}

// Its hosts at one listener, those that the listener's hostname has.
static bool claim_hosts(struct reading *at, uint32_t item, const struct moon_listener *listener)
{
    size_t count = at->out->host_count - at->host_at, met_count = 0;
    int index = (int)(listener - at->listeners->listeners);
    if (count == 0)
        add_claim(at, item, index, MOON_SLICE(""));
    for (size_t i = 0; i < count; i++) {
        struct moon_slice host = at->out->hosts[at->host_at + i];
        if (!moon_hosts_meet(host, listener->hostname))
            continue;
        met_count++;
        add_claim(at, item, index, host);
    }
    if (count == 0 || met_count || at->route->is_lenient)
        return true;
    return tell(at, "hosts", "a host must be one that the hostname of the listener takes",
                "none of these is for the listener", listener->name, 0);
}

// One protocol for all.
static bool claim(struct reading *at, uint32_t item, const struct moon_listener *first)
{
    char path[32];
    struct moon_slice name = names_of(at->route)->table.items[item].string;
    const struct moon_listener *listener = find(at->listeners, name);
    if (!listener) // told by whoever reads names
        return true;
    if (listener->front.protocol == first->front.protocol)
        return claim_hosts(at, item, listener);
    snprintf(path, sizeof path, "listeners[%u]", item + 1);
    return tell(at, path, "give each protocol a route of its own", "it has another protocol than",
                first->name, 0);
}

static bool read_one(struct reading *at)
{
    const struct moon_value *names = names_of(at->route);
    const struct moon_listener *first = NULL;
    bool is_fine = true;
    for (uint32_t i = 0; i < names->table.item_count && !first; i++) {
        const struct moon_listener *listener = find(at->listeners, names->table.items[i].string);
        first = is_stream(listener) ? listener : NULL;
    }
    assert(first); // else it were no stream route
    is_fine = read_hosts(at);
    for (uint32_t i = 0; is_fine && i < names->table.item_count; i++)
        is_fine = claim(at, i, first);
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
    bool *is_served = calloc(at->listeners->count + 1, sizeof *is_served);
    if (!is_served)
        abort();
    for (size_t i = 0; i < at->claim_count; i++)
        is_served[at->claims[i].listener] = true;
    for (size_t i = 0; i < at->listeners->count; i++) {
        const struct moon_listener *listener = &at->listeners->listeners[i];
        if (!is_stream(listener) || is_served[i] || listener->is_lenient)
            continue;
        moon_report_addf(at->compile->report, listener->place, "listener", "name",
                         "add moongate.route { listeners = { ... }, backends = ... }",
                         "no route names the listener \"%s\"", listener->name);
        is_fine = false;
    }
    free(is_served);
    return is_fine;
}

// ---- tables

// `claims`: of the listener.
static void index_listener(struct moon_stream_routes *out, int listener, const struct claim *claims,
                           size_t count)
{
    struct moon_host_entry *entries = calloc(count + 1, sizeof *entries);
    size_t host_count = 0;
    if (!entries)
        abort();
    out->all[listener] = -1;
    for (size_t i = 0; i < count; i++) {
        if (claims[i].host.len)
            entries[host_count++] = (struct moon_host_entry){claims[i].host, claims[i].route};
        else
            out->all[listener] = claims[i].route;
    }
    if (host_count)
        out->named[listener] = moon_host_table_new(entries, host_count);
    free(entries);
}

// The claims are in order of their listeners.
static void index_all(const struct reading *at)
{
    struct moon_stream_routes *out = at->out;
    size_t from = 0;
    out->count = at->listeners ? at->listeners->count : 0;
    out->all = calloc(out->count + 1, sizeof *out->all);
    out->named = calloc(out->count + 1, sizeof *out->named);
    if (!out->all || !out->named)
        abort();
    for (size_t i = 0; i < out->count; i++) {
        size_t to = from;
        while (to < at->claim_count && at->claims[to].listener == (int)i)
            to++;
        index_listener(out, (int)i, at->claims ? at->claims + from : NULL, to - from);
        from = to;
    }
}

bool moon_stream_routes_read(const struct moon_compile *compile, struct moon_stream_routes *out)
{
    struct reading at = {
        .compile = compile, .listeners = moon_snapshot_listeners(compile->snapshot), .out = out};
    bool is_fine = true;
    *out = (struct moon_stream_routes){0};
    for (size_t i = 0; i < compile->object_count; i++) {
        at.route = compile->objects[i];
        at.index = (int)i;
        if (moon_route_is_stream(at.listeners, at.route))
            is_fine = read_one(&at) && is_fine;
    }
    is_fine = part_claims(&at) && is_fine;
    is_fine = !at.listeners || (check_served(&at) && is_fine);
    index_all(&at);
    free(at.claims);
    return is_fine;
}

void moon_stream_routes_fini(struct moon_stream_routes *routes)
{
    for (size_t i = 0; i < routes->count; i++)
        moon_host_table_free(routes->named[i]);
    for (size_t i = 0; i < routes->host_count; i++)
        free((void *)routes->hosts[i].ptr);
    free(routes->all);
    free((void *)routes->named);
    free(routes->hosts);
}

int moon_stream_routes_find(const struct moon_stream_routes *routes, int listener,
                            struct moon_slice sni)
{
    int found = moon_host_table_find(routes->named[listener], sni);
    return found >= 0 ? found : routes->all[listener];
}
