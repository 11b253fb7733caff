// Hosts and ports: what is taken and what is refused (A17).
#include "fixture.h"

static void accepted(void **state)
{
    (void)state;
    static const struct {
        struct moon_slice text;
        const char *host;
        uint16_t port;
    } rows[] = {
        {RAW("example.com"), "example.com", 0},
        {RAW("example.com."), "example.com.", 0},
        {RAW("a:1"), "a", 1},
        {RAW("a:65535"), "a", 65535},
        {RAW("under_score-x~1.local:8080"), "under_score-x~1.local", 8080},
        {RAW("127.0.0.1:80"), "127.0.0.1", 80},
        {RAW("[::]"), "[::]", 0},
        {RAW("[::1]:8080"), "[::1]", 8080},
        {RAW("[1:2:3:4:5:6:7:8]"), "[1:2:3:4:5:6:7:8]", 0},
        {RAW("[fe80::ABCD:1]"), "[fe80::ABCD:1]", 0},
        {RAW("[::ffff:1.2.3.4]"), "[::ffff:1.2.3.4]", 0},
        {RAW("[1:2:3:4:5:6:1.2.3.4]"), "[1:2:3:4:5:6:1.2.3.4]", 0},
        {RAW("[1::]"), "[1::]", 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct moon_authority a;
        assert_true(moon_authority_parse(rows[i].text, &a));
        assert_slice(a.host, rows[i].host);
        assert_int_equal(a.port, rows[i].port);
    }
}

static void refused(void **state)
{
    (void)state;
    static const struct moon_slice rows[] = {
        RAW(""),
        RAW(":80"),
        RAW("a:"),
        RAW("a:0"),
        RAW("a:65536"),
        RAW("a:080"),
        RAW("a:8o"),
        RAW("a:123456"),
        RAW("a:80:80"),
        RAW("a b"),
        RAW("user@a"),
        RAW("a,b"),
        RAW("a/b"),
        RAW("a#b"),
        RAW("a?b"),
        RAW("a%20b"),
        RAW("a\\b"),
        RAW("a\0b"),
        RAW("a\tb"),
        RAW("a\x80"),
        RAW(".a"),
        RAW("a..b"),
        RAW("."),
        RAW("a.."),
        RAW("a;b"),
        RAW("*.a"),
        RAW("[]"),
        RAW("[::1"),
        RAW("::1"),
        RAW("[::1]x"),
        RAW("[::1]:"),
        RAW("[1:2:3]"),
        RAW("[1::2::3]"),
        RAW("[12345::]"),
        RAW("[g::]"),
        RAW("[::1%25eth0]"),
        RAW("[v1.fe]"),
        RAW("[:1:2:3:4:5:6:7:8]"),
        RAW("[1:2:3:4:5:6:7:8:9]"),
        RAW("[1:2:3:4:5:6:7:]"),
        RAW("[::1.2.3]"),
        RAW("[::1.2.3.256]"),
        RAW("[::1.2.3.04]"),
        RAW("[1:2:3:4:5:6:7:1.2.3.4]"),
        RAW("[::1.2.3.4.5]"),
        RAW("[1:2:3:4:5:6:7::8]"),
        RAW("[::1.2.3.4:5]"),
        RAW("[]:80"),
        RAW("[a]"),
        RAW("[1:2:3:4:5:6:7:8"),
        RAW("[::a.2.3.4]"),
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct moon_authority a;
        if (moon_authority_parse(rows[i], &a))
            fail_msg("taken: %.*s", MOON_SLICE_ARG(rows[i]));
    }
}

static void bounded(void **state)
{
    (void)state;
    char text[300];
    struct moon_authority a;
    memset(text, 'a', sizeof text);
    assert_true(moon_authority_parse((struct moon_slice){text, 255}, &a));
    assert_false(moon_authority_parse((struct moon_slice){text, 256}, &a));
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(accepted), TEST(refused), TEST(bounded)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
