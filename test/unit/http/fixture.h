// What the unit tests of http/ share: an arena per test and the way of a head from bytes to a
// table.
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/arena.h"
#include "http/head.h"

#include <stdlib.h>

struct fixture {
    struct moon_arena_pool *pool;
    struct moon_arena *arena;
    struct moon_head head;
    struct moon_fault fault;
};

static inline int fixture_setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    f->pool = moon_arena_pool_new(4);
    f->arena = moon_arena_new(f->pool, 1 << 20);
    *state = f;
    return 0;
}

static inline int fixture_teardown(void **state)
{
    struct fixture *f = *state;
    moon_arena_free(f->arena);
    moon_arena_pool_free(f->pool);
    free(f);
    return 0;
}

static inline void fixture_reset(struct fixture *f)
{
    moon_arena_free(f->arena);
    f->arena = moon_arena_new(f->pool, 1 << 20);
    f->fault = (struct moon_fault){0, NULL};
}

// A row of a table: its bytes may hold NUL.
#define RAW(text)                \
    {                            \
        (text), sizeof(text) - 1 \
    }
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

static inline void assert_slice(struct moon_slice s, const char *expected)
{
    assert_int_equal(s.len, strlen(expected));
    if (s.len)
        assert_memory_equal(s.ptr, expected, s.len);
}

// Scan, copy, parse: 0, or the status of the fault.
static inline int take_request(struct fixture *f, struct moon_slice raw,
                               const struct moon_head_limits *limits)
{
    struct moon_head_scan scan = {0};
    fixture_reset(f);
    ssize_t len = moon_head_scan(&scan, raw, limits, true, &f->fault);
    if (len < 0)
        return f->fault.status;
    if (len == 0)
        return -1;
    struct moon_slice text =
        moon_arena_try_copy(f->arena, (struct moon_slice){raw.ptr, (size_t)len});
    return moon_request_parse(f->arena, text, limits, &f->head, &f->fault) == 0 ? 0
                                                                                : f->fault.status;
}

static inline int take_response(struct fixture *f, struct moon_slice raw, enum moon_method method)
{
    struct moon_head_scan scan = {0};
    const struct moon_head_limits *limits = &moon_head_limits_default;
    fixture_reset(f);
    ssize_t len = moon_head_scan(&scan, raw, limits, false, &f->fault);
    if (len < 0)
        return f->fault.status;
    if (len == 0)
        return -1;
    struct moon_slice text =
        moon_arena_try_copy(f->arena, (struct moon_slice){raw.ptr, (size_t)len});
    return moon_response_parse(f->arena, text, limits, method, &f->head, &f->fault) == 0
               ? 0
               : f->fault.status;
}
