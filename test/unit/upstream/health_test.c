// Verdicts about endpoints: a list in order, whatever the order they come in, shared by all who ask for the name.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h> // after what it needs

#include "upstream/health.h"
#include "upstream/registry.h"

#include <stdlib.h>
#include <string.h>

enum { COUNT = 200 };

static struct moon_address address_of(unsigned i)
{
    struct moon_address address = {.family = MOON_FAMILY_IPV4, .port = (uint16_t)(1 + i % 7)};
    address.ip[0] = 10;
    address.ip[3] = (uint8_t)(i * 37);
    return address;
}

static void verdicts_stand_in_order(void **state)
{
    (void)state;
    struct moon_registry *registry = moon_registry_new();
    struct moon_health *health = moon_health_get(registry, MOON_SLICE("users"));
    struct moon_address *down;
    for (unsigned round = 0; round < 2; round++)
        for (unsigned i = 0; i < COUNT; i++) {
            struct moon_address address = address_of(i);
            moon_health_set(health, &address, true); // the second time it changes nothing
        }
    assert_int_equal(moon_health_down(health, &down), COUNT);
    for (unsigned i = 1; i < COUNT; i++)
        assert_true(moon_address_compare(&down[i - 1], &down[i]) < 0);
    free(down);
    for (unsigned i = 0; i < COUNT; i += 2) {
        struct moon_address address = address_of(i);
        moon_health_set(health, &address, false);
        moon_health_set(health, &address, false);
    }
    size_t count = moon_health_down(health, &down);
    assert_int_equal(count, COUNT / 2);
    for (unsigned i = 0; i < COUNT; i++) {
        struct moon_address address = address_of(i);
        bool is_down = bsearch(&address, down, count, sizeof *down, moon_address_compare) != NULL;
        assert_int_equal(is_down, i % 2 == 1);
    }
    free(down);
    moon_health_unref(health);
    moon_registry_free(registry);
}

static void verdicts_belong_to_a_name(void **state)
{
    (void)state;
    struct moon_registry *registry = moon_registry_new();
    struct moon_health *a = moon_health_get(registry, MOON_SLICE("a")),
                       *b = moon_health_get(registry, MOON_SLICE("b")),
                       *again = moon_health_get(registry, MOON_SLICE("a"));
    struct moon_address address = address_of(1), *down;
    size_t count;
    assert_ptr_equal(a, again);
    moon_health_set(a, &address, true);
    moon_health_count(a, true);
    moon_health_count(a, false);
    moon_health_unref(a);
    assert_int_equal(moon_health_down(again, &down), 1);
    free(down);
    assert_int_equal(moon_health_down(b, &down), 0);
    free(down);
    struct moon_health_figures *figures = moon_health_figures(registry, &count);
    assert_int_equal(count, 2);
    assert_string_equal(figures[0].name, "a");
    assert_int_equal(figures[0].checks, 2);
    assert_int_equal(figures[0].failures, 1);
    assert_int_equal(figures[0].down, 1);
    for (size_t i = 0; i < count; i++)
        free(figures[i].name);
    free(figures);
    moon_health_unref(again);
    moon_health_unref(b);
    a = moon_health_get(registry, MOON_SLICE("a")); // nobody knew it any more: it begins anew
    assert_int_equal(moon_health_down(a, &down), 0);
    free(down);
    moon_health_unref(a);
    moon_registry_free(registry);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(verdicts_stand_in_order),
        cmocka_unit_test(verdicts_belong_to_a_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
