// Unit tests of upstream/balance/split: shares are right in the long run, in every short run, and over many workers.
#include "upstream/balance/split.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h> // after what it needs

enum { BACKEND_COUNT = 3 };

static uint16_t choose(const struct moon_split *split, uint64_t *phase)
{
    const struct moon_backend *chosen = moon_split_choose(split, phase);
    assert_non_null(chosen);
    return (uint16_t)(chosen - split->backends);
}

// Every run of n choices, from several starts, gives each backend its share of n give or take `slack`.
static void check_runs(const uint32_t *weights, double slack)
{
    struct moon_backend backends[BACKEND_COUNT] = {{0}};
    struct moon_split split;
    for (int i = 0; i < BACKEND_COUNT; i++)
        backends[i].weight = weights[i];
    assert_true(moon_split_init(&split, backends, BACKEND_COUNT));
    for (uint64_t start = 0; start < 50; start++) {
        uint64_t phase = start * 0x0123456789abcdefu;
        unsigned counts[BACKEND_COUNT] = {0};
        for (unsigned n = 1; n <= 2000; n++) {
            counts[choose(&split, &phase)]++;
            for (int i = 0; i < BACKEND_COUNT; i++) {
                double due = (double)n * weights[i] / (double)split.weight_sum;
                assert_true(counts[i] <= due + slack && counts[i] >= due - slack);
            }
        }
    }
}

static void short_runs_are_right(void **state)
{
    (void)state;
    check_runs((const uint32_t[]){95, 5, 0}, 3);
    check_runs((const uint32_t[]){50, 50, 0}, 3);
    check_runs((const uint32_t[]){1, 2, 5}, 3);
    check_runs((const uint32_t[]){1000000, 999999, 1}, 3);
}

// A client that asks in a rhythm gets its share at each beat.
static void rhythms_do_not_matter(void **state)
{
    (void)state;
    for (unsigned rhythm = 2; rhythm <= 40; rhythm++) {
        struct moon_backend backends[2] = {{MOON_BACKEND_MISSING, 95}, {MOON_BACKEND_MISSING, 5}};
        struct moon_split split;
        moon_split_init(&split, backends, 2);
        uint64_t phase = 12345;
        unsigned count = 0;
        for (unsigned n = 0; n < 2000 * rhythm; n++)
            count += choose(&split, &phase) == 1 && n % rhythm == 0;
        assert_in_range(count, 80, 120);
    }
}

static void weight_zero_gets_nothing(void **state)
{
    (void)state;
    struct moon_backend backends[3] = {
        {MOON_BACKEND_MISSING, 0}, {MOON_BACKEND_MISSING, 7}, {MOON_BACKEND_MISSING, 0}};
    struct moon_split split;
    assert_false(moon_split_init(&split, backends, 3));
    for (int i = 0; i < 100; i++)
        assert_int_equal(choose(&split, NULL), 1);
}

static void without_weight_there_is_no_choice(void **state)
{
    (void)state;
    struct moon_backend backends[2] = {{MOON_BACKEND_MISSING, 0}, {MOON_BACKEND_MISSING, 0}};
    struct moon_split split;
    assert_false(moon_split_init(&split, backends, 2));
    assert_null(moon_split_choose(&split, NULL));
    assert_false(moon_split_init(&split, backends, 0));
    assert_null(moon_split_choose(&split, NULL));
}

static void the_extremes_of_the_phase_are_in_range(void **state)
{
    (void)state;
    struct moon_backend backends[2] = {{MOON_BACKEND_MISSING, 1000000}, {MOON_BACKEND_MISSING, 1}};
    struct moon_split split;
    moon_split_init(&split, backends, 2);
    uint64_t phase = UINT64_MAX;
    assert_int_equal(choose(&split, &phase), 1);
    phase = 0;
    assert_int_equal(choose(&split, &phase), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(short_runs_are_right),
        cmocka_unit_test(rhythms_do_not_matter),
        cmocka_unit_test(weight_zero_gets_nothing),
        cmocka_unit_test(without_weight_there_is_no_choice),
        cmocka_unit_test(the_extremes_of_the_phase_are_in_range),
    };
    return cmocka_run_group_tests_name("upstream/split", tests, NULL, NULL);
}
