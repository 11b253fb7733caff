// Who is suspected, and for how long.
#include "link/suspects.h"

#include "base/address.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static bool has(const struct moon_suspects *suspects, const char *ip, uint64_t now_ms)
{
    struct moon_address address;
    assert_true(moon_address_parse_ip(moon_slice_from(ip), 4711, &address));
    return moon_suspects_has(suspects, &address, now_ms);
}

static void add(struct moon_suspects *suspects, const char *ip, uint64_t now_ms)
{
    struct moon_address address;
    assert_true(moon_address_parse_ip(moon_slice_from(ip), 1, &address));
    moon_suspects_add(suspects, &address, now_ms);
}

static void an_address_is_suspected_for_a_while(void **state)
{
    (void)state;
    struct moon_suspects suspects = {0};
    assert_false(has(&suspects, "0.0.0.0", 1));
    add(&suspects, "10.0.0.1", 1000);
    assert_true(has(&suspects, "10.0.0.1", 1000)); // by any port
    assert_true(has(&suspects, "10.0.0.1", 1000 + MOON_SUSPECT_MS - 1));
    assert_false(has(&suspects, "10.0.0.1", 1000 + MOON_SUSPECT_MS));
    assert_false(has(&suspects, "10.0.0.2", 1000));
    assert_false(has(&suspects, "::1", 1000));
}

static void a_network_of_ipv6_is_one(void **state)
{
    (void)state;
    struct moon_suspects suspects = {0};
    add(&suspects, "2001:db8:1:2::1", 0);
    assert_true(has(&suspects, "2001:db8:1:2:ffff::", 1));
    assert_false(has(&suspects, "2001:db8:1:3::1", 1));
}

static void many_do_not_hide_the_last(void **state)
{
    (void)state;
    struct moon_suspects suspects = {0};
    for (int i = 0; i < 1000; i++) {
        struct moon_address address = {.family = MOON_FAMILY_IPV4,
                                       .ip = {10, (uint8_t)i, (uint8_t)(i >> 8), 1}};
        moon_suspects_add(&suspects, &address, 0);
        assert_true(moon_suspects_has(&suspects, &address, 1));
    }
}

static void who_has_no_address_is_none(void **state)
{
    (void)state;
    struct moon_suspects suspects = {0};
    struct moon_address none = {.family = MOON_FAMILY_NONE};
    moon_suspects_add(&suspects, &none, 0);
    assert_false(moon_suspects_has(&suspects, &none, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_address_is_suspected_for_a_while),
        cmocka_unit_test(a_network_of_ipv6_is_one),
        cmocka_unit_test(many_do_not_hide_the_last),
        cmocka_unit_test(who_has_no_address_is_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
