// Trying again, and every wait of an exchange that is not for a peer: for a link at the upstream's limit, for the pause before a
// retry, for a response head that has its own deadline on this route. One timer serves all three; `wait` says for which. A
// second one holds the deadline of the whole exchange.
//
// What may be sent once more: nothing of an answer has gone to the client, and all that was sent is still here. Then
//   by itself      another endpoint after a failed connect; a new link after a reused one died unanswered (idempotent only);
//                  a request that an upstream of HTTP/2 has refused before it began to act upon it (RFC 9113 8.7);
//                  the same endpoint when its protocol was guessed wrongly, which is no attempt, once for each that is one
//   as the route says   `attempts` more: after a failed connect or a listed status whatever the method, after a reset or
//                       a timeout idempotent methods only, for those may have been carried out
#include "base/err.h"
#include "exchange/exchange_priv.h"
#include "obs/counters.h"
#include "upstream/upstream.h"

#include <errno.h>

enum { TRY_MAX_COUNT = 3, BACKOFF_DOUBLINGS = 6 };

// RFC 9110 9.2.2.
bool moon_method_is_idempotent(enum moon_method method)
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

bool moon_retry_has_status(const struct moon_retry *retry, uint16_t status)
{
    unsigned bit = status - 400u;
    return status >= 400 && status < 600 && (retry->statuses[bit / 64] >> (bit % 64) & 1);
}

// ---- waiting

static void stop_pending(struct moon_exchange *ex)
{
    moon_pool_leave(ex->service->pool, &ex->waiter);
    moon_count_down(&ex->res->counters->upstream_pending);
}

void moon_wait_stop(struct moon_exchange *ex)
{
    if (ex->wait == WAIT_NONE)
        return;
    if (ex->wait == WAIT_LINK)
        stop_pending(ex);
    ex->wait = WAIT_NONE;
    moon_loop_timer_del(ex->res->loop, &ex->wait_timer);
}

static void on_wait_over(struct moon_timer *timer)
{
    struct moon_exchange *ex = MOON_CONTAINER(timer, struct moon_exchange, wait_timer);
    enum moon_wait wait = ex->wait;
    moon_wait_stop(ex);
    switch (wait) {
    case WAIT_NONE:
        return;
    case WAIT_LINK:
        moon_count_up(&ex->res->counters->upstream_pending_refused_total);
        moon_exchange_answer(ex, 503, "no connection of the upstream became free in time");
        return;
    case WAIT_PAUSE:
        moon_attempt_start(ex);
        return;
    case WAIT_HEAD:
        moon_attempt_failed(ex,
                            &(struct moon_failure){.err = MOON_ETIMEOUT, .was_connected = true});
        return;
    }
}

static void start_wait(struct moon_exchange *ex, enum moon_wait wait, uint32_t ms)
{
    ex->wait = (uint8_t)wait;
    ex->wait_timer.fn = on_wait_over;
    moon_loop_timer_add(ex->res->loop, &ex->wait_timer, ms);
}

static void on_granted(struct moon_waiter *waiter)
{
    moon_attempt_lend(MOON_CONTAINER(waiter, struct moon_exchange, waiter), true);
}

void moon_wait_for_link(struct moon_exchange *ex, bool is_again)
{
    ex->waiter.fn = on_granted;
    if (moon_pool_wait(ex->service->pool, ex->upstream, &ex->waiter, is_again) < 0) {
        moon_count_up(&ex->res->counters->upstream_pending_refused_total);
        moon_exchange_answer(ex, 503, "the upstream is at its limit, and too many wait for it");
        return;
    }
    if (ex->wait == WAIT_LINK) // the deadline stays
        return;
    moon_count_up(&ex->res->counters->upstream_pending);
    start_wait(ex, WAIT_LINK, ex->upstream->bounds.pending_timeout_ms);
}

void moon_wait_for_head(struct moon_exchange *ex)
{
    if (ex->action->timeouts.response_ms && ex->step == STEP_UPSTREAM)
        start_wait(ex, WAIT_HEAD, ex->action->timeouts.response_ms);
}

// ---- the deadline of the whole

static void on_deadline(struct moon_timer *timer)
{
    struct moon_exchange *ex = MOON_CONTAINER(timer, struct moon_exchange, deadline);
    // A header_filter that waits must not hold up the answer about that; one that waits with the answer gets as long again.
    if (ex->step == STEP_HEADER_FILTER)
        ex->has_failed = true;
    moon_deadline_start(ex);
    ex->grpc_status = MOON_GRPC_DEADLINE_EXCEEDED;
    moon_exchange_answer(ex, 504, "the time for the request is over");
}

void moon_deadline_start(struct moon_exchange *ex)
{
    ex->deadline.fn = on_deadline;
    if (ex->budget_ms)
        moon_loop_timer_add(ex->res->loop, &ex->deadline, ex->budget_ms);
}

void moon_deadline_stop(struct moon_exchange *ex)
{
    moon_loop_timer_del(ex->res->loop, &ex->deadline);
}

// ---- trying again

static bool is_local_shortage(int err)
{
    return err == -ENOENT || err == -EDESTADDRREQ || err == -EMFILE || err == -ENFILE ||
           err == -ENOBUFS || err == -ENOMEM;
}

static int try_count(const struct moon_exchange *ex)
{
    return ex->attempt_count - ex->guess_count;
}

// The endpoint has done nothing wrong, and is known better now.
static bool is_guess(const struct moon_exchange *ex, const struct moon_failure *failure)
{
    return failure->err == MOON_EGUESS && ex->guess_count < try_count(ex);
}

// What an exchange does by itself.
static bool is_replayed(const struct moon_exchange *ex, const struct moon_failure *failure)
{
    if (try_count(ex) - ex->retry_count >= TRY_MAX_COUNT || failure->err == MOON_ETIMEOUT)
        return false;
    if (failure->err == MOON_ENOTBEGUN || failure->err == MOON_EGUESS)
        return true;
    if (!failure->was_connected) // nothing can have reached anybody
        return ex->lease.endpoint_count > try_count(ex);
    return !failure->had_input && ex->lease.is_reused && failure->err != MOON_ERESET &&
           moon_method_is_idempotent(ex->request.method_id);
}

static bool is_listed(const struct moon_exchange *ex, const struct moon_failure *failure)
{
    const struct moon_retry *retry = &ex->action->retry;
    if (!failure->was_connected)
        return retry->on_connect;
    bool is_on = failure->err == MOON_ETIMEOUT ? retry->on_timeout : retry->on_reset;
    return is_on && moon_method_is_idempotent(ex->request.method_id);
}

// A multiple of the pause, the double each time, of which between half and all is waited: retries do not come in waves.
static void retry(struct moon_exchange *ex)
{
    unsigned doublings = ex->retry_count < BACKOFF_DOUBLINGS ? ex->retry_count : BACKOFF_DOUBLINGS;
    uint32_t pause_ms = ex->action->retry.backoff_ms << doublings;
    uint64_t seed = (ex->res->id_seed[1] + ++ex->res->id_count) * 0x9e3779b97f4a7c15u;
    ex->retry_count++;
    moon_count_up(&ex->res->counters->upstream_retries_total);
    if (pause_ms > 0)
        start_wait(ex, WAIT_PAUSE, pause_ms - (uint32_t)((seed >> 40) % (pause_ms / 2 + 1)));
    else
        moon_attempt_start(ex);
}

static bool has_retries(const struct moon_exchange *ex)
{
    return ex->step == STEP_UPSTREAM && ex->keeps_replay &&
           ex->retry_count < ex->action->retry.attempts;
}

bool moon_retry_failed(struct moon_exchange *ex, const struct moon_failure *failure)
{
    // Nothing is sent by a guess that is wrong; but a link of HTTP/1.1 takes of the body while it connects.
    bool is_untouched = failure->err == MOON_EGUESS && !ex->was_body_sent;
    if (ex->step != STEP_UPSTREAM || is_local_shortage(failure->err) ||
        (!ex->keeps_replay && !is_untouched))
        return false;
    // Where none could be made, what idles at the next endpoint will do: else a dead one costs its neighbours a connection
    // for each request.
    ex->wants_fresh = failure->was_connected;
    ex->was_lost = failure->was_lost;
    ex->goes_back = is_guess(ex, failure);
    ex->guess_count += ex->goes_back;
    if (!ex->goes_back && has_retries(ex) && is_listed(ex, failure)) {
        retry(ex);
        return true;
    }
    if (!ex->goes_back && !is_replayed(ex, failure))
        return false;
    moon_count_up(&ex->res->counters->upstream_replays_total);
    moon_attempt_start(ex);
    return true;
}

bool moon_retry_status(struct moon_exchange *ex)
{
    if (!has_retries(ex) || !moon_retry_has_status(&ex->action->retry, ex->response.status))
        return false;
    moon_attempt_end(ex, false);
    ex->wants_fresh = ex->was_lost = ex->goes_back = false;
    retry(ex);
    return true;
}
