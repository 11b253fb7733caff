// The way of a call to its peer and back: addresses, a link, the request, the response. Events of the lane come in here.
//
//   name -> addresses -> lend (or wait at a limit) -> send -> head -> body ... -> end
//              ^--- next address: not connected   ^--- new link: a reused one died before the first byte
#include "base/arena.h"
#include "base/err.h"
#include "exchange/call_priv.h"
#include "io/tls.h"
#include "obs/counters.h"
#include "obs/log.h"
#include "upstream/registry.h"
#include "upstream/upstream.h"

#include <errno.h>
#include <stdlib.h>

enum { TRY_MAX_COUNT = 3, INTERIM_MAX_COUNT = 16, ANSWER_MIN_LEN = 4096 };

static void attempt(struct moon_call *call, bool is_again);

// ---- waits

static void start_step_timer(struct moon_call *call, void (*fn)(struct moon_timer *timer),
                             uint32_t ms)
{
    call->step_timer.fn = fn;
    moon_loop_timer_add(call->service->res->loop, &call->step_timer, ms);
}

static void stop_pending(struct moon_call *call)
{
    if (call->step != CALL_LINK)
        return;
    call->step = CALL_ASKED;
    moon_pool_leave(call->service->pool, &call->waiter);
    moon_count_down(&call->service->res->counters->upstream_pending);
    moon_loop_timer_del(call->service->res->loop, &call->step_timer);
}

void moon_call_attempt_stop(struct moon_call *call, bool reuse)
{
    struct moon_lane *lane = call->lane;
    stop_pending(call);
    moon_name_wait_stop(&call->name_wait);
    moon_loop_timer_del(call->service->res->loop, &call->step_timer);
    call->lane = NULL;
    if (lane)
        moon_lane_end(lane, reuse && call->is_sent);
}

static void refuse_pending(struct moon_call *call)
{
    moon_count_up(&call->service->res->counters->upstream_pending_refused_total);
    moon_call_finish(call, MOON_ELIMIT);
}

static void on_pending_over(struct moon_timer *timer)
{
    refuse_pending(MOON_CONTAINER(timer, struct moon_call, step_timer));
}

static void on_granted(struct moon_waiter *waiter)
{
    attempt(MOON_CONTAINER(waiter, struct moon_call, waiter), true);
}

static void wait_for_link(struct moon_call *call, bool is_again)
{
    call->waiter.fn = on_granted;
    if (moon_pool_wait(call->service->pool, call->upstream, &call->waiter, is_again) < 0) {
        refuse_pending(call);
        return;
    }
    if (call->step == CALL_LINK) // the deadline stays
        return;
    call->step = CALL_LINK;
    moon_count_up(&call->service->res->counters->upstream_pending);
    start_step_timer(call, on_pending_over, call->upstream->bounds.pending_timeout_ms);
}

// ---- failures

struct failure {
    int err;
    bool was_connected, had_input, had_output;
};

static bool is_local_shortage(int err)
{
    return err == -EMFILE || err == -ENFILE || err == -ENOBUFS || err == -ENOMEM;
}

static int try_count(const struct moon_call *call)
{
    return call->attempt_count - call->guess_count;
}

// The protocol was guessed wrongly, and is known now: no attempt, once for each that is one.
static bool is_guess(const struct moon_call *call, const struct failure *failure)
{
    return failure->err == MOON_EGUESS && call->guess_count < try_count(call);
}

// Once more, where nobody can have acted upon the request, or doing it twice is as doing it once.
static bool may_try_again(struct moon_call *call, const struct failure *failure)
{
    if (call->goes_back)
        return true;
    if (try_count(call) >= TRY_MAX_COUNT || failure->err == MOON_ETIMEOUT ||
        is_local_shortage(failure->err))
        return false;
    if (failure->err == MOON_ENOTBEGUN || failure->err == MOON_EGUESS)
        return true;
    if (!failure->was_connected) {
        if (call->upstream)
            return (int)call->lease.endpoint_count > try_count(call);
        return ++call->address_at < call->address_count;
    }
    if (failure->had_input || !call->lease.is_reused || failure->err == MOON_ERESET)
        return false;
    return !failure->had_output || moon_method_is_idempotent(call->request.method_id);
}

static void attempt_failed(struct moon_call *call, const struct failure *failure)
{
    moon_call_attempt_stop(call, false);
    moon_log_debug(call->service->res->log, "call to \"%.*s\": %s",
                   MOON_SLICE_ARG(call->request.host_text), moon_err_text(failure->err));
    call->wants_fresh = failure->was_connected;
    call->was_lost = failure->was_connected && !moon_err_is_of_stream(failure->err);
    call->goes_back = is_guess(call, failure);
    call->guess_count += call->goes_back;
    if (!may_try_again(call, failure)) {
        moon_call_finish(call, failure->err);
        return;
    }
    if (failure->was_connected)
        moon_count_up(&call->service->res->counters->upstream_replays_total);
    attempt(call, false);
}

// ---- events of the lane

static void push_body(struct moon_call *call)
{
    while (call->sent_len < call->body_len) {
        struct moon_slice rest = {call->body + call->sent_len, call->body_len - call->sent_len};
        size_t taken = moon_lane_send_body(call->lane, rest);
        call->sent_len += taken;
        if (taken == 0)
            return; // `writable` follows
    }
    if (call->is_sent)
        return;
    call->is_sent = true;
    moon_lane_send_end(call->lane, NULL);
}

// Room for so many bytes in all, within the bound; what grows doubles.
static int reserve(struct moon_call *call, size_t len)
{
    if (len > call->body_max_len)
        return MOON_EBODY;
    if (len <= call->answer_cap)
        return 0;
    size_t cap = call->answer_cap ? call->answer_cap : ANSWER_MIN_LEN;
    while (cap < len)
        cap *= 2;
    if (cap > call->body_max_len)
        cap = call->body_max_len;
    int err = moon_buffer_pool_charge(call->service->res->buffers, cap - call->answer_cap);
    if (err)
        return err;
    call->charged_len += cap - call->answer_cap;
    char *answer = realloc(call->answer, cap);
    if (!answer)
        return -ENOMEM; // what is charged goes with the call's end
    call->answer = answer;
    call->answer_cap = cap;
    return 0;
}

static void on_head(void *owner)
{
    struct moon_call *call = owner;
    struct moon_head *response = &call->response;
    if (response->status == 101 || // it was not asked for
        (response->status < 200 && ++call->interim_count > INTERIM_MAX_COUNT)) {
        moon_call_finish(call, MOON_EPROTO);
        return;
    }
    if (response->status < 200)
        return;
    if (response->body == MOON_BODY_LENGTH && response->content_length > call->body_max_len)
        moon_call_finish(call, MOON_EBODY);
}

static size_t on_body(void *owner, struct moon_slice bytes)
{
    struct moon_call *call = owner;
    int err = reserve(call, call->answer_len + bytes.len);
    if (err) {
        moon_call_finish(call, err);
        return bytes.len;
    }
    memcpy(call->answer + call->answer_len, bytes.ptr, bytes.len);
    call->answer_len += bytes.len;
    return bytes.len;
}

static void on_end(void *owner, const struct moon_headers *trailers)
{
    (void)trailers;
    moon_call_finish(owner, 0);
}

static void on_fault(void *owner, const struct moon_fault *fault)
{
    struct moon_call *call = owner;
    moon_log_debug(call->service->res->log, "call to \"%.*s\": %s",
                   MOON_SLICE_ARG(call->request.host_text), fault->reason);
    moon_call_finish(call, MOON_EPROTO);
}

static void on_abort(void *owner, int err)
{
    struct moon_call *call = owner;
    struct failure failure = {.err = err,
                              .was_connected = moon_lane_is_connected(call->lane),
                              .had_input = moon_lane_has_input(call->lane),
                              .had_output = moon_lane_has_output(call->lane)};
    if (!failure.was_connected)
        moon_pooled_failed(call->lease.pooled);
    call->lane = NULL; // detached already
    attempt_failed(call, &failure);
}

static void on_writable(void *owner)
{
    push_body(owner);
}

static const struct moon_lane_events call_events = {
    .head = on_head,
    .fault = on_fault,
    .body = on_body,
    .end = on_end,
    .abort = on_abort,
    .writable = on_writable,
};

static void on_connect_over(struct moon_timer *timer)
{
    struct moon_call *call = MOON_CONTAINER(timer, struct moon_call, step_timer);
    if (!call->lane || moon_lane_is_connected(call->lane))
        return;
    moon_pooled_failed(call->lease.pooled);
    attempt_failed(call, &(struct failure){.err = -ETIMEDOUT});
}

// ---- attempts

// Host is the endpoint's address where nothing else was given.
static bool set_host(struct moon_call *call)
{
    char text[MOON_ADDRESS_TEXT_LEN];
    if (call->has_host)
        return true;
    size_t len = moon_address_format(&call->lease.state->address, text);
    call->request.host_text = moon_arena_try_copy(call->arena, (struct moon_slice){text, len});
    return call->request.host_text.ptr != NULL;
}

static void begin(struct moon_call *call)
{
    call->lane = call->lease.lane;
    call->response = (struct moon_head){0};
    call->sent_len = 0;
    call->is_sent = false;
    moon_lane_attach(call->lane,
                     &(struct moon_lane_attachment){.events = &call_events,
                                                    .owner = call,
                                                    .arena = call->arena,
                                                    .head = &call->response,
                                                    .request_method = call->request.method_id,
                                                    .response_ms = call->timeout_ms});
    if (!set_host(call)) {
        moon_call_finish(call, -ENOMEM);
        return;
    }
    if (call->connect_timeout_ms && !moon_lane_is_connected(call->lane))
        start_step_timer(call, on_connect_over, call->connect_timeout_ms);
    moon_lane_send_head(call->lane, &call->request, &call->framing); // an error is told by abort
    push_body(call);
}

// What calls to https: URLs are made with: it trusts whom the system trusts. The worker's, made at the first.
static struct moon_tls_client *client_of(struct moon_resources *res)
{
    struct moon_tls_client_options shipped = {0};
    struct moon_tls_problem problem;
    if (!res->tls_client && res->tls)
        moon_tls_client_get(res->tls, &shipped, &problem, &res->tls_client);
    return res->tls_client;
}

static int lend_to(struct moon_call *call)
{
    struct moon_lend_to_args args = {.address = &call->addresses[call->address_at],
                                     .host = call->host,
                                     .fresh = call->wants_fresh};
    if (call->is_secure)
        args.tls = call->tls ? call->tls : client_of(call->service->res);
    if (call->is_secure && !args.tls)
        return MOON_ETLS;
    return moon_pool_lend_to(call->service->pool, &args, &call->lease);
}

static int lend(struct moon_call *call)
{
    if (!call->upstream)
        return lend_to(call);
    struct moon_lend_args args = {.upstream = call->upstream,
                                  .avoid = call->avoid,
                                  .again = call->goes_back ? call->avoid : NULL,
                                  .waiter = &call->waiter,
                                  .fresh = call->wants_fresh,
                                  .was_lost = call->was_lost};
    return moon_pool_lend(call->service->pool, &args, &call->lease);
}

// `is_again`: it has waited for a link already.
static void attempt(struct moon_call *call, bool is_again)
{
    if (!is_again)
        call->attempt_count++;
    int err = lend(call);
    if (err == -EAGAIN && call->upstream) {
        wait_for_link(call, is_again);
        return;
    }
    stop_pending(call);
    call->step = CALL_ASKED;
    call->avoid = call->lease.state;
    if (err == -ENOENT)
        moon_call_finish(call, MOON_ENOENDPOINT);
    else if (err)
        attempt_failed(call, &(struct failure){.err = err});
    else
        begin(call);
}

// ---- names

static void use_answer(struct moon_call *call, const struct moon_name_answer *answer)
{
    if (answer->err) {
        moon_call_finish(call, answer->err);
        return;
    }
    for (size_t i = 0; i < answer->count && i < CALL_ADDRESS_MAX_COUNT; i++) {
        struct moon_address *to = &call->addresses[call->address_count++];
        *to = answer->addresses[(answer->turn + i) % answer->count];
        to->port = call->host_address.port;
    }
    attempt(call, false);
}

static void on_name(struct moon_name_wait *wait, const struct moon_name_answer *answer)
{
    use_answer(MOON_CONTAINER(wait, struct moon_call, name_wait), answer);
}

void moon_call_attempt_start(struct moon_call *call)
{
    struct moon_name_answer answer;
    if (call->upstream || call->host.len == 0) {
        call->addresses[0] = call->host_address;
        call->address_count = 1;
        attempt(call, false);
        return;
    }
    call->name_wait.fn = on_name;
    if (moon_names_ask(call->service->names, call->host, &call->name_wait, &answer))
        use_answer(call, &answer);
}
