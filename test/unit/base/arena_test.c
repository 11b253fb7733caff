// Unit tests of base/arena: alignment, caps, large blocks, hooks, reuse of blocks.
#include "base/arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h> // after what it needs

static int setup(void **state)
{
    *state = moon_arena_pool_new(4);
    return 0;
}

static int teardown(void **state)
{
    assert_int_equal(moon_arena_pool_live_count(*state), 0);
    moon_arena_pool_free(*state);
    return 0;
}

static void null_may_be_freed(void **state)
{
    (void)state;
    moon_arena_free(NULL);
    moon_arena_pool_free(NULL);
}

static void live_arenas_are_counted(void **state)
{
    struct moon_arena *a = moon_arena_new(*state, 100), *b = moon_arena_new(*state, 100);
    assert_int_equal(moon_arena_pool_live_count(*state), 2);
    moon_arena_free(a);
    assert_int_equal(moon_arena_pool_live_count(*state), 1);
    moon_arena_free(b);
}

// Every size around the edges of a block; each allocation keeps its own bytes.
static void allocations_are_aligned_and_apart(void **state)
{
    enum { COUNT = 600 };
    struct moon_arena *arena = moon_arena_new(*state, 0);
    unsigned char *ptrs[COUNT];
    size_t lens[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        lens[i] = i < 500 ? i * 11 : 2040 + i - 500;
        ptrs[i] = i % 2 ? moon_arena_alloc(arena, lens[i]) : moon_arena_zalloc(arena, lens[i]);
        assert_int_equal((uintptr_t)ptrs[i] % 16, 0);
        for (size_t k = 0; i % 2 == 0 && k < lens[i]; k++)
            assert_int_equal(ptrs[i][k], 0);
        memset(ptrs[i], (int)(i & 0xff), lens[i]);
    }
    for (size_t i = 0; i < COUNT; i++) {
        for (size_t k = 0; k < lens[i]; k++)
            assert_int_equal(ptrs[i][k], i & 0xff);
    }
    moon_arena_free(arena);
}

static void the_cap_binds_try_functions_only(void **state)
{
    struct moon_arena *arena = moon_arena_new(*state, 100);
    assert_non_null(moon_arena_alloc(arena, 9000));
    assert_null(moon_arena_try_alloc(arena, 101));
    assert_non_null(moon_arena_try_alloc(arena, 60));
    assert_null(moon_arena_try_bytes(arena, 41));
    assert_null(moon_arena_try_copy(arena, (struct moon_slice){"", SIZE_MAX}).ptr);
    assert_null(moon_arena_try_format(arena, "%041d", 1).ptr);
    assert_non_null(moon_arena_try_format(arena, "%040d", 1).ptr);
    assert_null(moon_arena_try_bytes(arena, 1));
    assert_non_null(moon_arena_try_bytes(arena, 0));
    moon_arena_free(arena);
}

static void absurd_sizes_are_refused(void **state)
{
    struct moon_arena *arena = moon_arena_new(*state, SIZE_MAX);
    volatile size_t most = SIZE_MAX; // or the compiler warns of what this test is about
    for (size_t less = 0; less < 16; less++) {
        assert_null(moon_arena_try_alloc(arena, most - less));
        assert_null(moon_arena_try_bytes(arena, most - less));
    }
    moon_arena_free(arena);
}

static void text_is_packed(void **state)
{
    struct moon_arena *arena = moon_arena_new(*state, 10000);
    struct moon_slice a = moon_arena_try_copy(arena, MOON_SLICE("abc"));
    struct moon_slice b = moon_arena_try_format(arena, "%s-%d", "x", 42);
    struct moon_slice c = moon_arena_try_copy(arena, MOON_SLICE("end"));
    assert_ptr_equal(a.ptr + 3, b.ptr);
    assert_ptr_equal(b.ptr + 4, c.ptr);
    assert_memory_equal(a.ptr, "abcx-42end", 10);
    assert_int_equal((uintptr_t)moon_arena_alloc(arena, 1) % 16, 0);
    moon_arena_free(arena);
}

static void an_empty_copy_is_not_null(void **state)
{
    struct moon_arena *arena = moon_arena_new(*state, 0);
    struct moon_slice copy = moon_arena_try_copy(arena, (struct moon_slice){NULL, 0});
    assert_non_null(copy.ptr);
    assert_int_equal(copy.len, 0);
    moon_arena_free(arena);
}

// Lengths that end before, at and after the end of the first block and of the half block.
static void format_works_at_every_fill(void **state)
{
    for (int used = 3900; used < 4030; used++) {
        struct moon_arena *arena = moon_arena_new(*state, SIZE_MAX);
        assert_non_null(moon_arena_try_bytes(arena, 2000));
        assert_non_null(moon_arena_try_bytes(arena, (size_t)used - 2000));
        struct moon_slice a = moon_arena_try_format(arena, "%0*d", 40, 7);
        struct moon_slice b = moon_arena_try_format(arena, "%0*d", 2008 + used % 100, 8);
        struct moon_slice c = moon_arena_try_format(arena, "%0*d", 9000, 9);
        assert_int_equal(a.len, 40);
        assert_int_equal(b.len, 2008 + used % 100);
        assert_int_equal(c.len, 9000);
        assert_int_equal(a.ptr[39], '7');
        assert_int_equal(b.ptr[b.len - 1], '8');
        assert_int_equal(c.ptr[8999], '9');
        moon_arena_free(arena);
    }
}

struct trace {
    struct moon_arena *arena;
    char text[8];
    size_t len;
};

static void record_a(void *arg)
{
    struct trace *trace = arg;
    trace->text[trace->len++] = 'a';
}

static void record_b(void *arg)
{
    struct trace *trace = arg;
    trace->text[trace->len++] = 'b';
    memset(moon_arena_alloc(trace->arena, 100), 1, 100);
    moon_arena_on_free(trace->arena, record_a, trace);
}

static void hooks_run_newest_first_and_may_allocate(void **state)
{
    struct trace trace = {moon_arena_new(*state, 0), "", 0};
    moon_arena_on_free(trace.arena, record_a, &trace);
    moon_arena_on_free(trace.arena, record_b, &trace);
    moon_arena_on_free(trace.arena, record_a, &trace);
    moon_arena_free(trace.arena);
    assert_string_equal(trace.text, "abaa");
}

static void a_warm_pool_hands_out_the_same_block(void **state)
{
    struct moon_arena *first = moon_arena_new(*state, 0);
    uintptr_t address = (uintptr_t)first;
    moon_arena_free(first);
    struct moon_arena *second = moon_arena_new(*state, 0);
    assert_int_equal((uintptr_t)second, address);
    moon_arena_free(second);
}

static void a_pool_that_keeps_nothing_works(void **state)
{
    (void)state;
    struct moon_arena_pool *pool = moon_arena_pool_new(0);
    struct moon_arena *arena = moon_arena_new(pool, 0);
    for (int i = 0; i < 100; i++)
        memset(moon_arena_alloc(arena, 1000), i, 1000);
    moon_arena_free(arena);
    moon_arena_pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(null_may_be_freed),
        cmocka_unit_test_setup_teardown(live_arenas_are_counted, setup, teardown),
        cmocka_unit_test_setup_teardown(allocations_are_aligned_and_apart, setup, teardown),
        cmocka_unit_test_setup_teardown(the_cap_binds_try_functions_only, setup, teardown),
        cmocka_unit_test_setup_teardown(absurd_sizes_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(text_is_packed, setup, teardown),
        cmocka_unit_test_setup_teardown(an_empty_copy_is_not_null, setup, teardown),
        cmocka_unit_test_setup_teardown(format_works_at_every_fill, setup, teardown),
        cmocka_unit_test_setup_teardown(hooks_run_newest_first_and_may_allocate, setup, teardown),
        cmocka_unit_test_setup_teardown(a_warm_pool_hands_out_the_same_block, setup, teardown),
        cmocka_unit_test(a_pool_that_keeps_nothing_works),
    };
    return cmocka_run_group_tests_name("base/arena", tests, NULL, NULL);
}
