// See explain.h. The question becomes a real request head, so that it is read, refused and routed exactly as one from a client.
#include "gateway/explain.h"

#include "base/address.h"
#include "base/arena.h"
#include "base/err.h"
#include "base/json.h"
#include "conf/settings.h"
#include "exchange/action.h"
#include "exchange/listener_plugins.h"
#include "filter/filter.h"
#include "gateway/ports.h"
#include "http/head.h"
#include "route/listener.h"
#include "route/route.h"
#include "upstream/upstream.h"

#include <stdlib.h>
#include <string.h>

enum { ARENA_LEN = 1 << 20 };

static struct moon_slice authority_of(struct moon_slice url)
{
    const char *at = url.len ? memmem(url.ptr, url.len, "://", 3) : NULL;
    struct moon_slice rest = at ? moon_slice_skip(url, (size_t)(at - url.ptr) + 3) : url;
    size_t len = 0;
    while (len < rest.len && rest.ptr[len] != '/' && rest.ptr[len] != '?' && rest.ptr[len] != '#')
        len++;
    return (struct moon_slice){rest.ptr, len};
}

static struct moon_slice head_text(struct moon_arena *arena,
                                   const struct moon_explain_question *question)
{
    struct moon_slice authority = authority_of(question->url);
    return moon_arena_try_format(arena, "%.*s %.*s HTTP/1.1\r\nHost: %.*s\r\n%.*s\r\n",
                                 MOON_SLICE_ARG(question->method), MOON_SLICE_ARG(question->url),
                                 MOON_SLICE_ARG(authority), MOON_SLICE_ARG(question->fields));
}

static void write_refusal(FILE *out, unsigned status, const char *reason)
{
    fprintf(out, "{\"matched\":false,\"status\":%u,", status);
    moon_json_member(out, "reason", reason);
    fputs("}\n", out);
}

// ---- where it comes in

// What a request meets that comes in at one bind.
struct meeting {
    int listener, route; // as the lookups say
};

struct asking {
    const struct moon_snapshot *snapshot;
    const struct moon_ports *ports; // NULL: none is open
    const struct moon_listeners *listeners;
    const struct moon_head *head;
    struct moon_route_scratch *scratch;
    struct moon_slice scheme; // "http", "https", or empty: either
};

static struct moon_address address_of(const struct asking *at, size_t bind)
{
    return at->ports && bind < at->ports->count ? at->ports->items[bind].bound
                                                : at->listeners->binds[bind].address;
}

// A URL without a port may be meant for any.
static bool is_port_of(const struct asking *at, size_t bind)
{
    const struct moon_bind *to = &at->listeners->binds[bind];
    uint16_t port = at->head->target.authority.port;
    if (!moon_bind_speaks(to, MOON_PROTOCOL_HTTP) && !moon_bind_speaks(to, MOON_PROTOCOL_HTTPS))
        return false;
    return port == 0 || address_of(at, bind).port == port;
}

static bool speaks(const struct asking *at, size_t bind)
{
    bool is_secure = moon_slice_equal_fold(at->scheme, MOON_SLICE("https"));
    return at->scheme.len == 0 ||
           moon_bind_speaks(&at->listeners->binds[bind],
                            is_secure ? MOON_PROTOCOL_HTTPS : MOON_PROTOCOL_HTTP);
}

// Where a port has both, and the URL says nothing, in clear.
static bool is_secure(const struct asking *at, size_t bind)
{
    return moon_slice_equal_fold(at->scheme, MOON_SLICE("https")) ||
           !moon_bind_speaks(&at->listeners->binds[bind], MOON_PROTOCOL_HTTP);
}

static bool may_come_in(const struct asking *at, size_t bind)
{
    return is_port_of(at, bind) && speaks(at, bind);
}

static struct meeting meet(const struct asking *at, size_t bind)
{
    struct meeting found = {-1, -1};
    found.listener = moon_listeners_find(at->listeners, (uint32_t)bind, is_secure(at, bind),
                                         at->head, at->scratch);
    if (found.listener >= 0)
        found.route = moon_routes_find(moon_snapshot_routes(at->snapshot), found.listener, at->head,
                                       at->scratch);
    return found;
}

// The best that any bind gives, the first of several: a route, else a listener without one.
static bool find_first(const struct asking *at, struct meeting *best)
{
    bool is_found = false;
    *best = (struct meeting){-1, -1};
    for (size_t i = 0; i < at->listeners->bind_count && best->route == -1; i++) {
        if (!may_come_in(at, i))
            continue;
        struct meeting found = meet(at, i);
        is_found = true;
        if (best->listener < 0 || found.route != -1)
            *best = found;
    }
    return is_found;
}

// The listeners at which the request meets the same.
static void write_listeners(const struct asking *at, int route, FILE *out)
{
    const char *comma = "";
    char text[MOON_BIND_TEXT_LEN];
    fputs(",\"listeners\":[", out);
    for (size_t i = 0; i < at->listeners->bind_count; i++) {
        struct meeting found = may_come_in(at, i) ? meet(at, i) : (struct meeting){-1, -1};
        if (found.listener < 0 || found.route != route)
            continue;
        const struct moon_listener *listener = &at->listeners->listeners[found.listener];
        struct moon_address address = address_of(at, i);
        moon_bind_format(&at->listeners->binds[i], &address, text);
        fprintf(out, "%s{", comma);
        moon_json_member(out, "name", listener->name);
        fputc(',', out);
        moon_json_member(out, "address", text);
        if (listener->hostname.len)
            fprintf(out, ",\"hostname\":\"%s%.*s\"", listener->hostname.ptr[0] == '.' ? "*" : "",
                    MOON_SLICE_ARG(listener->hostname));
        fputc('}', out);
        comma = ",";
    }
    fputc(']', out);
}

// ---- what it meets

static const struct moon_object *route_object(const struct moon_snapshot *snapshot, int index)
{
    const struct moon_model *model = moon_snapshot_model(snapshot);
    for (size_t i = 0; i < moon_model_count(model); i++) {
        const struct moon_object *object = moon_model_at(model, i);
        if (strcmp(object->kind, "route") == 0 && index-- == 0)
            return object;
    }
    return NULL;
}

// The endpoints as they stand now: of names those that have been resolved.
static void write_endpoints(const struct moon_upstream *upstream, FILE *out)
{
    struct moon_endpoint_set *set = NULL;
    uint64_t stamp = 0;
    char text[MOON_ADDRESS_TEXT_LEN];
    if (upstream->feed.registry)
        moon_feed_follow(&upstream->feed, &stamp, &set);
    for (unsigned i = 0; set && i < set->count; i++) {
        moon_address_format(&set->endpoints[i].address, text);
        fprintf(out, "%s{\"address\":\"%s\",\"weight\":%u}", i ? "," : "", text,
                set->endpoints[i].weight);
    }
    moon_endpoint_set_unref(set);
}

static void write_backend(const struct moon_snapshot *snapshot, const struct moon_backend *backend,
                          FILE *out)
{
    const struct moon_upstreams *all = moon_snapshot_upstreams(snapshot);
    const struct moon_upstream *upstream = backend->upstream == MOON_BACKEND_MISSING
                                               ? NULL
                                               : moon_upstreams_at(all, (size_t)backend->upstream);
    fprintf(out, "{\"weight\":%u,\"name\":", backend->weight);
    moon_json_text(out, upstream ? upstream->name : MOON_SLICE("(missing)"));
    if (upstream && upstream->builtin) {
        fputs(",\"builtin\":", out);
        moon_json_text(out, moon_slice_from(upstream->builtin->name));
    }
    if (upstream && upstream->is_original)
        fputs(",\"original\":true", out);
    fputs(",\"endpoints\":[", out);
    if (upstream)
        write_endpoints(upstream, out);
    fputs("]}", out);
}

// Those of the listener run first.
static void write_plugins(const struct moon_chain *front, const struct moon_chain *chain, FILE *out)
{
    unsigned front_count = front ? front->count : 0;
    fputs(",\"plugins\":[", out);
    for (unsigned i = 0; i < front_count + (chain ? chain->count : 0u); i++) {
        const struct moon_filter *filter =
            i < front_count ? &front->filters[i] : &chain->filters[i - front_count];
        fputs(i ? "," : "", out);
        moon_json_text(out, moon_slice_from(filter->type->name));
    }
    fputc(']', out);
}

static void write_match(const struct moon_snapshot *snapshot, const struct moon_chain *front,
                        int index, FILE *out)
{
    const struct moon_action *action = moon_actions_at(moon_snapshot_actions(snapshot), index);
    const struct moon_object *object = route_object(snapshot, index);
    fputs(",\"route\":{", out);
    moon_json_member(out, "name", action->name);
    fputc(',', out);
    moon_json_member(out, "file", object ? object->place.file : NULL);
    fprintf(out, ",\"line\":%u}", object ? object->place.line : 0);
    write_plugins(front, &action->chain, out);
    fputs(",\"upstreams\":[", out);
    for (uint16_t i = 0; i < action->split.count; i++) {
        fputs(i ? "," : "", out);
        write_backend(snapshot, &action->split.backends[i], out);
    }
    fputc(']', out);
}

static void write_refused(const struct asking *at, const struct meeting *best, FILE *out)
{
    const struct moon_listener_plugins *plugins = moon_snapshot_listener_plugins(at->snapshot);
    bool is_limit = best->route == MOON_ELIMIT;
    const char *reason = is_limit             ? "a regex of the routes gave up on this request"
                         : best->listener < 0 ? "no listener takes this host"
                                              : "no route matches";
    fprintf(out, "{\"matched\":false,\"status\":%u,", is_limit ? 500u : 404u);
    moon_json_member(out, "reason", reason);
    write_listeners(at, best->route, out);
    write_plugins(best->listener < 0 ? NULL : moon_listener_plugins_at(plugins, best->listener),
                  NULL, out);
    fputs("}\n", out);
}

static void write_answer(const struct asking *at, FILE *out)
{
    struct meeting best;
    if (!find_first(at, &best)) {
        bool has_port = false;
        for (size_t i = 0; i < at->listeners->bind_count; i++)
            has_port = has_port || is_port_of(at, i);
        write_refusal(out, 404,
                      has_port ? "no listener there has that scheme"
                               : "no listener is on that port");
        return;
    }
    if (best.route < 0) {
        write_refused(at, &best, out);
        return;
    }
    fputs("{\"matched\":true,\"path\":", out);
    moon_json_text(out, at->head->target.path);
    write_listeners(at, best.route, out);
    write_match(
        at->snapshot,
        moon_listener_plugins_at(moon_snapshot_listener_plugins(at->snapshot), best.listener),
        best.route, out);
    fputs("}\n", out);
}

static struct moon_slice scheme_of(struct moon_slice url)
{
    const char *mark = url.len ? memmem(url.ptr, url.len, "://", 3) : NULL;
    return (struct moon_slice){url.ptr, mark ? (size_t)(mark - url.ptr) : 0};
}

static void ask(const struct moon_snapshot *snapshot, const struct moon_ports *ports,
                const struct moon_head *head, struct moon_slice scheme, FILE *out)
{
    enum { SCRATCH_LEN = 131072 };
    struct asking at = {snapshot,
                        ports,
                        moon_snapshot_listeners(snapshot),
                        head,
                        moon_route_scratch_new(SCRATCH_LEN),
                        scheme};
    write_answer(&at, out);
    moon_route_scratch_free(at.scratch);
}

void moon_explain_write_json(const struct moon_snapshot *snapshot, const struct moon_ports *ports,
                             const struct moon_explain_question *question, FILE *out)
{
    const struct moon_settings *settings = moon_snapshot_settings(snapshot);
    struct moon_head_limits limits = moon_head_limits_default;
    limits.head_bytes = settings->limits.header_bytes;
    limits.field_count = settings->limits.header_count;
    limits.target_bytes = settings->limits.target_bytes;
    struct moon_arena_pool *pool = moon_arena_pool_new(4);
    struct moon_arena *arena = moon_arena_new(pool, ARENA_LEN);
    struct moon_slice text = head_text(arena, question);
    struct moon_head_scan scan = {0};
    struct moon_head head = {0};
    struct moon_fault fault = {400, "the question is too large"};
    ssize_t len = text.ptr ? moon_head_scan(&scan, text, &limits, true, &fault) : -1;
    if (len < 0 || (size_t)len != text.len ||
        moon_request_parse(arena, text, &limits, &head, &fault) < 0)
        write_refusal(out, fault.status, fault.reason);
    else
        ask(snapshot, ports, &head, scheme_of(question->url), out);
    moon_arena_free(arena);
    moon_arena_pool_free(pool);
}

// ---- the query of the admin surface

static int digit_of(char c)
{
    return c >= '0' && c <= '9'                     ? c - '0'
           : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10
                                                    : -1;
}

// Decodes in place; the result is never longer.
static size_t decode(char *text, size_t len)
{
    size_t used = 0;
    for (size_t i = 0; i < len; i++) {
        bool is_escape = text[i] == '%' && i + 2 < len && digit_of(text[i + 1]) >= 0 &&
                         digit_of(text[i + 2]) >= 0;
        if (!is_escape) {
            text[used++] = text[i];
            continue;
        }
        text[used++] = (char)(digit_of(text[i + 1]) * 16 + digit_of(text[i + 2]));
        i += 2;
    }
    return used;
}

void moon_explain_read_query(struct moon_slice query, struct moon_explain_question *out,
                             char **text)
{
    // The decoded query, then the header lines: "header=" is longer than a line end, so they need no more room.
    char *copy = malloc(2 * query.len + 1), *lines = copy + query.len;
    size_t lines_len = 0;
    if (!copy)
        abort();
    if (query.len)
        memcpy(copy, query.ptr, query.len);
    *out = (struct moon_explain_question){.method = MOON_SLICE("GET"), .url = MOON_SLICE("/")};
    for (size_t at = 0; at < query.len;) {
        char *item = copy + at, *end = memchr(item, '&', query.len - at);
        size_t len = end ? (size_t)(end - item) : query.len - at;
        at += len + 1;
        struct moon_slice value = {item, decode(item, len)};
        if (moon_slice_starts(value, MOON_SLICE("method="))) {
            out->method = moon_slice_skip(value, strlen("method="));
        } else if (moon_slice_starts(value, MOON_SLICE("url="))) {
            out->url = moon_slice_skip(value, strlen("url="));
        } else if (moon_slice_starts(value, MOON_SLICE("header="))) {
            value = moon_slice_skip(value, strlen("header="));
            memcpy(lines + lines_len, value.ptr, value.len);
            lines[lines_len + value.len] = '\r';
            lines[lines_len + value.len + 1] = '\n';
            lines_len += value.len + 2;
        }
    }
    out->fields = (struct moon_slice){lines, lines_len};
    *text = copy;
}
