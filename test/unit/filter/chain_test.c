// The filter runner: order, waits, wakes, ends and cancels, and what becomes of filters that break the contract.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/arena.h"
#include "filter/chain.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILTER_COUNT = 3, TRACE_LEN = 1024 };

struct fixture;

// One filter of the chain: what its hooks do next.
struct script {
    struct fixture *f;
    char name;
    enum moon_verdict verdicts[8]; // of its head hooks, call by call
    unsigned verdict_at;
    enum moon_verdict message_verdicts[2][4]; // of its hook for messages, by direction
    unsigned message_at[2];
    // of its body hook: waits this often, before it takes (and passes) at most `max` bytes a call; 0: all
    unsigned waits;
    size_t max;
    bool swallows_end, passes_after_end, ends_early, takes_too_much, takes_nothing, drops;
};

struct fixture {
    struct moon_arena_pool *pool;
    struct moon_flow flow;
    struct script scripts[FILTER_COUNT];
    struct moon_filter filters[FILTER_COUNT];
    struct moon_chain chain;
    struct moon_chain_run run;
    char trace[TRACE_LEN]; // every call, in order
    size_t trace_len;
    char out[2][256]; // what reached the sink
    size_t out_len[2], room[2];
    unsigned end_count[2];
};

static void note(struct fixture *f, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    f->trace_len +=
        (size_t)vsnprintf(f->trace + f->trace_len, TRACE_LEN - f->trace_len, format, args);
    va_end(args);
    assert_true(f->trace_len < TRACE_LEN);
}

// The trace since the last look.
static void assert_trace(struct fixture *f, const char *expected)
{
    assert_string_equal(f->trace, expected);
    f->trace_len = 0;
    f->trace[0] = '\0';
}

static enum moon_verdict head_hook(struct script *script, const char *phase)
{
    note(script->f, "%c.%s ", script->name, phase);
    return script->verdicts[script->verdict_at++];
}

static enum moon_verdict rewrite_hook(struct moon_flow *flow, void *conf, void *state)
{
    (void)flow, (void)state;
    return head_hook(conf, "rewrite");
}

static enum moon_verdict access_hook(struct moon_flow *flow, void *conf, void *state)
{
    (void)flow, (void)state;
    return head_hook(conf, "access");
}

static enum moon_verdict log_hook(struct moon_flow *flow, void *conf, void *state)
{
    (void)flow, (void)state;
    return head_hook(conf, "log");
}

static ssize_t body(struct script *script, enum moon_direction direction, struct moon_slice bytes,
                    bool end)
{
    struct fixture *f = script->f;
    note(f, "%c%s%.*s ", script->name, end ? "$" : ":", MOON_SLICE_ARG(bytes));
    if (script->waits) {
        script->waits--;
        return MOON_BODY_WAIT;
    }
    if (script->takes_nothing || (end && script->swallows_end))
        return 0;
    if (script->takes_too_much)
        return (ssize_t)bytes.len + 1;
    if (script->ends_early) {
        ssize_t n = f->flow.ops->pass(&f->flow, direction, MOON_SLICE(""), true);
        if (n < 0 || !script->passes_after_end)
            return n < 0 ? n : (ssize_t)bytes.len;
    }
    if (script->drops && !end)
        return (ssize_t)bytes.len;
    if (script->max && bytes.len > script->max)
        bytes.len = script->max;
    return f->flow.ops->pass(&f->flow, direction, bytes, end);
}

static ssize_t request_hook(struct moon_flow *flow, void *conf, void *state,
                            struct moon_slice bytes, bool end)
{
    (void)flow, (void)state;
    return body(conf, MOON_REQUEST, bytes, end);
}

static ssize_t response_hook(struct moon_flow *flow, void *conf, void *state,
                             struct moon_slice bytes, bool end)
{
    (void)flow, (void)state;
    return body(conf, MOON_RESPONSE, bytes, end);
}

static void cancel_hook(struct moon_flow *flow, void *conf, void *state)
{
    (void)flow, (void)state;
    struct script *script = conf;
    note(script->f, "%c.cancel ", script->name);
}

static enum moon_verdict message_hook(struct moon_flow *flow, void *conf, void *state,
                                      struct moon_websocket_message *message)
{
    (void)flow, (void)state;
    struct script *script = conf;
    note(script->f, "%c.%s ", script->name,
         message->direction == MOON_REQUEST ? "client" : "upstream");
    unsigned *at = &script->message_at[message->direction];
    return script->message_verdicts[message->direction][(*at)++];
}

static const struct moon_filter_type type = {
    .name = "unit",
    .state_len = 8,
    .rewrite = rewrite_hook,
    .access = access_hook,
    .log = log_hook,
    .request_body = request_hook,
    .response_body = response_hook,
    .websocket_frame = message_hook,
    .cancel = cancel_hook,
};

static struct fixture *fixture_of(struct moon_flow *flow)
{
    return (struct fixture *)((char *)flow - offsetof(struct fixture, flow));
}

static ssize_t sink(struct moon_flow *flow, enum moon_direction direction, struct moon_slice bytes,
                    bool end)
{
    struct fixture *f = fixture_of(flow);
    if (bytes.len > f->room[direction])
        bytes.len = f->room[direction];
    else if (end)
        f->end_count[direction]++;
    if (bytes.len == 0 && !end)
        return MOON_BODY_FULL;
    memcpy(f->out[direction] + f->out_len[direction], bytes.ptr, bytes.len);
    f->out_len[direction] += bytes.len;
    f->room[direction] -= bytes.len;
    return (ssize_t)bytes.len;
}

static ssize_t pass(struct moon_flow *flow, enum moon_direction direction, struct moon_slice bytes,
                    bool end)
{
    return moon_chain_pass(&fixture_of(flow)->run, flow, direction, bytes, end);
}

static const struct moon_flow_ops ops = {.pass = pass};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    f->pool = moon_arena_pool_new(4);
    f->flow.arena = moon_arena_new(f->pool, 4096);
    f->flow.ops = &ops;
    for (int i = 0; i < FILTER_COUNT; i++) {
        f->scripts[i] = (struct script){.f = f, .name = (char)('a' + i)};
        f->filters[i] = (struct moon_filter){&type, &f->scripts[i]};
    }
    f->chain = (struct moon_chain){.filters = f->filters, .count = FILTER_COUNT};
    moon_chain_note(&f->chain, &type);
    f->room[0] = f->room[1] = 200;
    moon_chain_run_init(&f->run, NULL, &f->chain, &f->flow, sink);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    moon_arena_free(f->flow.arena);
    moon_arena_pool_free(f->pool);
    free(f);
    return 0;
}

static ssize_t push(struct fixture *f, enum moon_direction direction, const char *text)
{
    return moon_chain_push(&f->run, &f->flow, direction, moon_slice_from(text), false);
}

static ssize_t push_end(struct fixture *f, enum moon_direction direction)
{
    return moon_chain_push(&f->run, &f->flow, direction, MOON_SLICE(""), true);
}

static void assert_out(struct fixture *f, enum moon_direction direction, const char *expected)
{
    assert_int_equal(f->out_len[direction], strlen(expected));
    assert_memory_equal(f->out[direction], expected, strlen(expected));
}

// ---- head phases

static void phases_run_in_order(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(moon_chain_start(&f->run, &f->flow, MOON_PHASE_REWRITE), MOON_NEXT);
    assert_int_equal(moon_chain_start(&f->run, &f->flow, MOON_PHASE_ACCESS), MOON_NEXT);
    assert_int_equal(moon_chain_start(&f->run, &f->flow, MOON_PHASE_HEADER_FILTER), MOON_NEXT);
    assert_trace(f, "a.rewrite b.rewrite c.rewrite a.access b.access c.access ");
}

static void an_answer_and_a_failure_end_a_phase(void **state)
{
    struct fixture *f = *state;
    f->scripts[1].verdicts[0] = MOON_DONE;
    assert_int_equal(moon_chain_start(&f->run, &f->flow, MOON_PHASE_REWRITE), MOON_DONE);
    f->scripts[1].verdicts[1] = MOON_FAIL;
    assert_int_equal(moon_chain_start(&f->run, &f->flow, MOON_PHASE_ACCESS), MOON_FAIL);
    assert_trace(f, "a.rewrite b.rewrite a.access b.access ");
}

static void a_failing_log_hides_no_other(void **state)
{
    struct fixture *f = *state;
    f->scripts[0].verdicts[0] = MOON_FAIL;
    f->scripts[1].verdicts[0] = MOON_WAIT;
    f->scripts[1].verdicts[1] = MOON_DONE;
    assert_int_equal(moon_chain_start(&f->run, &f->flow, MOON_PHASE_LOG), MOON_WAIT);
    assert_true(moon_chain_head_waits(&f->run));
    assert_int_equal(moon_chain_continue(&f->run, &f->flow, MOON_PHASE_LOG), MOON_NEXT);
    assert_false(moon_chain_head_waits(&f->run));
    assert_trace(f, "a.log b.log b.log c.log ");
}

static void a_phase_goes_on_where_it_waited(void **state)
{
    struct fixture *f = *state;
    f->scripts[1].verdicts[0] = f->scripts[1].verdicts[1] = MOON_WAIT;
    assert_int_equal(moon_chain_start(&f->run, &f->flow, MOON_PHASE_ACCESS), MOON_WAIT);
    assert_int_equal(moon_chain_continue(&f->run, &f->flow, MOON_PHASE_ACCESS), MOON_WAIT);
    assert_int_equal(moon_chain_continue(&f->run, &f->flow, MOON_PHASE_ACCESS), MOON_NEXT);
    assert_trace(f, "a.access b.access b.access b.access c.access ");
    moon_chain_cancel(&f->run, &f->flow);
    assert_trace(f, "");
}

// ---- bodies

static void bytes_and_end_go_through(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(push(f, MOON_RESPONSE, "xyz"), 3);
    assert_int_equal(push_end(f, MOON_RESPONSE), 0);
    assert_trace(f, "a:xyz b:xyz c:xyz a$ b$ c$ ");
    assert_out(f, MOON_RESPONSE, "xyz");
    assert_int_equal(f->end_count[MOON_RESPONSE], 1);
    assert_int_equal(f->end_count[MOON_REQUEST], 0);
}

static void a_part_taken_is_followed_by_the_rest(void **state)
{
    struct fixture *f = *state;
    f->scripts[1].max = 2;
    assert_int_equal(push(f, MOON_REQUEST, "abcde"), 5);
    assert_trace(f, "a:abcde b:abcde c:ab b:cde c:cd b:e c:e ");
    assert_out(f, MOON_REQUEST, "abcde");
}

static void a_full_sink_is_a_partial_take_and_then_full(void **state)
{
    struct fixture *f = *state;
    f->room[MOON_REQUEST] = 3;
    assert_int_equal(push(f, MOON_REQUEST, "abcde"), 3);
    assert_int_equal(push(f, MOON_REQUEST, "de"), MOON_BODY_FULL);
    f->room[MOON_REQUEST] = 9;
    assert_int_equal(push(f, MOON_REQUEST, "de"), 2);
    assert_out(f, MOON_REQUEST, "abcde");
}

static void who_waits_is_not_called_before_a_wake(void **state)
{
    struct fixture *f = *state;
    f->scripts[1].waits = 2;
    assert_int_equal(push(f, MOON_REQUEST, "ab"), MOON_BODY_WAIT);
    assert_trace(f, "a:ab b:ab ");
    assert_int_equal(push(f, MOON_REQUEST, "ab"),
                     MOON_BODY_WAIT); // for the sake of `writable`, say
    assert_trace(f, "");
    moon_chain_wake(&f->run);
    assert_int_equal(push(f, MOON_REQUEST, "ab"), MOON_BODY_WAIT); // not its cause
    assert_trace(f, "a:ab b:ab ");
    moon_chain_wake(&f->run);
    assert_int_equal(push(f, MOON_REQUEST, "ab"), 2);
    assert_trace(f, "a:ab b:ab c:ab ");
    assert_out(f, MOON_REQUEST, "ab");
}

static void the_end_waits_like_bytes(void **state)
{
    struct fixture *f = *state;
    f->scripts[2].waits = 1;
    assert_int_equal(push_end(f, MOON_RESPONSE), MOON_BODY_WAIT);
    assert_int_equal(push_end(f, MOON_RESPONSE), MOON_BODY_WAIT);
    assert_int_equal(f->end_count[MOON_RESPONSE], 0);
    moon_chain_wake(&f->run);
    assert_int_equal(push_end(f, MOON_RESPONSE), 0);
    assert_trace(f, "a$ b$ c$ a$ b$ c$ ");
    assert_int_equal(f->end_count[MOON_RESPONSE], 1);
}

// The one in front takes in pieces; the one behind it waits after the first. What was taken is said at once.
static void a_wait_behind_a_part_taken(void **state)
{
    struct fixture *f = *state;
    f->scripts[0].max = 2;
    assert_int_equal(push(f, MOON_RESPONSE, "ab"), 2);
    f->scripts[1].waits = 1;
    f->scripts[0].max = 1;
    assert_int_equal(push(f, MOON_RESPONSE, "cd"), MOON_BODY_WAIT);
    moon_chain_wake(&f->run);
    assert_int_equal(push(f, MOON_RESPONSE, "cd"), 2);
    assert_out(f, MOON_RESPONSE, "abcd");
}

// The wait of the one behind is found by cancel though the one in front was called, and waits, since.
static void nested_waits_are_all_cancelled_once(void **state)
{
    struct fixture *f = *state;
    f->scripts[1].waits = 1;
    assert_int_equal(push(f, MOON_REQUEST, "ab"), MOON_BODY_WAIT);
    f->scripts[0].waits = 1;
    moon_chain_wake(&f->run);
    assert_int_equal(push(f, MOON_REQUEST, "ab"), MOON_BODY_WAIT);
    assert_trace(f, "a:ab b:ab a:ab ");
    moon_chain_cancel(&f->run, &f->flow);
    assert_trace(f, "a.cancel b.cancel ");
    moon_chain_cancel(&f->run, &f->flow);
    assert_trace(f, "");
}

static void waits_in_both_directions_and_a_phase(void **state)
{
    struct fixture *f = *state;
    f->scripts[2].verdicts[0] = MOON_WAIT;
    f->scripts[2].waits = 2;
    assert_int_equal(push(f, MOON_REQUEST, "up"), MOON_BODY_WAIT);
    assert_int_equal(push(f, MOON_RESPONSE, "down"), MOON_BODY_WAIT);
    assert_int_equal(moon_chain_start(&f->run, &f->flow, MOON_PHASE_ACCESS), MOON_WAIT);
    f->trace_len = 0;
    moon_chain_wake(&f->run);
    assert_int_equal(push(f, MOON_RESPONSE, "down"), 4); // does not touch the other direction
    assert_out(f, MOON_REQUEST, "");
    moon_chain_cancel(&f->run, &f->flow);
    assert_trace(f, "a:down b:down c:down a.cancel b.cancel c.cancel "); // one call for two waits
}

static void an_early_end_is_the_end(void **state)
{
    struct fixture *f = *state;
    f->scripts[1].ends_early = true;
    assert_int_equal(push(f, MOON_RESPONSE, "ab"), 2);
    assert_int_equal(f->end_count[MOON_RESPONSE], 1);
    assert_trace(f, "a:ab b:ab c$ ");
    assert_int_equal(push(f, MOON_RESPONSE, "cd"), 2); // dropped, b is not asked again
    assert_int_equal(push_end(f, MOON_RESPONSE), 0);
    assert_trace(f, "a:cd a$ ");
    assert_int_equal(f->end_count[MOON_RESPONSE], 1);
    assert_out(f, MOON_RESPONSE, "");
}

static void a_chain_without_filters_is_the_sink(void **state)
{
    struct fixture *f = *state;
    struct moon_chain none = {.filters = f->filters};
    moon_chain_run_init(&f->run, NULL, &none, &f->flow, sink);
    assert_int_equal(moon_chain_start(&f->run, &f->flow, MOON_PHASE_ACCESS), MOON_NEXT);
    assert_int_equal(push(f, MOON_REQUEST, "ab"), 2);
    assert_int_equal(push_end(f, MOON_REQUEST), 0);
    moon_chain_wake(&f->run);
    moon_chain_cancel(&f->run, &f->flow);
    assert_out(f, MOON_REQUEST, "ab");
    assert_trace(f, "");
}

static void sixty_four_filters(void **state)
{
    struct fixture *f = *state;
    struct moon_filter many[MOON_CHAIN_MAX_COUNT];
    for (int i = 0; i < MOON_CHAIN_MAX_COUNT; i++)
        many[i] = (struct moon_filter){&type, &f->scripts[0]};
    many[MOON_CHAIN_MAX_COUNT - 1].conf = &f->scripts[1];
    f->scripts[1].waits = 1;
    struct moon_chain chain = {.filters = many, .count = MOON_CHAIN_MAX_COUNT};
    moon_chain_note(&chain, &type);
    moon_chain_run_init(&f->run, NULL, &chain, &f->flow, sink);
    assert_int_equal(push(f, MOON_RESPONSE, "x"), MOON_BODY_WAIT);
    moon_chain_wake(&f->run);
    assert_int_equal(push(f, MOON_RESPONSE, "x"), 1);
    assert_int_equal(push_end(f, MOON_RESPONSE), 0);
    assert_int_equal(f->end_count[MOON_RESPONSE], 1);
    assert_out(f, MOON_RESPONSE, "x");
}

// ---- filters that break the contract fail their message

static void the_end_must_not_be_swallowed(void **state)
{
    struct fixture *f = *state;
    f->scripts[1].swallows_end = true;
    assert_int_equal(push(f, MOON_RESPONSE, "ab"), 2);
    assert_int_equal(push_end(f, MOON_RESPONSE), MOON_BODY_FAIL);
}

static void nothing_may_follow_the_end(void **state)
{
    struct fixture *f = *state;
    f->scripts[1].ends_early = f->scripts[1].passes_after_end = true;
    assert_int_equal(push(f, MOON_RESPONSE, "ab"), MOON_BODY_FAIL);
    assert_out(f, MOON_RESPONSE, "");
}

static void counts_must_make_sense(void **state)
{
    struct fixture *f = *state;
    f->scripts[0].takes_nothing = true;
    assert_int_equal(push(f, MOON_REQUEST, "ab"), MOON_BODY_FAIL);
    f->scripts[0].takes_nothing = false;
    f->scripts[0].takes_too_much = true;
    assert_int_equal(push(f, MOON_REQUEST, "ab"), MOON_BODY_FAIL);
}

static void pass_is_for_body_hooks(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(moon_chain_pass(&f->run, &f->flow, MOON_REQUEST, MOON_SLICE("x"), false),
                     MOON_BODY_FAIL);
    f->scripts[0].drops = true;
    assert_int_equal(push(f, MOON_REQUEST, "ab"), 2);
    assert_int_equal(moon_chain_pass(&f->run, &f->flow, MOON_REQUEST, MOON_SLICE("x"), false),
                     MOON_BODY_FAIL);
    assert_out(f, MOON_REQUEST, "");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

// ---- messages

static void messages_go_through_in_order_both_ways(void **state)
{
    struct fixture *f = *state;
    struct moon_websocket_message up = {.direction = MOON_REQUEST},
                                  down = {.direction = MOON_RESPONSE};
    assert_true(f->run.has_messages);
    assert_int_equal(moon_chain_message(&f->run, &f->flow, &up, false), MOON_NEXT);
    assert_int_equal(moon_chain_message(&f->run, &f->flow, &down, false), MOON_NEXT);
    assert_trace(f, "a.client b.client c.client a.upstream b.upstream c.upstream ");
    f->scripts[1].message_verdicts[MOON_REQUEST][1] = MOON_DONE;
    f->scripts[0].message_verdicts[MOON_RESPONSE][1] = MOON_FAIL;
    assert_int_equal(moon_chain_message(&f->run, &f->flow, &up, false), MOON_DONE);
    assert_int_equal(moon_chain_message(&f->run, &f->flow, &down, false), MOON_FAIL);
    assert_trace(f, "a.client b.client a.upstream ");
}

static void a_message_waits_alone_and_is_called_after_a_wake(void **state)
{
    struct fixture *f = *state;
    struct moon_websocket_message up = {.direction = MOON_REQUEST},
                                  down = {.direction = MOON_RESPONSE};
    f->scripts[1].message_verdicts[MOON_REQUEST][0] = MOON_WAIT;
    assert_int_equal(moon_chain_message(&f->run, &f->flow, &up, false), MOON_WAIT);
    assert_int_equal(moon_chain_message(&f->run, &f->flow, &up, true), MOON_WAIT);
    assert_int_equal(moon_chain_message(&f->run, &f->flow, &down, false), MOON_NEXT);
    assert_trace(f, "a.client b.client a.upstream b.upstream c.upstream ");
    moon_chain_wake(&f->run);
    assert_int_equal(moon_chain_message(&f->run, &f->flow, &up, true), MOON_NEXT);
    assert_trace(f, "b.client c.client ");
    f->scripts[2].message_verdicts[MOON_RESPONSE][1] = MOON_WAIT;
    f->scripts[2].message_verdicts[MOON_REQUEST][1] = MOON_WAIT;
    moon_chain_message(&f->run, &f->flow, &up, false);
    moon_chain_message(&f->run, &f->flow, &down, false);
    f->trace_len = 0;
    moon_chain_cancel(&f->run, &f->flow);
    assert_trace(f, "c.cancel ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(phases_run_in_order),
        TEST(an_answer_and_a_failure_end_a_phase),
        TEST(a_failing_log_hides_no_other),
        TEST(a_phase_goes_on_where_it_waited),
        TEST(bytes_and_end_go_through),
        TEST(a_part_taken_is_followed_by_the_rest),
        TEST(a_full_sink_is_a_partial_take_and_then_full),
        TEST(who_waits_is_not_called_before_a_wake),
        TEST(the_end_waits_like_bytes),
        TEST(a_wait_behind_a_part_taken),
        TEST(nested_waits_are_all_cancelled_once),
        TEST(waits_in_both_directions_and_a_phase),
        TEST(an_early_end_is_the_end),
        TEST(a_chain_without_filters_is_the_sink),
        TEST(sixty_four_filters),
        TEST(the_end_must_not_be_swallowed),
        TEST(nothing_may_follow_the_end),
        TEST(counts_must_make_sense),
        TEST(pass_is_for_body_hooks),
        TEST(messages_go_through_in_order_both_ways),
        TEST(a_message_waits_alone_and_is_called_after_a_wake),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
