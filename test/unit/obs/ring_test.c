// The ring between a worker and the log writer: order, wrapping, fullness, wake-ups, and both sides at once.
#include "obs/ring.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void count_wake(void *owner)
{
    ++*(int *)owner;
}

static bool put(struct moon_ring *ring, char fill, size_t len)
{
    char *to = moon_ring_reserve(ring);
    if (!to)
        return false;
    memset(to, fill, len - 1);
    to[len - 1] = '\n';
    moon_ring_commit(ring, len);
    return true;
}

// Takes everything, checking that each record is whole.
static size_t take(struct moon_ring *ring)
{
    struct moon_slice parts[2];
    size_t len = moon_ring_peek(ring, parts), count = 0;
    char *all = malloc(len + 1);
    memcpy(all, parts[0].ptr, parts[0].len);
    memcpy(all + parts[0].len, parts[1].ptr, parts[1].len);
    for (size_t at = 0; at < len; count++) {
        char fill = all[at];
        while (all[at] == fill)
            at++;
        assert_int_equal(all[at], '\n');
        at++;
    }
    free(all);
    moon_ring_consume(ring, len);
    return count;
}

static void records_wrap_in_order(void **state)
{
    (void)state;
    int wakes = 0;
    struct moon_ring *ring = moon_ring_new(1, count_wake, &wakes);
    size_t sum = 0;
    for (int i = 0; i < 2000; i++) {
        assert_true(put(ring, (char)('a' + i % 26), 2 + (size_t)i * 31 % 9001));
        if (i % 7 == 0)
            sum += take(ring);
    }
    assert_int_equal(sum + take(ring), 2000);
    assert_int_equal(take(ring), 0);
    moon_ring_free(ring);
    moon_ring_free(NULL);
}

static void a_full_ring_refuses_whole_records(void **state)
{
    (void)state;
    int wakes = 0;
    struct moon_ring *ring = moon_ring_new(MOON_RING_MIN_LEN, count_wake, &wakes);
    size_t count = 0;
    while (put(ring, 'x', 1000))
        count++;
    assert_int_equal(count, (MOON_RING_MIN_LEN - MOON_RING_RECORD_MAX_LEN) / 1000 + 1);
    assert_int_equal(wakes, 1); // half full, told once
    assert_int_equal(take(ring), count);
    assert_true(put(ring, 'y', MOON_RING_RECORD_MAX_LEN));
    assert_int_equal(take(ring), 1);
    moon_ring_free(ring);
}

static void a_sleeper_is_woken_once(void **state)
{
    (void)state;
    int wakes = 0;
    struct moon_ring *ring = moon_ring_new(MOON_RING_MIN_LEN, count_wake, &wakes);
    put(ring, 'a', 10);
    assert_int_equal(wakes, 0);
    moon_ring_sleep(ring);
    put(ring, 'a', 10);
    put(ring, 'a', 10);
    assert_int_equal(wakes, 1);
    moon_ring_free(ring);
}

// What was written of a batch only in part stays.
static void a_part_may_be_consumed(void **state)
{
    (void)state;
    int wakes = 0;
    struct moon_slice parts[2];
    struct moon_ring *ring = moon_ring_new(MOON_RING_MIN_LEN, count_wake, &wakes);
    put(ring, 'a', 10);
    put(ring, 'b', 10);
    moon_ring_consume(ring, 10);
    assert_int_equal(moon_ring_peek(ring, parts), 10);
    assert_int_equal(parts[0].ptr[0], 'b');
    moon_ring_free(ring);
}

enum { RECORD_COUNT = 100000 };

static void *produce(void *arg)
{
    for (int i = 0; i < RECORD_COUNT;) {
        char *to = moon_ring_reserve(arg);
        if (!to)
            continue;
        moon_ring_commit(arg, (size_t)sprintf(to, "%d\n", i++));
    }
    return NULL;
}

static void both_sides_run_at_once(void **state)
{
    (void)state;
    int wakes = 0, next = 0;
    size_t held = 0;
    static char held_text[2 * MOON_RING_MIN_LEN];
    struct moon_ring *ring = moon_ring_new(MOON_RING_MIN_LEN, count_wake, &wakes);
    pthread_t worker;
    assert_int_equal(pthread_create(&worker, NULL, produce, ring), 0);
    while (next < RECORD_COUNT) {
        struct moon_slice parts[2];
        size_t len = moon_ring_peek(ring, parts);
        memcpy(held_text, parts[0].ptr, parts[0].len);
        memcpy(held_text + parts[0].len, parts[1].ptr, parts[1].len);
        moon_ring_consume(ring, len);
        for (held = 0; held < len; next++) {
            char *end;
            assert_int_equal(strtol(held_text + held, &end, 10), next);
            assert_int_equal(*end, '\n');
            held = (size_t)(end - held_text) + 1;
        }
    }
    pthread_join(worker, NULL);
    moon_ring_free(ring);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_wrap_in_order),
        cmocka_unit_test(a_full_ring_refuses_whole_records),
        cmocka_unit_test(a_sleeper_is_woken_once),
        cmocka_unit_test(a_part_may_be_consumed),
        cmocka_unit_test(both_sides_run_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
