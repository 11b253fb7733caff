// See tcp.h. What stands on the snapshot is let go once the relay begins.
#include "exchange/tcp.h"

#include "base/err.h"
#include "exchange/access.h"
#include "exchange/action.h"
#include "exchange/exchange.h"
#include "exchange/hold.h"
#include "exchange/prelude.h"
#include "exchange/relay.h"
#include "io/loop.h"
#include "link/link.h"
#include "link/proxied.h"
#include "link/resources.h"
#include "obs/counters.h"
#include "obs/log.h"
#include "obs/series.h"
#include "route/listener.h"
#include "route/route.h"
#include "upstream/patron.h"
#include "upstream/registry.h"
#include "upstream/upstream.h"

#include <errno.h>
#include <stdlib.h>

enum { TRY_MAX_COUNT = 3, NEVER_MS = 1 << 30 };

struct moon_tcp {
    struct moon_service *service;
    struct moon_stream *stream; // NULL: the relay has it, or it is closed
    const struct moon_proxied *proxied;
    void (*closed)(void *owner);
    void (*spoke)(void *owner, bool is_upstream);
    void *owner;
    struct moon_hold *hold;               // NULL: once it is relayed
    const struct moon_action *action;     // of the hold
    const struct moon_upstream *upstream; // of the hold
    struct moon_prelude *prelude;         // filters look at it; NULL: they do not
    struct moon_lane *lane;               // of the connection that is being made
    struct moon_lease lease;
    const struct moon_endpoint_state *avoid; // compared, never followed
    struct moon_relay *relay;
    struct moon_waiter waiter;
    struct moon_timer timer; // for the wait at a limit
    struct moon_task task;   // begins; frees
    struct moon_address client, endpoint;
    struct moon_series_sample sample;
    uint64_t number, start_ms, start_ns, sent_ns;
    int listener;
    uint8_t attempt_count;
    bool waits, is_over, is_tls;
};

static void attempt(struct moon_tcp *tcp, bool is_again);

static struct moon_resources *res_of(const struct moon_tcp *tcp)
{
    return tcp->service->res;
}

// ---- the end

static void tcp_task_free(struct moon_task *task)
{
    free(MOON_CONTAINER(task, struct moon_tcp, task));
}

static void stop_waiting(struct moon_tcp *tcp)
{
    if (!tcp->waits)
        return;
    tcp->waits = false;
    moon_pool_leave(tcp->service->pool, &tcp->waiter);
    moon_count_down(&res_of(tcp)->counters->upstream_pending);
    moon_loop_timer_del(res_of(tcp)->loop, &tcp->timer);
}

// Lets go of everything but itself.
static void release(struct moon_tcp *tcp)
{
    struct moon_lane *lane = tcp->lane;
    stop_waiting(tcp);
    tcp->lane = NULL;
    moon_prelude_free(tcp->prelude);
    tcp->prelude = NULL;
    if (lane)
        moon_lane_end(lane, false);
    moon_stream_abort(tcp->stream);
    tcp->stream = NULL;
    moon_hold_unref(tcp->hold);
    tcp->hold = NULL;
    tcp->is_over = true;
    moon_task_cancel(&tcp->task);
    tcp->task.fn = tcp_task_free;
    moon_loop_defer(res_of(tcp)->loop, &tcp->task);
}

static void record(struct moon_tcp *tcp, struct moon_record *record)
{
    tcp->sample.us = (moon_loop_now_ns(res_of(tcp)->loop) - tcp->start_ns) / 1000;
    record->scheme = tcp->is_tls ? MOON_SLICE("tls") : MOON_SLICE("tcp");
    record->protocol = tcp->is_tls ? MOON_SLICE("TLS") : MOON_SLICE("TCP");
    record->client = tcp->client.family ? &tcp->client : NULL; // none: a unix socket
    record->endpoint = tcp->endpoint.family ? &tcp->endpoint : NULL;
    record->attempt_count = tcp->attempt_count;
    record->us = tcp->sample.us;
    record->has_upstream_us = tcp->sample.has_upstream_us;
    record->upstream_us = tcp->sample.upstream_us;
    moon_access_record_stream(tcp->service, record, &tcp->sample);
}

static void record_refusal(struct moon_tcp *tcp, uint16_t status)
{
    struct moon_record line = {0};
    if (tcp->action)
        line.route = moon_slice_from(tcp->action->name);
    if (tcp->upstream)
        line.upstream = tcp->upstream->name;
    tcp->sample.status = status;
    record(tcp, &line);
}

static void end(struct moon_tcp *tcp)
{
    release(tcp);
    tcp->closed(tcp->owner);
}

// Nobody takes it: the client sees a reset.
static void refuse(struct moon_tcp *tcp, uint16_t status, const char *why)
{
    struct moon_resources *res = res_of(tcp);
    moon_log_debug(res->log, "a TCP connection was refused: %s", why);
    moon_count_up(&res->counters->tcp_failures_total);
    record_refusal(tcp, status);
    end(tcp);
}

static void on_relay_ended(void *owner, const struct moon_relay_result *result)
{
    struct moon_tcp *tcp = owner;
    struct moon_record line = {.route = moon_slice_from(result->identity->route),
                               .upstream = moon_slice_from(result->identity->upstream),
                               .request_len = result->client_len,
                               .response_len = result->upstream_len,
                               .is_complete = result->is_complete};
    tcp->relay = NULL;
    record(tcp, &line);
    release(tcp);
    if (tcp->closed)
        tcp->closed(tcp->owner);
}

// ---- waiting at a limit

static void refuse_pending(struct moon_tcp *tcp)
{
    moon_count_up(&res_of(tcp)->counters->upstream_pending_refused_total);
    refuse(tcp, 503, "the upstream is at its limit");
}

static void on_pending_over(struct moon_timer *timer)
{
    refuse_pending(MOON_CONTAINER(timer, struct moon_tcp, timer));
}

static void on_granted(struct moon_waiter *waiter)
{
    attempt(MOON_CONTAINER(waiter, struct moon_tcp, waiter), true);
}

static void wait_for_connection(struct moon_tcp *tcp, bool is_again)
{
    if (moon_pool_wait(tcp->service->pool, tcp->upstream, &tcp->waiter, is_again) < 0) {
        refuse_pending(tcp);
        return;
    }
    if (tcp->waits) // the deadline stays
        return;
    tcp->waits = true;
    moon_count_up(&res_of(tcp)->counters->upstream_pending);
    moon_loop_timer_add(res_of(tcp)->loop, &tcp->timer, tcp->upstream->bounds.pending_timeout_ms);
}

// ---- connecting

static bool is_local_shortage(int err)
{
    return err == -ENOENT || err == -EDESTADDRREQ || err == -EMFILE || err == -ENFILE ||
           err == -ENOBUFS || err == -ENOMEM;
}

static void attempt_failed(struct moon_tcp *tcp, int err)
{
    bool is_timeout = err == -ETIMEDOUT || err == MOON_ETIMEOUT;
    moon_log_debug(res_of(tcp)->log, "upstream \"%.*s\": %s", MOON_SLICE_ARG(tcp->upstream->name),
                   moon_err_text(err));
    if (is_local_shortage(err) || tcp->attempt_count >= TRY_MAX_COUNT ||
        tcp->lease.endpoint_count <= tcp->attempt_count)
        refuse(tcp, is_local_shortage(err) ? 503 : is_timeout ? 504 : 502, moon_err_text(err));
    else
        attempt(tcp, false);
}

static void on_abort(void *owner, int err)
{
    struct moon_tcp *tcp = owner;
    if (!moon_lane_is_connected(tcp->lane))
        moon_pooled_failed(tcp->lease.pooled);
    moon_pooled_count(tcp->lease.pooled, 0);
    tcp->lane = NULL; // detached already
    attempt_failed(tcp, err);
}

static char *copy(struct moon_slice text)
{
    char *out = text.ptr ? moon_slice_dup(text) : NULL;
    if (text.ptr && !out)
        abort();
    return out;
}

static struct moon_relay_identity identify(const struct moon_tcp *tcp)
{
    const char *listener = tcp->hold->listeners->listeners[tcp->listener].name;
    return (struct moon_relay_identity){.state = tcp->is_tls ? "tls" : "tcp",
                                        .number = tcp->number,
                                        .start_ms = tcp->start_ms,
                                        .client = tcp->client,
                                        .endpoint = tcp->endpoint,
                                        .listener = copy(moon_slice_from(listener)),
                                        .route = copy(moon_slice_from(tcp->action->name)),
                                        .upstream = copy(tcp->upstream->name)};
}

static void on_spoke(void *owner, bool is_upstream)
{
    const struct moon_tcp *tcp = owner;
    if (tcp->closed)
        tcp->spoke(tcp->owner, is_upstream);
}

static void on_connected(void *owner)
{
    struct moon_tcp *tcp = owner;
    struct moon_lane *lane = tcp->lane;
    struct moon_buffer none = {0};
    struct moon_relay_args args = {.client = tcp->stream,
                                   .idle_ms = tcp->action->timeouts.idle_ms,
                                   .ended = on_relay_ended,
                                   .spoke = tcp->spoke ? on_spoke : NULL,
                                   .owner = tcp};
    uint64_t now_ns = moon_loop_turn_ns(res_of(tcp)->loop);
    tcp->sample.has_upstream_us = true;
    tcp->sample.upstream_us = now_ns > tcp->sent_ns ? (now_ns - tcp->sent_ns) / 1000 : 0;
    tcp->sample.status = 200;
    moon_pooled_count(tcp->lease.pooled, 200);
    moon_pooled_claim(tcp->lease.pooled, &args.claim);
    tcp->lane = NULL;
    int err = moon_lane_take_stream(lane, &args.upstream, &none, &args.to_upstream);
    if (err) {
        moon_claim_release(&args.claim);
        attempt_failed(tcp, err);
        return;
    }
    args.identity = identify(tcp);
    tcp->stream = NULL;
    moon_hold_unref(tcp->hold);
    tcp->hold = NULL;
    tcp->action = NULL;
    tcp->upstream = NULL;
    tcp->relay = moon_relay_new(res_of(tcp), &args);
}

// There is nothing to read while it connects.
static size_t on_body(void *owner, struct moon_slice bytes)
{
    (void)owner;
    return bytes.len;
}

static void on_nothing(void *owner)
{
    (void)owner;
}

static const struct moon_lane_events connect_events = {
    .connected = on_connected,
    .abort = on_abort,
    .head = on_nothing,
    .body = on_body,
    .writable = on_nothing,
};

static void begin(struct moon_tcp *tcp)
{
    tcp->lane = tcp->lease.lane;
    tcp->sent_ns = moon_loop_now_ns(res_of(tcp)->loop);
    moon_lane_attach(tcp->lane, &(struct moon_lane_attachment){.events = &connect_events,
                                                               .owner = tcp,
                                                               .response_ms = NEVER_MS});
    if (tcp->upstream->timeouts.connect_ms)
        moon_lane_connect_within(tcp->lane, tcp->upstream->timeouts.connect_ms);
}

static void attempt(struct moon_tcp *tcp, bool is_again)
{
    struct moon_patron patron = {
        .number = tcp->number, .stream = tcp->stream, .proxied = tcp->proxied};
    struct moon_lend_args args = {.upstream = tcp->upstream,
                                  .patron = &patron,
                                  .avoid = tcp->avoid,
                                  .waiter = &tcp->waiter,
                                  .fresh = true,
                                  .is_http1 = true};
    if (!is_again)
        tcp->attempt_count++;
    int err = moon_pool_lend(tcp->service->pool, &args, &tcp->lease);
    if (err == -EAGAIN) {
        wait_for_connection(tcp, is_again);
        return;
    }
    stop_waiting(tcp);
    tcp->avoid = tcp->lease.state;
    if (tcp->lease.state)
        tcp->endpoint = tcp->lease.state->address;
    if (err)
        attempt_failed(tcp, err);
    else
        begin(tcp);
}

// ---- the beginning

// Bytes of the client wait in the kernel, and so does its end: only a reset ends the matter.
static void on_ready(void *owner, unsigned ready)
{
    struct moon_tcp *tcp = owner;
    if (tcp->is_over)
        return;
    if (!(ready & MOON_READY_ERROR)) {
        if (tcp->prelude)
            moon_prelude_ready(tcp->prelude, ready);
        return;
    }
    release(tcp);
    tcp->closed(tcp->owner);
}

static void choose(struct moon_tcp *tcp, struct moon_slice sni)
{
    int index = moon_routes_stream(tcp->hold->routes, tcp->listener, sni);
    if (index < 0)
        return;
    tcp->action = moon_actions_at(tcp->hold->actions, index);
    tcp->sample.route = tcp->action->series;
}

// ---- where it goes

static void go_to(struct moon_tcp *tcp, const struct moon_upstream *upstream)
{
    tcp->upstream = upstream;
    tcp->sample.upstream = upstream->series;
    if (upstream->builtin)
        refuse(tcp, 502, "the upstream answers requests alone");
    else
        attempt(tcp, false);
}

static void go_as_routed(struct moon_tcp *tcp)
{
    const struct moon_backend *backend = moon_pool_split(tcp->service->pool, &tcp->action->split);
    if (!backend || backend->upstream == MOON_BACKEND_MISSING)
        refuse(tcp, 502, "no backend of the route has a weight, or it does not exist");
    else
        go_to(tcp, moon_upstreams_at(tcp->hold->upstreams, (size_t)backend->upstream));
}

static void go_to_named(struct moon_tcp *tcp, struct moon_slice name)
{
    const struct moon_upstream *upstream = moon_upstreams_find(tcp->hold->upstreams, name);
    if (upstream) {
        go_to(tcp, upstream);
        return;
    }
    moon_log_error(res_of(tcp)->log,
                   "script: preread of route \"%s\" has chosen the upstream \"%.*s\", which is not "
                   "there",
                   tcp->action->name, MOON_SLICE_ARG(name));
    refuse(tcp, 500, "there is no such upstream");
}

// The client sees an end in good order: what it has sent so far is taken first.
static void close_politely(struct moon_tcp *tcp, _Atomic uint64_t *counter, uint16_t status)
{
    struct moon_resources *res = res_of(tcp);
    moon_count_up(counter);
    record_refusal(tcp, status);
    moon_stream_read(tcp->stream, res->read_buffer, MOON_READ_BODY_LEN);
    moon_stream_close(tcp->stream);
    tcp->stream = NULL;
    end(tcp);
}

static void on_opened(void *owner, enum moon_verdict verdict, struct moon_slice upstream)
{
    struct moon_tcp *tcp = owner;
    struct moon_counters *counters = res_of(tcp)->counters;
    tcp->prelude = NULL;
    switch (verdict) {
    case MOON_NEXT:
        if (upstream.ptr)
            go_to_named(tcp, upstream);
        else
            go_as_routed(tcp);
        break;
    case MOON_DONE:
        close_politely(tcp, &counters->refused_preread, 403);
        break;
    case MOON_WAIT:
        moon_log_debug(res_of(tcp)->log,
                       "a TCP connection was closed: preread of route \"%s\" took too long",
                       tcp->action->name);
        close_politely(tcp, &counters->refused_preread_timeout, 504);
        break;
    case MOON_FAIL:
        refuse(tcp, 500, "preread failed");
        break;
    }
}

static void tcp_task_begin(struct moon_task *task)
{
    struct moon_tcp *tcp = MOON_CONTAINER(task, struct moon_tcp, task);
    if (tcp->action)
        go_as_routed(tcp);
    else
        refuse(tcp, 502, "no route has the listener, or the name that was asked for");
}

// Where the client meant to go, as far as anybody has said; else where it has come.
static struct moon_address destination_of(const struct moon_tcp *tcp)
{
    struct moon_address out;
    if (tcp->proxied && tcp->proxied->destination.family)
        out = tcp->proxied->destination;
    else
        moon_stream_address(tcp->stream, false, &out);
    moon_address_unmap(&out);
    return out;
}

static void begin_prelude(struct moon_tcp *tcp, const struct moon_tcp_args *args)
{
    const char *listener = tcp->hold->listeners->listeners[tcp->listener].name;
    tcp->prelude =
        moon_prelude_new(&(struct moon_prelude_args){.res = res_of(tcp),
                                                     .stream = tcp->stream,
                                                     .chain = &tcp->action->chain,
                                                     .number = tcp->number,
                                                     .client = tcp->client,
                                                     .destination = destination_of(tcp),
                                                     .listener = moon_slice_from(listener),
                                                     .route = moon_slice_from(tcp->action->name),
                                                     .sni = args->sni,
                                                     .alpn = args->alpn,
                                                     .is_tls = tcp->is_tls,
                                                     .done = on_opened,
                                                     .owner = tcp});
}

struct moon_tcp *moon_tcp_open(const struct moon_tcp_args *args)
{
    struct moon_tcp *tcp = calloc(1, sizeof *tcp);
    if (!tcp)
        abort();
    struct moon_resources *res = args->service->res;
    tcp->service = args->service;
    tcp->stream = args->stream;
    tcp->proxied = args->proxied;
    tcp->closed = args->closed;
    tcp->spoke = args->spoke;
    tcp->owner = args->owner;
    tcp->number = ++res->link_count;
    tcp->start_ms = moon_loop_now_ms(res->loop);
    tcp->start_ns = moon_loop_turn_ns(res->loop);
    tcp->sample =
        (struct moon_series_sample){.route = MOON_SERIES_NONE, .upstream = MOON_SERIES_NONE};
    struct moon_hold *hold = args->arrival->hold ? args->arrival->hold : args->service->hold;
    tcp->hold = moon_hold_ref(hold);
    tcp->listener = args->listener;
    tcp->is_tls = hold->listeners->listeners[args->listener].front.protocol == MOON_PROTOCOL_TLS;
    choose(tcp, args->sni);
    tcp->waiter.fn = on_granted;
    tcp->timer.fn = on_pending_over;
    tcp->task.fn = tcp_task_begin;
    moon_stream_address(tcp->stream, true, &tcp->client);
    moon_stream_set_owner(tcp->stream, on_ready, tcp);
    if (tcp->action && tcp->action->chain.has_preread)
        begin_prelude(tcp, args);
    else
        moon_loop_defer(res->loop, &tcp->task);
    return tcp;
}

void moon_tcp_close(struct moon_tcp *tcp)
{
    if (!tcp)
        return;
    tcp->closed = NULL;
    if (tcp->relay)
        moon_relay_close(tcp->relay); // ends it
    else
        release(tcp);
}

uint64_t moon_tcp_number(const struct moon_tcp *tcp)
{
    return tcp->number;
}

bool moon_tcp_survey(const struct moon_tcp *tcp, struct moon_survey_row *row)
{
    if (tcp->relay || tcp->is_over)
        return false;
    *row = (struct moon_survey_row){.number = tcp->number,
                                    .state = "connect",
                                    .age_ms = moon_loop_now_ms(res_of(tcp)->loop) - tcp->start_ms,
                                    .client = tcp->client,
                                    .endpoint = tcp->endpoint};
    row->listener = moon_slice_from(tcp->hold->listeners->listeners[tcp->listener].name);
    if (tcp->action)
        row->route = moon_slice_from(tcp->action->name);
    if (tcp->upstream)
        row->upstream = tcp->upstream->name;
    return true;
}
