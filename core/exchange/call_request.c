// What a call asks: everything is checked here, before anything is begun, and copied into the call.
#include "base/arena.h"
#include "base/err.h"
#include "exchange/call_priv.h"
#include "upstream/upstream.h"

#include <errno.h>
#include <stdlib.h>

enum { PORT_HTTP = 80, PORT_HTTPS = 443 };

#define BIT(id) (UINT64_C(1) << MOON_H_##id)
// The call's own, and what a client that does not wait for 100 and does not switch cannot ask for.
static const uint64_t refused_ids = BIT(CONNECTION) | BIT(KEEP_ALIVE) | BIT(PROXY_CONNECTION) |
                                    BIT(PROXY_AUTHENTICATE) | BIT(PROXY_AUTHORIZATION) | BIT(TE) |
                                    BIT(TRAILER) | BIT(TRANSFER_ENCODING) | BIT(UPGRADE) |
                                    BIT(HTTP2_SETTINGS) | BIT(CONTENT_LENGTH) | BIT(EXPECT);
#undef BIT

// ---- method

static int read_method(struct moon_call *call, struct moon_slice method)
{
    if (method.len == 0)
        method = MOON_SLICE("GET");
    call->request.method_id = moon_method_from(method);
    switch (call->request.method_id) {
    case MOON_METHOD_OTHER:
    case MOON_METHOD_CONNECT:
    case MOON_METHOD_TRACE:
        return MOON_EMETHOD;
    case MOON_METHOD_GET:
    case MOON_METHOD_HEAD:
    case MOON_METHOD_POST:
    case MOON_METHOD_PUT:
    case MOON_METHOD_DELETE:
    case MOON_METHOD_PATCH:
    case MOON_METHOD_OPTIONS:
    case MOON_METHOD_EXTENSION:
        break;
    }
    call->request.method = moon_arena_try_copy(call->arena, method);
    return call->request.method.ptr ? 0 : -ENOMEM;
}

// ---- target

static bool starts_fold(struct moon_slice text, struct moon_slice prefix)
{
    return text.len >= prefix.len &&
           moon_slice_equal_fold((struct moon_slice){text.ptr, prefix.len}, prefix);
}

static struct moon_slice without_fragment(struct moon_slice url)
{
    const char *mark = url.len ? memchr(url.ptr, '#', url.len) : NULL;
    return mark ? (struct moon_slice){url.ptr, (size_t)(mark - url.ptr)} : url;
}

// Where the URL leads: an address, or a name to be resolved.
static void read_authority(struct moon_call *call, const struct moon_authority *authority)
{
    struct moon_slice host = authority->host;
    uint16_t port = authority->port ? authority->port : call->is_secure ? PORT_HTTPS : PORT_HTTP;
    if (host.len > 2 && host.ptr[0] == '[')
        host = (struct moon_slice){host.ptr + 1, host.len - 2};
    if (moon_address_parse_ip(host, port, &call->host_address))
        return;
    call->host = host;
    call->host_address = (struct moon_address){.port = port};
}

static int read_url(struct moon_call *call, const struct moon_call_args *args)
{
    struct moon_target *target = &call->request.target;
    struct moon_slice url = without_fragment(args->url);
    struct moon_fault fault;
    if (url.len > MOON_CALL_HEAD_MAX_LEN)
        return -EMSGSIZE;
    call->is_secure = starts_fold(url, MOON_SLICE("https:"));
    if (url.len == 0 && args->upstream.len)
        url = MOON_SLICE("/");
    url = moon_arena_try_copy(call->arena, url);
    if (!url.ptr)
        return -ENOMEM;
    if (!moon_target_parse(call->arena, url, MOON_SLASH_KEEP, target, &fault))
        return MOON_EURL;
    switch (target->form) {
    case MOON_TARGET_ABSOLUTE:
        call->request.host_text = target->authority_text;
        call->has_host = true;
        if (!args->upstream.len)
            read_authority(call, &target->authority);
        break;
    case MOON_TARGET_ORIGIN:
        if (!args->upstream.len)
            return MOON_EURL;
        break;
    case MOON_TARGET_ASTERISK:
        return MOON_EURL;
    }
    return 0;
}

// Its name is what Host says where nobody says better; a name that cannot stand there gives way to the endpoint's address.
static int read_upstream(struct moon_call *call, struct moon_slice name)
{
    struct moon_authority authority;
    if (name.len == 0)
        return 0;
    struct moon_hold *hold = call->service->hold;
    const struct moon_upstream *upstream =
        moon_upstreams_find(moon_snapshot_upstreams(hold->snapshot), name);
    if (!upstream)
        return MOON_EUPSTREAM;
    if (upstream->builtin)
        return MOON_ELATER;
    call->hold = moon_hold_ref(hold);
    call->upstream = upstream;
    if (!call->has_host && moon_authority_parse(upstream->name, &authority)) {
        call->request.host_text = upstream->name;
        call->has_host = true;
    }
    return 0;
}

// ---- fields

static int read_host(struct moon_call *call, struct moon_slice value)
{
    struct moon_authority authority;
    if (!moon_authority_parse(value, &authority))
        return MOON_EFIELD;
    call->request.host_text = moon_arena_try_copy(call->arena, value);
    call->has_host = true;
    return call->request.host_text.ptr ? 0 : -ENOMEM;
}

static int add_field(struct moon_call *call, const struct moon_call_field *field)
{
    struct moon_slice value = moon_slice_trim(field->value);
    if (!moon_header_name_is_valid(field->name) || !moon_header_value_is_valid(value))
        return MOON_EFIELD;
    enum moon_header_id id = moon_header_id(field->name);
    if (refused_ids >> id & 1)
        return MOON_EFIELD;
    if (id == MOON_H_HOST)
        return read_host(call, value);
    struct moon_slice name = moon_arena_try_copy(call->arena, field->name);
    value = moon_arena_try_copy(call->arena, value);
    if (!name.ptr || !value.ptr)
        return -EMSGSIZE;
    return moon_headers_add(&call->request.headers, call->arena, name, value);
}

static int read_fields(struct moon_call *call, const struct moon_call_args *args)
{
    struct moon_headers *headers = &call->request.headers;
    if (args->field_count > MOON_CALL_HEAD_MAX_LEN / 32)
        return -EMSGSIZE;
    int err = moon_headers_init(headers, call->arena, (uint32_t)args->field_count + 2);
    for (size_t i = 0; i < args->field_count && !err; i++)
        err = add_field(call, &args->fields[i]);
    if (!err && !moon_headers_has(headers, MOON_H_USER_AGENT))
        err = moon_headers_add_id(headers, call->arena, MOON_H_USER_AGENT,
                                  MOON_SLICE("moongate/" MOON_VERSION));
    return err;
}

// ---- body

// RFC 9110 8.6: methods that expect a body say that there is none.
static bool expects_body(enum moon_method method)
{
    return method == MOON_METHOD_POST || method == MOON_METHOD_PUT || method == MOON_METHOD_PATCH;
}

static int read_body(struct moon_call *call, struct moon_slice body)
{
    if (body.len || expects_body(call->request.method_id))
        call->framing = (struct moon_framing){MOON_BODY_LENGTH, .content_length = body.len};
    if (body.len == 0)
        return 0;
    int err = moon_buffer_pool_charge(call->service->res->buffers, body.len);
    if (err)
        return err;
    call->charged_len += body.len;
    call->body = malloc(body.len);
    if (!call->body)
        return -ENOMEM;
    memcpy(call->body, body.ptr, body.len);
    call->body_len = body.len;
    return 0;
}

int moon_call_request_init(struct moon_call *call, const struct moon_call_args *args)
{
    call->request.minor = 1;
    call->request.keep_alive = true;
    int err = read_method(call, args->method);
    if (!err)
        err = read_url(call, args);
    if (!err)
        err = read_upstream(call, args->upstream);
    if (!err)
        err = read_fields(call, args);
    if (!err && moon_head_size(&call->request) > MOON_CALL_HEAD_MAX_LEN)
        err = -EMSGSIZE;
    return err ? err : read_body(call, args->body);
}
