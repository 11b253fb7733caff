// Unit tests of base/address: what parses, what does not, and the texts that come back.
#include "base/address.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h> // after what it needs

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

static void it_is_twenty_bytes(void **state)
{
    (void)state;
    assert_int_equal(sizeof(struct moon_address), 20);
}

static void good_texts_come_back_in_canonical_form(void **state)
{
    (void)state;
    const char *const cases[][2] = {
        {"10.0.0.1:80", "10.0.0.1:80"},
        {"0.0.0.0:0", "0.0.0.0:0"},
        {"255.255.255.255:65535", "255.255.255.255:65535"},
        {"127.0.0.1:00080", "127.0.0.1:80"},
        {"[::]:1", "[::]:1"},
        {"[::1]:65535", "[::1]:65535"},
        {"[2001:DB8:0:0:0:0:0:1]:443", "[2001:db8::1]:443"},
        {"[::ffff:1.2.3.4]:5", "[::ffff:1.2.3.4]:5"},
        {"[1111:2222:3333:4444:5555:6666:7777:8888]:9",
         "[1111:2222:3333:4444:5555:6666:7777:8888]:9"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct moon_address address;
        char text[MOON_ADDRESS_TEXT_LEN];
        assert_true(moon_address_parse(moon_slice_from(cases[i][0]), &address));
        assert_int_equal(moon_address_format(&address, text), strlen(cases[i][1]));
        assert_string_equal(text, cases[i][1]);
    }
}

static void bad_texts_are_refused_and_leave_out_alone(void **state)
{
    (void)state;
    const char *const bad[] = {
        "",
        ":",
        ":80",
        "10.0.0.1",
        "10.0.0.1:",
        "10.0.0.1:65536",
        "10.0.0.1:000080",
        "10.0.0.1:+80",
        "10.0.0.1:80 ",
        " 10.0.0.1:80",
        "10.0.0.1:80x",
        "10.0.0.1:8:0",
        "10.0.0:80",
        "10.0.0.256:80",
        "010.0.0.1:80",
        "10.0.0.1.:80",
        "0x7f.0.0.1:80",
        "localhost:80",
        "::1:80",
        "[::1]",
        "[::1]:",
        "[::1]80",
        "[::1:80",
        "[]:80",
        "[10.0.0.1]:80",
        "[::1]]:80",
        "[[::1]]:80",
        "[fe80::1%lo]:80",
        "[1::2::3]:80",
        "[11111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb]:80",
    };
    struct moon_address untouched = {.family = 77};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        if (moon_address_parse(moon_slice_from(bad[i]), &untouched))
            fail_msg("accepted: %s", bad[i]);
        assert_int_equal(untouched.family, 77);
    }
    assert_false(moon_address_parse(MOON_SLICE("10.0.0.1\0:80"), &untouched));
    assert_false(moon_address_parse((struct moon_slice){NULL, 0}, &untouched));
}

static void an_ip_is_a_literal_without_port(void **state)
{
    (void)state;
    struct moon_address address;
    char text[MOON_ADDRESS_TEXT_LEN];
    assert_true(moon_address_parse_ip(MOON_SLICE("192.168.100.200"), 8080, &address));
    assert_int_equal(address.family, MOON_FAMILY_IPV4);
    assert_int_equal(address.port, 8080);
    assert_int_equal(moon_address_format_ip(&address, text), 15);
    assert_string_equal(text, "192.168.100.200");
    assert_true(moon_address_parse_ip(MOON_SLICE("fe80::1"), 1, &address));
    assert_int_equal(address.family, MOON_FAMILY_IPV6);
    assert_int_equal(moon_address_format_ip(&address, text), 7);
    assert_string_equal(text, "fe80::1");
    const char *const bad[] = {"",  "10.0.0.1:80", "[::1]", "::1%eth0", "host",
                               "1", "1.2.3",       "::1 ",  ":"};
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        assert_false(moon_address_parse_ip(moon_slice_from(bad[i]), 1, &address));
}

static void slices_need_no_terminator(void **state)
{
    (void)state;
    const char text[] = {'1', '.', '2', '.', '3', '.', '4', ':', '5', '6'};
    struct moon_address address;
    assert_true(moon_address_parse((struct moon_slice){text, 9}, &address));
    assert_int_equal(address.port, 5);
    assert_true(moon_address_parse((struct moon_slice){text, 10}, &address));
    assert_int_equal(address.port, 56);
}

static void equality_sees_family_ip_and_port(void **state)
{
    (void)state;
    struct moon_address a, b;
    assert_true(moon_address_parse(MOON_SLICE("10.0.0.1:80"), &a));
    b = a;
    b.ip[15] = 9; // not part of an IPv4 address
    assert_true(moon_address_equal(&a, &b));
    b.ip[3] = 2;
    assert_false(moon_address_equal(&a, &b));
    b = a;
    b.port = 81;
    assert_false(moon_address_equal(&a, &b));
    b = a;
    b.family = MOON_FAMILY_IPV6;
    assert_false(moon_address_equal(&a, &b));
    assert_true(moon_address_parse(MOON_SLICE("[::1]:80"), &a));
    assert_true(moon_address_parse(MOON_SLICE("[0:0:0::1]:80"), &b));
    assert_true(moon_address_equal(&a, &b));
    b.ip[15] = 2;
    assert_false(moon_address_equal(&a, &b));
}

static bool is_loopback(const char *text)
{
    struct moon_address address;
    assert_true(moon_address_parse_ip(moon_slice_from(text), 1, &address));
    return moon_address_is_loopback(&address);
}

static void loopback_is_known_in_all_forms(void **state)
{
    (void)state;
    assert_true(is_loopback("127.0.0.1"));
    assert_true(is_loopback("127.255.255.255"));
    assert_true(is_loopback("::1"));
    assert_true(is_loopback("::ffff:127.0.0.2"));
    assert_false(is_loopback("128.0.0.1"));
    assert_false(is_loopback("0.0.0.0"));
    assert_false(is_loopback("::"));
    assert_false(is_loopback("::2"));
    assert_false(is_loopback("::ffff:10.0.0.1"));
    assert_false(is_loopback("7f00::1"));
}

static void no_address_has_an_empty_text(void **state)
{
    (void)state;
    struct moon_address none = {0};
    char text[MOON_ADDRESS_TEXT_LEN] = "x";
    assert_int_equal(moon_address_format(&none, text), 0);
    assert_string_equal(text, "");
    assert_false(moon_address_is_loopback(&none));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_twenty_bytes),
        cmocka_unit_test(good_texts_come_back_in_canonical_form),
        cmocka_unit_test(bad_texts_are_refused_and_leave_out_alone),
        cmocka_unit_test(an_ip_is_a_literal_without_port),
        cmocka_unit_test(slices_need_no_terminator),
        cmocka_unit_test(equality_sees_family_ip_and_port),
        cmocka_unit_test(loopback_is_known_in_all_forms),
        cmocka_unit_test(no_address_has_an_empty_text),
    };
    return cmocka_run_group_tests_name("base/address", tests, NULL, NULL);
}
