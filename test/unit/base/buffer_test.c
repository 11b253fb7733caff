// Unit tests of base/buffer: order of bytes, growth, bounds, budget, return of blocks.
#include "base/buffer.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h> // after what it needs

struct fixture {
    struct moon_buffer_budget budget;
    struct moon_buffer_pool *pool;
    struct moon_buffer buffer;
};

static char bytes[MOON_BUFFER_MAX_LEN + 1]; // filled once by main

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->budget.max_len = 100 * 1024 * 1024;
    f->pool = moon_buffer_pool_new(&f->budget);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    moon_buffer_fini(&f->buffer, f->pool);
    moon_buffer_pool_free(f->pool);
    assert_int_equal(atomic_load(&f->budget.used_len), 0);
    free(f);
    return 0;
}

static struct moon_slice first(size_t len)
{
    return (struct moon_slice){bytes, len};
}

static void an_empty_buffer_owns_nothing(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(moon_buffer_append(&f->buffer, f->pool, (struct moon_slice){NULL, 0}), 0);
    assert_null(f->buffer.base);
    moon_buffer_consume(&f->buffer, f->pool, 0);
    moon_buffer_fini(&f->buffer, f->pool);
    assert_int_equal(moon_buffer_append(&f->buffer, f->pool, first(10)), 0);
    moon_buffer_consume(&f->buffer, f->pool, 10);
    assert_null(f->buffer.base);
    assert_int_equal(moon_buffer_room(&f->buffer), MOON_BUFFER_MAX_LEN);
    moon_buffer_pool_free(NULL);
}

static void it_grows_by_class_and_keeps_its_bytes(void **state)
{
    struct fixture *f = *state;
    const size_t fill[] = {1, 4096, 4097, 16384, 16385, 65536};
    const size_t cap[] = {4096, 4096, 16384, 16384, 65536, 65536};
    for (size_t i = 0; i < 6; i++) {
        size_t len = moon_buffer_len(&f->buffer);
        struct moon_slice more = {bytes + len, fill[i] - len};
        assert_int_equal(moon_buffer_append(&f->buffer, f->pool, more), 0);
        assert_int_equal(f->buffer.cap, cap[i]);
        assert_true(moon_slice_equal(moon_buffer_bytes(&f->buffer), first(fill[i])));
    }
    assert_int_equal(moon_buffer_room(&f->buffer), 0);
    assert_int_equal(moon_buffer_append(&f->buffer, f->pool, first(1)), -ENOBUFS);
    assert_null(moon_buffer_reserve(&f->buffer, f->pool, 1));
    assert_true(moon_slice_equal(moon_buffer_bytes(&f->buffer), first(MOON_BUFFER_MAX_LEN)));
}

static void absurd_lengths_are_refused(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(moon_buffer_append(&f->buffer, f->pool, first(65537)), -ENOBUFS);
    assert_int_equal(moon_buffer_append(&f->buffer, f->pool, first(SIZE_MAX)), -ENOBUFS);
    assert_null(moon_buffer_reserve(&f->buffer, f->pool, SIZE_MAX));
    assert_null(f->buffer.base);
}

static void consumed_space_is_used_again(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(moon_buffer_append(&f->buffer, f->pool, first(4096)), 0);
    moon_buffer_consume(&f->buffer, f->pool, 4000);
    assert_int_equal(moon_buffer_append(&f->buffer, f->pool, first(4000)), 0);
    assert_int_equal(f->buffer.cap, 4096);
    assert_memory_equal(f->buffer.base, bytes + 4000, 96);
    assert_memory_equal(f->buffer.base + 96, bytes, 4000);
}

static void reserve_gives_room_at_the_tail(void **state)
{
    struct fixture *f = *state;
    assert_non_null(moon_buffer_reserve(&f->buffer, f->pool, 0));
    for (size_t len = 0; len + 3000 <= MOON_BUFFER_MAX_LEN; len += 2999) {
        char *tail = moon_buffer_reserve(&f->buffer, f->pool, 3000);
        assert_non_null(tail);
        memcpy(tail, bytes + len, 3000);
        moon_buffer_commit(&f->buffer, 2999);
        assert_true(moon_slice_equal(moon_buffer_bytes(&f->buffer), first(len + 2999)));
    }
}

static void random_traffic_stays_in_order(void **state)
{
    struct fixture *f = *state;
    uint32_t seed = 1;
    uint8_t in = 0, out = 0;
    for (int i = 0; i < 20000; i++) {
        seed = seed * 1664525 + 1013904223;
        size_t len = (seed >> 8) % 3001;
        if (len <= moon_buffer_room(&f->buffer)) {
            char *tail = moon_buffer_reserve(&f->buffer, f->pool, len);
            for (size_t k = 0; k < len; k++)
                tail[k] = (char)in++;
            moon_buffer_commit(&f->buffer, len);
        }
        seed = seed * 1664525 + 1013904223;
        len = (seed >> 8) % 3001;
        if (len > moon_buffer_len(&f->buffer))
            len = moon_buffer_len(&f->buffer);
        struct moon_slice held = moon_buffer_bytes(&f->buffer);
        for (size_t k = 0; k < len; k++)
            assert_int_equal((uint8_t)held.ptr[k], out++);
        moon_buffer_consume(&f->buffer, f->pool, len);
    }
}

// A budget too small for credit is exact.
static void the_budget_binds(void **state)
{
    (void)state;
    struct moon_buffer_budget budget = {.max_len = 3 * 4096};
    struct moon_buffer_pool *one = moon_buffer_pool_new(&budget),
                            *two = moon_buffer_pool_new(&budget);
    struct moon_buffer a = {0}, b = {0}, c = {0}, d = {0};
    assert_int_equal(moon_buffer_append(&a, one, first(1)), 0);
    assert_int_equal(moon_buffer_append(&b, one, first(1)), 0);
    assert_int_equal(moon_buffer_append(&c, two, first(1)), 0);
    assert_int_equal(atomic_load(&budget.used_len), 3 * 4096);
    assert_int_equal(moon_buffer_append(&d, two, first(1)), -ENOBUFS);
    assert_null(moon_buffer_reserve(&d, two, 1));
    assert_int_equal(moon_buffer_append(&a, one, first(4096)), -ENOBUFS);
    assert_int_equal(moon_buffer_len(&a), 1);
    moon_buffer_fini(&b, one);
    assert_int_equal(atomic_load(&budget.used_len),
                     2 * 4096); // the block on the free list is not counted
    assert_int_equal(moon_buffer_append(&d, two, first(1)), 0);
    moon_buffer_fini(&a, one);
    moon_buffer_fini(&c, two);
    moon_buffer_fini(&d, two);
    assert_int_equal(atomic_load(&budget.used_len), 0);
    moon_buffer_pool_free(one);
    moon_buffer_pool_free(two);
}

// After a burst: the free blocks are bounded, the credit is bounded, and warm use leaves the
// counter alone.
static void credit_is_small_and_saves_the_shared_counter(void **state)
{
    struct fixture *f = *state;
    enum { COUNT = 100 };
    struct moon_buffer many[COUNT] = {0};
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(moon_buffer_append(&many[i], f->pool, first(65536)), 0);
    assert_int_equal(atomic_load(&f->budget.used_len), COUNT * 65536);
    for (int i = 0; i < COUNT; i++)
        moon_buffer_fini(&many[i], f->pool);
    size_t idle_len = atomic_load(&f->budget.used_len);
    assert_in_range(idle_len, 0, 131072);
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(moon_buffer_append(&f->buffer, f->pool, first(100)), 0);
        assert_int_equal(atomic_load(&f->budget.used_len), idle_len);
        moon_buffer_consume(&f->buffer, f->pool, 100);
    }
}

static void what_is_charged_counts(void **state)
{
    struct fixture *f = *state;
    size_t all_len = f->budget.max_len;
    assert_int_equal(moon_buffer_pool_charge(f->pool, all_len - 4096), 0);
    assert_int_equal(moon_buffer_pool_used_len(f->pool), all_len - 4096);
    assert_int_equal(moon_buffer_pool_charge(f->pool, 4097), -ENOBUFS);
    assert_int_equal(moon_buffer_append(&f->buffer, f->pool, first(4096)), 0);
    assert_int_equal(moon_buffer_pool_charge(f->pool, 1), -ENOBUFS);
    moon_buffer_pool_discharge(f->pool, all_len - 4096);
    assert_int_equal(moon_buffer_pool_used_len(f->pool), 4096);
    assert_int_equal(moon_buffer_pool_charge(f->pool, 1), 0);
    moon_buffer_pool_discharge(f->pool, 1);
}

int main(void)
{
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (char)(i * 31 >> 3);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_empty_buffer_owns_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(it_grows_by_class_and_keeps_its_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(absurd_lengths_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(consumed_space_is_used_again, setup, teardown),
        cmocka_unit_test_setup_teardown(reserve_gives_room_at_the_tail, setup, teardown),
        cmocka_unit_test_setup_teardown(random_traffic_stays_in_order, setup, teardown),
        cmocka_unit_test(the_budget_binds),
        cmocka_unit_test_setup_teardown(what_is_charged_counts, setup, teardown),
        cmocka_unit_test_setup_teardown(credit_is_small_and_saves_the_shared_counter, setup,
                                        teardown),
    };
    return cmocka_run_group_tests_name("base/buffer", tests, NULL, NULL);
}
