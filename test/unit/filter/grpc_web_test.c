// The filter grpc-web under back-pressure of every kind: what is taken in parts, refused and offered again comes out whole.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/arena.h"
#include "filter/chain.h"
#include "filter/shipped.h"
#include "http/grpc.h"
#include "http/head.h"

#include <string.h>

enum { BODY_LEN = 20000, OUT_LEN = 40000 };

struct fixture {
    struct moon_flow flow; // first: the sink finds the rest
    struct moon_arena_pool *pool;
    struct moon_head request, response;
    struct moon_headers trailers;
    struct moon_filter filter;
    struct moon_chain chain;
    struct moon_chain_run run;
    char out[OUT_LEN];
    size_t out_len;
    unsigned end_count;
    uint64_t seed; // 0: takes everything at once
};

static uint32_t draw(struct fixture *f, uint32_t below)
{
    f->seed = f->seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(f->seed >> 33) % below;
}

static ssize_t pass(struct moon_flow *flow, enum moon_direction direction, struct moon_slice bytes,
                    bool end)
{
    return moon_chain_pass(&((struct fixture *)flow)->run, flow, direction, bytes, end);
}

static const struct moon_flow_ops ops = {.pass = pass};

// Takes some, or nothing.
static ssize_t sink(struct moon_flow *flow, enum moon_direction direction, struct moon_slice bytes,
                    bool end)
{
    struct fixture *f = (struct fixture *)flow;
    (void)direction;
    if (f->seed && draw(f, 3) == 0)
        return MOON_BODY_FULL;
    if (end) {
        f->end_count++;
        return 0;
    }
    size_t len = f->seed ? 1 + draw(f, (uint32_t)bytes.len) : bytes.len;
    assert_true(f->out_len + len <= OUT_LEN);
    memcpy(f->out + f->out_len, bytes.ptr, len);
    f->out_len += len;
    return (ssize_t)len;
}

static struct fixture *open(const char *type, uint64_t seed)
{
    static struct fixture f;
    f = (struct fixture){.pool = moon_arena_pool_new(1), .seed = seed};
    f.flow.ops = &ops;
    f.flow.arena = moon_arena_new(f.pool, 1 << 20);
    f.flow.request = &f.request;
    f.flow.response = &f.response;
    f.flow.response_trailers = &f.trailers;
    moon_headers_add_id(&f.request.headers, f.flow.arena, MOON_H_CONTENT_TYPE,
                        moon_slice_from(type));
    f.response.status = 200;
    moon_headers_add_id(&f.response.headers, f.flow.arena, MOON_H_CONTENT_TYPE,
                        MOON_SLICE("application/grpc"));
    moon_headers_add(&f.trailers, f.flow.arena, MOON_SLICE("grpc-status"), MOON_SLICE("0"));
    f.filter.type = &moon_filter_grpc_web;
    f.chain.filters = &f.filter;
    f.chain.count = 1;
    moon_chain_note(&f.chain, f.filter.type);
    moon_chain_run_init(&f.run, NULL, &f.chain, &f.flow, sink);
    assert_int_equal(moon_chain_start(&f.run, &f.flow, MOON_PHASE_REWRITE), MOON_NEXT);
    return &f;
}

static void shut(struct fixture *f)
{
    moon_arena_free(f->flow.arena);
    moon_arena_pool_free(f->pool);
}

// Offers pieces of changing length, again where they were refused, then the end. False: the filter has failed.
static bool push(struct fixture *f, enum moon_direction direction, struct moon_slice body)
{
    ssize_t taken;
    while (body.len) {
        size_t len = f->seed ? 1 + draw(f, (uint32_t)body.len) : body.len;
        taken = moon_chain_push(&f->run, &f->flow, direction, (struct moon_slice){body.ptr, len},
                                false);
        if (taken == MOON_BODY_FAIL)
            return false;
        assert_true(taken > 0 || taken == MOON_BODY_FULL);
        body = moon_slice_skip(body, taken > 0 ? (size_t)taken : 0);
    }
    do
        taken = moon_chain_push(&f->run, &f->flow, direction, MOON_SLICE(""), true);
    while (taken == MOON_BODY_FULL);
    return taken == 0;
}

// A few frames.
static struct moon_slice body_of(char body[BODY_LEN])
{
    size_t at = 0;
    for (size_t len = 0; at + 5 + len < BODY_LEN; len = len * 2 + 1) {
        const char head[5] = {0, 0, 0, (char)(len >> 8), (char)len};
        memcpy(body + at, head, sizeof head);
        for (size_t i = 0; i < len; i++)
            body[at + 5 + i] = (char)(i * 7 + len);
        at += 5 + len;
    }
    return (struct moon_slice){body, at};
}

static bool came_out(const struct fixture *f, struct moon_slice expected)
{
    return f->end_count == 1 && moon_slice_equal((struct moon_slice){f->out, f->out_len}, expected);
}

static void requests_come_out_whole(void **state)
{
    (void)state;
    static char body[BODY_LEN], text[OUT_LEN];
    struct moon_slice frames = body_of(body);
    struct moon_slice encoded = {text, moon_base64_encode(frames, text)};
    for (uint64_t seed = 0; seed < 300; seed++) {
        struct fixture *f = open("application/grpc-web-text", seed);
        assert_true(push(f, MOON_REQUEST, encoded));
        assert_true(came_out(f, frames));
        shut(f);
        f = open("application/grpc-web", seed);
        assert_true(push(f, MOON_REQUEST, frames));
        assert_true(came_out(f, frames));
        shut(f);
    }
}

static void broken_requests_fail(void **state)
{
    (void)state;
    static char body[BODY_LEN], text[OUT_LEN];
    struct moon_slice frames = body_of(body);
    struct moon_slice encoded = {text, moon_base64_encode(frames, text)};
    for (uint64_t seed = 0; seed < 100; seed++) {
        struct fixture *f = open("application/grpc-web-text", seed);
        assert_false(push(f, MOON_REQUEST, (struct moon_slice){text, encoded.len - 2}));
        assert_non_null(f->flow.refusal);
        shut(f);
        f = open("application/grpc-web", seed);
        assert_false(push(f, MOON_REQUEST, (struct moon_slice){body, frames.len - 1}));
        assert_non_null(f->flow.refusal);
        assert_int_equal(f->end_count, 0);
        shut(f);
    }
}

static void responses_come_out_whole(void **state)
{
    (void)state;
    static char body[BODY_LEN + 64], decoded[OUT_LEN];
    static const char tail[] = "\x80\0\0\0\x10grpc-status: 0\r\n";
    struct moon_slice frames = body_of(body);
    memcpy(body + frames.len, tail, sizeof tail - 1);
    struct moon_slice expected = {body, frames.len + sizeof tail - 1};
    for (uint64_t seed = 0; seed < 300; seed++) {
        struct fixture *f = open("application/grpc-web", seed);
        assert_int_equal(moon_chain_start(&f->run, &f->flow, MOON_PHASE_HEADER_FILTER), MOON_NEXT);
        assert_true(push(f, MOON_RESPONSE, frames));
        assert_true(came_out(f, expected));
        assert_int_equal(f->trailers.count, 0);
        shut(f);
        f = open("application/grpc-web-text", seed);
        assert_int_equal(moon_chain_start(&f->run, &f->flow, MOON_PHASE_HEADER_FILTER), MOON_NEXT);
        assert_true(push(f, MOON_RESPONSE, frames));
        struct moon_base64 at = {0};
        size_t len;
        ssize_t taken = moon_base64_decode(&at, (struct moon_slice){f->out, f->out_len}, decoded,
                                           sizeof decoded, &len);
        assert_int_equal(taken, f->out_len);
        assert_false(moon_base64_is_open(&at));
        assert_true(moon_slice_equal((struct moon_slice){decoded, len}, expected));
        assert_int_equal(f->end_count, 1);
        shut(f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_come_out_whole),
        cmocka_unit_test(broken_requests_fail),
        cmocka_unit_test(responses_come_out_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
