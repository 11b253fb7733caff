// Buckets without gaps, the promised error of quantiles, cumulative counts that never shrink.
#include "obs/histogram.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void buckets_have_no_gaps(void **state)
{
    (void)state;
    unsigned last = 0;
    for (uint64_t us = 0; us < 70000000; us += us < 4096 ? 1 : us / 512) {
        unsigned bucket = moon_histogram_bucket(us);
        assert_true(bucket == last || bucket == last + 1);
        assert_true(moon_histogram_floor_us(bucket) <= us);
        if (bucket < MOON_HISTOGRAM_BUCKET_COUNT - 1)
            assert_true(us < moon_histogram_floor_us(bucket + 1));
        last = bucket;
    }
    assert_int_equal(last, MOON_HISTOGRAM_BUCKET_COUNT - 1);
    assert_int_equal(moon_histogram_bucket(UINT64_MAX), MOON_HISTOGRAM_BUCKET_COUNT - 1);
    assert_int_equal(moon_histogram_floor_us(MOON_HISTOGRAM_BUCKET_COUNT - 1), UINT64_C(1) << 26);
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

// Values spread over all magnitudes from 1 us to 60 s.
static void quantiles_are_as_near_as_promised(void **state)
{
    (void)state;
    enum { COUNT = 20000 };
    static uint64_t values[COUNT];
    static struct moon_histogram histogram[2];
    struct moon_histogram_sum sum = {0};
    uint64_t random = 88172645463325252u, total = 0;
    for (int i = 0; i < COUNT; i++) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        values[i] = (random >> 8) % (UINT64_C(1) << (1 + random % 26));
        total += values[i];
        moon_histogram_add(&histogram[i % 2], values[i]);
    }
    moon_histogram_sum_add(&sum, &histogram[0]);
    moon_histogram_sum_add(&sum, &histogram[1]);
    moon_histogram_sum_add(&sum, NULL);
    assert_int_equal(sum.count, COUNT);
    assert_int_equal(sum.sum_us, total);
    qsort(values, COUNT, sizeof *values, compare);
    for (int i = 1; i <= 1000; i++) {
        double quantile = i / 1000.0;
        uint64_t exact = values[(size_t)(quantile * COUNT + 0.5) - 1];
        uint64_t said = moon_histogram_sum_quantile_us(&sum, quantile);
        uint64_t off = said > exact ? said - exact : exact - said;
        assert_true(off <= (exact < 32 ? 4 : exact / 16 + 1));
    }
}

static void counts_below_grow(void **state)
{
    (void)state;
    static struct moon_histogram histogram;
    struct moon_histogram_sum sum = {0};
    for (uint64_t us = 1; us < 200000; us += 7)
        moon_histogram_add(&histogram, us);
    moon_histogram_add(&histogram, UINT64_C(200000000));
    moon_histogram_sum_add(&sum, &histogram);
    uint64_t before = 0;
    for (uint64_t us = 1; us < 300000; us += 13) {
        uint64_t below = moon_histogram_sum_below(&sum, us);
        assert_true(below >= before && below <= sum.count);
        before = below;
        uint64_t exact = us >= 200000 ? 28572 : (us + 6) / 7;
        uint64_t off = below > exact ? below - exact : exact - below;
        assert_true(off <= exact / 8 + 4);
    }
    assert_int_equal(moon_histogram_sum_below(&sum, 60000000), sum.count - 1);
}

static void nothing_has_no_quantile(void **state)
{
    (void)state;
    struct moon_histogram_sum sum = {0};
    assert_int_equal(moon_histogram_sum_quantile_us(&sum, 0.5), 0);
    assert_int_equal(moon_histogram_sum_below(&sum, 1000), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buckets_have_no_gaps),
        cmocka_unit_test(quantiles_are_as_near_as_promised),
        cmocka_unit_test(counts_below_grow),
        cmocka_unit_test(nothing_has_no_quantile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
