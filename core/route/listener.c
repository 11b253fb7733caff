// See listener.h. Compiles moongate.listener { ... }. Which member of a bind takes a host is asked of an index of routes whose
// only matches are hostnames: the precedence is the same.
#include "route/listener.h"

#include "base/err.h"
#include "http/head.h"
#include "io/tls.h"
#include "route/host.h"
#include "route/index.h"
#include "route/listener_tls.h"
#include "route/match.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const protocol_choices[] = {"http", "https", NULL};

static const struct moon_schema_key no_keys[] = {{.name = NULL}};
static const struct moon_schema_key address_item = {
    .types = MOON_TYPE_STRING, .expected = "an IP address such as \"0.0.0.0\""};
static const struct moon_schema addresses_schema = {no_keys, &address_item, NULL};

static const struct moon_schema_key listener_keys[] = {
    {.name = "port",
     .types = MOON_TYPE_NUMBER,
     .is_required = true,
     .is_integer = true,
     .min = 0,
     .max = 65535,
     .expected = "a port, 1 to 65535 (0: any free one)"},
    {.name = "address",
     .types = MOON_TYPE_STRING | MOON_TYPE_TABLE,
     .table = &addresses_schema,
     .expected = "an IP address such as \"0.0.0.0\", or a list of them"},
    {.name = "protocol",
     .types = MOON_TYPE_STRING,
     .choices = protocol_choices,
     .expected = "\"http\" or \"https\""},
    {.name = "name", .types = MOON_TYPE_STRING, .expected = "a name"},
    {.name = "hostname",
     .types = MOON_TYPE_STRING,
     .expected = "a host such as \"api.example.com\" or \"*.example.com\""},
    {.name = "tls",
     .types = MOON_TYPE_TABLE,
     .table = &moon_listener_tls_schema,
     .expected = "{ certificates = { { cert = \"site.crt\", key = \"site.key\" } } }"},
    {.name = NULL},
};
static const struct moon_schema listener_schema = {listener_keys, NULL, NULL};

static void listeners_unref(void *part)
{
    struct moon_listeners *all = part;
    if (!all)
        return;
    for (size_t i = 0; i < all->count; i++) {
        free((void *)all->listeners[i].name);
        free((void *)all->listeners[i].hostname.ptr);
        free((void *)all->listeners[i].place.file);
        moon_tls_terms_unref(all->listeners[i].tls);
    }
    for (size_t i = 0; i < all->bind_count; i++) {
        moon_index_free(all->binds[i].index);
        moon_tls_server_free(all->binds[i].tls);
        free(all->binds[i].hosts);
        free(all->binds[i].members);
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
    char *copy = strndup(bare.ptr, bare.len);
    for (size_t i = 0; i < bare.len; i++)
        if (copy[i] >= 'A' && copy[i] <= 'Z')
            copy[i] |= 0x20;
    at->listener->hostname = (struct moon_slice){copy, bare.len};
    return true;
}

static bool is_secure(const struct moon_object *object)
{
    return moon_slice_equal(moon_value_string(&object->value, "protocol", MOON_SLICE("")),
                            MOON_SLICE("https"));
}

// Routes name listeners: a name says which.
static bool read_name(const struct reading *at)
{
    struct moon_slice name = moon_value_string(&at->object->value, "name", MOON_SLICE(""));
    at->listener->is_named = name.len != 0;
    struct moon_slice protocol =
        moon_value_string(&at->object->value, "protocol", MOON_SLICE("http"));
    struct moon_slice text = name.len ? name : protocol;
    at->listener->name = strndup(text.ptr, text.len);
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
    char text[MOON_ADDRESS_TEXT_LEN];
    struct moon_slice hostname = at->listener->hostname;
    const char *star = hostname.len && hostname.ptr[0] == '.' ? "*" : "";
    moon_address_format(&bind->address, text);
    if (hostname.len)
        moon_report_addf(at->compile->report, at->object->place, at->title, "hostname",
                         "listeners of one port differ by hostname",
                         "the listener of line %u has \"%s%.*s\" on %s already", other->place.line,
                         star, MOON_SLICE_ARG(hostname), text);
    else
        moon_report_addf(at->compile->report, at->object->place, at->title, "port",
                         "give one of them a hostname, or another port",
                         "%s is taken by the listener of line %u", text, other->place.line);
    return false;
}

static bool tell_protocol(const struct reading *at, const struct moon_listener *other)
{
    moon_report_addf(at->compile->report, at->object->place, at->title, "protocol",
                     "listeners of one port have one protocol",
                     "the listener of line %u has another on this port", other->place.line);
    return false;
}

static bool may_join(const struct reading *at, const struct moon_bind *bind)
{
    const struct moon_listener *first = &at->all->listeners[bind->members[0]];
    if (first->is_secure != at->listener->is_secure)
        return tell_protocol(at, first);
    for (uint32_t i = 0; i < bind->member_count; i++) {
        const struct moon_listener *other = &at->all->listeners[bind->members[i]];
        if (moon_slice_equal(other->hostname, at->listener->hostname))
            return tell_conflict(at, other, bind);
    }
    return true;
}

static void join(const struct reading *at, struct moon_bind *bind)
{
    bind->members = realloc(bind->members, (bind->member_count + 1) * sizeof *bind->members);
    if (!bind->members)
        abort();
    bind->members[bind->member_count++] = at->index;
}

static bool read_address(const struct reading *at, const char *path, struct moon_slice text)
{
    struct moon_address address;
    uint16_t port = (uint16_t)moon_value_number(&at->object->value, "port", 0);
    if (!moon_address_parse_ip(text, port, &address)) {
        moon_report_addf(at->compile->report, at->object->place, at->title, path,
                         "an IP address such as \"0.0.0.0\" or \"::1\"", "not an address: \"%.*s\"",
                         MOON_SLICE_ARG(text));
        return false;
    }
    for (size_t i = 0; port && i < at->all->bind_count; i++) {
        struct moon_bind *bind = &at->all->binds[i];
        if (moon_address_equal(&bind->address, &address)) {
            if (!may_join(at, bind))
                return false;
            join(at, bind);
            return true;
        }
        if (overlaps(&bind->address, &address))
            return tell_overlap(at, path, &address, bind);
    }
    struct moon_bind *binds =
        realloc(at->all->binds, (at->all->bind_count + 1) * sizeof *at->all->binds);
    if (!binds)
        abort();
    at->all->binds = binds;
    binds[at->all->bind_count] = (struct moon_bind){.address = address};
    join(at, &binds[at->all->bind_count++]);
    return true;
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
    at->listener->is_secure = is_secure(at->object);
    at->listener->sends_client_cert =
        moon_value_bool(moon_value_get(tls, "client"), "header", false);
    if (at->listener->is_secure && tls)
        return moon_listener_tls_read(at->compile, at->object, at->listener->hostname,
                                      &at->listener->tls);
    if (!at->listener->is_secure && !tls)
        return true;
    moon_report_addf(
        at->compile->report, at->object->place, at->title, "tls",
        tls ? "add protocol = \"https\""
            : "tls = { certificates = { { cert = \"site.crt\", key = \"site.key\" } } }",
        tls ? "only a listener with protocol = \"https\" has certificates"
            : "missing: protocol = \"https\" needs a certificate");
    return false;
}

static bool compile_one(struct reading *at)
{
    at->listener->place = at->object->place;
    at->listener->place.file = at->object->place.file ? strdup(at->object->place.file) : NULL;
    at->all->count++;
    bool is_fine = read_name(at);
    return read_hostname(at) && read_protocol(at) && read_addresses(at) && is_fine;
}

// ---- all of them

// A match for each hostname: of every path, its index that of the listener.
static void index_hosts(struct moon_listeners *all, struct moon_bind *bind)
{
    if (bind->member_count == 1 && all->listeners[bind->members[0]].hostname.len == 0)
        return;
    bind->hosts = calloc(bind->member_count, sizeof *bind->hosts);
    if (!bind->hosts)
        abort();
    for (uint32_t i = 0; i < bind->member_count; i++) {
        const struct moon_listener *listener = &all->listeners[bind->members[i]];
        bind->hosts[i] = (struct moon_match){.path = MOON_SLICE(""),
                                             .hosts = &listener->hostname,
                                             .host_count = listener->hostname.len ? 1 : 0,
                                             .kind = MOON_PATH_PREFIX,
                                             .index = bind->members[i]};
    }
    bind->index = moon_index_new(bind->hosts, bind->member_count);
}

// One for the port, with the terms of its members in their order.
static bool make_server(const struct moon_compile *compile, const struct moon_listeners *all,
                        struct moon_bind *bind)
{
    struct moon_tls_terms **terms = calloc(bind->member_count, sizeof *terms);
    const struct moon_listener *first = &all->listeners[bind->members[0]];
    if (!terms)
        abort();
    for (uint32_t i = 0; i < bind->member_count; i++)
        terms[i] = all->listeners[bind->members[i]].tls;
    if (first->tls)
        bind->tls = moon_tls_server_new((struct moon_tls_hub *)compile->section->registry, terms,
                                        bind->member_count);
    free((void *)terms);
    if (bind->tls || !first->tls)
        return true;
    moon_report_addf(compile->report, first->place, "listener", "tls", NULL,
                     "OpenSSL refuses these settings together");
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
    for (size_t i = 0; i < all->bind_count; i++)
        index_hosts(all, &all->binds[i]);
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

int moon_listeners_find(const struct moon_listeners *all, uint32_t bind,
                        const struct moon_head *head, struct moon_route_scratch *scratch)
{
    const struct moon_bind *at = &all->binds[bind];
    return at->index ? moon_index_find(at->index, head, scratch) : at->members[0];
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
