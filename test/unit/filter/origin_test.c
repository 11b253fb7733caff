// Origins and their patterns.
#include "filter/origin.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h> // after what it needs

struct row {
    const char *pattern, *origin;
    bool matches;
};

static const struct row rows[] = {
    {"https://a.example", "https://a.example", true},
    {"https://a.example", "HTTPS://A.Example", true},
    {"https://a.example", "https://a.example:443", true},
    {"https://a.example:443", "https://a.example", true},
    {"http://a.example", "http://a.example:80", true},
    {"http://a.example", "http://a.example:443", false},
    {"https://a.example", "http://a.example", false},
    {"https://a.example", "http://a.example:443", false},
    {"https://a.example", "https://b.a.example", false},
    {"https://a.example", "https://a.example.", false},
    {"app://x", "app://x", true},
    {"app://x", "app://x:1", false},
    {"https://[::1]:8443", "https://[::1]:8443", true},
    {"https://*.bar.com", "https://a.bar.com", true},
    {"https://*.bar.com", "https://a.b.bar.com:443", true},
    {"https://*.bar.com", "https://A.BAR.com", true},
    {"https://*.bar.com", "https://bar.com", false},
    {"https://*.bar.com", "https://xbar.com", false},
    {"https://*.bar.com", "https://a.bar.com.evil.org", false},
    {"https://*.bar.com", "https://a.bar.com:8443", false},
    {"https://*.bar.com:8443", "https://a.bar.com:8443", true},
    {"https://*", "https://anything:443", true},
    {"https://*", "http://anything", false},
    {"http://*:3000", "http://localhost:3000", true},
    {"http://*:3000", "http://localhost", false},
};

static void matches(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct moon_origin pattern, origin;
        assert_true(moon_origin_parse_pattern(moon_slice_from(rows[i].pattern), &pattern));
        assert_true(moon_origin_parse(moon_slice_from(rows[i].origin), &origin));
        if (moon_origin_matches(&pattern, &origin) != rows[i].matches)
            fail_msg("%s against %s", rows[i].pattern, rows[i].origin);
    }
}

static void refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "null",
                                      "a.example",
                                      "://a.example",
                                      "1http://a",
                                      "https:/a",
                                      "https://",
                                      "https://a/",
                                      "https://a/b",
                                      "https://a?b",
                                      "https://a#b",
                                      "https://u@a",
                                      "https://a:0",
                                      "https://a:65536",
                                      "https://a b",
                                      "https://a.example,https://b.example",
                                      "https://a.example https://b.example",
                                      "ht tp://a"};
    struct moon_origin origin;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_false(moon_origin_parse(moon_slice_from(bad[i]), &origin));
        assert_false(moon_origin_parse_pattern(moon_slice_from(bad[i]), &origin));
    }
    assert_false(moon_origin_parse(MOON_SLICE("https://*.a.example"), &origin));
}

static void refused_patterns(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "*",           "https://**",       "https://*a",   "https://*.",      "https://*.*.a",
        "https://a.*", "https://a*b",      "https://*.a/", "https://*:",      "https://*:0",
        "*://a",       "https://*:123456", "https://*/",   "https://*.[::1]", "https://*x:80",
    };
    struct moon_origin origin;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (moon_origin_parse_pattern(moon_slice_from(bad[i]), &origin))
            fail_msg("%s", bad[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(matches), cmocka_unit_test(refused),
                                       cmocka_unit_test(refused_patterns)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
