// The admin built-in: a path, an answer.
#include "admin/admin.h"

#include "admin/control.h"
#include "admin/metrics.h"
#include "base/arena.h"
#include "http/head.h"

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
    else if (ops->is_ready(ops->owner))
        flow->ops->respond(flow, 200, MOON_SLICE(""), MOON_SLICE("ready\n"));
    else
        flow->ops->respond(flow, 503, MOON_SLICE(""), MOON_SLICE("draining\n"));
    return MOON_DONE;
}

struct moon_builtin moon_admin_builtin(const struct moon_admin_ops *ops)
{
    return (struct moon_builtin){.name = "admin",
                                 .answer = answer,
                                 .cancel = moon_admin_control_cancel,
                                 .owner = (void *)ops};
}
