// The admin built-in: a path, an answer.
#include "admin/admin.h"

#include "admin/control.h"
#include "admin/metrics.h"
#include "base/arena.h"
#include "http/head.h"
#include "io/loop.h"

#include <stdio.h>
#include <stdlib.h>

// ---- /metrics: a scrape may be of many megabytes, so it is written while it is sent, a piece at a time, and rests in between: a
// worker that shares control's CPU waits no longer than for a piece, and a scrape takes a fourth of the CPU at most.

enum { REST_MS = 1 }; // a piece takes control 0.2 to 0.4 ms

struct scrape {
    struct moon_metrics *metrics;
    struct moon_flow *flow;
    struct moon_timer timer; // armed while it rests
    bool has_rested;
};

static void on_rested(struct moon_timer *timer)
{
    struct scrape *scrape = MOON_CONTAINER(timer, struct scrape, timer);
    scrape->has_rested = true;
    scrape->flow->ops->resume(scrape->flow);
}

static int next_piece(void *owner, struct moon_slice *piece)
{
    struct scrape *scrape = owner;
    *piece = (struct moon_slice){"", 0};
    if (scrape->has_rested && !moon_metrics_is_over(scrape->metrics)) {
        scrape->has_rested = false;
        if (moon_metrics_next(scrape->metrics, piece) < 0)
            return MOON_BODY_FAIL;
    }
    if (piece->len || moon_metrics_is_over(scrape->metrics))
        return 0;
    if (!moon_timer_is_armed(&scrape->timer))
        moon_loop_timer_add(scrape->flow->loop, &scrape->timer, REST_MS);
    return MOON_BODY_WAIT;
}

static void end_scrape(void *owner)
{
    struct scrape *scrape = owner;
    moon_loop_timer_del(scrape->flow->loop, &scrape->timer);
    moon_metrics_free(scrape->metrics);
}

static void answer_metrics(struct moon_flow *flow, const struct moon_admin_ops *ops)
{
    struct scrape *scrape = moon_arena_zalloc(flow->arena, sizeof *scrape);
    scrape->metrics = moon_metrics_new(ops);
    scrape->flow = flow;
    scrape->timer.fn = on_rested;
    scrape->has_rested = true;
    moon_arena_on_free(flow->arena, end_scrape, scrape);
    const struct moon_body_source source = {next_piece, scrape};
    flow->ops->respond_from(flow, 200, MOON_SLICE("text/plain; version=0.0.4"), &source);
}

// ---- the others

// `{"ready":false,"stalled":[{"worker":1,"turn_ms":1200}]}`, where workers hang.
static bool answer_stalled(struct moon_flow *flow, const struct moon_admin_ops *ops)
{
    char *text = NULL;
    size_t len = 0, count = 0;
    FILE *out = open_memstream(&text, &len);
    if (!out)
        abort();
    fputs("{\"ready\":false,\"stalled\":[", out);
    for (size_t i = 0; ops->counters(ops->owner, i); i++) {
        uint64_t ms = ops->stall_ms(ops->owner, i);
        if (ms)
            fprintf(out, "%s{\"worker\":%zu,\"turn_ms\":%llu}", count++ ? "," : "", i,
                    (unsigned long long)ms);
    }
    fputs("]}\n", out);
    if (fclose(out) != 0)
        abort();
    moon_arena_on_free(flow->arena, free, text);
    if (count)
        flow->ops->respond(flow, 503, MOON_SLICE("application/json"),
                           (struct moon_slice){text, len});
    return count > 0;
}

static void answer_ready(struct moon_flow *flow, const struct moon_admin_ops *ops)
{
    if (ops->is_draining(ops->owner))
        flow->ops->respond(flow, 503, MOON_SLICE(""), MOON_SLICE("draining\n"));
    else if (!answer_stalled(flow, ops))
        flow->ops->respond(flow, 200, MOON_SLICE(""), MOON_SLICE("ready\n"));
}

static enum moon_verdict answer(struct moon_flow *flow, void *owner, void **state)
{
    const struct moon_admin_ops *ops = owner;
    struct moon_slice path = flow->request->target.path;
    bool is_read =
        flow->request->method_id == MOON_METHOD_GET || flow->request->method_id == MOON_METHOD_HEAD;
    if (is_read && moon_slice_equal(path, MOON_SLICE("/metrics")))
        answer_metrics(flow, ops);
    else if (is_read && moon_slice_equal(path, MOON_SLICE("/healthz")))
        flow->ops->respond(flow, 200, MOON_SLICE(""), MOON_SLICE("ok\n"));
    else if (!is_read || !moon_slice_equal(path, MOON_SLICE("/readyz")))
        return moon_admin_control(flow, ops, state);
    else
        answer_ready(flow, ops);
    return MOON_DONE;
}

struct moon_builtin moon_admin_builtin(const struct moon_admin_ops *ops)
{
    return (struct moon_builtin){.name = "admin",
                                 .answer = answer,
                                 .cancel = moon_admin_control_cancel,
                                 .owner = (void *)ops};
}
