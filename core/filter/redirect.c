// redirect: answers every request with another address for it (Gateway API, RequestRedirect). What the configuration leaves out
// is the request's own; the query is always kept. Location is absolute, and made of parts that cannot break it: a checked
// host, a canonical path, a query without controls (A22).
#include "base/arena.h"
#include "base/err.h"
#include "conf/schema.h"
#include "filter/path_edit.h"
#include "filter/shipped.h"
#include "http/head.h"

#include <stdio.h>
#include <stdlib.h>

struct redirect {
    struct moon_slice scheme, hostname; // empty: the request's
    struct moon_path_edit path;
    uint16_t port; // 0: not given
    uint16_t status;
};

static const char *const schemes[] = {"http", "https", NULL};

static const struct moon_schema_key keys[] = {
    {.name = "scheme",
     .types = MOON_TYPE_STRING,
     .choices = schemes,
     .expected = "\"http\" or \"https\""},
    {.name = "hostname",
     .types = MOON_TYPE_STRING,
     .expected = "a host without a port, such as \"www.example.com\""},
    {.name = "port",
     .types = MOON_TYPE_NUMBER,
     .is_integer = true,
     .min = 1,
     .max = 65535,
     .expected = "a port, 1 to 65535"},
    {.name = "path",
     .types = MOON_TYPE_STRING | MOON_TYPE_TABLE,
     .table = &moon_path_edit_schema,
     .expected = MOON_PATH_EDIT_EXPECTED},
    {.name = "status",
     .types = MOON_TYPE_NUMBER,
     .is_integer = true,
     .min = 301,
     .max = 308,
     .expected = "301, 302, 303, 307 or 308"},
    {.name = NULL},
};
static const struct moon_schema schema = {keys, NULL, NULL};

static int check(const struct moon_filter_compile *at, const struct moon_value *value,
                 const struct redirect *own)
{
    struct moon_authority host;
    int err = 0;
    if (own->status > 303 && own->status < 307)
        err = moon_filter_problem(at, "status", "expected 301, 302, 303, 307 or 308", "found %u",
                                  own->status);
    if (moon_value_get(value, "hostname") &&
        (!moon_authority_parse(own->hostname, &host) || host.port))
        err = moon_filter_problem(
            at, "hostname", "a name or an IP address; the port has a key of its own",
            "found \"%.*s\", which is not a host without a port", MOON_SLICE_ARG(own->hostname));
    if (!err && value->table.entry_count == (moon_value_get(value, "status") ? 1 : 0))
        err = moon_filter_problem(at, NULL, "give it a scheme, a hostname, a port or a path",
                                  "the redirect leads every request to itself");
    return err;
}

static int compile(const struct moon_filter_compile *at, const struct moon_value *value,
                   void **conf)
{
    struct redirect *own = moon_filter_alloc(1, sizeof *own);
    *conf = own;
    own->scheme = moon_filter_copy(moon_value_string(value, "scheme", MOON_SLICE("")));
    own->hostname = moon_filter_copy(moon_value_string(value, "hostname", MOON_SLICE("")));
    own->port = (uint16_t)moon_value_number(value, "port", 0);
    own->status = (uint16_t)moon_value_number(value, "status", 302);
    int err = moon_path_edit_compile(at, value, &own->path);
    return check(at, value, own) ? MOON_ECONFIG : err;
}

static void unref(void *conf)
{
    struct redirect *own = conf;
    moon_filter_copy_free(own->scheme);
    moon_filter_copy_free(own->hostname);
    moon_filter_copy_free(own->path.text);
    free(own);
}

static uint16_t well_known_port(struct moon_slice scheme)
{
    return moon_slice_equal(scheme, MOON_SLICE("https")) ? 443 : 80;
}

// The configured one, else that of the configured scheme, else the listener's; 0 where the scheme says it already.
static uint16_t port_of(struct moon_flow *flow, const struct redirect *own,
                        struct moon_slice scheme)
{
    struct moon_address local;
    uint16_t port = own->port, known = well_known_port(scheme);
    if (!port && own->scheme.len)
        port = known;
    if (!port) {
        flow->ops->local(flow, &local);
        port = local.port;
    }
    return port == known ? 0 : port;
}

// The configured one, else the request's, else (HTTP/1.0) the address that the client has reached.
static struct moon_slice host_of(struct moon_flow *flow, const struct redirect *own)
{
    if (own->hostname.len)
        return own->hostname;
    if (flow->request->host_text.len)
        return flow->request->host.host;
    struct moon_address local;
    char ip[MOON_ADDRESS_TEXT_LEN];
    flow->ops->local(flow, &local);
    moon_address_format_ip(&local, ip);
    return moon_arena_try_format(flow->arena, local.family == MOON_FAMILY_IPV6 ? "[%s]" : "%s", ip);
}

// Empty when it does not fit the arena.
static struct moon_slice location(struct moon_flow *flow, const struct redirect *own)
{
    const struct moon_target *target = &flow->request->target;
    struct moon_slice scheme = own->scheme.len ? own->scheme : moon_slice_from(flow->scheme);
    struct moon_slice path = target->path, host = host_of(flow, own);
    const char *reason;
    char port[8] = "";
    uint16_t number = port_of(flow, own, scheme);
    if (number)
        snprintf(port, sizeof port, ":%u", number);
    if (target->form == MOON_TARGET_ASTERISK)
        path = MOON_SLICE("/");
    path = moon_path_edit_apply(&own->path, flow->arena, path, flow->matched_prefix, &reason);
    if (!path.ptr || !host.ptr)
        return MOON_SLICE("");
    return moon_arena_try_format(flow->arena, "%.*s://%.*s%s%.*s%s%.*s", MOON_SLICE_ARG(scheme),
                                 MOON_SLICE_ARG(host), port, MOON_SLICE_ARG(path),
                                 target->has_query ? "?" : "", MOON_SLICE_ARG(target->query));
}

static enum moon_verdict access(struct moon_flow *flow, void *conf, void *state)
{
    const struct redirect *own = conf;
    (void)state;
    struct moon_slice to = location(flow, own);
    if (to.len == 0)
        return MOON_FAIL;
    flow->ops->respond(flow, own->status, MOON_SLICE(""), MOON_SLICE(""));
    int err = moon_headers_add_id(&flow->response->headers, flow->arena, MOON_H_LOCATION, to);
    return err ? MOON_FAIL : MOON_DONE;
}

const struct moon_filter_type moon_filter_redirect = {
    .name = "redirect",
    .schema = &schema,
    .answers = true,
    .excludes = "url-rewrite",
    .compile = compile,
    .unref = unref,
    .access = access,
};
