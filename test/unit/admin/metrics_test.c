// A scrape comes in pieces of bounded length and memory, whatever there is to tell, and each series once.
#include "admin/metrics.h"

#include "admin/admin.h"
#include "obs/counters.h"
#include "obs/renewals.h"
#include "obs/series.h"
#include "upstream/registry.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { ROUTE_COUNT = 3000 };

struct process {
    struct moon_counters counters;
    struct moon_histogram turns;
    struct moon_series *series[2];
};

static const struct moon_counters *counters(void *owner, size_t index)
{
    return index < 2 ? &((struct process *)owner)->counters : NULL;
}

static const struct moon_series *series(void *owner, size_t index)
{
    return index < 2 ? ((struct process *)owner)->series[index] : NULL;
}

static const struct moon_histogram *turns(void *owner, size_t index)
{
    return index < 2 ? &((struct process *)owner)->turns : NULL;
}

static uint64_t stall_ms(void *owner, size_t index)
{
    (void)owner;
    return index == 1 ? 1000 : 0;
}

static void facts(void *owner, struct moon_admin_facts *facts)
{
    (void)owner;
    facts->snapshot_count = 1;
}

static size_t count_of(const char *text, const char *what)
{
    size_t count = 0;
    for (const char *at = text; (at = strstr(at, what)) != NULL; at++)
        count++;
    return count;
}

static void count_requests(struct process *process, struct moon_series_names *names)
{
    uint32_t upstream = moon_series_names_add(names, MOON_SERIES_UPSTREAM, MOON_SLICE("up"));
    for (int i = 0; i < ROUTE_COUNT; i++) {
        char name[32];
        snprintf(name, sizeof name, "route-%d", i);
        struct moon_series_sample sample = {
            .route = moon_series_names_add(names, MOON_SERIES_ROUTE, moon_slice_from(name)),
            .upstream = upstream,
            .status = 200,
            .us = 3 + (uint64_t)i * 1000,
        };
        moon_series_count(process->series[i % 2], &sample);
    }
}

// Walks through a scrape; its text is malloc'd.
static char *scrape(const struct moon_admin_ops *ops, size_t *piece_count, size_t *longest)
{
    char *text = NULL;
    size_t len = 0;
    struct moon_metrics *metrics = moon_metrics_new(ops);
    *piece_count = *longest = 0;
    while (!moon_metrics_is_over(metrics)) {
        struct moon_slice piece;
        assert_int_equal(moon_metrics_next(metrics, &piece), 0);
        text = realloc(text, len + piece.len + 1);
        assert_non_null(text);
        if (piece.len)
            memcpy(text + len, piece.ptr, piece.len);
        len += piece.len;
        text[len] = '\0';
        *piece_count += 1;
        if (piece.len > *longest)
            *longest = piece.len;
    }
    moon_metrics_free(metrics);
    return text;
}

static void pieces_are_bounded_and_whole(void **state)
{
    (void)state;
    static struct process process; // of cache lines: not every stack is aligned so
    process.series[0] = moon_series_new();
    process.series[1] = moon_series_new();
    struct moon_series_names *names = moon_series_names_new(ROUTE_COUNT);
    struct moon_renewals *renewals = moon_renewals_new();
    moon_renewals_set(renewals, &(struct moon_renewal){.path = "a.pem",
                                                       .host = "a.example",
                                                       .error = "",
                                                       .expires_s = 1800000000,
                                                       .obtained_total = 2});
    const struct moon_admin_ops ops = {.counters = counters,
                                       .series = series,
                                       .turns = turns,
                                       .stall_ms = stall_ms,
                                       .facts = facts,
                                       .names = names,
                                       .renewals = renewals,
                                       .registry = moon_registry_new(),
                                       .owner = &process};
    size_t piece_count, longest;
    count_requests(&process, names);
    char *text = scrape(&ops, &piece_count, &longest);
    assert_true(piece_count > 50);
    assert_true(longest < 64 * 1024);
    assert_int_equal(count_of(text, "\nmoongate_requests_total{"), ROUTE_COUNT);
    assert_int_equal(count_of(text, "\nmoongate_request_duration_seconds_bucket{"),
                     16 * ROUTE_COUNT);
    assert_int_equal(count_of(text, "# TYPE moongate_request_duration_seconds histogram\n"), 1);
    assert_int_equal(count_of(text, "# HELP "), count_of(text, "# TYPE "));
    assert_int_equal(
        count_of(text,
                 "moongate_request_duration_seconds_bucket{route=\"route-9\",le=\"0.005\"} "
                 "0\nmoongate_request_duration_seconds_bucket{route=\"route-9\",le=\"0.01\"} "
                 "1\nmoongate_request_duration_seconds_bucket{route=\"route-9\",le=\"0.025\"} "
                 "1\n"),
        1);
    assert_int_equal(
        count_of(text, "moongate_request_duration_seconds_bucket{route=\"route-9\",le=\"+Inf\"} "
                       "1\nmoongate_request_duration_seconds_sum{route=\"route-9\"} "
                       "0.009003\nmoongate_request_duration_seconds_count{route=\"route-9\"} 1\n"),
        1);
    assert_int_equal(count_of(text, "moongate_worker_stalled{worker=\"1\"} 1\n"), 1);
    assert_int_equal(
        count_of(text, "moongate_acme_expiry_seconds{host=\"a.example\"} 1800000000\n"), 1);
    assert_int_equal(count_of(text, "moongate_acme_obtained_total{host=\"a.example\"} 2\n"), 1);
    free(text);
    moon_renewals_free(renewals);
    moon_registry_free(ops.registry);
    moon_series_free(process.series[0]);
    moon_series_free(process.series[1]);
    moon_series_names_free(names);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(pieces_are_bounded_and_whole)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
