// What an exchange does otherwise when its request is a call of gRPC: errors of the gateway's own are told as gRPC tells them,
// and `grpc-timeout` bounds the exchange and goes on shortened. Sources: PROTOCOL-HTTP2, http-grpc-status-mapping.
#include "base/arena.h"
#include "exchange/exchange_priv.h"

#include <errno.h>

static const struct moon_slice timeout_name = {"grpc-timeout", 12};
static const struct moon_slice status_name = {"grpc-status", 11};
static const struct moon_slice message_name = {"grpc-message", 12};

int moon_grpc_call_begin(struct moon_exchange *ex)
{
    uint64_t ms;
    uint32_t at = 0;
    ex->grpc = (uint8_t)moon_grpc_kind_of(&ex->request, NULL);
    if (!ex->grpc)
        return 0;
    const struct moon_field *field = moon_headers_next(&ex->request.headers, timeout_name, &at);
    if (!field)
        return 0;
    if (moon_headers_next(&ex->request.headers, timeout_name, &at) ||
        !moon_grpc_timeout_read(field->value, &ms))
        return -EINVAL;
    ms = ms ? ms : 1;
    ex->budget_ms = ex->budget_ms && ex->budget_ms < ms ? ex->budget_ms : ms;
    return 0;
}

void moon_grpc_call_note(struct moon_exchange *ex, const struct moon_headers *fields)
{
    uint32_t at = 0;
    const struct moon_field *field = moon_headers_next(fields, status_name, &at);
    if (field)
        ex->grpc_told = field->value;
}

// The smaller of what is left and what filters made of the field.
static uint64_t left_ms(const struct moon_exchange *ex, struct moon_slice given)
{
    uint64_t end_ms = ex->flow.start_ms + ex->budget_ms, now_ms = moon_loop_now_ms(ex->res->loop);
    uint64_t left = end_ms > now_ms ? end_ms - now_ms : 0, ms;
    return moon_grpc_timeout_read(given, &ms) && ms < left ? ms : left;
}

int moon_grpc_call_forward(struct moon_exchange *ex)
{
    uint32_t at = 0;
    const struct moon_field *field =
        ex->grpc && ex->budget_ms ? moon_headers_next(&ex->request.headers, timeout_name, &at)
                                  : NULL;
    if (!field)
        return 0;
    char *text = moon_arena_try_bytes(ex->flow.arena, MOON_GRPC_TIMEOUT_LEN);
    if (!text)
        return -ENOMEM;
    size_t len = moon_grpc_timeout_write(left_ms(ex, field->value), text);
    return moon_headers_set(&ex->request.headers, ex->flow.arena, timeout_name,
                            (struct moon_slice){text, len});
}

// Without the ends of lines behind it.
static struct moon_slice chop(struct moon_slice text)
{
    while (text.len && (unsigned char)text.ptr[text.len - 1] <= ' ')
        text.len--;
    return text;
}

// Adds status and message. `status`: the one of HTTP, which the exchange may know better.
static int tell(struct moon_exchange *ex, struct moon_headers *to, uint16_t status,
                struct moon_slice text)
{
    char digits[MOON_U64_DIGITS];
    uint8_t code = ex->grpc_status ? ex->grpc_status : (uint8_t)moon_grpc_status_of(status);
    struct moon_slice number =
        moon_arena_try_copy(ex->flow.arena, moon_slice_from_u64(code, digits));
    struct moon_slice message = moon_grpc_message(ex->flow.arena, chop(text));
    ex->grpc_status = 0;
    int err = number.ptr ? moon_headers_add(to, ex->flow.arena, status_name, number) : -ENOMEM;
    ex->grpc_told = number;
    if (!err && message.len)
        err = moon_headers_add(to, ex->flow.arena, message_name, message);
    return err;
}

void moon_grpc_call_answer(struct moon_exchange *ex)
{
    static const struct moon_slice types[] = {
        [MOON_GRPC] = {"application/grpc", 16},
        [MOON_GRPC_WEB] = {"application/grpc-web+proto", 26},
        [MOON_GRPC_WEB_TEXT] = {"application/grpc-web-text+proto", 31}};
    struct moon_headers *headers = &ex->response.headers;
    struct moon_slice text = ex->local_body, type = types[ex->grpc];
    uint16_t status = ex->response.status;
    uint32_t at = 0;
    if (!ex->is_local || status < 400 || status == 421)
        return;
    if (moon_grpc_kind_of(&ex->request, NULL) == MOON_GRPC)
        type = types[MOON_GRPC]; // a filter translates, this way and back
    ex->local_body = (struct moon_slice){"", 0};
    ex->response.status = 200;
    ex->response.reason = moon_status_reason(200);
    ex->response.content_length = 0;
    moon_headers_set(headers, ex->flow.arena, moon_header_name(MOON_H_CONTENT_TYPE), type);
    if (!moon_headers_next(headers, status_name, &at))
        tell(ex, headers, status, text);
}

bool moon_grpc_call_cut(struct moon_exchange *ex, uint16_t status, const char *cause)
{
    bool is_plain =
        ex->grpc == MOON_GRPC && ex->sent.body == MOON_BODY_CHUNKED && !ex->run.has_response_body;
    if (!is_plain || !ex->down || ex->is_response_sent || ex->is_local)
        return false;
    moon_attempt_end(ex, false);
    ex->response_trailers = (struct moon_headers){0};
    if (tell(ex, &ex->response_trailers, status, moon_slice_from(cause)) < 0)
        return false;
    if (moon_response_send(ex, MOON_SLICE(""), true) < 0)
        return false;
    moon_exchange_finish(ex);
    return true;
}
