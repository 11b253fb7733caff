// The admin built-in: a path, an answer.
#include "admin/admin.h"

#include "admin/control.h"
#include "admin/metrics.h"
#include "base/arena.h"
#include "http/head.h"

#include <stdio.h>
#include <stdlib.h>

// The text may be of many megabytes, so it does not come out of the arena, but goes with it.
static void answer_metrics(struct moon_flow *flow, const struct moon_admin_ops *ops)
{
    struct moon_slice text = moon_metrics_write(ops);
    if (!text.ptr) {
        flow->ops->respond(flow, 500, MOON_SLICE(""), MOON_SLICE("out of memory\n"));
        return;
    }
    moon_arena_on_free(flow->arena, free, (void *)text.ptr);
    flow->ops->respond(flow, 200, MOON_SLICE("text/plain; version=0.0.4"), text);
}

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
