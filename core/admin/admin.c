// The admin built-in: a path, an answer. Counters are summed here, at the reader's cost; no worker is asked (DESIGN 3).
#include "admin/admin.h"

#include "admin/control.h"
#include "base/arena.h"
#include "http/head.h"
#include "obs/counters.h"

#include <stddef.h>
#include <stdio.h>

enum { METRICS_CAP_LEN = 16384 };

struct metric {
    const char *name, *type, *help;
    size_t offset;
};

static const struct metric metrics[] = {
#define X(name, type, help) {#name, type, help, offsetof(struct moon_counters, name)},
    MOON_COUNTERS(X)
#undef X
};

static uint64_t sum(const struct moon_admin_ops *ops, const struct metric *metric)
{
    uint64_t total = 0;
    const struct moon_counters *counters;
    for (size_t i = 0; (counters = ops->counters(ops->owner, i)) != NULL; i++) {
        const _Atomic uint64_t *value = (const void *)((const char *)counters + metric->offset);
        total += atomic_load_explicit((_Atomic uint64_t *)value, memory_order_relaxed);
    }
    return total;
}

// The Prometheus text format, version 0.0.4.
static size_t write_metrics(const struct moon_admin_ops *ops, char *to, size_t cap)
{
    size_t len = 0;
    for (size_t i = 0; i < sizeof metrics / sizeof *metrics && len + 512 < cap; i++) {
        const struct metric *metric = &metrics[i];
        bool is_class = strncmp(metric->name, "responses_", 10) == 0;
        unsigned long long value = sum(ops, metric);
        if (!is_class || metric->name[10] == '1')
            len += (size_t)snprintf(to + len, cap - len,
                                    "# HELP moongate_%s %s\n# TYPE moongate_%s %s\n",
                                    is_class ? "responses_total" : metric->name, metric->help,
                                    is_class ? "responses_total" : metric->name, metric->type);
        if (is_class)
            len += (size_t)snprintf(to + len, cap - len,
                                    "moongate_responses_total{class=\"%s\"} %llu\n",
                                    metric->name + 10, value);
        else
            len += (size_t)snprintf(to + len, cap - len, "moongate_%s %llu\n", metric->name, value);
    }
    len += (size_t)snprintf(to + len, cap - len,
                            "# HELP moongate_buffer_bytes Bytes in connection buffers\n"
                            "# TYPE moongate_buffer_bytes gauge\nmoongate_buffer_bytes %zu\n",
                            ops->buffer_len(ops->owner));
    return len;
}

static void answer_metrics(struct moon_flow *flow, const struct moon_admin_ops *ops)
{
    char *text = moon_arena_try_bytes(flow->arena, METRICS_CAP_LEN);
    if (!text) {
        flow->ops->respond(flow, 500, MOON_SLICE(""), MOON_SLICE("out of memory\n"));
        return;
    }
    struct moon_slice body = {text, write_metrics(ops, text, METRICS_CAP_LEN)};
    flow->ops->respond(flow, 200, MOON_SLICE("text/plain; version=0.0.4"), body);
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
