// See front.h.
#include "route/front.h"

#include <stdio.h>
#include <stdlib.h>

const char *const moon_protocol_choices[] = {"http", "https", "tcp", "udp", "tls", NULL};
const char *const moon_transparent_choices[] = {"redirect", "tproxy", NULL};

static const struct moon_schema_key no_keys[] = {{.name = NULL}};
static const struct moon_schema_key network_item = {
    .types = MOON_TYPE_STRING, .expected = "a network such as \"10.0.0.0/8\", or an address"};
static const struct moon_schema networks_schema = {no_keys, &network_item, NULL};
static const struct moon_schema_key proxy_keys[] = {
    {.name = "trusted",
     .types = MOON_TYPE_TABLE,
     .is_required = true,
     .table = &networks_schema,
     .expected = "a list of the networks of the proxies in front, { \"10.0.0.0/8\" }"},
    {.name = NULL},
};
const struct moon_schema moon_front_proxy_schema = {proxy_keys, NULL, NULL};

#define COUNT(key)                                                                             \
    {                                                                                          \
        .name = key, .types = MOON_TYPE_NUMBER, .is_integer = true, .min = 1, .max = 10000000, \
        .expected = "a count, 1 to 10000000"                                                   \
    }
static const struct moon_schema_key limit_keys[] = {COUNT("connections"),
                                                    COUNT("per_client"),
                                                    COUNT("handshakes"),
                                                    COUNT("handshakes_per_client"),
                                                    {.name = NULL}};
const struct moon_schema moon_front_limits_schema = {limit_keys, NULL, NULL};

enum { MODE_DEFAULT = 0600, MODE_MAX = 0777 };

struct reading {
    const struct moon_compile *compile;
    const struct moon_object *object;
    struct moon_front *front;
};

static bool tell(const struct reading *at, const char *path, const char *hint, const char *message,
                 struct moon_slice found)
{
    moon_report_addf(at->compile->report, at->object->place,
                     moon_object_title(at->compile->model, at->object), path, hint, "%s \"%.*s\"",
                     message, MOON_SLICE_ARG(found));
    return false;
}

const char *moon_protocol_name(enum moon_protocol protocol)
{
    return moon_protocol_choices[protocol];
}

static enum moon_protocol protocol_of(const struct moon_object *object)
{
    struct moon_slice name = moon_value_string(&object->value, "protocol", MOON_SLICE("http"));
    for (int i = MOON_PROTOCOL_HTTP; moon_protocol_choices[i]; i++)
        if (moon_slice_equal(name, moon_slice_from(moon_protocol_choices[i])))
            return (enum moon_protocol)i;
    return MOON_PROTOCOL_HTTP;
}

// What has no meaning without requests.
static bool check_protocol(const struct reading *at)
{
    static const char *const requests[] = {"hostname", "plugins", NULL};
    struct moon_slice name = moon_slice_from(moon_protocol_name(at->front->protocol));
    bool is_fine = true;
    if (moon_protocol_is_http(at->front->protocol))
        return true;
    for (const char *const *key = requests; *key; key++)
        if (moon_value_get(&at->object->value, *key) &&
            !(at->front->protocol == MOON_PROTOCOL_TLS && key == requests)) // SNI has hosts
            is_fine =
                tell(at, *key, "bytes pass as they are: remove it", "has no meaning with", name);
    if (at->front->protocol == MOON_PROTOCOL_UDP && at->front->has_proxy_header)
        is_fine = tell(at, "proxy_protocol", "it is for connections: remove it",
                       "has no meaning with", name);
    if (at->front->protocol == MOON_PROTOCOL_UDP && at->front->detects)
        is_fine =
            tell(at, "detect", "it is for connections: remove it", "has no meaning with", name);
    if (!moon_value_get(&at->object->value, "name"))
        is_fine = tell(at, "name", "give it a name, and name it in `listeners` of a route",
                       "missing: only a route that names it serves a listener with", name);
    return is_fine;
}

static bool read_transparent(const struct reading *at)
{
    struct moon_slice kind = moon_value_string(&at->object->value, "transparent", MOON_SLICE(""));
    if (kind.len == 0)
        return true;
    at->front->transparent = moon_slice_equal(kind, MOON_SLICE("tproxy"))
                                 ? MOON_TRANSPARENT_TPROXY
                                 : MOON_TRANSPARENT_REDIRECT;
    if (at->front->protocol == MOON_PROTOCOL_UDP)
        return tell(at, "transparent", "it is for connections: remove it", "has no meaning with",
                    MOON_SLICE("udp"));
    if (at->front->has_proxy_header)
        return tell(at, "transparent",
                    "a PROXY header says where the client meant to go: remove it",
                    "has no meaning with", MOON_SLICE("proxy_protocol"));
    return true;
}

static bool read_limits(const struct reading *at)
{
    const struct moon_value *limits = moon_value_get(&at->object->value, "limits");
    struct moon_front *front = at->front;
    front->limits.connections = (uint32_t)moon_value_number(limits, "connections", 0);
    front->limits.per_client = (uint32_t)moon_value_number(limits, "per_client", 0);
    front->limits.handshakes = (uint32_t)moon_value_number(limits, "handshakes", 0);
    front->limits.handshakes_per_client =
        (uint32_t)moon_value_number(limits, "handshakes_per_client", 0);
    bool is_of_tls = front->limits.handshakes || front->limits.handshakes_per_client;
    if (!is_of_tls || moon_value_get(&at->object->value, "tls"))
        return true;
    return tell(at, front->limits.handshakes ? "limits.handshakes" : "limits.handshakes_per_client",
                "remove it, or give the listener `tls`", "has no meaning with protocol",
                moon_slice_from(moon_protocol_name(front->protocol)));
}

static bool read_trusted(const struct reading *at)
{
    const struct moon_value *proxy = moon_value_get(&at->object->value, "proxy_protocol");
    const struct moon_value *list = moon_value_get(proxy, "trusted");
    bool is_fine = true;
    char path[48];
    if (!list)
        return true;
    at->front->has_proxy_header = true;
    at->front->trusted = calloc(list->table.item_count + 1, sizeof *at->front->trusted);
    if (!at->front->trusted)
        abort();
    for (uint32_t i = 0; i < list->table.item_count; i++) {
        struct moon_slice text = list->table.items[i].string;
        snprintf(path, sizeof path, "proxy_protocol.trusted[%u]", i + 1);
        if (!moon_network_parse(text, &at->front->trusted[at->front->trusted_count++]))
            is_fine = tell(at, path, "a network such as \"10.0.0.0/8\", an address, or \"unix:\"",
                           "not a network:", text);
    }
    if (list->table.item_count == 0)
        is_fine = tell(at, "proxy_protocol.trusted", "name the networks of the proxies in front",
                       "nobody may connect with", MOON_SLICE("{}"));
    return is_fine;
}

static bool read_mode(const struct reading *at)
{
    struct moon_slice text = moon_value_string(&at->object->value, "mode", MOON_SLICE("0600"));
    uint32_t mode = 0;
    bool is_octal = text.len > 0 && text.len <= 4;
    for (size_t i = 0; i < text.len && is_octal; i++) {
        is_octal = text.ptr[i] >= '0' && text.ptr[i] <= '7';
        mode = mode * 8 + (uint32_t)(text.ptr[i] - '0');
    }
    at->front->mode = mode;
    return is_octal && mode <= MODE_MAX
               ? true
               : tell(at, "mode", "in octal, as for chmod: \"0660\"", "not a mode:", text);
}

bool moon_front_read(const struct moon_compile *compile, const struct moon_object *object,
                     struct moon_front *out)
{
    struct reading at = {compile, object, out};
    *out = (struct moon_front){.protocol = protocol_of(object), .mode = MODE_DEFAULT};
    out->detects = moon_value_bool(&object->value, "detect", false);
    bool is_fine = read_trusted(&at);
    is_fine = read_limits(&at) && is_fine;
    is_fine = read_mode(&at) && is_fine;
    is_fine = read_transparent(&at) && is_fine;
    return check_protocol(&at) && is_fine;
}

void moon_front_fini(struct moon_front *front)
{
    free(front->trusted);
    front->trusted = NULL;
}

static bool is_same_value(const struct moon_value *a, const struct moon_value *b)
{
    return a && b ? moon_value_equal(a, b) : a == b;
}

// Listeners with these protocols may have one port.
static bool may_meet(enum moon_protocol a, enum moon_protocol b, bool detects)
{
    return a == b || detects || (moon_protocol_is_tls(a) && moon_protocol_is_tls(b));
}

const char *moon_front_difference(const struct moon_object *a, const struct moon_object *b)
{
    static const char *const keys[] = {"detect", "proxy_protocol", "limits",
                                       "mode",   "transparent",    NULL};
    if (!may_meet(protocol_of(a), protocol_of(b), moon_value_bool(&a->value, "detect", false)))
        return "protocol";
    for (const char *const *key = keys; *key; key++)
        if (!is_same_value(moon_value_get(&a->value, *key), moon_value_get(&b->value, *key)))
            return *key;
    return NULL;
}

bool moon_front_trusts(const struct moon_front *front, const struct moon_address *peer)
{
    for (uint32_t i = 0; i < front->trusted_count; i++)
        if (moon_network_has(&front->trusted[i], peer))
            return true;
    return false;
}
