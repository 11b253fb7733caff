// The upstream side of an exchange: one attempt after another until a response head has come, or until trying again would not
// be safe. Events of the upstream lane come in here.
//
//   lend a link -> send the head -> (body follows) -> response head -> response.c
//        ^------- replay: a reused link died unanswered, or a connect failed
#include "exchange/exchange_priv.h"

#include "base/arena.h"
#include "base/err.h"
#include "conf/settings.h"
#include "obs/counters.h"
#include "obs/log.h"
#include "upstream/upstream.h"

#include <errno.h>

enum {
    REPLAY_MAX_LEN = 49152, // fits the link's queue together with any head
    ATTEMPT_MAX_COUNT = 3,
    INTERIM_MAX_COUNT = 16, // A23
    SPLICE_MIN_LEN = 65536, // shorter bodies are mostly read together with their head
};

void moon_attempt_end(struct moon_exchange *ex, bool reuse)
{
    struct moon_lane *up = ex->up;
    if (!up)
        return;
    ex->up = NULL;
    moon_lane_end(up, reuse && ex->is_request_sent);
}

// RFC 9110 9.2.2.
static bool is_idempotent(enum moon_method method)
{
    switch (method) {
    case MOON_METHOD_GET:
    case MOON_METHOD_HEAD:
    case MOON_METHOD_PUT:
    case MOON_METHOD_DELETE:
    case MOON_METHOD_OPTIONS:
    case MOON_METHOD_TRACE:
        return true;
    case MOON_METHOD_OTHER:
    case MOON_METHOD_POST:
    case MOON_METHOD_PATCH:
    case MOON_METHOD_CONNECT:
    case MOON_METHOD_EXTENSION:
        return false;
    }
    return false;
}

static void fail_attempt(struct moon_exchange *ex, int err)
{
    switch (err) {
    case MOON_ETIMEOUT:
        moon_exchange_answer(ex, 504, "the upstream did not answer in time");
        return;
    case -ETIMEDOUT:
        moon_exchange_answer(ex, 504, "connecting to the upstream took too long");
        return;
    case -ENOENT:
        moon_exchange_answer(ex, 503, "the upstream has no endpoint");
        return;
    case -EADDRNOTAVAIL:
    case -EMFILE:
    case -ENFILE:
    case -ENOBUFS:
        moon_exchange_answer(ex, 503, "no local port or descriptor is left for the upstream");
        return;
    case -ECONNREFUSED:
        moon_exchange_answer(ex, 502, "the upstream refused the connection");
        return;
    case MOON_EOF:
        moon_exchange_answer(ex, 502, "the upstream closed the connection without an answer");
        return;
    default:
        moon_exchange_answer(ex, 502, "the connection to the upstream failed");
    }
}

// Whether the request can be sent once more: nothing of an answer was seen, and all that was sent is still here.
static bool may_replay(const struct moon_exchange *ex, bool was_connected, bool had_input)
{
    if (ex->step != STEP_UPSTREAM || had_input || !ex->keeps_replay ||
        ex->attempt_count >= ATTEMPT_MAX_COUNT)
        return false;
    if (!was_connected) // nothing can have reached anybody
        return ex->action->upstream->endpoint_count > ex->attempt_count;
    return ex->is_reused_link && is_idempotent(ex->request.method_id);
}

static void on_abort(void *owner, int err)
{
    struct moon_exchange *ex = owner;
    bool had_input = moon_lane_has_input(ex->up), was_connected = moon_lane_is_connected(ex->up);
    ex->up = NULL;
    moon_log_debug(ex->res->log, "upstream \"%.*s\": %s",
                   MOON_SLICE_ARG(ex->action->upstream->name), moon_err_text(err));
    if (err != MOON_ETIMEOUT && may_replay(ex, was_connected, had_input)) {
        moon_count_up(&ex->res->counters->upstream_replays_total);
        moon_attempt_start(ex, true);
        return;
    }
    fail_attempt(ex, err);
}

static void on_fault(void *owner, const struct moon_fault *fault)
{
    struct moon_exchange *ex = owner;
    moon_attempt_end(ex, false);
    moon_exchange_answer(ex, fault->status, fault->reason);
}

static void on_interim(struct moon_exchange *ex)
{
    struct moon_framing none = {.body = MOON_BODY_NONE};
    if (++ex->interim_count > INTERIM_MAX_COUNT) {
        moon_attempt_end(ex, false);
        moon_exchange_answer(ex, 502, "the upstream sent too many interim responses");
        return;
    }
    if (ex->request.minor == 0)
        return; // RFC 9110 15.2: never to an HTTP/1.0 client
    moon_head_strip_hop(&ex->response);
    moon_lane_send_head(ex->down, &ex->response, &none);
    moon_count_up(&ex->res->counters->responses_1xx);
    ex->response.status = 0;
}

// 101: both sides become a tunnel, once the answer was handed to the downstream link (A24).
static void on_switch(struct moon_exchange *ex)
{
    const struct moon_field *given = moon_headers_get(&ex->response.headers, MOON_H_UPGRADE);
    if (!ex->request_framing.upgrade.len || !given || !ex->is_request_sent) {
        moon_attempt_end(ex, false);
        moon_exchange_answer(ex, 502, "the upstream switched protocols unasked");
        return;
    }
    struct moon_framing framing = {.body = MOON_BODY_NONE, .upgrade = given->value};
    moon_head_strip_hop(&ex->response);
    ex->is_response_sent = true;
    ex->is_head_sent = true;
    moon_count_up(&ex->res->counters->responses_1xx);
    if (moon_lane_send_head(ex->down, &ex->response, &framing) < 0) {
        moon_exchange_break(ex);
        return;
    }
    ex->wants_tunnel = true;
    moon_loop_defer(ex->res->loop, &ex->task);
}

static void on_head(void *owner)
{
    struct moon_exchange *ex = owner;
    ex->keeps_replay = false;
    moon_buffer_fini(&ex->replay, ex->res->buffers);
    if (ex->response.status >= 200 || ex->response.status == 101) {
        uint64_t now_ns = moon_loop_turn_ns(ex->res->loop); // of the turn that brought it
        ex->has_upstream_us = true;
        ex->upstream_us = now_ns > ex->sent_ns ? (now_ns - ex->sent_ns) / 1000 : 0;
    }
    if (ex->response.status == 101)
        on_switch(ex);
    else if (ex->response.status < 200)
        on_interim(ex);
    else
        moon_response_start(ex);
}

static size_t on_body(void *owner, struct moon_slice bytes)
{
    struct moon_exchange *ex = owner;
    if (ex->step != STEP_RESPONSE)
        return 0; // header_filter waits
    ssize_t taken = moon_chain_push(&ex->run, &ex->flow, MOON_RESPONSE, bytes, false);
    if (taken == MOON_BODY_FAIL) {
        moon_exchange_break(ex);
        return bytes.len;
    }
    if (taken < 0)
        return 0;
    ex->flow.response_body_len += (size_t)taken;
    return (size_t)taken;
}

static void on_end(void *owner, const struct moon_headers *trailers)
{
    struct moon_exchange *ex = owner;
    ex->is_response_whole = true;
    ex->response_trailers = *trailers;
    if (ex->response.body == MOON_BODY_LENGTH)
        ex->flow.response_body_len = ex->response.content_length; // spliced bytes did not pass here
    if (ex->step == STEP_RESPONSE)
        moon_response_push(ex);
}

static void on_writable(void *owner)
{
    struct moon_exchange *ex = owner;
    moon_exchange_push_request_end(ex);
    if (ex->down)
        moon_lane_resume(ex->down);
}

static const struct moon_lane_events up_events = {
    .head = on_head,
    .fault = on_fault,
    .body = on_body,
    .end = on_end,
    .abort = on_abort,
    .writable = on_writable,
};

// Sends what earlier attempts had sent of the body. It fits the queue of a link that has sent nothing else.
static void resend(struct moon_exchange *ex, bool was_sent)
{
    struct moon_slice sent = moon_buffer_bytes(&ex->replay);
    if (sent.len)
        moon_lane_send_body(ex->up, sent);
    if (was_sent)
        moon_attempt_send(ex, (struct moon_slice){"", 0}, true);
}

static bool is_spliceable(const struct moon_exchange *ex, const struct moon_framing *framing)
{
    return framing->body == MOON_BODY_LENGTH && framing->content_length >= SPLICE_MIN_LEN &&
           !(ex->run.chain && ex->run.chain->has_request_body);
}

void moon_attempt_start(struct moon_exchange *ex, bool fresh)
{
    struct moon_lease lease;
    struct moon_framing framing;
    bool was_sent = ex->is_request_sent, is_first = ex->attempt_count == 0;
    ex->step = STEP_UPSTREAM;
    int err = is_first ? moon_forward_request(ex, &framing) : 0;
    if (err) {
        moon_exchange_answer(ex, 431, "the request head is too large to forward");
        return;
    }
    if (is_first)
        ex->request_framing = framing;
    framing = ex->request_framing;
    ex->attempt_count++;
    err = moon_pool_lend(ex->service->pool, ex->action->upstream, fresh, &lease);
    if (lease.endpoint)
        ex->endpoint = lease.endpoint->address;
    if (err) {
        fail_attempt(ex, err);
        return;
    }
    ex->sent_ns = moon_loop_now_ns(ex->res->loop);
    ex->up = lease.lane;
    ex->is_reused_link = lease.is_reused;
    ex->is_request_sent = false;
    if (is_first)
        ex->keeps_replay =
            framing.body != MOON_BODY_LENGTH || framing.content_length <= REPLAY_MAX_LEN;
    moon_lane_attach(ex->up, &(struct moon_lane_attachment){
                                 .events = &up_events,
                                 .owner = ex,
                                 .arena = ex->flow.arena,
                                 .head = &ex->response,
                                 .request_method = ex->request.method_id,
                                 .response_ms = ex->res->settings->timeouts.response_ms});
    moon_lane_send_head(ex->up, &ex->request, &framing);
    if (!is_first)
        resend(ex, was_sent);
    if (is_spliceable(ex, &framing))
        moon_lane_splice(ex->down, ex->up);
    moon_exchange_push_request_end(ex);
    if (ex->step == STEP_UPSTREAM && ex->down)
        moon_lane_resume(ex->down);
}

// Keeps a copy of what is sent while a replay may need it: not where the method rules it out on a standing connection.
static void keep_replay(struct moon_exchange *ex, struct moon_slice bytes)
{
    if (!ex->keeps_replay || bytes.len == 0)
        return;
    bool is_useful = is_idempotent(ex->request.method_id)
                         ? ex->is_reused_link || !moon_lane_is_connected(ex->up)
                         : !moon_lane_is_connected(ex->up);
    if (is_useful && moon_buffer_len(&ex->replay) + bytes.len <= REPLAY_MAX_LEN &&
        moon_buffer_append(&ex->replay, ex->res->buffers, bytes) == 0)
        return;
    ex->keeps_replay = false;
    moon_buffer_fini(&ex->replay, ex->res->buffers);
}

ssize_t moon_attempt_send(struct moon_exchange *ex, struct moon_slice bytes, bool end)
{
    size_t taken = 0;
    if (!ex->up)
        return MOON_BODY_FULL;
    if (bytes.len) {
        taken = moon_lane_send_body(ex->up, bytes);
        keep_replay(ex, (struct moon_slice){bytes.ptr, taken});
    }
    if (taken < bytes.len)
        return taken ? (ssize_t)taken : MOON_BODY_FULL;
    if (!end)
        return (ssize_t)taken;
    ex->is_request_sent = true;
    moon_lane_send_end(ex->up, &ex->request_trailers);
    return (ssize_t)taken;
}
