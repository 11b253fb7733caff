// Names keep their ids, the bound overflows into "other", and a reader may walk while a worker counts and grows.
#include "obs/series.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

static void names_keep_their_ids(void **state)
{
    (void)state;
    struct moon_series_names *names = moon_series_names_new(1000);
    uint32_t ids[1000];
    char text[32];
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < 1000; i++) {
            snprintf(text, sizeof text, "route-%d", i);
            uint32_t id = moon_series_names_add(names, MOON_SERIES_ROUTE, moon_slice_from(text));
            assert_true(round == 0 || ids[i] == id);
            assert_true(moon_slice_equal(moon_series_names_get(names, MOON_SERIES_ROUTE, id),
                                         moon_slice_from(text)));
            ids[i] = id;
        }
    assert_int_equal(moon_series_names_count(names, MOON_SERIES_ROUTE), 1002);
    assert_int_equal(moon_series_names_count(names, MOON_SERIES_UPSTREAM), 2);
    moon_series_names_free(names);
}

static void names_over_the_bound_are_other(void **state)
{
    (void)state;
    struct moon_series_names *names = moon_series_names_new(2);
    enum moon_series_kind kind = MOON_SERIES_ROUTE;
    uint32_t a = moon_series_names_add(names, kind, MOON_SLICE("a"));
    uint32_t b = moon_series_names_add(names, kind, MOON_SLICE("b"));
    assert_true(a > MOON_SERIES_NONE && b > a);
    assert_int_equal(moon_series_names_add(names, kind, MOON_SLICE("c")), MOON_SERIES_OTHER);
    assert_int_equal(moon_series_names_add(names, kind, MOON_SLICE("a")), a);
    assert_int_equal(moon_series_names_add(names, kind, MOON_SLICE("other")), MOON_SERIES_OTHER);
    assert_int_equal(moon_series_names_add(names, kind, MOON_SLICE("")), MOON_SERIES_NONE);
    moon_series_names_set_max(names, 3);
    assert_true(moon_series_names_add(names, kind, MOON_SLICE("c")) > b);
    assert_int_equal(moon_series_names_add(NULL, kind, MOON_SLICE("a")), MOON_SERIES_OTHER);
    moon_series_names_free(names);
}

static void samples_count_by_route_upstream_and_class(void **state)
{
    (void)state;
    struct moon_series *series = moon_series_new();
    struct moon_series_sample sample = {.route = 700, .upstream = 3, .status = 204, .us = 1000};
    moon_series_count(series, &sample);
    sample.status = 503;
    sample.has_upstream_us = true;
    sample.upstream_us = 500;
    moon_series_count(series, &sample);
    sample.upstream = 4;
    moon_series_count(series, &sample);
    const struct moon_series_pair *pair = moon_series_pairs(series, 700);
    assert_int_equal(moon_series_pair_upstream(pair), 3);
    assert_int_equal(moon_series_pair_count(pair, 1), 1);
    assert_int_equal(moon_series_pair_count(pair, 4), 1);
    pair = moon_series_pair_next(pair);
    assert_int_equal(moon_series_pair_upstream(pair), 4);
    assert_null(moon_series_pair_next(pair));
    assert_null(moon_series_pairs(series, 701));
    assert_null(moon_series_upstream(series, 5));
    struct moon_histogram_sum sum = {0};
    moon_histogram_sum_add(&sum, moon_series_route(series, 700));
    assert_int_equal(sum.count, 3);
    assert_int_equal(sum.sum_us, 3000);
    moon_series_free(series);
    moon_series_free(NULL);
}

enum { SAMPLE_COUNT = 200000 };

static void *work(void *arg)
{
    for (uint32_t i = 0; i < SAMPLE_COUNT; i++)
        moon_series_count(arg, &(struct moon_series_sample){.route = i % 5000,
                                                            .upstream = i % 3,
                                                            .status = 200,
                                                            .has_upstream_us = true,
                                                            .us = i});
    return NULL;
}

static uint64_t total(const struct moon_series *series)
{
    uint64_t count = 0;
    for (uint32_t id = 0; id < 5000; id++)
        for (const struct moon_series_pair *pair = moon_series_pairs(series, id); pair;
             pair = moon_series_pair_next(pair))
            count += moon_series_pair_count(pair, 1);
    return count;
}

static void a_reader_walks_meanwhile(void **state)
{
    (void)state;
    struct moon_series *series = moon_series_new();
    pthread_t worker;
    uint64_t before = 0, count;
    assert_int_equal(pthread_create(&worker, NULL, work, series), 0);
    do {
        count = total(series);
        assert_true(count >= before);
        before = count;
    } while (count < SAMPLE_COUNT);
    pthread_join(worker, NULL);
    assert_int_equal(total(series), SAMPLE_COUNT);
    moon_series_free(series);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_keep_their_ids),
        cmocka_unit_test(names_over_the_bound_are_other),
        cmocka_unit_test(samples_count_by_route_upstream_and_class),
        cmocka_unit_test(a_reader_walks_meanwhile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
