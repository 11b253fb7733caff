// A call's life: begun, finished once, told once, freed by its owner.
//
//   start -> (call_attempt.c) -> finish: link and waits given up, result stands -> task: done -> free
//
// Invariant: until it is done a call is in service->calls and counts; from then on it holds memory alone.
#include "exchange/call.h"

#include "base/arena.h"
#include "base/err.h"
#include "conf/settings.h"
#include "exchange/call_priv.h"
#include "io/tls.h"
#include "obs/counters.h"

#include <errno.h>
#include <stdlib.h>

enum { ARENA_CAP_LEN = 262144 };

static const struct moon_headers no_headers;

static void drop_answer(struct moon_call *call)
{
    free(call->answer);
    call->answer = NULL;
    moon_buffer_pool_discharge(call->service->res->buffers, call->charged_len);
    call->charged_len = 0;
    call->answer_len = call->answer_cap = 0;
}

static void drop_body(struct moon_call *call)
{
    free(call->body);
    call->body = NULL;
    moon_buffer_pool_discharge(call->service->res->buffers, call->body_len);
    call->charged_len -= call->body_len;
    call->body_len = call->sent_len = 0;
}

static void count_arenas(struct moon_resources *res)
{
    moon_count_set(&res->counters->arenas_live, moon_arena_pool_live_count(res->arenas));
}

// Takes the call out of what is under way.
static void end(struct moon_call *call)
{
    struct moon_service *service = call->service;
    call->step = CALL_DONE;
    moon_list_del(&call->node);
    service->call_count--;
    moon_count_down(&service->res->counters->calls_live);
    moon_loop_timer_del(service->res->loop, &call->deadline);
    drop_body(call);
    moon_hold_unref(call->hold);
    call->hold = NULL;
    call->upstream = NULL;
}

void moon_call_finish(struct moon_call *call, int err)
{
    if (call->step == CALL_DONE)
        return;
    moon_call_attempt_stop(call, !err);
    end(call);
    call->err = err;
    if (err) {
        moon_count_up(&call->service->res->counters->call_failures_total);
        drop_answer(call);
    }
    moon_loop_defer(call->service->res->loop, &call->task);
}

static void call_task(struct moon_task *task)
{
    struct moon_call *call = MOON_CONTAINER(task, struct moon_call, task);
    call->done(call->owner, call);
}

static void on_deadline(struct moon_timer *timer)
{
    moon_call_finish(MOON_CONTAINER(timer, struct moon_call, deadline), MOON_ETIMEOUT);
}

static void call_free(struct moon_call *call)
{
    struct moon_resources *res = call->service->res;
    moon_hold_unref(call->hold);
    moon_tls_client_unref(call->tls);
    free(call->body);
    drop_answer(call);
    moon_arena_free(call->arena);
    count_arenas(res);
    free(call);
}

int moon_call_start(struct moon_service *service, const struct moon_call_args *args,
                    struct moon_call **out)
{
    struct moon_resources *res = service->res;
    if (service->has_stopped_calls)
        return MOON_ECANCELED;
    if (service->call_count >= MOON_CALL_MAX_COUNT)
        return MOON_EBUSY;
    struct moon_call *call = calloc(1, sizeof *call);
    if (!call)
        return -ENOMEM;
    call->service = service;
    call->done = args->done;
    call->owner = args->owner;
    call->task.fn = call_task;
    call->deadline.fn = on_deadline;
    call->tls = args->tls ? moon_tls_client_ref(args->tls) : NULL;
    call->timeout_ms = args->timeout_ms ? args->timeout_ms : MOON_CALL_TIMEOUT_MS;
    call->connect_timeout_ms = args->connect_timeout_ms;
    call->body_max_len = args->body_max_len ? args->body_max_len : MOON_CALL_BODY_MAX_LEN;
    call->arena = moon_arena_new(res->arenas, ARENA_CAP_LEN + res->settings->limits.header_bytes);
    count_arenas(res);
    int err = moon_call_request_init(call, args);
    if (err) {
        call_free(call);
        return err;
    }
    moon_list_add_before(&service->calls, &call->node);
    service->call_count++;
    moon_count_up(&res->counters->calls_total);
    moon_count_up(&res->counters->calls_live);
    moon_loop_timer_add(res->loop, &call->deadline, call->timeout_ms);
    *out = call; // before anything can be done
    moon_call_attempt_start(call);
    return 0;
}

void moon_call_free(struct moon_call *call)
{
    if (!call)
        return;
    if (call->step != CALL_DONE) {
        moon_call_attempt_stop(call, false);
        end(call);
    }
    moon_task_cancel(&call->task);
    call_free(call);
}

void moon_call_stop_all(struct moon_service *service)
{
    service->has_stopped_calls = true;
    while (!moon_list_is_empty(&service->calls))
        moon_call_finish(MOON_CONTAINER(service->calls.next, struct moon_call, node),
                         MOON_ECANCELED);
}

int moon_call_error(const struct moon_call *call)
{
    return call->err;
}

uint16_t moon_call_status(const struct moon_call *call)
{
    return call->err ? 0 : call->response.status;
}

const struct moon_headers *moon_call_headers(const struct moon_call *call)
{
    return call->err ? &no_headers : &call->response.headers;
}

struct moon_slice moon_call_body(const struct moon_call *call)
{
    return call->answer ? (struct moon_slice){call->answer, call->answer_len} : MOON_SLICE("");
}
