// Edits of heads on their way through: what one hop keeps to itself is taken off, what the gateway has to say is added, and
// the framing of the other side is chosen (RFC 9110 7.6, RFC 9112 6, RFC 7239).
#include "base/arena.h"
#include "conf/settings.h"
#include "exchange/exchange_priv.h"
#include "io/tls.h"
#include "io/websocket_key.h"
#include "route/listener.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

struct moon_slice moon_exchange_id(struct moon_exchange *ex)
{
    static const char digits[] = "0123456789abcdef";
    if (ex->id.len)
        return ex->id;
    char *text = moon_arena_alloc(ex->flow.arena, 32);
    uint64_t parts[2] = {ex->res->id_seed[0], ex->res->id_seed[1] + ++ex->res->id_count};
    for (int i = 0; i < 32; i++)
        text[i] = digits[(parts[i / 16] >> (60 - 4 * (i % 16))) & 15];
    ex->id = (struct moon_slice){text, 32};
    return ex->id;
}

static struct moon_slice client_ip(struct moon_exchange *ex)
{
    char *text = moon_arena_alloc(ex->flow.arena, MOON_ADDRESS_TEXT_LEN);
    return (struct moon_slice){text, moon_address_format_ip(&ex->flow.client, text)};
}

// Adds an id-named field, replacing those that came; keeps the inbound value before it where the peer in front is trusted.
static int put(struct moon_exchange *ex, enum moon_header_id id, struct moon_slice value,
               bool is_list)
{
    struct moon_headers *headers = &ex->request.headers;
    if (moon_headers_has(headers, id)) {
        bool is_trusted = ex->res->settings->trusted_hops > 0;
        if (is_trusted && !is_list)
            return 0;
        struct moon_slice before = {NULL, 0};
        if (is_trusted)
            before = moon_headers_join(headers, ex->flow.arena, moon_header_name(id));
        moon_headers_del_id(headers, id);
        if (before.ptr)
            value = moon_arena_try_format(ex->flow.arena, "%.*s, %.*s", MOON_SLICE_ARG(before),
                                          MOON_SLICE_ARG(value));
        if (!value.ptr)
            return -ENOMEM;
    }
    return moon_headers_add_id(headers, ex->flow.arena, id, value);
}

// A client of a unix socket has no address: what it claims counts only where the peer in front is trusted.
static int put_forwarded_for(struct moon_exchange *ex, struct moon_slice ip)
{
    struct moon_headers *headers = &ex->request.headers;
    if (ip.len)
        return put(ex, MOON_H_X_FORWARDED_FOR, ip, true);
    if (!ex->res->settings->trusted_hops && moon_headers_has(headers, MOON_H_X_FORWARDED_FOR))
        moon_headers_del_id(headers, MOON_H_X_FORWARDED_FOR);
    return 0;
}

static int put_forwarded(struct moon_exchange *ex, struct moon_slice ip)
{
    const struct moon_settings *settings = ex->res->settings;
    struct moon_headers *headers = &ex->request.headers;
    if (!settings->trusted_hops && moon_headers_has(headers, MOON_H_FORWARDED))
        moon_headers_del_id(headers, MOON_H_FORWARDED); // nobody vouches for it
    if (!settings->forwarded)
        return 0;
    bool is_v6 = ex->flow.client.family == MOON_FAMILY_IPV6;
    struct moon_slice value = moon_arena_try_format(
        ex->flow.arena, "for=%s%.*s%s;host=\"%.*s\";proto=%s", is_v6 ? "\"[" : "",
        MOON_SLICE_ARG(ip.len ? ip : MOON_SLICE("unknown")), is_v6 ? "]\"" : "",
        MOON_SLICE_ARG(ex->request.host_text), ex->flow.scheme);
    return value.ptr ? put(ex, MOON_H_FORWARDED, value, true) : -ENOMEM;
}

// Via is never replaced: every proxy on the way stays in it (RFC 9110 7.6.3).
static int put_via(struct moon_exchange *ex, struct moon_headers *headers,
                   const struct moon_head *received)
{
    if (!ex->res->settings->via)
        return 0;
    return moon_headers_add_id(headers, ex->flow.arena, MOON_H_VIA,
                               received->is_h2   ? MOON_SLICE("2.0 moongate")
                               : received->minor ? MOON_SLICE("1.1 moongate")
                                                 : MOON_SLICE("1.0 moongate"));
}

static int put_request_id(struct moon_exchange *ex)
{
    if (!ex->res->settings->request_id)
        return 0;
    return put(ex, MOON_H_X_REQUEST_ID, moon_exchange_id(ex), false);
}

static bool accepts_trailers(const struct moon_head *request)
{
    const struct moon_field *te = moon_headers_has(&request->headers, MOON_H_TE)
                                      ? moon_headers_get(&request->headers, MOON_H_TE)
                                      : NULL;
    struct moon_slice rest = te ? te->value : (struct moon_slice){NULL, 0}, item;
    while (te && moon_slice_next_item(&rest, &item))
        if (moon_slice_equal_fold(item, MOON_SLICE("trailers")))
            return true;
    return false;
}

// ';KEY="..."' for each name of that kind in sans; their quotes and commas are escaped already.
static size_t write_names(char *to, struct moon_slice sans, struct moon_slice kind)
{
    struct moon_slice name;
    size_t len = 0;
    while (moon_slice_next_item(&sans, &name)) {
        if (!moon_slice_starts(name, kind) || name.ptr[kind.len] != ':')
            continue;
        name = moon_slice_skip(name, kind.len + 1);
        len +=
            (size_t)sprintf(to + len, ";%.*s=\"%.*s\"", MOON_SLICE_ARG(kind), MOON_SLICE_ARG(name));
    }
    return len;
}

// What the client's certificate says, as Envoy writes it; nothing where it has shown none.
static struct moon_slice client_cert(struct moon_exchange *ex)
{
    const struct moon_tls_facts *tls = ex->flow.tls;
    size_t cap = tls->fingerprint.len + tls->subject.len + 3 * tls->sans.len + 64;
    char *text = moon_arena_try_alloc(ex->flow.arena, cap);
    if (!text)
        return (struct moon_slice){NULL, 1};
    size_t len = (size_t)sprintf(text, "Hash=%.*s;Subject=\"%.*s\"",
                                 MOON_SLICE_ARG(tls->fingerprint), MOON_SLICE_ARG(tls->subject));
    len += write_names(text + len, tls->sans, MOON_SLICE("URI"));
    len += write_names(text + len, tls->sans, MOON_SLICE("DNS"));
    return (struct moon_slice){text, len};
}

// Only the listener says who the client is: what came by that name is believed only where a proxy in front is.
static int put_client_cert(struct moon_exchange *ex)
{
    struct moon_headers *headers = &ex->request.headers;
    bool is_asked = ex->flow.tls && ex->listener >= 0 &&
                    ex->hold->listeners->listeners[ex->listener].sends_client_cert;
    if (moon_headers_has(headers, MOON_H_X_FORWARDED_CLIENT_CERT) &&
        (is_asked || ex->res->settings->trusted_hops == 0))
        moon_headers_del_id(headers, MOON_H_X_FORWARDED_CLIENT_CERT);
    if (!is_asked || !ex->flow.tls->is_verified)
        return 0;
    struct moon_slice text = client_cert(ex);
    if (!text.ptr)
        return -ENOMEM;
    return moon_headers_add_id(headers, ex->flow.arena, MOON_H_X_FORWARDED_CLIENT_CERT, text);
}

int moon_forward_begin(struct moon_exchange *ex)
{
    struct moon_head *request = &ex->request;
    moon_head_strip_named(request);
    struct moon_slice ip = client_ip(ex);
    int err = put_forwarded_for(ex, ip);
    if (!err)
        err = put(ex, MOON_H_X_FORWARDED_PROTO, moon_slice_from(ex->flow.scheme), false);
    if (!err && request->host_text.len)
        err = put(ex, MOON_H_X_FORWARDED_HOST, request->host_text, false);
    if (!err)
        err = put_forwarded(ex, ip);
    if (!err)
        err = put_client_cert(ex);
    if (!err)
        err = put_via(ex, &request->headers, request);
    return err ? err : put_request_id(ex);
}

// What HTTP/2 leaves out because it needs no proof (RFC 8441 5) is the question to an HTTP/1.1 server, whatever a client has sent.
static int put_websocket_key(struct moon_exchange *ex)
{
    char *key = moon_arena_try_bytes(ex->flow.arena, MOON_WEBSOCKET_KEY_LEN);
    if (!key)
        return -ENOMEM;
    moon_websocket_key_make(ex->res->loop, key);
    return moon_headers_set(&ex->request.headers, ex->flow.arena, MOON_SLICE("Sec-WebSocket-Key"),
                            (struct moon_slice){key, MOON_WEBSOCKET_KEY_LEN});
}

int moon_forward_request(struct moon_exchange *ex, struct moon_framing *framing)
{
    struct moon_head *request = &ex->request;
    *framing =
        (struct moon_framing){.body = request->body, .content_length = request->content_length};
    framing->te_trailers = accepts_trailers(request);
    if (request->has_upgrade)
        framing->upgrade =
            moon_headers_join(&request->headers, ex->flow.arena, MOON_SLICE("Upgrade"));
    // what filters read is neither compressed nor anything else of an extension
    if (ex->run.has_messages)
        moon_headers_del(&request->headers, MOON_SLICE("Sec-WebSocket-Extensions"));
    if (request->body != MOON_BODY_NONE && ex->run.has_request_body) {
        framing->body = MOON_BODY_CHUNKED;
        moon_head_forget_digests(&request->headers);
    }
    moon_head_strip_hop(request);
    if (framing->upgrade.len && !framing->upgrade.ptr)
        return -ENOMEM;
    return request->is_h2_upgrade ? put_websocket_key(ex) : 0;
}

struct moon_slice moon_forward_date(struct moon_service *service)
{
    uint64_t now_ms = moon_loop_wall_ms(service->res->loop);
    if (now_ms / 1000 != service->date_ms / 1000 || !service->date[0]) {
        time_t seconds = (time_t)(now_ms / 1000);
        struct tm at;
        gmtime_r(&seconds, &at);
        strftime(service->date, sizeof service->date, "%a, %d %b %Y %H:%M:%S GMT", &at);
        service->date_ms = now_ms;
    }
    return moon_slice_from(service->date);
}

bool moon_response_is_bodiless(const struct moon_exchange *ex)
{
    uint16_t status = ex->response.status;
    return ex->request.method_id == MOON_METHOD_HEAD || status == 204 || status == 304;
}

bool moon_response_is_filtered(const struct moon_exchange *ex)
{
    return !ex->has_failed && ex->run.has_response_body;
}

// What a response without body says of its length: what the upstream said (RFC 9110 8.6), never for 204, nor where a filter
// would have changed the body.
static void frame_bodiless(struct moon_exchange *ex)
{
    const struct moon_head *response = &ex->response;
    uint64_t len;
    ex->sent.body = MOON_BODY_NONE;
    if (response->status == 204 || moon_response_is_filtered(ex))
        return;
    const struct moon_field *field =
        moon_headers_has(&response->headers, MOON_H_CONTENT_LENGTH)
            ? moon_headers_get(&response->headers, MOON_H_CONTENT_LENGTH)
            : NULL;
    if (field && moon_slice_to_u64(field->value, &len))
        ex->sent = (struct moon_framing){.body = MOON_BODY_LENGTH, .content_length = len};
    else if (ex->is_local && response->status != 304 && response->body == MOON_BODY_LENGTH)
        ex->sent = (struct moon_framing){.body = MOON_BODY_LENGTH,
                                         .content_length = response->content_length};
}

// HTTP/2 has trailers behind a body of known length, too: where some are announced, and this client takes them, it is not told the
// length, so that they have a place.
static bool has_trailers(const struct moon_exchange *ex)
{
    return ex->response.is_h2 && moon_headers_has(&ex->response.headers, MOON_H_TRAILER) &&
           (ex->request.is_h2 || (ex->request.minor && ex->request_framing.te_trailers));
}

// Length when it is known and stays what it was; chunks, or the end of the connection for an HTTP/1.0 client.
static void frame_body(struct moon_exchange *ex)
{
    const struct moon_head *response = &ex->response;
    bool is_filtered = moon_response_is_filtered(ex);
    if (moon_response_is_bodiless(ex)) {
        frame_bodiless(ex);
        return;
    }
    bool is_known = response->body == MOON_BODY_NONE || response->body == MOON_BODY_LENGTH;
    if (is_known && !is_filtered && !has_trailers(ex)) {
        ex->sent.body = MOON_BODY_LENGTH;
        ex->sent.content_length = response->body == MOON_BODY_NONE ? 0 : response->content_length;
        ex->sent.may_trail = response->is_h2 && response->body == MOON_BODY_LENGTH;
        return;
    }
    ex->sent.body = ex->request.minor ? MOON_BODY_CHUNKED : MOON_BODY_CLOSE;
}

static bool must_close(const struct moon_exchange *ex)
{
    const struct moon_link *link = moon_lane_link(ex->down);
    uint32_t bound = ex->res->settings->keepalive_requests;
    return !ex->request.keep_alive || ex->has_fault || !moon_lane_is_read(ex->down) ||
           ex->sent.body == MOON_BODY_CLOSE || moon_link_is_draining(link) ||
           (bound && moon_link_lane_count(link) >= bound);
}

int moon_forward_response(struct moon_exchange *ex)
{
    struct moon_headers *headers = &ex->response.headers;
    ex->sent = (struct moon_framing){.body = MOON_BODY_NONE};
    frame_body(ex);
    moon_head_strip_hop(&ex->response);
    ex->sent.close = must_close(ex);
    ex->sent.keep_alive = !ex->sent.close && ex->request.minor == 0;
    if (!moon_headers_has(headers, MOON_H_DATE) &&
        moon_headers_add_id(headers, ex->flow.arena, MOON_H_DATE, moon_forward_date(ex->service)) <
            0)
        return -ENOMEM;
    return put_via(ex, headers, &ex->response);
}
