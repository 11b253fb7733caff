// An exchange's life, its phases and the request side. Events of the downstream lane come in here.
//
// Invariant: whatever waits (a filter, a full peer, the rest of the request) is found again by looking at `step` and the flags;
// nothing is queued. resume() and `writable` both end in go_on(), which tries everything that may be due; the chain keeps
// what is tried in vain from hooks that wait. What filters ask for (resume, abort) is done by the task, never under a hook.
#include "exchange/exchange.h"

#include "base/arena.h"
#include "base/err.h"
#include "conf/settings.h"
#include "exchange/access.h"
#include "exchange/challenge.h"
#include "exchange/exchange_priv.h"
#include "exchange/listener_plugins.h"
#include "exchange/messages.h"
#include "io/tls.h"
#include "link/proxied.h"
#include "obs/counters.h"
#include "obs/log.h"
#include "route/listener.h"
#include "route/route.h"
#include "upstream/upstream.h"

enum { ARENA_CAP_LEN = 262144 };

// ---- the end

static void exchange_free(struct moon_exchange *ex)
{
    moon_chain_cancel(&ex->run, &ex->flow);
    moon_task_cancel(&ex->task);
    moon_list_del(&ex->node);
    moon_buffer_fini(&ex->replay, ex->res->buffers);
    struct moon_resources *res = ex->res;
    struct moon_hold *hold = ex->hold;
    struct moon_tls_facts *tls = ex->tls;
    struct moon_proxied *proxied = ex->proxied;
    moon_count_down(&res->counters->exchanges_live);
    moon_arena_free(ex->flow.arena); // its hooks may look at what filters were compiled to
    moon_hold_unref(hold);
    moon_tls_facts_unref(tls);
    moon_proxied_unref(proxied);
    moon_count_set(&res->counters->arenas_live, moon_arena_pool_live_count(res->arenas));
}

static void log_continue(struct moon_exchange *ex, enum moon_verdict verdict)
{
    if (verdict == MOON_WAIT)
        return;
    // Freed from the task, because a caller further up may still look at the exchange.
    ex->is_over = true;
    moon_loop_defer(ex->res->loop, &ex->task);
}

static void start_log(struct moon_exchange *ex)
{
    ex->step = STEP_LOG;
    moon_exchange_cancel_builtin(ex);
    moon_deadline_stop(ex);
    moon_chain_cancel(&ex->run, &ex->flow);
    ex->flow.is_complete = ex->is_response_sent;
    if (!ex->is_response_sent)
        moon_count_up(&ex->res->counters->aborts_total);
    if (!ex->was_recorded)
        moon_access_record(ex);
    log_continue(ex, moon_chain_start(&ex->run, &ex->flow, MOON_PHASE_LOG));
}

void moon_exchange_finish(struct moon_exchange *ex)
{
    if (ex->step == STEP_LOG)
        return;
    struct moon_lane *down = ex->down;
    moon_attempt_end(ex, ex->is_response_whole && !ex->is_local);
    ex->down = NULL;
    if (down)
        moon_lane_end(down, !ex->has_fault);
    start_log(ex);
}

void moon_exchange_break(struct moon_exchange *ex)
{
    if (ex->step == STEP_LOG)
        return;
    if (ex->messages) {
        moon_messages_end(ex->messages, true);
        return;
    }
    struct moon_lane *down = ex->down;
    moon_attempt_end(ex, false);
    ex->down = NULL;
    if (down)
        moon_lane_abort(down);
    start_log(ex);
}

void moon_exchange_tunnel_ended(struct moon_exchange *ex)
{
    start_log(ex);
}

// ---- phases

// Says on both sides whether the request body waits for a filter. What comes of a body that was replaced waits for nobody:
// who does not send it is not slow.
static void hold_request(struct moon_exchange *ex)
{
    bool waits = moon_chain_body_waits(&ex->run, MOON_REQUEST);
    bool is_unwanted = moon_intake_is_replaced(ex) && !ex->is_request_whole;
    if (ex->down)
        moon_lane_hold(ex->down, waits || is_unwanted || (ex->may_idle && ex->up));
    if (ex->up)
        moon_lane_hold(ex->up, waits);
}

void moon_exchange_continue(struct moon_exchange *ex)
{
    struct moon_head interim = {.status = 100, .minor = 1};
    struct moon_framing none = {.body = MOON_BODY_NONE};
    moon_lane_send_head(ex->down, &interim, &none);
}

static void after_access(struct moon_exchange *ex)
{
    if (moon_intake_is_lost(ex)) {
        moon_exchange_fail(ex, "the request's body was read and not replaced");
        return;
    }
    ex->upstream = moon_exchange_choose_upstream(ex);
    if (!ex->upstream)
        return;
    ex->was_forwarded = true;
    hold_request(ex);
    if (!ex->upstream->builtin) {
        moon_attempt_start(ex);
        return;
    }
    ex->step = STEP_BUILTIN;
    if (ex->request.expects_continue && !ex->is_request_whole)
        moon_exchange_continue(ex);
    moon_lane_resume(ex->down);
    moon_exchange_push_request(ex);
}

// Runs the request's head phases from where they stand. `verdict` is of the phase in ex->step.
static void request_phases(struct moon_exchange *ex, enum moon_verdict verdict)
{
    if (verdict == MOON_NEXT && ex->step == STEP_REWRITE && !ex->is_local && !ex->was_aborted) {
        ex->step = STEP_ACCESS;
        moon_intake_stop(ex);
        verdict = moon_chain_start(&ex->run, &ex->flow, MOON_PHASE_ACCESS);
    }
    if (ex->was_aborted) // the task breaks it off
        return;
    if (verdict == MOON_NEXT && ex->is_local) // an answer is an answer
        verdict = MOON_DONE;
    moon_lane_hold(ex->down, verdict == MOON_WAIT && !moon_intake_is_read(ex));
    switch (verdict) {
    case MOON_NEXT:
        after_access(ex);
        return;
    case MOON_WAIT:
        return;
    case MOON_DONE:
        if (ex->is_local)
            moon_response_start(ex);
        else
            moon_exchange_answer(ex, 500, "a filter gave no answer");
        return;
    case MOON_FAIL:
        moon_exchange_fail(ex, "a plugin or function failed");
        return;
    }
}

static void on_head(void *owner)
{
    struct moon_exchange *ex = owner;
    ex->was_asked = true;
    ex->asked_host = ex->request.host_text;
    ex->asked_path = ex->request.target.path;
    if (ex->request.target.has_query)
        ex->asked_query = ex->request.target.query;
    if (ex->request.method_id == MOON_METHOD_TRACE) {
        moon_exchange_answer(ex, 405, "TRACE is not offered here");
        return;
    }
    int err = moon_grpc_call_begin(ex);
    if (err) {
        moon_exchange_answer(ex, 400, "malformed grpc-timeout");
        return;
    }
    ex->hold = moon_hold_ref(ex->arrival->hold ? ex->arrival->hold : ex->service->hold);
    const struct moon_chain *front;
    if (moon_exchange_answer_challenge(ex) || !moon_exchange_find_route(ex, &front))
        return;
    if (moon_forward_begin(ex) < 0) {
        moon_exchange_answer(ex, 431, "the request head is too large to forward");
        return;
    }
    moon_chain_run_init(&ex->run, front, ex->action ? &ex->action->chain : NULL, &ex->flow,
                        ex->run.sink);
    ex->step = STEP_REWRITE;
    ex->may_idle = ex->grpc && ex->action && ex->action->is_grpc;
    uint32_t request_ms = ex->action ? ex->action->timeouts.request_ms : 0;
    if (request_ms && (!ex->budget_ms || request_ms < ex->budget_ms))
        ex->budget_ms = request_ms;
    if (ex->action)
        moon_deadline_start(ex);
    request_phases(ex, moon_chain_start(&ex->run, &ex->flow, MOON_PHASE_REWRITE));
}

static void on_fault(void *owner, const struct moon_fault *fault)
{
    struct moon_exchange *ex = owner;
    ex->has_fault = true;
    ex->was_asked = true;
    moon_attempt_end(ex, false);
    moon_exchange_answer(ex, fault->status, fault->reason);
}

// ---- the request body

// Through the filters, if there is a body for them (RFC 9112 6: a request without framing has none). A failure is dealt with.
static ssize_t push_bytes(struct moon_exchange *ex, struct moon_slice bytes, bool end)
{
    bool is_filtered = ex->request.body != MOON_BODY_NONE;
    ssize_t taken = is_filtered ? moon_chain_push(&ex->run, &ex->flow, MOON_REQUEST, bytes, end)
                                : ex->run.sink(&ex->flow, MOON_REQUEST, bytes, end);
    if (taken == MOON_BODY_FAIL && !ex->was_aborted && ex->flow.refusal)
        moon_exchange_answer(ex, 400, ex->flow.refusal);
    else if (taken == MOON_BODY_FAIL && !ex->was_aborted)
        moon_exchange_fail(ex, "a plugin or function failed on the request body");
    else
        hold_request(ex);
    return taken;
}

// Takes what comes out of the last request body filter.
static ssize_t request_sink(struct moon_exchange *ex, struct moon_slice bytes, bool end)
{
    if (ex->was_aborted)
        return MOON_BODY_FAIL;
    if (ex->step == STEP_BUILTIN) {
        ex->is_request_sent |= end;
        return (ssize_t)bytes.len;
    }
    return moon_attempt_send(ex, bytes, end);
}

static ssize_t sink(struct moon_flow *flow, enum moon_direction direction, struct moon_slice bytes,
                    bool end)
{
    struct moon_exchange *ex = (struct moon_exchange *)flow;
    return direction == MOON_REQUEST ? request_sink(ex, bytes, end)
                                     : moon_response_send(ex, bytes, end);
}

static size_t on_body(void *owner, struct moon_slice bytes)
{
    struct moon_exchange *ex = owner;
    if (moon_intake_is_replaced(ex)) {
        ex->flow.request_body_len += bytes.len;
        return bytes.len;
    }
    if (ex->step < STEP_BUILTIN) { // a head phase waits
        size_t len = moon_intake_take(ex, bytes);
        ex->flow.request_body_len += len;
        return len;
    }
    if (ex->step == STEP_UPSTREAM && !ex->up)
        return 0; // waits for a link
    if (ex->step > STEP_BUILTIN && !ex->up)
        return bytes.len; // answered already: what still comes is dropped
    ssize_t taken = push_bytes(ex, bytes, false);
    if (taken == MOON_BODY_FAIL)
        return bytes.len;
    if (taken < 0)
        return 0;
    ex->flow.request_body_len += (size_t)taken;
    return (size_t)taken;
}

// False: not all of it was taken.
static bool push_replacement(struct moon_exchange *ex)
{
    struct moon_slice rest;
    while ((rest = moon_intake_rest(ex)).len) {
        ssize_t taken = push_bytes(ex, rest, false);
        if (taken <= 0)
            return false;
        moon_intake_sent(ex, (size_t)taken);
    }
    return true;
}

void moon_exchange_push_request(struct moon_exchange *ex)
{
    struct moon_slice none = {"", 0};
    bool is_here = ex->is_request_whole || moon_intake_is_replaced(ex);
    if (!is_here || ex->step < STEP_BUILTIN || ex->step == STEP_LOG ||
        (ex->step > STEP_BUILTIN && !ex->up))
        return;
    if (!push_replacement(ex))
        return;
    if (!ex->is_request_sent) // a filter may have ended the body before
        push_bytes(ex, none, true);
    if (ex->step != STEP_BUILTIN || !ex->is_request_sent || ex->builtin_waits)
        return;
    moon_exchange_ask_builtin(ex);
}

static void on_end(void *owner, const struct moon_headers *trailers)
{
    struct moon_exchange *ex = owner;
    ex->is_request_whole = true;
    if (moon_intake_is_replaced(ex)) {
        if (ex->step >= STEP_BUILTIN)
            hold_request(ex);
        return;
    }
    ex->request_trailers = *trailers;
    if (ex->request.body == MOON_BODY_LENGTH)
        ex->flow.request_body_len = ex->request.content_length; // spliced bytes did not pass here
    moon_intake_end(ex);
    moon_exchange_push_request(ex);
}

static void on_abort(void *owner, int err)
{
    struct moon_exchange *ex = owner;
    moon_log_debug(ex->res->log, "the client went away: %s", moon_err_text(err));
    ex->down = NULL;
    ex->is_client_gone = true;
    moon_attempt_end(ex, false);
    start_log(ex);
}

// Tries everything that may have waited.
static void go_on(struct moon_exchange *ex)
{
    if (ex->step == STEP_LOG)
        return;
    if (ex->step == STEP_RESPONSE)
        moon_response_push(ex);
    if (ex->step == STEP_LOG)
        return;
    moon_exchange_push_request(ex);
    if (ex->step != STEP_LOG && ex->down)
        moon_lane_resume(ex->down);
    if (ex->step != STEP_LOG && ex->up)
        moon_lane_resume(ex->up);
}

static void on_writable(void *owner)
{
    go_on(owner);
}

static const struct moon_lane_events down_events = {
    .head = on_head,
    .fault = on_fault,
    .body = on_body,
    .end = on_end,
    .abort = on_abort,
    .writable = on_writable,
};

// ---- the task

// The head hook that waits is called again.
static void continue_phase(struct moon_exchange *ex)
{
    switch ((enum moon_step)ex->step) {
    case STEP_REWRITE:
        request_phases(ex, moon_chain_continue(&ex->run, &ex->flow, MOON_PHASE_REWRITE));
        return;
    case STEP_ACCESS:
        request_phases(ex, moon_chain_continue(&ex->run, &ex->flow, MOON_PHASE_ACCESS));
        return;
    case STEP_HEADER_FILTER:
        moon_response_continue(ex,
                               moon_chain_continue(&ex->run, &ex->flow, MOON_PHASE_HEADER_FILTER));
        return;
    case STEP_LOG:
        log_continue(ex, moon_chain_continue(&ex->run, &ex->flow, MOON_PHASE_LOG));
        return;
    case STEP_HEAD:
    case STEP_BUILTIN:
    case STEP_UPSTREAM:
    case STEP_RESPONSE:
    case STEP_TUNNEL:
        return;
    }
}

// Every hook that waits gets its turn: a request body may wait while the response's head does.
static void resumed(struct moon_exchange *ex)
{
    ex->was_resumed = false;
    if (ex->builtin_waits) {
        moon_exchange_ask_builtin(ex);
        return;
    }
    moon_chain_wake(&ex->run);
    if (ex->messages) {
        moon_messages_resume(ex->messages);
        return;
    }
    if (moon_chain_head_waits(&ex->run))
        continue_phase(ex);
    if (ex->step >= STEP_BUILTIN && !ex->was_aborted)
        go_on(ex);
}

// Its figures are those of other tunnels, told when it begins.
static void start_messages(struct moon_exchange *ex)
{
    ex->step = STEP_TUNNEL;
    moon_deadline_stop(ex);
    ex->flow.is_complete = true;
    moon_access_record(ex);
    ex->was_recorded = true;
    moon_messages_start(ex);
}

static void start_tunnel(struct moon_exchange *ex)
{
    if (ex->run.has_messages) {
        start_messages(ex);
        return;
    }
    struct moon_lane *down = ex->down, *up = ex->up;
    struct moon_relay_args args = {.idle_ms = ex->action->timeouts.idle_ms,
                                   .is_websocket = moon_exchange_is_websocket(ex)};
    moon_pooled_claim(ex->lease.pooled, &args.claim);
    moon_relay_identify(ex, &args.identity);
    ex->down = ex->up = NULL;
    moon_relay_start(ex->res, down, up, &args);
    start_log(ex);
}

static void exchange_task(struct moon_task *task)
{
    struct moon_exchange *ex = MOON_CONTAINER(task, struct moon_exchange, task);
    if (ex->is_over) {
        exchange_free(ex);
        return;
    }
    if (ex->was_aborted && ex->step != STEP_LOG) {
        moon_exchange_break(ex);
        return;
    }
    if (ex->wants_tunnel && ex->up && ex->down) {
        start_tunnel(ex);
        return;
    }
    moon_intake_run(ex);
    if (ex->was_resumed)
        resumed(ex);
}

// ---- public

void moon_service_switch(struct moon_service *service, struct moon_snapshot *snapshot)
{
    struct moon_hold *before = service->hold;
    service->hold = moon_hold_new(snapshot);
    service->res->settings = moon_snapshot_settings(snapshot);
    moon_hold_retire(before);
}

void moon_service_fini(struct moon_service *service)
{
    moon_hold_retire(service->hold);
    service->hold = NULL;
}

void moon_exchange_open(struct moon_service *service, struct moon_lane *down,
                        const struct moon_arrival *arrival)
{
    struct moon_resources *res = service->res;
    struct moon_arena *arena =
        moon_arena_new(res->arenas, ARENA_CAP_LEN + res->settings->limits.header_bytes);
    struct moon_exchange *ex = moon_arena_zalloc(arena, sizeof *ex);
    ex->flow.ops = &moon_exchange_flow_ops;
    ex->flow.arena = arena;
    ex->flow.loop = res->loop;
    ex->flow.request = &ex->request;
    ex->flow.response = &ex->response;
    ex->flow.response_trailers = &ex->response_trailers;
    ex->tls = moon_link_tls(moon_lane_link(down));
    ex->flow.tls = ex->tls ? moon_tls_facts_ref(ex->tls) : NULL;
    ex->proxied = moon_link_proxied(moon_lane_link(down));
    ex->flow.proxied = ex->proxied ? moon_proxied_ref(ex->proxied) : NULL;
    ex->flow.scheme = ex->tls ? "https" : "http";
    ex->flow.worker = res->worker;
    ex->flow.start_ms = moon_loop_now_ms(res->loop);
    ex->start_ns = moon_loop_turn_ns(res->loop);
    ex->service = service;
    ex->res = res;
    ex->down = down;
    ex->arrival = arrival;
    ex->listener = -1;
    ex->task.fn = exchange_task;
    ex->request.minor = 1;
    moon_chain_run_init(&ex->run, NULL, NULL, &ex->flow, sink);
    moon_link_address(moon_lane_link(down), true, &ex->flow.client);
    moon_list_add_before(&res->exchanges, &ex->node);
    moon_count_up(&res->counters->exchanges_live);
    moon_count_set(&res->counters->arenas_live, moon_arena_pool_live_count(res->arenas));
    moon_lane_attach(
        down, &(struct moon_lane_attachment){
                  .events = &down_events, .owner = ex, .arena = arena, .head = &ex->request});
}

void moon_exchange_close_websockets(struct moon_service *service)
{
    struct moon_list *all = &service->res->exchanges;
    for (struct moon_list *at = all->next, *next; at != all; at = next) {
        struct moon_exchange *ex = MOON_CONTAINER(at, struct moon_exchange, node);
        next = at->next;
        if (ex->messages)
            moon_messages_close(ex->messages);
    }
    moon_relay_close_websockets(service->res);
}

void moon_exchange_stop_all(struct moon_service *service)
{
    struct moon_list *all = &service->res->exchanges;
    moon_exchange_close_websockets(service); // says what it can without waiting
    for (struct moon_list *at = all->next, *next; at != all; at = next) {
        struct moon_exchange *ex = MOON_CONTAINER(at, struct moon_exchange, node);
        next = at->next;
        if (ex->messages)
            moon_messages_end(ex->messages, false);
        moon_exchange_break(ex); // its log phase runs, unless it runs already
        if (!ex->is_over) {
            moon_chain_cancel(&ex->run, &ex->flow);
            log_continue(ex, MOON_NEXT);
        }
    }
    moon_relay_stop_all(service->res);
}
