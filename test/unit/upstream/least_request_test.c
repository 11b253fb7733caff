// Unit tests of upstream/balance/least_request: the fewest under way for the weight, few or many endpoints.
#include "upstream/balance/least_request.h"

#include "upstream/endpoint.h"
#include "upstream/registry.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h> // after what it needs

enum { SET_MAX_COUNT = 64 };

static struct moon_registry *registry;

static struct moon_endpoint_set *make_set(const uint32_t *weights, uint16_t count)
{
    struct moon_endpoint endpoints[SET_MAX_COUNT] = {{{0}, 0, NULL}};
    for (uint16_t i = 0; i < count; i++) {
        endpoints[i].address = (struct moon_address){
            .family = MOON_FAMILY_IPV4, .ip = {10, 0, 0, (uint8_t)i}, .port = 80};
        endpoints[i].weight = weights ? weights[i] : 1;
    }
    return moon_endpoint_set_new(registry, endpoints, count);
}

static uint64_t next_random(void)
{
    static const uint64_t step = 0x9e3779b97f4a7c15u;
    static uint64_t at; // of this test program alone
    uint64_t x = at += step;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    return x ^ (x >> 31);
}

// Chooses `count` times, each adding to the load; writes how many each got.
static void fill(const struct moon_endpoint_set *set, unsigned count, unsigned *counts)
{
    for (unsigned n = 0; n < count; n++) {
        const struct moon_endpoint *chosen = moon_least_request_choose(set, next_random(), NULL);
        assert_non_null(chosen);
        atomic_fetch_add(&chosen->state->in_flight, 1);
        counts[chosen - set->endpoints]++;
    }
    for (uint16_t i = 0; i < set->count; i++)
        atomic_store(&set->endpoints[i].state->in_flight, 0);
}

static void few_are_filled_evenly(void **state)
{
    (void)state;
    struct moon_endpoint_set *set = make_set(NULL, 4);
    unsigned counts[4] = {0};
    fill(set, 400, counts);
    for (int i = 0; i < 4; i++)
        assert_int_equal(counts[i], 100);
    moon_endpoint_set_unref(set);
}

static void weights_count(void **state)
{
    (void)state;
    struct moon_endpoint_set *set = make_set((const uint32_t[]){1, 2, 5, 0}, 4);
    unsigned counts[4] = {0};
    fill(set, 800, counts);
    assert_in_range(counts[0], 99, 101);
    assert_in_range(counts[1], 199, 201);
    assert_in_range(counts[2], 499, 501);
    assert_int_equal(counts[3], 0);
    moon_endpoint_set_unref(set);
}

// Two choices: no endpoint is far above the mean, and the loaded one gets little.
static void many_are_filled_nearly_evenly(void **state)
{
    (void)state;
    struct moon_endpoint_set *set = make_set(NULL, 50);
    unsigned counts[50] = {0};
    fill(set, 5000, counts);
    for (int i = 0; i < 50; i++)
        assert_in_range(counts[i], 90, 110);
    unsigned loaded[50] = {0};
    atomic_store(&set->endpoints[7].state->in_flight, 1000);
    fill(set, 1000, loaded);
    assert_int_equal(loaded[7], 0);
    moon_endpoint_set_unref(set);
}

static void the_avoided_is_the_last_resort(void **state)
{
    (void)state;
    for (uint16_t count = 1; count <= 8; count++) {
        struct moon_endpoint_set *set = make_set(NULL, count);
        const struct moon_endpoint_state *avoid = set->endpoints[0].state;
        for (uint16_t i = 1; i < count; i++)
            atomic_store(&set->endpoints[i].state->in_flight, 100);
        for (int n = 0; n < 200; n++) {
            const struct moon_endpoint *chosen =
                moon_least_request_choose(set, next_random(), avoid);
            assert_true((chosen->state == avoid) == (count == 1));
        }
        for (uint16_t i = 1; i < count; i++)
            atomic_store(&set->endpoints[i].state->in_flight, 0);
        moon_endpoint_set_unref(set);
    }
}

static void nobody_without_weights(void **state)
{
    (void)state;
    struct moon_endpoint_set *set = make_set((const uint32_t[]){0, 0, 0, 0, 0, 0}, 6);
    assert_null(moon_least_request_choose(set, next_random(), NULL));
    moon_endpoint_set_unref(set);
    set = make_set(NULL, 0);
    assert_null(moon_least_request_choose(set, next_random(), NULL));
    moon_endpoint_set_unref(set);
}

static int setup(void **state)
{
    (void)state;
    registry = moon_registry_new();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    moon_registry_free(registry);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(few_are_filled_evenly),
        cmocka_unit_test(weights_count),
        cmocka_unit_test(many_are_filled_nearly_evenly),
        cmocka_unit_test(the_avoided_is_the_last_resort),
        cmocka_unit_test(nobody_without_weights),
    };
    return cmocka_run_group_tests_name("upstream/least_request", tests, setup, teardown);
}
