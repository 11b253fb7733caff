// See listener.h. Compiles moongate.listener { ... }. Which member of a bind takes a host is asked of an index of routes whose
// only matches are hostnames: the precedence is the same.
#include "route/listener.h"

#include "base/err.h"
#include "http/head.h"
#include "io/tls.h"
#include "route/host.h"
#include "route/host_table.h"
#include "route/index.h"
#include "route/listener_tls.h"
#include "route/match.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct moon_schema_key no_keys[] = {{.name = NULL}};
static const struct moon_schema_key address_item = {
    .types = MOON_TYPE_STRING,
    .expected = "an IP address such as \"0.0.0.0\", or \"unix:/run/gateway.sock\""};
static const struct moon_schema addresses_schema = {no_keys, &address_item, NULL};

static const struct moon_schema_key listener_keys[] = {
    {.name = "port",
     .types = MOON_TYPE_NUMBER,
     .is_integer = true,
     .min = 0,
     .max = 65535,
     .expected = "a port, 1 to 65535 (0: any free one)"},
    {.name = "address",
     .types = MOON_TYPE_STRING | MOON_TYPE_TABLE,
     .table = &addresses_schema,
     .expected =
         "an IP address such as \"0.0.0.0\", \"unix:/run/gateway.sock\", or a list of them"},
    {.name = "protocol",
     .types = MOON_TYPE_STRING,
     .choices = moon_protocol_choices,
     .expected = "\"http\", \"https\", \"tls\", \"tcp\" or \"udp\""},
    {.name = "detect", .types = MOON_TYPE_BOOL, .expected = "true or false"},
    {.name = "name", .types = MOON_TYPE_STRING, .expected = "a name"},
    {.name = "hostname",
     .types = MOON_TYPE_STRING,
     .expected = "a host such as \"api.example.com\" or \"*.example.com\""},
    {.name = "proxy_protocol",
     .types = MOON_TYPE_TABLE,
     .table = &moon_front_proxy_schema,
     .expected = "{ trusted = { \"10.0.0.0/8\" } }"},
    {.name = "limits",
     .types = MOON_TYPE_TABLE,
     .table = &moon_front_limits_schema,
     .expected = "{ connections = 10000, per_client = 100 }"},
    {.name = "mode",
     .types = MOON_TYPE_STRING,
     .expected = "the mode of the file of a unix socket, \"0660\""},
    {.name = "transparent",
     .types = MOON_TYPE_STRING,
     .choices = moon_transparent_choices,
     .expected = "\"redirect\" or \"tproxy\""},
    {.name = "tls",
     .types = MOON_TYPE_TABLE,
     .table = &moon_listener_tls_schema,
     .expected = "{ certificates = { { cert = \"site.crt\", key = \"site.key\" } } }"},
    {.name = NULL},
};
static const struct moon_schema listener_schema = {listener_keys, NULL, NULL};

static void hosts_fini(struct moon_bind_hosts *hosts)
{
    moon_index_free(hosts->index);
    free(hosts->matches);
}

static void listeners_unref(void *part)
{
    struct moon_listeners *all = part;
    if (!all)
        return;
    for (size_t i = 0; i < all->count; i++) {
        free((void *)all->listeners[i].name);
        free((void *)all->listeners[i].hostname.ptr);
        free((void *)all->listeners[i].place.file);
        moon_front_fini(&all->listeners[i].front);
        moon_tls_terms_unref(all->listeners[i].tls);
    }
    for (size_t i = 0; i < all->bind_count; i++) {
        hosts_fini(&all->binds[i].plain);
        hosts_fini(&all->binds[i].secure);
        moon_host_table_free(all->binds[i].names);
        moon_tls_server_free(all->binds[i].tls);
        free(all->binds[i].members);
        free((void *)all->binds[i].path);
    }
    free(all->listeners);
    free(all->binds);
    free(all);
}

// ---- reading one

struct reading {
    const struct moon_compile *compile;
    const struct moon_object *object;
    const char *title;
    struct moon_listeners *all;
    struct moon_listener *listener;
    int index;
};

static bool read_hostname(const struct reading *at)
{
    const struct moon_value *value = moon_value_get(&at->object->value, "hostname");
    const char *hint = value ? moon_host_hint(value->string) : NULL;
    if (hint) {
        moon_report_addf(at->compile->report, at->object->place, at->title, "hostname", hint,
                         "found \"%.*s\", which is not a host to match",
                         MOON_SLICE_ARG(value->string));
        return false;
    }
    if (!value)
        return true;
    struct moon_slice bare = moon_host_bare(value->string);
    char *copy = moon_slice_dup(bare);
    for (size_t i = 0; i < bare.len; i++)
        if (copy[i] >= 'A' && copy[i] <= 'Z')
            copy[i] |= 0x20;
    at->listener->hostname = (struct moon_slice){copy, bare.len};
    return true;
}

// Routes name listeners: a name says which.
static bool read_name(const struct reading *at)
{
    struct moon_slice name = moon_value_string(&at->object->value, "name", MOON_SLICE(""));
    at->listener->is_named = name.len != 0;
    struct moon_slice protocol =
        moon_value_string(&at->object->value, "protocol", MOON_SLICE("http"));
    struct moon_slice text = name.len ? name : protocol;
    at->listener->name = moon_slice_dup(text);
    for (int i = 0; name.len && i < at->index; i++) {
        const struct moon_listener *other = &at->all->listeners[i];
        if (!other->is_named || strcmp(other->name, at->listener->name) != 0)
            continue;
        moon_report_addf(at->compile->report, at->object->place, at->title, "name",
                         "names are unique", "\"%s\" is the name of the listener in line %u",
                         other->name, other->place.line);
        return false;
    }
    return true;
}

// ---- where it is bound

static bool is_any(const struct moon_address *address)
{
    static const uint8_t zeros[16] = {0};
    return memcmp(address->ip, zeros, address->family == MOON_FAMILY_IPV4 ? 4 : 16) == 0;
}

// One takes connections that are the other's as well: "::" takes IPv4, too.
static bool overlaps(const struct moon_address *a, const struct moon_address *b)
{
    return a->port == b->port &&
           ((is_any(a) && a->family >= b->family) || (is_any(b) && b->family >= a->family));
}

static bool is_datagram(const struct reading *at, const struct moon_bind *bind)
{
    return moon_bind_front(at->all, bind)->protocol == MOON_PROTOCOL_UDP;
}

// Ports of TCP and of UDP are apart.
static bool has_transport(const struct reading *at, const struct moon_bind *bind)
{
    return is_datagram(at, bind) == (at->listener->front.protocol == MOON_PROTOCOL_UDP);
}

void moon_bind_format(const struct moon_bind *bind, const struct moon_address *address,
                      char out[static MOON_BIND_TEXT_LEN])
{
    if (bind->path)
        snprintf(out, MOON_BIND_TEXT_LEN, "unix:%s", bind->path);
    else
        moon_address_format(address, out);
}

static bool tell_overlap(const struct reading *at, const char *path,
                         const struct moon_address *address, const struct moon_bind *bind)
{
    char text[MOON_ADDRESS_TEXT_LEN], other[MOON_ADDRESS_TEXT_LEN];
    moon_address_format(address, text);
    moon_address_format(&bind->address, other);
    moon_report_addf(at->compile->report, at->object->place, at->title, path,
                     "give listeners of one port the same address, and tell them apart by hostname",
                     "%s and %s of line %u take the same connections", text, other,
                     at->all->listeners[bind->members[0]].place.line);
    return false;
}

static bool tell_conflict(const struct reading *at, const struct moon_listener *other,
                          const struct moon_bind *bind)
{
    char text[MOON_BIND_TEXT_LEN];
    struct moon_slice hostname = at->listener->hostname;
    const char *star = hostname.len && hostname.ptr[0] == '.' ? "*" : "";
    moon_bind_format(bind, &bind->address, text);
    if (hostname.len)
        moon_report_addf(at->compile->report, at->object->place, at->title, "hostname",
                         "listeners of one port differ by hostname",
                         "the listener of line %u has \"%s%.*s\" on %s already", other->place.line,
                         star, MOON_SLICE_ARG(hostname), text);
    else
        moon_report_addf(
            at->compile->report, at->object->place, at->title, bind->path ? "address" : "port",
            other->front.protocol != MOON_PROTOCOL_TCP && other->front.protocol != MOON_PROTOCOL_UDP
                ? "give one of them a hostname, or another port"
                : "give one of them another port",
            "%s is taken by the listener of line %u", text, other->place.line);
    return false;
}

static bool tell_difference(const struct reading *at, const struct moon_listener *other,
                            const char *key)
{
    char hint[128];
    bool is_protocol = strcmp(key, "protocol") == 0;
    snprintf(hint, sizeof hint, "listeners of one port have one %s%s", key,
             is_protocol ? ", unless all of them have detect = true" : "");
    moon_report_addf(at->compile->report, at->object->place, at->title, key, hint,
                     "the listener of line %u has another on this port", other->place.line);
    return false;
}

// Hostnames tell them apart.
static bool share_hosts(enum moon_protocol a, enum moon_protocol b)
{
    return a == b || (moon_protocol_is_tls(a) && moon_protocol_is_tls(b));
}

static bool may_join(const struct reading *at, const struct moon_bind *bind)
{
    const struct moon_listener *first = &at->all->listeners[bind->members[0]];
    const char *key = moon_front_difference(at->compile->objects[bind->members[0]], at->object);
    if (key)
        return tell_difference(at, first, key);
    for (uint32_t i = 0; i < bind->member_count; i++) {
        const struct moon_listener *other = &at->all->listeners[bind->members[i]];
        if (share_hosts(other->front.protocol, at->listener->front.protocol) &&
            moon_slice_equal(other->hostname, at->listener->hostname))
            return tell_conflict(at, other, bind);
    }
    return true;
}

static bool join(const struct reading *at, struct moon_bind *bind)
{
    if (bind->member_count && !may_join(at, bind))
        return false;
    bind->members = realloc(bind->members, (bind->member_count + 1) * sizeof *bind->members);
    if (!bind->members)
        abort();
    bind->members[bind->member_count++] = at->index;
    bind->protocols |= 1u << at->listener->front.protocol;
    return true;
}

static struct moon_bind *add_bind(const struct reading *at)
{
    struct moon_bind *binds =
        realloc(at->all->binds, (at->all->bind_count + 1) * sizeof *at->all->binds);
    if (!binds)
        abort();
    at->all->binds = binds;
    binds[at->all->bind_count] =
        (struct moon_bind){.plain.only = -1, .secure.only = -1, .opaque = -1};
    return &binds[at->all->bind_count++];
}

static bool read_unix(const struct reading *at, const char *key, struct moon_slice path)
{
    enum { PATH_MAX_LEN = 107 };
    if (path.len < 2 || path.len > PATH_MAX_LEN || path.ptr[0] != '/' ||
        at->listener->front.protocol == MOON_PROTOCOL_UDP) {
        moon_report_addf(at->compile->report, at->object->place, at->title, key,
                         "an absolute path of at most 107 bytes, and not with protocol = \"udp\"",
                         "not a path for a socket: \"%.*s\"", MOON_SLICE_ARG(path));
        return false;
    }
    for (size_t i = 0; i < at->all->bind_count; i++) {
        struct moon_bind *bind = &at->all->binds[i];
        if (bind->path && moon_slice_equal(moon_slice_from(bind->path), path))
            return join(at, bind);
    }
    struct moon_bind *bind = add_bind(at);
    bind->path = moon_slice_dup(path);
    return join(at, bind);
}

static bool tell_no_port(const struct reading *at)
{
    moon_report_addf(at->compile->report, at->object->place, at->title, "port",
                     "expected a port, 1 to 65535 (0: any free one)", "missing");
    return false;
}

static bool read_address(const struct reading *at, const char *path, struct moon_slice text)
{
    static const struct moon_slice local = MOON_SLICE("unix:");
    struct moon_address address;
    uint16_t port = (uint16_t)moon_value_number(&at->object->value, "port", 0);
    if (moon_slice_starts(text, local))
        return read_unix(at, path, moon_slice_skip(text, local.len));
    if (!moon_value_get(&at->object->value, "port"))
        return tell_no_port(at);
    if (!moon_address_parse_ip(text, port, &address)) {
        moon_report_addf(at->compile->report, at->object->place, at->title, path,
                         "an IP address such as \"0.0.0.0\" or \"::1\"", "not an address: \"%.*s\"",
                         MOON_SLICE_ARG(text));
        return false;
    }
    for (size_t i = 0; port && i < at->all->bind_count; i++) {
        struct moon_bind *bind = &at->all->binds[i];
        if (bind->path || !has_transport(at, bind))
            continue;
        if (moon_address_equal(&bind->address, &address))
            return join(at, bind);
        if (overlaps(&bind->address, &address))
            return tell_overlap(at, path, &address, bind);
    }
    struct moon_bind *bind = add_bind(at);
    bind->address = address;
    return join(at, bind);
}

static bool read_addresses(const struct reading *at)
{
    const struct moon_value *value = moon_value_get(&at->object->value, "address");
    bool is_fine = true;
    char path[32];
    if (!value || value->kind == MOON_VALUE_STRING)
        return read_address(at, "address", value ? value->string : MOON_SLICE("0.0.0.0"));
    if (value->table.item_count == 0) {
        moon_report_addf(at->compile->report, at->object->place, at->title, "address",
                         "leave it out to take every IPv4 address",
                         "an empty list takes no connection");
        return false;
    }
    for (uint32_t i = 0; i < value->table.item_count; i++) {
        snprintf(path, sizeof path, "address[%u]", i + 1);
        is_fine = read_address(at, path, value->table.items[i].string) && is_fine;
    }
    return is_fine;
}

static bool read_protocol(const struct reading *at)
{
    const struct moon_value *tls = moon_value_get(&at->object->value, "tls");
    struct moon_listener *listener = at->listener;
    bool is_secure = moon_protocol_is_tls(listener->front.protocol);
    bool is_https = listener->front.protocol == MOON_PROTOCOL_HTTPS;
    listener->sends_client_cert = moon_value_bool(moon_value_get(tls, "client"), "header", false);
    if (is_secure && tls)
        return moon_listener_tls_read(at->compile, at->object, listener);
    if (!is_secure && !tls)
        return true;
    moon_report_addf(
        at->compile->report, at->object->place, at->title, "tls",
        tls        ? "add protocol = \"https\""
        : is_https ? "tls = { certificates = { { cert = \"site.crt\", key = \"site.key\" } } }"
                   : "tls = { mode = \"passthrough\" }, or certificates to end TLS here",
        tls        ? "only a listener with protocol = \"https\" or \"tls\" has certificates"
        : is_https ? "missing: protocol = \"https\" needs a certificate"
                   : "missing: protocol = \"tls\" needs a mode");
    return false;
}

static bool compile_one(struct reading *at)
{
    at->listener->place = at->object->place;
    at->listener->place.file = at->object->place.file ? strdup(at->object->place.file) : NULL;
    at->listener->is_lenient = at->object->is_lenient;
    at->all->count++;
    bool is_fine = read_name(at);
    is_fine = moon_front_read(at->compile, at->object, &at->listener->front) && is_fine;
    return read_hostname(at) && read_protocol(at) && read_addresses(at) && is_fine;
}

// ---- all of them

// A match for each hostname of the members with that protocol: of every path, its index that of the listener.
static void index_hosts(const struct moon_listeners *all, const struct moon_bind *bind,
                        enum moon_protocol protocol, struct moon_bind_hosts *out)
{
    size_t count = 0;
    if (!moon_bind_speaks(bind, protocol))
        return;
    out->matches = calloc(bind->member_count, sizeof *out->matches);
    if (!out->matches)
        abort();
    for (uint32_t i = 0; i < bind->member_count; i++) {
        const struct moon_listener *listener = &all->listeners[bind->members[i]];
        if (listener->front.protocol != protocol)
            continue;
        out->only = bind->members[i];
        out->matches[count++] = (struct moon_match){.path = MOON_SLICE(""),
                                                    .hosts = &listener->hostname,
                                                    .host_count = listener->hostname.len ? 1 : 0,
                                                    .kind = MOON_PATH_PREFIX,
                                                    .index = bind->members[i]};
    }
    if (count > 1 || all->listeners[out->only].hostname.len)
        out->index = moon_index_new(out->matches, count, false);
}

static void index_names(const struct moon_listeners *all, struct moon_bind *bind)
{
    struct moon_host_entry *entries = calloc(bind->member_count, sizeof *entries);
    size_t count = 0;
    if (!entries)
        abort();
    for (uint32_t i = 0; i < bind->member_count; i++) {
        const struct moon_listener *listener = &all->listeners[bind->members[i]];
        if (moon_protocol_is_tls(listener->front.protocol))
            entries[count++] = (struct moon_host_entry){listener->hostname, bind->members[i]};
        if (listener->front.protocol == MOON_PROTOCOL_TCP)
            bind->opaque = bind->members[i];
    }
    if (count)
        bind->names = moon_host_table_new(entries, count);
    free(entries);
}

// One for the port, with the terms of its members that end TLS, in their order.
static bool make_server(const struct moon_compile *compile, const struct moon_listeners *all,
                        struct moon_bind *bind)
{
    struct moon_tls_terms **terms = calloc(bind->member_count, sizeof *terms);
    size_t count = 0;
    if (!terms)
        abort();
    for (uint32_t i = 0; i < bind->member_count; i++)
        if (all->listeners[bind->members[i]].tls)
            terms[count++] = all->listeners[bind->members[i]].tls;
    if (count)
        bind->tls =
            moon_tls_server_new((struct moon_tls_hub *)compile->section->registry, terms, count);
    free((void *)terms);
    if (bind->tls || !count)
        return true;
    moon_report_addf(compile->report, all->listeners[bind->members[0]].place, "listener", "tls",
                     NULL, "OpenSSL refuses these settings together");
    return false;
}

static int listeners_compile(const struct moon_compile *compile, void **part)
{
    struct moon_listeners *all = calloc(1, sizeof *all);
    bool is_fine = true;
    if (!all)
        abort();
    all->listeners = calloc(compile->object_count + 1, sizeof *all->listeners);
    if (!all->listeners)
        abort();
    for (size_t i = 0; i < compile->object_count; i++) {
        const struct moon_object *object = compile->objects[i];
        struct reading at = {
            compile, object, moon_object_title(compile->model, object), all, &all->listeners[i],
            (int)i};
        is_fine = compile_one(&at) && is_fine;
    }
    if (is_fine && all->count == 0) {
        moon_report_addf(compile->report, (struct moon_place){NULL, 0}, NULL, NULL,
                         "add moongate.listener { port = 8080 }", "there is no listener");
        is_fine = false;
    }
    for (size_t i = 0; i < all->bind_count && is_fine; i++)
        is_fine = make_server(compile, all, &all->binds[i]);
    if (!is_fine) {
        listeners_unref(all);
        return MOON_ECONFIG;
    }
    for (size_t i = 0; i < all->bind_count; i++) {
        index_hosts(all, &all->binds[i], MOON_PROTOCOL_HTTP, &all->binds[i].plain);
        index_hosts(all, &all->binds[i], MOON_PROTOCOL_HTTPS, &all->binds[i].secure);
        index_names(all, &all->binds[i]);
    }
    *part = all;
    return 0;
}

// They are made of the listeners alone, and of files.
static bool listeners_are_same(const struct moon_snapshot *before, const struct moon_snapshot *now)
{
    (void)now;
    const struct moon_listeners *all = moon_snapshot_listeners(before);
    for (size_t i = 0; i < all->count; i++)
        if (all->listeners[i].tls && !moon_tls_terms_are_fresh(all->listeners[i].tls))
            return false;
    return true;
}

const struct moon_section moon_listener_section = {
    .name = "listeners",
    .kind = "listener",
    .schema = &listener_schema,
    .is_same = listeners_are_same,
    .compile = listeners_compile,
    .unref = listeners_unref,
};

const struct moon_listeners *moon_snapshot_listeners(const struct moon_snapshot *snapshot)
{
    return moon_snapshot_part(snapshot, moon_listener_section.name);
}

int moon_listeners_find(const struct moon_listeners *all, uint32_t bind, bool is_secure,
                        const struct moon_head *head, struct moon_route_scratch *scratch)
{
    const struct moon_bind_hosts *hosts =
        is_secure ? &all->binds[bind].secure : &all->binds[bind].plain;
    return hosts->index ? moon_index_find(hosts->index, head, scratch) : hosts->only;
}

int moon_listeners_find_name(const struct moon_listeners *all, uint32_t bind, struct moon_slice sni)
{
    return moon_host_table_find(all->binds[bind].names, sni);
}

int moon_bind_ender(const struct moon_listeners *all, const struct moon_bind *bind, size_t terms)
{
    uint32_t i = 0;
    while (!all->listeners[bind->members[i]].tls || terms-- > 0)
        i++;
    return bind->members[i];
}

bool moon_listeners_is_elsewhere(const struct moon_listeners *all, uint32_t bind,
                                 const struct moon_head *head)
{
    enum { NAME_MAX_LEN = 255 };
    struct moon_slice host = head->host.host;
    char name[NAME_MAX_LEN];
    if (!moon_bind_speaks(&all->binds[bind], MOON_PROTOCOL_TLS) || host.len > sizeof name)
        return false;
    for (size_t i = 0; i < host.len; i++)
        name[i] =
            host.ptr[i] >= 'A' && host.ptr[i] <= 'Z' ? (char)(host.ptr[i] | 0x20) : host.ptr[i];
    host.ptr = name;
    host.len -= host.len && name[host.len - 1] == '.';
    int listener = moon_listeners_find_name(all, bind, host);
    return listener >= 0 && all->listeners[listener].front.protocol == MOON_PROTOCOL_TLS;
}

bool moon_listener_takes(const struct moon_listener *listener, const uint8_t *id, bool is_verified,
                         struct moon_slice sni)
{
    if (!listener->tls || memcmp(id, moon_tls_terms_id(listener->tls), MOON_TLS_ID_LEN) == 0)
        return true;
    return sni.len == 0 && !is_verified && !moon_tls_terms_verify(listener->tls);
}

char *moon_bind_names(const struct moon_listeners *all, const struct moon_bind *bind)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    if (!out)
        abort();
    for (uint32_t i = 0; i < bind->member_count; i++)
        fprintf(out, "%s%s", i ? ", " : "", all->listeners[bind->members[i]].name);
    if (fclose(out) != 0)
        abort();
    return text;
}
