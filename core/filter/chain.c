// The filter runner. A body chunk goes down the list by recursion: the hook of filter i calls ops->pass, which calls filter
// i + 1, which at the end calls the sink. So back-pressure is a return value, and nothing is queued here.
//
//   body hook of a filter:   called --WAIT--> waiting --wake--> woken --push--> called
//                            called --passes the end on--> ended: what still comes is dropped
//
// A filter that breaks the contract (filter.h) fails its message; it never corrupts it.
#include "filter/chain.h"

#include "base/arena.h"

#include <assert.h>
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

static body_hook *body_hook_of(const struct moon_filter_type *type, enum moon_direction direction)
{
    return direction == MOON_REQUEST ? type->request_body : type->response_body;
}

void moon_chain_note(struct moon_chain *chain, const struct moon_filter_type *type)
{
    for (int phase = MOON_PHASE_REWRITE; phase <= MOON_PHASE_LOG; phase++)
        if (head_hook_of(type, (enum moon_phase)phase))
            chain->phases |= (uint8_t)(1u << phase);
    chain->has_request_body |= type->request_body != NULL;
    chain->has_response_body |= type->response_body != NULL;
    chain->has_messages |= type->websocket_frame != NULL;
    chain->has_preread |= type->preread != NULL;
    chain->may_answer |= type->may_answer;
    chain->is_code |= type->is_code;
    chain->has_certificate |= type->certificate != NULL;
}

static uint64_t bit_of(uint16_t at)
{
    return UINT64_C(1) << at;
}

static const struct moon_filter *filter_at(const struct moon_chain_run *run, uint16_t at)
{
    return at < run->front_count ? &run->front[at] : &run->back[at - run->front_count];
}

void moon_chain_run_init(struct moon_chain_run *run, const struct moon_chain *front,
                         const struct moon_chain *chain, struct moon_flow *flow,
                         moon_chain_sink_fn *sink)
{
    static const struct moon_chain none = {0};
    front = front ? front : &none;
    chain = chain ? chain : &none;
    *run = (struct moon_chain_run){
        .front = front->filters,
        .back = chain->filters,
        .front_count = front->count,
        .count = (uint16_t)(front->count + chain->count),
        .has_request_body = front->has_request_body || chain->has_request_body,
        .has_response_body = front->has_response_body || chain->has_response_body,
        .has_messages = front->has_messages || chain->has_messages,
        .phases = front->phases | chain->phases,
        .sink = sink,
        .waiting_head = -1,
        .body_at = {-1, -1}};
    if (run->count == 0)
        return;
    assert(run->count <= MOON_CHAIN_MAX_COUNT);
    run->states = moon_arena_alloc(flow->arena, sizeof(void *) * run->count);
    for (uint16_t i = 0; i < run->count; i++) {
        size_t len = filter_at(run, i)->type->state_len;
        run->states[i] = len ? moon_arena_zalloc(flow->arena, len) : NULL;
    }
}

// ---- head phases

// A log hook that fails hides nothing from the filters behind it.
static bool stops(enum moon_phase phase, enum moon_verdict verdict)
{
    return verdict == MOON_WAIT || (verdict != MOON_NEXT && phase != MOON_PHASE_LOG);
}

enum moon_verdict moon_chain_continue(struct moon_chain_run *run, struct moon_flow *flow,
                                      enum moon_phase phase)
{
    run->waiting_head = -1;
    for (; run->head_at < run->count; run->head_at++) {
        const struct moon_filter *filter = filter_at(run, run->head_at);
        head_hook *hook = head_hook_of(filter->type, phase);
        if (!hook)
            continue;
        enum moon_verdict verdict = hook(flow, filter->conf, run->states[run->head_at]);
        if (verdict == MOON_WAIT)
            run->waiting_head = (int16_t)run->head_at;
        if (stops(phase, verdict))
            return verdict;
    }
    return MOON_NEXT;
}

enum moon_verdict moon_chain_start(struct moon_chain_run *run, struct moon_flow *flow,
                                   enum moon_phase phase)
{
    if (!(run->phases >> phase & 1))
        return MOON_NEXT;
    run->head_at = 0;
    return moon_chain_continue(run, flow, phase);
}

bool moon_chain_head_waits(const struct moon_chain_run *run)
{
    return run->waiting_head >= 0;
}

// ---- bodies

// One call of a body hook, unless it waits or has ended its message.
static ssize_t call_hook(struct moon_chain_run *run, struct moon_flow *flow,
                         enum moon_direction direction, uint16_t at, struct moon_slice bytes,
                         bool end)
{
    const struct moon_filter *filter = filter_at(run, at);
    uint64_t bit = bit_of(at);
    if (run->ended_body[direction] & bit)
        return (ssize_t)bytes.len;
    if (run->waiting_body[direction] & ~run->woken_body[direction] & bit)
        return MOON_BODY_WAIT;
    run->waiting_body[direction] &= ~bit;
    run->woken_body[direction] &= ~bit;
    int16_t outer = run->body_at[direction];
    run->body_at[direction] = (int16_t)at;
    body_hook *hook = body_hook_of(filter->type, direction);
    ssize_t taken = hook(flow, filter->conf, run->states[at], bytes, end);
    run->body_at[direction] = outer;
    if (taken == MOON_BODY_WAIT)
        run->waiting_body[direction] |= bit;
    bool is_stuck = taken == 0 && bytes.len, is_too_much = taken > (ssize_t)bytes.len;
    bool is_end_lost = taken == 0 && end && !(run->ended_body[direction] & bit);
    return is_stuck || is_too_much || is_end_lost ? MOON_BODY_FAIL : taken;
}

// A hook that takes a part is offered the rest at once: as long as it takes something it is not in the way.
static ssize_t push_from(struct moon_chain_run *run, struct moon_flow *flow,
                         enum moon_direction direction, uint16_t at, struct moon_slice bytes,
                         bool end)
{
    size_t taken = 0;
    while (at < run->count && !body_hook_of(filter_at(run, at)->type, direction))
        at++;
    if (at == run->count)
        return run->sink(flow, direction, bytes, end);
    do {
        ssize_t n = call_hook(run, flow, direction, at, moon_slice_skip(bytes, taken), end);
        if (n < 0)
            return taken && n != MOON_BODY_FAIL ? (ssize_t)taken : n;
        taken += (size_t)n;
    } while (taken < bytes.len);
    return (ssize_t)taken;
}

ssize_t moon_chain_push(struct moon_chain_run *run, struct moon_flow *flow,
                        enum moon_direction direction, struct moon_slice bytes, bool end)
{
    assert(!end || bytes.len == 0);
    if (!(direction == MOON_REQUEST ? run->has_request_body : run->has_response_body))
        return run->sink(flow, direction, bytes, end);
    return push_from(run, flow, direction, 0, bytes, end);
}

ssize_t moon_chain_pass(struct moon_chain_run *run, struct moon_flow *flow,
                        enum moon_direction direction, struct moon_slice bytes, bool end)
{
    int16_t from = run->body_at[direction];
    if (from < 0 || (end && bytes.len))
        return MOON_BODY_FAIL;
    if (run->ended_body[direction] & bit_of((uint16_t)from))
        return bytes.len ? MOON_BODY_FAIL : 0;
    if (!end && bytes.len == 0)
        return 0;
    ssize_t taken = push_from(run, flow, direction, (uint16_t)(from + 1), bytes, end);
    if (end && taken == 0)
        run->ended_body[direction] |= bit_of((uint16_t)from);
    return taken;
}

// ---- messages

enum moon_verdict moon_chain_message(struct moon_chain_run *run, struct moon_flow *flow,
                                     struct moon_websocket_message *message, bool is_again)
{
    enum moon_direction direction = message->direction;
    uint16_t *at = &run->message_at[direction];
    for (*at = is_again ? *at : 0; *at < run->count; ++*at) {
        const struct moon_filter *filter = filter_at(run, *at);
        uint64_t bit = bit_of(*at);
        if (!filter->type->websocket_frame)
            continue;
        if (run->waiting_body[direction] & ~run->woken_body[direction] & bit)
            return MOON_WAIT;
        run->waiting_body[direction] &= ~bit;
        run->woken_body[direction] &= ~bit;
        enum moon_verdict verdict =
            filter->type->websocket_frame(flow, filter->conf, run->states[*at], message);
        if (verdict == MOON_WAIT)
            run->waiting_body[direction] |= bit;
        if (verdict != MOON_NEXT)
            return verdict;
    }
    return MOON_NEXT;
}

// ---- waiting

bool moon_chain_body_waits(const struct moon_chain_run *run, enum moon_direction direction)
{
    return run->waiting_body[direction] != 0;
}

void moon_chain_wake(struct moon_chain_run *run)
{
    run->woken_body[MOON_REQUEST] = run->waiting_body[MOON_REQUEST];
    run->woken_body[MOON_RESPONSE] = run->waiting_body[MOON_RESPONSE];
}

void moon_chain_cancel(struct moon_chain_run *run, struct moon_flow *flow)
{
    uint64_t waiting = run->waiting_body[MOON_REQUEST] | run->waiting_body[MOON_RESPONSE];
    if (run->waiting_head >= 0)
        waiting |= bit_of((uint16_t)run->waiting_head);
    run->waiting_head = -1;
    for (int direction = MOON_REQUEST; direction <= MOON_RESPONSE; direction++)
        run->waiting_body[direction] = run->woken_body[direction] = 0;
    for (uint16_t i = 0; waiting; i++, waiting >>= 1) {
        const struct moon_filter *filter = filter_at(run, i);
        if (waiting & 1 && filter->type->cancel)
            filter->type->cancel(flow, filter->conf, run->states[i]);
    }
}
