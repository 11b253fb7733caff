// The upstream side of an exchange: one attempt after another until a response head has come, or until trying again would not
// be safe. Events of the upstream lane come in here.
//
//   lend a link -> send the head -> (body follows) -> response head -> response.c
//        ^------------ retry.c: whether, and when, to try once more; waiting for a link
#include "exchange/exchange_priv.h"

#include "base/arena.h"
#include "base/err.h"
#include "conf/settings.h"
#include "io/websocket_key.h"
#include "obs/counters.h"
#include "obs/log.h"
#include "upstream/patron.h"
#include "upstream/registry.h"
#include "upstream/upstream.h"

#include <errno.h>

enum {
    REPLAY_MAX_LEN = 49152, // fits the link's queue together with any head
    INTERIM_MAX_COUNT = 16, // A23
    SPLICE_MIN_LEN = 65536, // shorter bodies are mostly read together with their head
};

void moon_attempt_end(struct moon_exchange *ex, bool reuse)
{
    struct moon_lane *up = ex->up;
    moon_wait_stop(ex);
    if (!up)
        return;
    ex->up = NULL;
    moon_lane_end(up, reuse && ex->is_request_sent);
}

static void fail_attempt(struct moon_exchange *ex, int err)
{
    // Where a route retries, 502 would say that it had not (gateway-api 7.6).
    uint16_t status = ex->action->retry.attempts ? 503 : 502;
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
    case -EDESTADDRREQ:
        moon_exchange_answer(ex, 503, "the connection has no original destination");
        return;
    case -EADDRNOTAVAIL:
    case -EMFILE:
    case -ENFILE:
    case -ENOBUFS:
        moon_exchange_answer(ex, 503, "no local port or descriptor is left for the upstream");
        return;
    case -ECONNREFUSED:
        moon_exchange_answer(ex, status, "the upstream refused the connection");
        return;
    case MOON_ECERT:
        moon_exchange_answer(ex, status, "the upstream's certificate is not accepted");
        return;
    case MOON_ETLS:
    case MOON_ECUT:
        moon_exchange_answer(ex, status, "TLS with the upstream failed");
        return;
    case MOON_EALPN:
        moon_exchange_answer(ex, status, "the upstream does not speak HTTP/2");
        return;
    case MOON_ERESET:
        moon_exchange_answer(ex, status, "the upstream reset the stream");
        return;
    case MOON_EGUESS:
        moon_exchange_answer(ex, 503, "the upstream speaks now this protocol, now that");
        return;
    case MOON_ENOTBEGUN:
        moon_exchange_answer(ex, 503, "the upstream refused the stream");
        return;
    case MOON_ESILENT:
        moon_exchange_answer(ex, 504, "the upstream's connection is dead");
        return;
    case MOON_EPROTO:
        moon_exchange_answer(ex, status, "the upstream broke the protocol");
        return;
    case MOON_EOF:
        moon_exchange_answer(ex, status, "the upstream closed the connection without an answer");
        return;
    default:
        moon_exchange_answer(ex, status, "the connection to the upstream failed");
    }
}

// The attempt ends without the head of a response.
static void count_silence(const struct moon_exchange *ex)
{
    if (ex->up && ex->response.status < 200)
        moon_pooled_count(ex->lease.pooled, 0);
}

static void on_abort(void *owner, int err)
{
    struct moon_exchange *ex = owner;
    struct moon_failure failure = {.err = err,
                                   .had_input = moon_lane_has_input(ex->up),
                                   .was_connected = moon_lane_is_connected(ex->up)};
    if (!failure.was_connected)
        moon_pooled_failed(ex->lease.pooled);
    failure.was_lost = failure.was_connected && !moon_err_is_of_stream(err);
    count_silence(ex);
    ex->up = NULL;
    moon_attempt_failed(ex, &failure);
}

void moon_attempt_failed(struct moon_exchange *ex, const struct moon_failure *failure)
{
    count_silence(ex);
    moon_attempt_end(ex, false);
    moon_log_debug(ex->res->log, "upstream \"%.*s\": %s", MOON_SLICE_ARG(ex->upstream->name),
                   moon_err_text(failure->err));
    if (!moon_retry_failed(ex, failure))
        fail_attempt(ex, failure->err);
}

static void on_fault(void *owner, const struct moon_fault *fault)
{
    struct moon_exchange *ex = owner;
    count_silence(ex);
    moon_attempt_end(ex, false);
    moon_exchange_answer(ex, fault->status, fault->reason);
}

static bool is_interim_wanted(const struct moon_exchange *ex)
{
    if (ex->request.minor == 0)
        return false; // RFC 9110 15.2: never to an HTTP/1.0 client
    // A filter read or replaced the body: the client was told already, or need not send it.
    return ex->response.status != 100 || !ex->intake || ex->request.expects_continue;
}

static void on_interim(struct moon_exchange *ex)
{
    struct moon_framing none = {.body = MOON_BODY_NONE};
    if (++ex->interim_count > INTERIM_MAX_COUNT) {
        moon_attempt_end(ex, false);
        moon_exchange_answer(ex, 502, "the upstream sent too many interim responses");
        return;
    }
    if (is_interim_wanted(ex)) {
        moon_head_strip_hop(&ex->response);
        moon_lane_send_head(ex->down, &ex->response, &none);
        moon_count_up(&ex->res->counters->responses_1xx);
    }
    ex->response.status = 0;
}

// Filters that read messages see all that passes: WebSocket, without an extension.
static bool is_readable(const struct moon_exchange *ex)
{
    uint32_t at = 0;
    return moon_exchange_is_websocket(ex) &&
           !moon_headers_next(&ex->response.headers, MOON_SLICE("Sec-WebSocket-Extensions"), &at);
}

// The client of an HTTP/2 stream sees no Sec-WebSocket-Accept: it is ours to check.
static bool is_accepted(const struct moon_exchange *ex)
{
    uint32_t at = 0;
    const struct moon_field *key =
        moon_headers_next(&ex->request.headers, MOON_SLICE("Sec-WebSocket-Key"), &at);
    at = 0;
    const struct moon_field *accept =
        moon_headers_next(&ex->response.headers, MOON_SLICE("Sec-WebSocket-Accept"), &at);
    return moon_exchange_is_websocket(ex) && key && accept &&
           moon_websocket_key_is_accepted(key->value, accept->value);
}

// 101: both sides become a tunnel, after header_filter (A24).
static void on_switch(struct moon_exchange *ex)
{
    const struct moon_field *given = moon_headers_get(&ex->response.headers, MOON_H_UPGRADE);
    if (!ex->request_framing.upgrade.len || !given || !ex->is_request_sent) {
        moon_attempt_end(ex, false);
        moon_exchange_answer(ex, 502, "the upstream switched protocols unasked");
        return;
    }
    ex->sent = (struct moon_framing){.body = MOON_BODY_NONE, .upgrade = given->value};
    if (ex->request.is_h2_upgrade && !is_accepted(ex)) {
        moon_attempt_end(ex, false);
        moon_exchange_answer(ex, 502, "the upstream's Sec-WebSocket-Accept does not fit the key");
        return;
    }
    if (ex->run.has_messages && !is_readable(ex)) {
        moon_attempt_end(ex, false);
        moon_exchange_answer(ex, 502, "the upstream switched to what websocket_frame cannot read");
        return;
    }
    moon_response_start(ex);
}

static void on_head(void *owner)
{
    struct moon_exchange *ex = owner;
    if (ex->response.status >= 200 || ex->response.status == 101) {
        moon_pooled_count(ex->lease.pooled, ex->response.status);
        if (moon_retry_status(ex))
            return;
        uint64_t now_ns = moon_loop_turn_ns(ex->res->loop); // of the turn that brought it
        ex->has_upstream_us = true;
        ex->upstream_us = now_ns > ex->sent_ns ? (now_ns - ex->sent_ns) / 1000 : 0;
        moon_wait_stop(ex);
        ex->keeps_replay = false;
        moon_buffer_fini(&ex->replay, ex->res->buffers);
        if (ex->grpc)
            moon_grpc_call_note(ex, &ex->response.headers);
    }
    if (ex->response.status == 101)
        on_switch(ex);
    else if (ex->response.status < 200)
        on_interim(ex);
    else
        moon_response_start(ex);
}

// Sends what earlier attempts had sent of the body, as far as it is taken now.
static void resend(struct moon_exchange *ex)
{
    if (!ex->is_resending || !ex->up)
        return;
    if (moon_buffer_len(&ex->replay))
        ex->resent_len += moon_lane_send_body(
            ex->up, moon_slice_skip(moon_buffer_bytes(&ex->replay), ex->resent_len));
    ex->is_resending = ex->resent_len < moon_buffer_len(&ex->replay);
    if (!ex->is_resending && ex->was_request_sent)
        moon_attempt_send(ex, (struct moon_slice){"", 0}, true);
}

static size_t on_body(void *owner, struct moon_slice bytes)
{
    struct moon_exchange *ex = owner;
    if (ex->step != STEP_RESPONSE)
        return 0; // header_filter waits
    ssize_t taken = moon_response_pass(ex, bytes, false);
    if (taken == MOON_BODY_FAIL) {
        moon_exchange_break(ex);
        return bytes.len;
    }
    if (taken < 0)
        return 0;
    ex->flow.response_body_len += (size_t)taken;
    if (ex->is_response_sent) // a filter has ended it: the rest is not waited for
        moon_exchange_finish(ex);
    return (size_t)taken;
}

static size_t on_room(void *owner)
{
    const struct moon_exchange *ex = owner;
    return ex->down ? moon_lane_room(ex->down) : SIZE_MAX;
}

static void on_end(void *owner, const struct moon_headers *trailers)
{
    struct moon_exchange *ex = owner;
    ex->is_response_whole = true;
    ex->response_trailers = *trailers;
    if (ex->grpc)
        moon_grpc_call_note(ex, trailers);
    if (ex->response.body == MOON_BODY_LENGTH)
        ex->flow.response_body_len = ex->response.content_length; // spliced bytes did not pass here
    if (ex->step == STEP_RESPONSE)
        moon_response_push(ex);
}

static void on_writable(void *owner)
{
    struct moon_exchange *ex = owner;
    resend(ex);
    moon_exchange_push_request(ex);
    if (ex->down)
        moon_lane_resume(ex->down);
}

static const struct moon_lane_events up_events = {
    .head = on_head,
    .fault = on_fault,
    .body = on_body,
    .room = on_room,
    .end = on_end,
    .abort = on_abort,
    .writable = on_writable,
};

static bool is_spliceable(const struct moon_exchange *ex, const struct moon_framing *framing)
{
    return framing->body == MOON_BODY_LENGTH && framing->content_length >= SPLICE_MIN_LEN &&
           !ex->run.has_request_body && !moon_intake_is_replaced(ex);
}

// How long the upstream may say nothing. The streams of calls may idle, both ways, as tunnels do.
static uint32_t silence_of(const struct moon_exchange *ex)
{
    enum { IDLE_MS = 600000 };
    uint32_t silence_ms = ex->upstream->timeouts.response_ms;
    uint32_t own_ms = ex->action->timeouts.response_ms;
    if (ex->may_idle)
        return ex->action->timeouts.idle_ms ? ex->action->timeouts.idle_ms : IDLE_MS;
    if (silence_ms == 0)
        silence_ms = ex->res->settings->timeouts.response_ms;
    return own_ms > silence_ms ? own_ms : silence_ms;
}

// The link is lent: sends what the request is so far.
static void begin(struct moon_exchange *ex)
{
    const struct moon_framing *framing = &ex->request_framing;
    ex->up = ex->lease.lane;
    ex->sent_ns = moon_loop_now_ns(ex->res->loop);
    moon_lane_attach(ex->up, &(struct moon_lane_attachment){.events = &up_events,
                                                            .owner = ex,
                                                            .arena = ex->flow.arena,
                                                            .head = &ex->response,
                                                            .request_method = ex->request.method_id,
                                                            .response_ms = silence_of(ex)});
    if (ex->may_idle && ex->down)
        moon_lane_hold(ex->down, true); // who streams need not keep to a rate
    moon_grpc_call_forward(ex);         // out of memory: as it came
    if (ex->upstream->timeouts.connect_ms)
        moon_lane_connect_within(ex->up, ex->upstream->timeouts.connect_ms);
    moon_lane_send_head(ex->up, &ex->request, framing);
    ex->resent_len = 0;
    ex->is_resending = ex->attempt_count > 1;
    resend(ex);
    if (is_spliceable(ex, framing))
        moon_lane_splice(ex->down, ex->up);
    moon_exchange_push_request(ex);
    if (ex->step == STEP_UPSTREAM && ex->down)
        moon_lane_resume(ex->down);
}

// Upgrades are of HTTP/1.1: an upstream that speaks both is asked by that.
static bool is_http1(const struct moon_exchange *ex)
{
    return ex->upstream->protocol == MOON_UPSTREAM_AUTO && ex->request_framing.upgrade.len > 0;
}

void moon_attempt_lend(struct moon_exchange *ex, bool is_again)
{
    const struct moon_link *client = ex->down ? moon_lane_link(ex->down) : NULL;
    struct moon_patron patron = {0};
    if (client && (ex->upstream->proxy || ex->upstream->is_original))
        patron = (struct moon_patron){moon_link_number(client),
                                      moon_link_stream(client),
                                      moon_link_proxied(client),
                                      {NULL, 0}};
    if (ex->upstream->proxy & MOON_PATRON_NAMED)
        patron.id = moon_exchange_id(ex);
    struct moon_lend_args args = {.upstream = ex->upstream,
                                  .patron = patron.stream ? &patron : NULL,
                                  .avoid = ex->avoid,
                                  .again = ex->goes_back ? ex->avoid : NULL,
                                  .waiter = &ex->waiter,
                                  .fresh = ex->wants_fresh,
                                  .was_lost = ex->was_lost,
                                  .is_http1 = is_http1(ex)};
    int err = moon_pool_lend(ex->service->pool, &args, &ex->lease);
    if (err == -EAGAIN) {
        moon_wait_for_link(ex, is_again);
        return;
    }
    moon_wait_stop(ex);
    ex->avoid = ex->lease.state;
    if (ex->lease.state)
        ex->endpoint = ex->lease.state->address;
    if (err) // -ENOENT and the like concern no endpoint
        moon_attempt_failed(ex, &(struct moon_failure){.err = err});
    else
        begin(ex);
}

void moon_attempt_start(struct moon_exchange *ex)
{
    ex->step = STEP_UPSTREAM;
    ex->was_request_sent = ex->is_request_sent && !moon_intake_is_kept(ex);
    ex->is_request_sent = false;
    moon_intake_rewind(ex);
    if (ex->attempt_count++ == 0) {
        struct moon_framing *framing = &ex->request_framing;
        if (moon_forward_request(ex, framing) < 0) {
            moon_exchange_answer(ex, 431, "the request head is too large to forward");
            return;
        }
        ex->keeps_replay = framing->body != MOON_BODY_LENGTH ||
                           framing->content_length <= REPLAY_MAX_LEN || moon_intake_is_kept(ex);
    }
    moon_attempt_lend(ex, false);
}

// Keeps a copy of what is sent while a replay may need it: not where the method rules it out on a standing connection.
static void keep_replay(struct moon_exchange *ex, struct moon_slice bytes)
{
    if (!ex->keeps_replay || bytes.len == 0 || moon_intake_is_kept(ex))
        return;
    // a stream of HTTP/2 may be refused before anything was done
    bool is_useful = ex->up->is_stream || !moon_lane_is_connected(ex->up) ||
                     ex->action->retry.attempts ||
                     (ex->lease.is_reused && moon_method_is_idempotent(ex->request.method_id));
    if (is_useful && moon_buffer_len(&ex->replay) + bytes.len <= REPLAY_MAX_LEN &&
        moon_buffer_append(&ex->replay, ex->res->buffers, bytes) == 0)
        return;
    ex->keeps_replay = false;
    moon_buffer_fini(&ex->replay, ex->res->buffers);
}

ssize_t moon_attempt_send(struct moon_exchange *ex, struct moon_slice bytes, bool end)
{
    size_t taken = 0;
    if (!ex->up || ex->is_resending)
        return MOON_BODY_FULL;
    if (bytes.len) {
        taken = moon_lane_send_body(ex->up, bytes);
        ex->was_body_sent |= taken > 0;
        keep_replay(ex, (struct moon_slice){bytes.ptr, taken});
    }
    if (taken < bytes.len)
        return taken ? (ssize_t)taken : MOON_BODY_FULL;
    if (!end)
        return (ssize_t)taken;
    ex->is_request_sent = true;
    moon_lane_send_end(ex->up, &ex->request_trailers);
    moon_wait_for_head(ex);
    return (ssize_t)taken;
}
