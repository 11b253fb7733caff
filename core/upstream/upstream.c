// Compiles moongate.upstream { ... } objects.
#include "upstream/upstream.h"

#include "base/err.h"
#include "base/host_port.h"
#include "filter/filter.h"
#include "http/proxy_header.h"
#include "io/tls.h"
#include "obs/series.h"
#include "upstream/health.h"
#include "upstream/patron.h"
#include "upstream/registry.h"
#include "upstream/upstream_tls.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct moon_upstreams {
    struct moon_registry *registry;
    struct moon_upstream *upstreams;
    const char **names;
    size_t count;
    uint32_t *slots; // by name, open addressing: index + 1; 0: free. At most half are taken
    size_t slot_count;
};

enum { PENDING_COUNT = 1024, PENDING_MS = 1000, STREAM_COUNT = 128 };

static const char *const balance_choices[] = {"round_robin", "least_request", NULL};
static const char *const protocol_choices[] = {"http1", "http2", "auto", NULL};
static const char *const proxy_choices[] = {"v1", "v2", NULL};
static const char *const address_hint =
    "an IP address or a host name, with a port: \"10.0.0.5:8000\", \"[::1]:8000\" or "
    "\"users.internal:8000\"; \"original:dst\" and \"builtin:\" stand alone";

static const struct moon_schema_key endpoint_keys[] = {
    {.name = "weight",
     .types = MOON_TYPE_NUMBER,
     .is_integer = true,
     .min = 0,
     .max = 1000000,
     .expected = "a whole number, 0 to 1000000"},
    {.name = NULL},
};
static const struct moon_schema_key endpoint_address = {
    .types = MOON_TYPE_STRING, .expected = "an address such as \"10.0.0.5:8000\""};
static const struct moon_schema endpoint_schema = {endpoint_keys, &endpoint_address, NULL};
static const struct moon_schema_key endpoint_item = {
    .types = MOON_TYPE_STRING | MOON_TYPE_TABLE,
    .table = &endpoint_schema,
    .expected = "an address such as \"10.0.0.5:8000\", or { \"10.0.0.5:8000\", weight = 2 }"};
static const struct moon_schema_key no_keys[] = {{.name = NULL}};
static const struct moon_schema endpoints_schema = {no_keys, &endpoint_item, NULL};

static const struct moon_schema_key limit_keys[] = {
    {.name = "connections",
     .types = MOON_TYPE_NUMBER,
     .is_integer = true,
     .min = 1,
     .max = 1000000,
     .expected = "a count, 1 to 1000000"},
    {.name = "pending",
     .types = MOON_TYPE_NUMBER,
     .is_integer = true,
     .min = 0,
     .max = 1000000,
     .expected = "a count, 0 to 1000000"},
    {.name = "pending_timeout",
     .types = MOON_TYPE_NUMBER,
     .min = 0.001,
     .max = 3600,
     .expected = "seconds, 0.001 to 3600"},
    {.name = "streams",
     .types = MOON_TYPE_NUMBER,
     .is_integer = true,
     .min = 1,
     .max = 10000,
     .expected = "a count, 1 to 10000"},
    {.name = NULL},
};
static const struct moon_schema limits_schema = {limit_keys, NULL, NULL};

static const struct moon_schema_key timeout_keys[] = {
    MOON_SCHEMA_SECONDS("connect"),
    MOON_SCHEMA_SECONDS("response"),
    {.name = NULL},
};
static const struct moon_schema timeouts_schema = {timeout_keys, NULL, NULL};

static const struct moon_schema_key proxy_keys[] = {
    {.name = "version",
     .types = MOON_TYPE_STRING,
     .choices = proxy_choices,
     .is_required = true,
     .expected = "\"v1\" or \"v2\""},
    {.name = "unique_id", .types = MOON_TYPE_BOOL, .expected = "true or false"},
    {.name = "crc32c", .types = MOON_TYPE_BOOL, .expected = "true or false"},
    {.name = NULL},
};
static const struct moon_schema proxy_schema = {proxy_keys, NULL, NULL};

static const struct moon_schema_key upstream_keys[] = {
    {.name = "name", .types = MOON_TYPE_STRING, .is_required = true, .expected = "a name"},
    {.name = "endpoints",
     .types = MOON_TYPE_TABLE,
     .is_required = true,
     .table = &endpoints_schema,
     .expected = "a list of addresses"},
    {.name = "balance",
     .types = MOON_TYPE_STRING,
     .choices = balance_choices,
     .expected = "\"round_robin\" or \"least_request\""},
    {.name = "limits",
     .types = MOON_TYPE_TABLE,
     .table = &limits_schema,
     .expected = "{ connections = 1024, pending = 1024, pending_timeout = 1, streams = 128 }"},
    {.name = "protocol",
     .types = MOON_TYPE_STRING,
     .choices = protocol_choices,
     .expected = "\"http1\", \"http2\" or \"auto\""},
    {.name = "proxy_protocol",
     .types = MOON_TYPE_STRING | MOON_TYPE_TABLE,
     .choices = proxy_choices,
     .table = &proxy_schema,
     .expected = "\"v1\", \"v2\" or { version = \"v2\", unique_id = true, crc32c = true }"},
    {.name = "health",
     .types = MOON_TYPE_TABLE,
     .table = &moon_health_schema,
     .expected = "{ path = \"/healthz\" } or { grpc = true }"},
    {.name = "tls",
     .types = MOON_TYPE_TABLE,
     .table = &moon_upstream_tls_schema,
     .expected = "{ ca = \"backends.pem\" }"},
    {.name = "timeouts",
     .types = MOON_TYPE_TABLE,
     .table = &timeouts_schema,
     .expected = "{ connect = 5, response = 60 }"},
    {.name = NULL},
};
static const struct moon_schema upstream_schema = {upstream_keys, NULL, NULL};

static void report(const struct moon_compile *compile, const struct moon_object *object,
                   const char *path, const char *hint, const char *message, struct moon_slice found)
{
    moon_report_addf(compile->report, object->place, moon_object_title(compile->model, object),
                     path, hint, "%s \"%.*s\"", message, MOON_SLICE_ARG(found));
}

static const struct moon_builtin *find_builtin(const struct moon_compile *compile,
                                               struct moon_slice name)
{
    const struct moon_upstream_parts *parts = compile->section->registry;
    const struct moon_builtin *const *builtins = parts->builtins;
    for (; builtins && *builtins; builtins++)
        if (moon_slice_equal(moon_slice_from((*builtins)->name), name))
            return *builtins;
    return NULL;
}

// One item of endpoints: its address text and weight.
static struct moon_slice endpoint_text(const struct moon_value *item, uint32_t *weight)
{
    *weight = 1;
    if (item->kind == MOON_VALUE_STRING)
        return item->string;
    *weight = (uint32_t)moon_value_number(item, "weight", 1);
    return item->table.item_count ? item->table.items[0].string : MOON_SLICE("");
}

static bool compile_builtin(const struct moon_compile *compile, const struct moon_object *object,
                            struct moon_slice text, struct moon_upstream *out)
{
    if (out->check) {
        report(compile, object, "health", "remove it", "there is nothing to check in", text);
        return false;
    }
    out->builtin = find_builtin(compile, moon_slice_skip(text, strlen("builtin:")));
    if (!out->builtin)
        report(compile, object, "endpoints[1]", "the binary has \"builtin:echo\"",
               "there is no built-in upstream", text);
    return out->builtin != NULL;
}

static bool compile_origin(const struct moon_compile *compile, const struct moon_value *item,
                           struct moon_origin *origin)
{
    const struct moon_upstream_parts *parts = compile->section->registry;
    struct moon_slice text = endpoint_text(item, &origin->weight), host;
    if (moon_address_parse(text, &origin->address))
        return true;
    if (!moon_host_port_parse(text, &host, &origin->address.port))
        return false;
    origin->name = moon_name_get(parts->registry, host);
    return true;
}

static bool compile_endpoints(const struct moon_compile *compile, const struct moon_object *object,
                              struct moon_upstream *out)
{
    const struct moon_value *list = moon_value_get(&object->value, "endpoints");
    const struct moon_upstream_parts *parts = compile->section->registry;
    uint32_t count = list->table.item_count, weight;
    bool is_fine = true;
    if (count == 1 &&
        moon_slice_starts(endpoint_text(&list->table.items[0], &weight), MOON_SLICE("builtin:")))
        return compile_builtin(compile, object, endpoint_text(&list->table.items[0], &weight), out);
    out->is_original = count == 1 && moon_slice_equal(endpoint_text(&list->table.items[0], &weight),
                                                      MOON_SLICE("original:dst"));
    if (out->is_original && moon_value_get(&object->value, "health")) {
        report(compile, object, "health",
               "remove it: where connections go is not known before there is one",
               "cannot be beside", MOON_SLICE("original:dst"));
        return false;
    }
    if (out->is_original)
        count = 0;
    if (count > UINT16_MAX) {
        report(compile, object, "endpoints", "at most 65535 endpoints", "too many endpoints in",
               out->name);
        return false;
    }
    out->origins = calloc(count + 1, sizeof *out->origins);
    if (!out->origins)
        abort();
    out->origin_count = count;
    for (uint32_t i = 0; i < count; i++) {
        char path[32];
        if (compile_origin(compile, &list->table.items[i], &out->origins[i]))
            continue;
        snprintf(path, sizeof path, "endpoints[%u]", i + 1);
        report(compile, object, path, address_hint,
               "not an address:", endpoint_text(&list->table.items[i], &weight));
        is_fine = false;
    }
    out->feed.registry = parts->registry;
    moon_upstream_refresh(out);
    return is_fine;
}

// How it is spoken to. In clear HTTP/2 has to be known beforehand: nothing there could be agreed on.
static bool compile_protocol(const struct moon_compile *compile, const struct moon_object *object,
                             struct moon_upstream *out)
{
    struct moon_slice protocol = moon_value_string(&object->value, "protocol", MOON_SLICE("http1"));
    const char *hint = NULL;
    if (moon_slice_equal(protocol, MOON_SLICE("http2")))
        out->protocol = MOON_UPSTREAM_HTTP2;
    if (moon_slice_equal(protocol, MOON_SLICE("auto")))
        out->protocol = MOON_UPSTREAM_AUTO;
    if (out->builtin && moon_value_get(&object->value, "protocol"))
        hint = "a built-in upstream has no connections";
    else if (out->protocol == MOON_UPSTREAM_AUTO && !moon_value_get(&object->value, "tls"))
        hint = "without tls there is nothing to agree by: say \"http2\" or leave it out";
    if (hint)
        report(compile, object, "protocol", hint, "cannot be", protocol);
    return !hint;
}

// `pending` and its timeout are of exchanges that wait for one of so many connections.
static bool check_limits(const struct moon_compile *compile, const struct moon_object *object)
{
    const struct moon_value *limits = moon_value_get(&object->value, "limits");
    if (!limits || moon_value_get(limits, "connections") ||
        (moon_value_get(limits, "streams") && !moon_value_get(limits, "pending") &&
         !moon_value_get(limits, "pending_timeout")))
        return true;
    moon_report_addf(compile->report, object->place, moon_object_title(compile->model, object),
                     "limits.connections", "a count, 1 to 1000000", "missing");
    return false;
}

// False: a line of text has no place for what version 2 may carry.
static bool compile_proxy(const struct moon_compile *compile, const struct moon_object *object,
                          struct moon_upstream *out)
{
    const struct moon_value *proxy = moon_value_get(&object->value, "proxy_protocol");
    struct moon_slice version = moon_value_string(&object->value, "proxy_protocol", MOON_SLICE(""));
    if (!proxy)
        return true;
    if (proxy->kind == MOON_VALUE_TABLE)
        version = moon_value_string(proxy, "version", MOON_SLICE(""));
    out->proxy = moon_slice_equal(version, MOON_SLICE("v1")) ? MOON_PROXY_V1 : MOON_PROXY_V2;
    if (proxy->kind != MOON_VALUE_TABLE)
        return true;
    bool is_named = moon_value_bool(proxy, "unique_id", false),
         is_sealed = moon_value_bool(proxy, "crc32c", false);
    if (out->proxy == MOON_PROXY_V1 && (is_named || is_sealed)) {
        report(compile, object, is_named ? "proxy_protocol.unique_id" : "proxy_protocol.crc32c",
               "take version \"v2\", or remove it", "has no place in a header of version", version);
        return false;
    }
    out->proxy |=
        (uint8_t)((is_named ? MOON_PATRON_NAMED : 0) | (is_sealed ? MOON_PATRON_SEALED : 0));
    return true;
}

static void compile_rest(const struct moon_compile *compile, const struct moon_object *object,
                         struct moon_upstream *out)
{
    const struct moon_upstream_parts *parts = compile->section->registry;
    const struct moon_value *limits = moon_value_get(&object->value, "limits");
    struct moon_slice balance = moon_value_string(&object->value, "balance", MOON_SLICE(""));
    if (moon_slice_equal(balance, MOON_SLICE("least_request")))
        out->balance = MOON_BALANCE_LEAST_REQUEST;
    const struct moon_value *timeouts = moon_value_get(&object->value, "timeouts");
    out->timeouts.connect_ms = moon_value_ms(timeouts, "connect", 0);
    out->timeouts.response_ms = moon_value_ms(timeouts, "response", 0);
    out->stream_max_count = (uint32_t)moon_value_number(limits, "streams", STREAM_COUNT);
    if (!limits || !moon_value_get(limits, "connections"))
        return;
    out->limit = moon_limit_get(parts->registry, out->name);
    out->bounds = (struct moon_limit_bounds){
        .connections = (uint32_t)moon_value_number(limits, "connections", 0),
        .pending = (uint32_t)moon_value_number(limits, "pending", PENDING_COUNT),
        .pending_timeout_ms =
            (uint32_t)(moon_value_number(limits, "pending_timeout", PENDING_MS / 1000.0) * 1000 +
                       0.5)};
}

// ---- endpoint sets

// The endpoints of one origin, behind those that are there; at most 65535 in all.
static void add_origin(const struct moon_origin *origin, struct moon_endpoint **endpoints,
                       size_t *count)
{
    struct moon_address *addresses = NULL;
    size_t more = origin->name ? moon_name_addresses(origin->name, &addresses) : 1;
    if (more > UINT16_MAX - *count)
        more = UINT16_MAX - *count;
    *endpoints = realloc(*endpoints, (*count + more + 1) * sizeof **endpoints);
    if (!*endpoints)
        abort();
    for (size_t i = 0; i < more; i++) {
        struct moon_endpoint *endpoint = &(*endpoints)[(*count)++];
        *endpoint = (struct moon_endpoint){.address = addresses ? addresses[i] : origin->address,
                                           .weight = origin->weight};
        endpoint->address.port = origin->address.port;
    }
    free(addresses);
}

// Those that are not down; their number.
static size_t leave_out(struct moon_health *health, struct moon_endpoint *endpoints, size_t count)
{
    struct moon_address *down;
    size_t down_count = moon_health_down(health, &down), kept = 0;
    for (size_t i = 0; i < count; i++)
        if (!down_count ||
            !bsearch(&endpoints[i].address, down, down_count, sizeof *down, moon_address_compare))
            endpoints[kept++] = endpoints[i];
    free(down);
    return kept;
}

void moon_upstream_refresh(struct moon_upstream *upstream)
{
    struct moon_endpoint *endpoints = NULL;
    size_t count = 0;
    for (uint32_t i = 0; i < upstream->origin_count; i++)
        add_origin(&upstream->origins[i], &endpoints, &count);
    if (upstream->health)
        count = leave_out(upstream->health, endpoints, count);
    moon_feed_publish(&upstream->feed,
                      moon_endpoint_set_new(upstream->feed.registry, endpoints, (uint16_t)count));
    free(endpoints);
}

// ---- by name

// The slot of the name, or the free one where it would stand.
static uint32_t *slot_of(const struct moon_upstreams *all, struct moon_slice name)
{
    uint64_t hash = 0xcbf29ce484222325u; // FNV-1a; names are the configuration's, not a peer's
    for (size_t i = 0; i < name.len; i++)
        hash = (hash ^ (unsigned char)name.ptr[i]) * 0x100000001b3u;
    for (size_t at = hash & (all->slot_count - 1);; at = (at + 1) & (all->slot_count - 1)) {
        uint32_t *slot = &all->slots[at];
        if (!*slot || moon_slice_equal(all->upstreams[*slot - 1].name, name))
            return slot;
    }
}

const struct moon_upstream *moon_upstreams_find(const struct moon_upstreams *upstreams,
                                                struct moon_slice name)
{
    uint32_t slot = *slot_of(upstreams, name);
    return slot ? &upstreams->upstreams[slot - 1] : NULL;
}

// ---- the section

static void upstreams_unref(void *part)
{
    struct moon_upstreams *all = part;
    if (!all)
        return;
    for (size_t i = 0; i < all->count; i++) {
        struct moon_upstream *upstream = &all->upstreams[i];
        for (uint32_t k = 0; k < upstream->origin_count; k++)
            moon_name_unref(upstream->origins[k].name);
        free(upstream->origins);
        free((void *)upstream->name.ptr);
        moon_limit_unref(upstream->limit);
        moon_health_check_free(upstream->check);
        moon_health_unref(upstream->health);
        moon_tls_client_unref(upstream->tls);
        free((void *)upstream->tls_host.ptr);
        moon_feed_fini(&upstream->feed);
    }
    free(all->upstreams);
    free(all->names);
    free(all->slots);
    free(all);
}

static bool compile_health(const struct moon_compile *compile, const struct moon_object *object,
                           struct moon_upstream *out)
{
    const struct moon_upstream_parts *parts = compile->section->registry;
    if (!moon_health_check_read(compile, object, &out->check))
        return false;
    if (out->check)
        out->health = moon_health_get(parts->registry, out->name);
    return true;
}

static bool compile_one(const struct moon_compile *compile, const struct moon_object *object,
                        struct moon_upstreams *all)
{
    struct moon_slice name = moon_value_string(&object->value, "name", MOON_SLICE(""));
    if (moon_upstreams_find(all, name)) {
        report(compile, object, "name", "names of upstreams are unique",
               "there is already an upstream", name);
        return false;
    }
    struct moon_upstream *upstream = &all->upstreams[all->count];
    char *copy = moon_slice_dup(name);
    if (!copy)
        abort();
    upstream->name = (struct moon_slice){copy, name.len};
    upstream->index = (uint32_t)all->count;
    upstream->series = moon_series_names_add(compile->section->series, MOON_SERIES_UPSTREAM, name);
    all->names[all->count++] = copy;
    *slot_of(all, upstream->name) = upstream->index + 1;
    compile_rest(compile, object, upstream);
    return compile_health(compile, object, upstream) && compile_proxy(compile, object, upstream) &&
           check_limits(compile, object) && compile_endpoints(compile, object, upstream) &&
           compile_protocol(compile, object, upstream) &&
           moon_upstream_tls_read(compile, object, upstream);
}

// moongate.settings { metrics = { endpoints = n } }: before the first endpoint is made. Nothing where nothing is counted.
static void bound_figures(const struct moon_compile *compile)
{
    enum { ENDPOINTS_DEFAULT = 1000, ENDPOINTS_MAX = 65000 };
    const struct moon_upstream_parts *parts = compile->section->registry;
    const struct moon_value *value = NULL;
    if (!compile->section->series)
        return;
    for (size_t i = 0; i < moon_model_count(compile->model); i++) {
        const struct moon_object *object = moon_model_at(compile->model, i);
        if (strcmp(object->kind, "settings") == 0)
            value = moon_value_get_kind(moon_value_get(&object->value, "metrics"), "endpoints",
                                        MOON_VALUE_NUMBER);
    }
    bool is_fine = value && value->number >= 0 && value->number <= ENDPOINTS_MAX;
    moon_registry_set_named_max(parts->registry,
                                is_fine ? (uint32_t)value->number : ENDPOINTS_DEFAULT);
}

static int upstreams_compile(const struct moon_compile *compile, void **part)
{
    struct moon_upstreams *all = calloc(1, sizeof *all);
    bool is_fine = true;
    if (!all)
        abort();
    bound_figures(compile);
    all->registry = ((const struct moon_upstream_parts *)compile->section->registry)->registry;
    all->upstreams = calloc(compile->object_count + 1, sizeof *all->upstreams);
    all->names = calloc(compile->object_count + 1, sizeof *all->names);
    all->slot_count = 8;
    while (all->slot_count < 2 * compile->object_count)
        all->slot_count *= 2;
    all->slots = calloc(all->slot_count, sizeof *all->slots);
    if (!all->upstreams || !all->names || !all->slots)
        abort();
    for (size_t i = 0; i < compile->object_count; i++)
        is_fine = compile_one(compile, compile->objects[i], all) && is_fine;
    if (!is_fine) {
        upstreams_unref(all);
        return MOON_ECONFIG;
    }
    *part = all;
    return 0;
}

const struct moon_section moon_upstream_section = {
    .name = "upstreams",
    .kind = "upstream",
    .schema = &upstream_schema,
    .compile = upstreams_compile,
    .unref = upstreams_unref,
};

const struct moon_upstreams *moon_snapshot_upstreams(const struct moon_snapshot *snapshot)
{
    return moon_snapshot_part(snapshot, moon_upstream_section.name);
}

const char *const *moon_upstreams_names(const struct moon_upstreams *upstreams)
{
    return upstreams->names;
}

bool moon_upstreams_same_names(const struct moon_upstreams *a, const struct moon_upstreams *b)
{
    if (a->count != b->count)
        return false;
    for (size_t i = 0; a != b && i < a->count; i++)
        if (!moon_slice_equal(a->upstreams[i].name, b->upstreams[i].name))
            return false;
    return true;
}

size_t moon_upstreams_count(const struct moon_upstreams *upstreams)
{
    return upstreams->count;
}

struct moon_upstream *moon_upstreams_at(const struct moon_upstreams *upstreams, size_t index)
{
    return &upstreams->upstreams[index];
}

bool moon_upstreams_are_fresh(const struct moon_upstreams *upstreams)
{
    for (size_t i = 0; i < upstreams->count; i++)
        if (upstreams->upstreams[i].tls && !moon_tls_client_is_fresh(upstreams->upstreams[i].tls))
            return false;
    return true;
}

struct moon_registry *moon_upstreams_registry(const struct moon_upstreams *upstreams)
{
    return upstreams->registry;
}
