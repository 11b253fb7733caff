// Connections of our own: known by both ends, for two seconds, within a bound.
#include "upstream/outbound.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h> // after what it needs

static struct moon_address address(const char *text)
{
    struct moon_address out;
    assert_true(moon_address_parse(moon_slice_from(text), &out));
    return out;
}

static void both_ends(void **state)
{
    (void)state;
    struct moon_outbound *outbound = moon_outbound_new();
    struct moon_address a = address("192.0.2.1:40000"), b = address("192.0.2.2:80"),
                        c = address("192.0.2.2:81");
    assert_false(moon_outbound_has(outbound, &a, &b, 1));
    moon_outbound_note(outbound, &a, &b, 1000);
    assert_true(moon_outbound_has(outbound, &a, &b, 1000));
    assert_true(moon_outbound_has(outbound, &a, &b, 2999));
    assert_false(moon_outbound_has(outbound, &a, &b, 3000));
    assert_false(moon_outbound_has(outbound, &a, &c, 1000));
    assert_false(moon_outbound_has(outbound, &b, &a, 1000));
    moon_outbound_free(outbound);
    moon_outbound_free(NULL);
}

// What is new stays when there are too many: the oldest make room.
static void bound(void **state)
{
    (void)state;
    struct moon_outbound *outbound = moon_outbound_new();
    struct moon_address local = address("192.0.2.1:1"), to = address("192.0.2.2:80");
    for (int i = 0; i < 10; i++) {
        to.port = (uint16_t)(100 + i);
        moon_outbound_note(outbound, &local, &to, 1000 + (uint64_t)i);
    }
    for (int i = 0; i < 10; i++) {
        to.port = (uint16_t)(100 + i);
        assert_int_equal(moon_outbound_has(outbound, &local, &to, 1100), i >= 6);
    }
    moon_outbound_free(outbound);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(both_ends), cmocka_unit_test(bound)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
