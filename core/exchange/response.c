// The way back: a response head, from the upstream or our own, goes through header_filter and out, its body after it.
#include "base/arena.h"
#include "exchange/exchange_priv.h"
#include "obs/counters.h"

#include <errno.h>
#include <string.h>

static void count_class(struct moon_exchange *ex)
{
    struct moon_counters *counters = ex->res->counters;
    _Atomic uint64_t *const classes[] = {&counters->responses_1xx, &counters->responses_2xx,
                                         &counters->responses_3xx, &counters->responses_4xx,
                                         &counters->responses_5xx};
    unsigned class = ex->response.status / 100u;
    if (class >= 1 && class <= 5)
        moon_count_up(classes[class - 1]);
}

bool moon_exchange_is_websocket(const struct moon_exchange *ex)
{
    return ex->response.status == 101 &&
           moon_slice_equal_fold(ex->sent.upgrade, MOON_SLICE("websocket"));
}

// 101: the tunnel begins once this head was handed to the downstream link (A24).
static void send_switch(struct moon_exchange *ex)
{
    ex->is_head_sent = true;
    ex->is_response_sent = true;
    ex->step = STEP_RESPONSE;
    moon_head_strip_hop(&ex->response);
    if (ex->request.is_h2_upgrade)
        moon_headers_del(&ex->response.headers, MOON_SLICE("Sec-WebSocket-Accept"));
    count_class(ex);
    if (moon_lane_send_head(ex->down, &ex->response, &ex->sent) < 0) {
        moon_exchange_break(ex);
        return;
    }
    ex->wants_tunnel = true;
    moon_loop_defer(ex->res->loop, &ex->task);
}

// An own answer without a body has its end with its head.
static void drop_local(struct moon_exchange *ex)
{
    ex->local_body.len = 0;
    if (ex->local_source.next)
        ex->is_response_whole = true;
    ex->local_source.next = NULL;
}

static void send_head(struct moon_exchange *ex)
{
    if (ex->response.status == 101 && !ex->is_local) {
        send_switch(ex);
        return;
    }
    if (ex->request.is_h2_upgrade && ex->response.status / 100 == 2) {
        ex->has_failed = true; // what a filter has made of the answer it must not make of this one
        moon_exchange_answer(ex, 502, "a WebSocket was answered by 2xx, but not opened");
        return;
    }
    if (moon_forward_response(ex) < 0 ||
        moon_lane_send_head(ex->down, &ex->response, &ex->sent) < 0) {
        moon_exchange_break(ex);
        return;
    }
    count_class(ex);
    ex->is_head_sent = true;
    ex->step = STEP_RESPONSE;
    if (moon_response_is_bodiless(ex))
        drop_local(ex);
    if (ex->up && ex->sent.body == MOON_BODY_LENGTH && ex->response.body == MOON_BODY_LENGTH)
        moon_lane_splice(ex->up, ex->down);
    if (ex->up)
        moon_lane_resume(ex->up);
    moon_response_push(ex);
}

void moon_response_continue(struct moon_exchange *ex, enum moon_verdict verdict)
{
    if (ex->was_aborted) // the task breaks it off
        return;
    switch (verdict) {
    case MOON_WAIT:
        return;
    case MOON_NEXT:
    case MOON_DONE:
        if (ex->step == STEP_HEADER_FILTER && ex->down)
            send_head(ex);
        return;
    case MOON_FAIL:
        ex->has_failed = true; // the answer about a failed filter must not fail in it again
        moon_exchange_fail(ex, "a plugin or function failed");
        return;
    }
}

// What described the body as it was must not describe what filters make of it.
static void forget_body(struct moon_headers *headers)
{
    moon_headers_del_id(headers, MOON_H_CONTENT_LENGTH);
    moon_head_forget_digests(headers);
}

void moon_response_start(struct moon_exchange *ex)
{
    ex->step = STEP_HEADER_FILTER;
    if (ex->grpc)
        moon_grpc_call_answer(ex);
    moon_head_strip_named(&ex->response); // before filters, whose fields no upstream may take away
    if (moon_response_is_filtered(ex))
        forget_body(&ex->response.headers);
    enum moon_verdict verdict = MOON_NEXT;
    if (!ex->has_failed)
        verdict = moon_chain_start(&ex->run, &ex->flow, MOON_PHASE_HEADER_FILTER);
    moon_response_continue(ex, verdict);
}

ssize_t moon_response_pass(struct moon_exchange *ex, struct moon_slice bytes, bool end)
{
    if (ex->has_failed || moon_response_is_bodiless(ex))
        return moon_response_send(ex, bytes, end);
    return moon_chain_push(&ex->run, &ex->flow, MOON_RESPONSE, bytes, end);
}

// Pushes one piece; false when it was not taken whole.
static bool push(struct moon_exchange *ex, struct moon_slice bytes, bool end)
{
    ssize_t taken = moon_response_pass(ex, bytes, end);
    if (taken == MOON_BODY_FAIL)
        moon_exchange_break(ex);
    if (taken < 0)
        return false;
    if (ex->is_local && bytes.len) {
        ex->flow.response_body_len += (size_t)taken;
        ex->local_body = moon_slice_skip(ex->local_body, (size_t)taken);
    }
    return (size_t)taken == bytes.len;
}

// Pushes what the source of an own answer gives, until it has nothing, or nobody takes it.
static void pull(struct moon_exchange *ex)
{
    while (ex->local_source.next && ex->step == STEP_RESPONSE) {
        int err = ex->local_source.next(ex->local_source.owner, &ex->local_body);
        if (err == MOON_BODY_WAIT)
            return;
        if (err) {
            moon_exchange_break(ex);
            return;
        }
        if (ex->local_body.len == 0) {
            ex->local_source.next = NULL;
            ex->is_response_whole = true;
        } else if (!push(ex, ex->local_body, false)) {
            return;
        }
    }
}

void moon_response_push(struct moon_exchange *ex)
{
    struct moon_slice none = {"", 0};
    if (ex->wants_tunnel)
        return;
    if (ex->local_body.len && !push(ex, ex->local_body, false))
        return;
    pull(ex);
    if (ex->is_response_whole && !ex->is_response_sent && ex->step == STEP_RESPONSE)
        push(ex, none, true);
    if (ex->is_response_sent && ex->step == STEP_RESPONSE)
        moon_exchange_finish(ex);
}

ssize_t moon_response_send(struct moon_exchange *ex, struct moon_slice bytes, bool end)
{
    if (!ex->down || ex->was_aborted)
        return MOON_BODY_FAIL;
    size_t taken = bytes.len;
    if (bytes.len && !moon_response_is_bodiless(ex))
        taken = moon_lane_send_body(ex->down, bytes);
    if (taken < bytes.len)
        return taken ? (ssize_t)taken : MOON_BODY_FULL;
    if (!end)
        return (ssize_t)taken;
    ex->is_response_sent = true;
    moon_lane_send_end(ex->down, &ex->response_trailers);
    return (ssize_t)taken;
}

// ---- own answers

static bool wants_json(const struct moon_exchange *ex)
{
    static const char json[] = "application/json";
    const struct moon_field *accept = moon_headers_has(&ex->request.headers, MOON_H_ACCEPT)
                                          ? moon_headers_get(&ex->request.headers, MOON_H_ACCEPT)
                                          : NULL;
    if (!accept)
        return false;
    for (size_t i = 0; i + sizeof json - 1 <= accept->value.len; i++)
        if (moon_slice_equal_fold((struct moon_slice){accept->value.ptr + i, sizeof json - 1},
                                  MOON_SLICE("application/json")))
            return true;
    return false;
}

void moon_response_local(struct moon_exchange *ex, uint16_t status, struct moon_slice type,
                         struct moon_slice body)
{
    struct moon_arena *arena = ex->flow.arena;
    ex->response = (struct moon_head){.status = status,
                                      .reason = moon_status_reason(status),
                                      .minor = 1,
                                      .keep_alive = true,
                                      .body = MOON_BODY_LENGTH,
                                      .content_length = body.len};
    ex->is_local = true;
    ex->is_response_whole = true;
    ex->local_body = body;
    ex->local_source.next = NULL;
    if (moon_headers_init(&ex->response.headers, arena, 8) < 0)
        return;
    if (body.len)
        moon_headers_add_id(&ex->response.headers, arena, MOON_H_CONTENT_TYPE,
                            type.len ? type : MOON_SLICE("text/plain; charset=utf-8"));
}

void moon_response_local_from(struct moon_exchange *ex, uint16_t status, struct moon_slice type,
                              const struct moon_body_source *source)
{
    moon_response_local(ex, status, type, MOON_SLICE(""));
    moon_headers_add_id(&ex->response.headers, ex->flow.arena, MOON_H_CONTENT_TYPE, type);
    ex->response.body = MOON_BODY_CHUNKED;
    ex->is_response_whole = false;
    ex->local_source = *source;
}

// The text, or the JSON, that names the cause; `id` may be empty.
static struct moon_slice describe(struct moon_exchange *ex, uint16_t status, const char *cause,
                                  struct moon_slice id, bool is_json)
{
    struct moon_arena *arena = ex->flow.arena;
    struct moon_slice reason = moon_status_reason(status), body;
    if (ex->grpc)
        body = moon_arena_try_format(arena, "%s%s%.*s%s", cause, id.len ? " (request id " : "",
                                     MOON_SLICE_ARG(id), id.len ? ")" : "");
    else if (is_json)
        body = moon_arena_try_format(
            arena, "{\"status\":%u,\"error\":\"%.*s\",\"reason\":\"%s\"%s%.*s%s}\n", status,
            MOON_SLICE_ARG(reason), cause, id.len ? ",\"request_id\":\"" : "", MOON_SLICE_ARG(id),
            id.len ? "\"" : "");
    else
        body = moon_arena_try_format(arena, "%u %.*s: %s%s%.*s%s\n", status, MOON_SLICE_ARG(reason),
                                     cause, id.len ? " (request id " : "", MOON_SLICE_ARG(id),
                                     id.len ? ")" : "");
    return body.ptr ? body : MOON_SLICE("");
}

static void answer(struct moon_exchange *ex, uint16_t status, const char *cause,
                   struct moon_slice id)
{
    if (ex->step == STEP_LOG)
        return;
    if (ex->step == STEP_RESPONSE || !ex->down) {
        if (!moon_grpc_call_cut(ex, status, cause))
            moon_exchange_break(ex);
        return;
    }
    moon_attempt_end(ex, false);
    moon_chain_cancel(&ex->run, &ex->flow);
    moon_lane_hold(ex->down, false);
    bool is_json = !ex->grpc && wants_json(ex);
    moon_response_local(ex, status, is_json ? MOON_SLICE("application/json") : MOON_SLICE(""),
                        describe(ex, status, cause, id, is_json));
    if (id.len)
        moon_headers_set(&ex->response.headers, ex->flow.arena,
                         moon_header_name(MOON_H_X_REQUEST_ID), id);
    moon_response_start(ex);
}

void moon_exchange_answer(struct moon_exchange *ex, uint16_t status, const char *cause)
{
    answer(ex, status, cause, (struct moon_slice){"", 0});
}

void moon_exchange_fail(struct moon_exchange *ex, const char *cause)
{
    answer(ex, 500, cause, moon_exchange_id(ex));
}
