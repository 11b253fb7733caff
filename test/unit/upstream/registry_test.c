// Unit tests of upstream/registry, endpoint and limit: identities, versions of sets, permits and their queue.
#include "upstream/registry.h"

#include "base/err.h"
#include "io/loop.h"
#include "io/world.h"
#include "upstream/endpoint.h"
#include "upstream/limit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h> // after what it needs

static struct moon_address address(uint8_t last, uint16_t port)
{
    return (struct moon_address){.family = MOON_FAMILY_IPV4, .ip = {10, 0, 0, last}, .port = port};
}

static void one_state_for_each_address(void **state)
{
    struct moon_registry *registry = *state;
    struct moon_endpoint_state *kept[300];
    for (uint16_t i = 0; i < 300; i++) {
        struct moon_address at = address((uint8_t)(i % 200), (uint16_t)(1 + i / 200));
        kept[i] = moon_endpoint_state_get(registry, &at);
    }
    struct moon_address again = address(7, 1);
    struct moon_endpoint_state *same = moon_endpoint_state_get(registry, &again);
    assert_ptr_equal(same, kept[7]);
    assert_ptr_not_equal(kept[7], kept[207]);
    atomic_store(&same->in_flight, 5);
    moon_endpoint_state_unref(kept[7]);
    assert_int_equal(atomic_load(&same->in_flight), 5); // as long as somebody holds it
    moon_endpoint_state_unref(same);
    for (int i = 0; i < 300; i++)
        if (i != 7)
            moon_endpoint_state_unref(kept[i]);
    moon_endpoint_state_unref(NULL);
}

static void names_ignore_case_and_keep_addresses(void **state)
{
    struct moon_registry *registry = *state;
    struct moon_name *name = moon_name_get(registry, MOON_SLICE("users.internal"));
    struct moon_name *same = moon_name_get(registry, MOON_SLICE("Users.Internal"));
    struct moon_address two[2] = {address(1, 0), address(2, 0)}, *out;
    assert_ptr_equal(name, same);
    assert_int_equal(moon_name_addresses(name, &out), 0);
    free(out);
    moon_name_set(name, two, 2);
    moon_name_unref(name);
    assert_int_equal(moon_name_addresses(same, &out), 2);
    assert_true(moon_address_equal(&out[1], &two[1]));
    free(out);
    moon_name_unref(same);
    name = moon_name_get(registry, MOON_SLICE("users.internal"));
    assert_int_equal(moon_name_addresses(name, &out), 0); // forgotten with its last user
    free(out);
    moon_name_unref(name);
}

static void followers_see_each_set_once(void **state)
{
    struct moon_registry *registry = *state;
    struct moon_feed feed = {.registry = registry}, other = {.registry = registry};
    struct moon_endpoint endpoint = {.address = address(1, 80), .weight = 1};
    struct moon_endpoint_set *mine = NULL, *before;
    uint64_t stamp = 0;
    moon_feed_publish(&feed, moon_endpoint_set_new(registry, &endpoint, 1));
    moon_feed_publish(&other, moon_endpoint_set_new(registry, &endpoint, 0));
    assert_true(moon_feed_follow(&feed, &stamp, &mine));
    assert_int_equal(mine->count, 1);
    assert_false(moon_feed_follow(&feed, &stamp, &mine));
    before = moon_endpoint_set_ref(mine);
    moon_feed_publish(&feed, moon_endpoint_set_new(registry, &endpoint, 0));
    assert_true(moon_feed_follow(&feed, &stamp, &mine));
    assert_int_equal(mine->count, 0);
    assert_int_equal(before->endpoints[0].address.port, 80); // lives on with its user
    moon_endpoint_set_unref(before);
    assert_true(moon_feed_follow(&other, &stamp, &mine)); // another feed in the same seat
    moon_endpoint_set_unref(mine);
    moon_feed_fini(&feed);
    moon_feed_fini(&other);
}

// ---- limits

struct bench {
    struct moon_world *world;
    struct moon_loop *loop;
    struct moon_wake wake;
    struct moon_limit *limit;
    unsigned wake_count;
};

static void on_wake(struct moon_wake *wake)
{
    MOON_CONTAINER(wake, struct bench, wake)->wake_count++;
}

static void bench_init(struct bench *bench, struct moon_registry *registry)
{
    bench->world = moon_world_new_real();
    bench->loop = moon_loop_new(bench->world);
    bench->wake_count = 0;
    moon_wake_init(&bench->wake, registry, bench->loop, on_wake);
    bench->limit = moon_limit_get(registry, MOON_SLICE("users"));
}

static void bench_fini(struct bench *bench)
{
    moon_limit_unref(bench->limit);
    moon_wake_fini(&bench->wake);
    moon_loop_free(bench->loop);
    moon_world_free(bench->world);
}

static const struct moon_limit_bounds bounds = {.connections = 2, .pending = 3};

static void permits_end_at_the_cap(void **state)
{
    struct bench bench;
    bench_init(&bench, *state);
    assert_true(moon_limit_acquire(bench.limit, 2));
    assert_true(moon_limit_acquire(bench.limit, 2));
    assert_false(moon_limit_acquire(bench.limit, 2));
    assert_true(moon_limit_acquire(bench.limit, 3)); // an edit raises it
    assert_int_equal(moon_limit_used_count(bench.limit), 3);
    for (int i = 0; i < 3; i++)
        moon_limit_release(bench.limit, &bench.wake);
    assert_int_equal(moon_limit_used_count(bench.limit), 0);
    assert_int_equal(bench.wake_count, 0);
    bench_fini(&bench);
}

static void waiters_are_served_in_order(void **state)
{
    struct bench bench;
    struct moon_waiter waiters[4] = {{.grant = 0}};
    bench_init(&bench, *state);
    moon_limit_acquire(bench.limit, 2);
    moon_limit_acquire(bench.limit, 2);
    for (int i = 0; i < 3; i++)
        assert_int_equal(moon_limit_wait(bench.limit, &bounds, &waiters[i], &bench.wake, false), 0);
    assert_int_equal(moon_limit_wait(bench.limit, &bounds, &waiters[3], &bench.wake, false),
                     MOON_ELIMIT);
    assert_int_equal(moon_limit_leave(&waiters[1]), MOON_GRANT_NONE);
    moon_limit_release(bench.limit, &bench.wake);
    assert_false(moon_limit_acquire(bench.limit, 3)); // not past those who wait
    moon_loop_run_tasks(bench.loop);
    assert_int_equal(bench.wake_count, 1);
    assert_ptr_equal(moon_limit_next_granted(&bench.wake), &waiters[0]);
    assert_null(moon_limit_next_granted(&bench.wake));
    assert_int_equal(moon_limit_leave(&waiters[0]), MOON_GRANT_PERMIT);
    // a link of the own worker
    assert_int_equal(moon_limit_offer(bench.limit, &bench.wake), MOON_OFFER_GRANTED);
    assert_int_equal(moon_limit_leave(&waiters[2]), MOON_GRANT_LINK);
    assert_int_equal(moon_limit_offer(bench.limit, &bench.wake), MOON_OFFER_KEEP);
    assert_int_equal(moon_limit_waiting_count(bench.limit), 0);
    assert_int_equal(moon_limit_used_count(bench.limit), 2);
    moon_limit_release(bench.limit, &bench.wake);
    moon_limit_release(bench.limit, &bench.wake);
    moon_loop_run_tasks(bench.loop);
    bench_fini(&bench);
}

// A link goes to its own worker's waiter at first, but the one in front is not passed over for ever.
static void another_workers_waiter_is_not_starved(void **state)
{
    struct bench mine, others;
    struct moon_waiter first = {.grant = 0}, own = {.grant = 0};
    bench_init(&mine, *state);
    bench_init(&others, *state);
    moon_limit_acquire(mine.limit, 1);
    const struct moon_limit_bounds one = {.connections = 1, .pending = 9};
    moon_limit_wait(mine.limit, &one, &first, &others.wake, false);
    int passed = 0;
    for (;;) {
        moon_limit_wait(mine.limit, &one, &own, &mine.wake, false);
        enum moon_offer offer = moon_limit_offer(mine.limit, &mine.wake);
        moon_limit_leave(&own);
        if (offer == MOON_OFFER_CLOSE)
            break;
        assert_int_equal(offer, MOON_OFFER_GRANTED);
        passed++;
    }
    assert_in_range(passed, 1, 20);
    moon_limit_release(mine.limit, &mine.wake);
    assert_ptr_equal(moon_limit_next_granted(&others.wake), &first);
    assert_int_equal(moon_limit_leave(&first), MOON_GRANT_PERMIT);
    moon_limit_release(mine.limit, &mine.wake);
    bench_fini(&others);
    bench_fini(&mine);
}

static int setup(void **state)
{
    *state = moon_registry_new();
    return 0;
}

static int teardown(void **state)
{
    moon_registry_free(*state); // asserts that nothing is left
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_state_for_each_address),
        cmocka_unit_test(names_ignore_case_and_keep_addresses),
        cmocka_unit_test(followers_see_each_set_once),
        cmocka_unit_test(permits_end_at_the_cap),
        cmocka_unit_test(waiters_are_served_in_order),
        cmocka_unit_test(another_workers_waiter_is_not_starved),
    };
    return cmocka_run_group_tests_name("upstream/registry", tests, setup, teardown);
}
