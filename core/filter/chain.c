// The filter runner. A body chunk goes down the list by recursion: the hook of filter i calls ops->pass, which calls filter
// i + 1, which at the end calls the sink. So back-pressure is a return value, and nothing is queued here.
#include "filter/chain.h"

#include "base/arena.h"

#include <string.h>

typedef enum moon_verdict head_hook(struct moon_flow *flow, void *conf, void *state);
typedef ssize_t body_hook(struct moon_flow *flow, void *conf, void *state, struct moon_slice bytes,
                          bool end);

static head_hook *head_hook_of(const struct moon_filter_type *type, enum moon_phase phase)
{
    switch (phase) {
    case MOON_PHASE_REWRITE:
        return type->rewrite;
    case MOON_PHASE_ACCESS:
        return type->access;
    case MOON_PHASE_HEADER_FILTER:
        return type->header_filter;
    case MOON_PHASE_LOG:
        return type->log;
    }
    return NULL;
}

void moon_chain_run_init(struct moon_chain_run *run, const struct moon_chain *chain,
                         struct moon_flow *flow, moon_chain_sink_fn *sink)
{
    run->chain = chain && chain->count ? chain : NULL;
    run->sink = sink;
    run->waiting_head = run->waiting_body[MOON_REQUEST] = run->waiting_body[MOON_RESPONSE] = -1;
    if (!run->chain)
        return;
    run->states = moon_arena_alloc(flow->arena, sizeof(void *) * chain->count);
    for (uint16_t i = 0; i < chain->count; i++) {
        size_t len = chain->filters[i].type->state_len;
        run->states[i] = len ? moon_arena_zalloc(flow->arena, len) : NULL;
    }
}

enum moon_verdict moon_chain_continue(struct moon_chain_run *run, struct moon_flow *flow,
                                      enum moon_phase phase)
{
    run->waiting_head = -1;
    for (; run->head_at < run->chain->count; run->head_at++) {
        const struct moon_filter *filter = &run->chain->filters[run->head_at];
        head_hook *hook = head_hook_of(filter->type, phase);
        if (!hook)
            continue;
        enum moon_verdict verdict = hook(flow, filter->conf, run->states[run->head_at]);
        if (verdict == MOON_WAIT)
            run->waiting_head = (int16_t)run->head_at;
        if (verdict != MOON_NEXT)
            return verdict;
    }
    return MOON_NEXT;
}

enum moon_verdict moon_chain_start(struct moon_chain_run *run, struct moon_flow *flow,
                                   enum moon_phase phase)
{
    if (!run->chain)
        return MOON_NEXT;
    run->head_at = 0;
    return moon_chain_continue(run, flow, phase);
}

static ssize_t push_from(struct moon_chain_run *run, struct moon_flow *flow,
                         enum moon_direction direction, uint16_t at, struct moon_slice bytes,
                         bool end)
{
    for (; at < run->chain->count; at++) {
        const struct moon_filter *filter = &run->chain->filters[at];
        body_hook *hook =
            direction == MOON_REQUEST ? filter->type->request_body : filter->type->response_body;
        if (!hook)
            continue;
        uint16_t outer = run->body_at[direction];
        run->body_at[direction] = at;
        run->waiting_body[direction] = -1;
        ssize_t taken = hook(flow, filter->conf, run->states[at], bytes, end);
        if (taken == MOON_BODY_WAIT && run->waiting_body[direction] < 0)
            run->waiting_body[direction] = (int16_t)at;
        run->body_at[direction] = outer;
        return taken;
    }
    return run->sink(flow, direction, bytes, end);
}

ssize_t moon_chain_push(struct moon_chain_run *run, struct moon_flow *flow,
                        enum moon_direction direction, struct moon_slice bytes, bool end)
{
    if (!run->chain)
        return run->sink(flow, direction, bytes, end);
    return push_from(run, flow, direction, 0, bytes, end);
}

ssize_t moon_chain_pass(struct moon_chain_run *run, struct moon_flow *flow,
                        enum moon_direction direction, struct moon_slice bytes, bool end)
{
    return push_from(run, flow, direction, (uint16_t)(run->body_at[direction] + 1), bytes, end);
}

static void cancel_one(struct moon_chain_run *run, struct moon_flow *flow, int16_t *waiting)
{
    if (*waiting < 0)
        return;
    const struct moon_filter *filter = &run->chain->filters[*waiting];
    if (filter->type->cancel)
        filter->type->cancel(flow, filter->conf, run->states[*waiting]);
    *waiting = -1;
}

void moon_chain_cancel(struct moon_chain_run *run, struct moon_flow *flow)
{
    if (!run->chain)
        return;
    cancel_one(run, flow, &run->waiting_head);
    cancel_one(run, flow, &run->waiting_body[MOON_REQUEST]);
    cancel_one(run, flow, &run->waiting_body[MOON_RESPONSE]);
}
