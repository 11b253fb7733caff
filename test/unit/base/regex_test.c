// Unit tests of base/regex: whole matches, the places of mistakes, bounds, literals.
#include "base/regex.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h> // after what it needs

static int match(const char *pattern, struct moon_slice text)
{
    struct moon_regex_fault fault;
    struct moon_regex *regex = moon_regex_new(moon_slice_from(pattern), &fault);
    struct moon_regex_scratch *scratch = moon_regex_scratch_new();
    assert_non_null(regex);
    int jit = moon_regex_match(regex, scratch, text);
    regex->has_jit = false;
    int plain = moon_regex_match(regex, scratch, text);
    assert_int_equal(jit, plain);
    moon_regex_scratch_free(scratch);
    moon_regex_free(regex);
    return jit;
}

static void a_match_is_of_the_whole_text(void **state)
{
    (void)state;
    assert_int_equal(match("/v[0-9]+/.*", MOON_SLICE("/v12/users")), 1);
    assert_int_equal(match("^/v[0-9]+/", MOON_SLICE("/v12/users")), 0);
    assert_int_equal(match("^/v[0-9]+/$", MOON_SLICE("/v12/")), 1);
    assert_int_equal(match("v1", MOON_SLICE("/v1")), 0);
    assert_int_equal(match("a|ab", MOON_SLICE("ab")), 1);
    assert_int_equal(match("ab|a", MOON_SLICE("abc")), 0);
    assert_int_equal(match("a$", MOON_SLICE("a\n")), 0);
    assert_int_equal(match("", MOON_SLICE("")), 1);
    assert_int_equal(match("", (struct moon_slice){NULL, 0}), 1);
    assert_int_equal(match("", MOON_SLICE("x")), 0);
}

static void it_works_on_bytes(void **state)
{
    (void)state;
    assert_int_equal(match("a.c", MOON_SLICE("a\0c")), 1);
    assert_int_equal(match("a.c", MOON_SLICE("a\xff"
                                             "c")),
                     1);
    assert_int_equal(match("a", MOON_SLICE("A")), 0);
    assert_int_equal(match("(?i)a", MOON_SLICE("A")), 1);
    assert_int_equal(match("(.)\\1", MOON_SLICE("xx")), 1);
    assert_int_equal(match("(.)\\1", MOON_SLICE("xy")), 0);
}

static void mistakes_have_a_place(void **state)
{
    (void)state;
    static const struct {
        const char *pattern, *text;
        size_t offset;
    } rows[] = {
        {"/a(b", "missing closing parenthesis", 4},
        {"/[a", "missing terminating ]", 3},
        {"*", "quantifier does not follow a repeatable item", 0},
        {"a\\", "\\ at end of pattern", 2},
        {"(*UTF)a", "using UTF is disabled", 6},
        {"a\\Cb", "using \\C is disabled", 3},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct moon_regex_fault fault;
        assert_null(moon_regex_new(moon_slice_from(rows[i].pattern), &fault));
        if (!strstr(fault.text, rows[i].text) || fault.offset != rows[i].offset)
            fail_msg("%s: %s at %zu", rows[i].pattern, fault.text, fault.offset);
    }
}

static void a_long_pattern_is_refused(void **state)
{
    (void)state;
    struct moon_regex_fault fault;
    char *text = malloc(MOON_REGEX_PATTERN_MAX_LEN + 1);
    memset(text, 'a', MOON_REGEX_PATTERN_MAX_LEN + 1);
    assert_null(moon_regex_new((struct moon_slice){text, MOON_REGEX_PATTERN_MAX_LEN + 1}, &fault));
    assert_non_null(strstr(fault.text, "too long"));
    struct moon_regex *regex =
        moon_regex_new((struct moon_slice){text, MOON_REGEX_PATTERN_MAX_LEN}, &fault);
    assert_non_null(regex);
    moon_regex_free(regex);
    free(text);
}

static void runaway_patterns_give_up(void **state)
{
    (void)state;
    static const char *const patterns[] = {"(a+)+b", "(a|aa)+b", "(.*)(.*)(.*)(.*)(.*)b", "(a*)*b",
                                           "(?:a?){40}a{40}b"};
    char text[64];
    memset(text, 'a', sizeof text);
    memcpy(text + sizeof text - 2, "bc", 2); // a text without 'b' is refused at sight
    for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; i++) {
        struct moon_regex_fault fault;
        struct moon_regex *regex = moon_regex_new(moon_slice_from(patterns[i]), &fault);
        struct moon_regex_scratch *scratch = moon_regex_scratch_new();
        for (int has_jit = regex->has_jit; has_jit >= 0; has_jit--) {
            regex->has_jit = has_jit;
            assert_int_equal(moon_regex_match(regex, scratch, (struct moon_slice){text, 64}),
                             MOON_ELIMIT);
            // and the scratch still works
            assert_int_equal(moon_regex_match(regex, scratch, MOON_SLICE("ac")), 0);
        }
        moon_regex_scratch_free(scratch);
        moon_regex_free(regex);
    }
}

static void deep_nesting_gives_up(void **state)
{
    (void)state;
    size_t len = 1 << 20;
    char *text = malloc(len);
    memset(text, 'a', len);
    struct moon_regex_fault fault;
    struct moon_regex *regex = moon_regex_new(MOON_SLICE("(a(?1)?b)"), &fault);
    struct moon_regex_scratch *scratch = moon_regex_scratch_new();
    for (int has_jit = regex->has_jit; has_jit >= 0; has_jit--) {
        regex->has_jit = has_jit;
        assert_int_equal(moon_regex_match(regex, scratch, (struct moon_slice){text, len}),
                         MOON_ELIMIT);
        assert_int_equal(moon_regex_match(regex, scratch, MOON_SLICE("aabb")), 1);
    }
    moon_regex_scratch_free(scratch);
    moon_regex_free(regex);
    free(text);
}

static void literals(void **state)
{
    (void)state;
    static const struct {
        const char *pattern, *literal;
    } rows[] = {
        {"", ""},           {"^", ""},
        {"/v[0-9]+", "/v"}, {"^/v[0-9]+", "/v"},
        {"/ab*", "/a"},     {"/ab?", "/a"},
        {"/ab+", "/ab"},    {"/ab{0,1}", "/a"},
        {"/a|/b", ""},      {"/a(b|c)", ""},
        {"/a\\.b", "/a.b"}, {"/a\\.?b", "/a"},
        {"/a\\d", "/a"},    {"(?i)/a", ""},
        {"/a.b", "/a"},     {"\\Q/a*\\E", ""},
        {"/ab\\E*", "/a"},  {"/a\\/b$", "/a/b"},
        {"/[a]", "/"},      {".*", ""},
        {"/a(?#x)*", "/"},  {"/abcdefghijkl", "/abcdefg"},
        {"/a\\", "/a"},     {"a\\Q\\E*b", ""},
        {"/a\\-b", "/a-b"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char got[8];
        size_t len = moon_regex_literal(moon_slice_from(rows[i].pattern), got, sizeof got);
        if (len != strlen(rows[i].literal) || memcmp(got, rows[i].literal, len) != 0)
            fail_msg("%s: %.*s", rows[i].pattern, (int)len, got);
    }
}

static void null_is_fine(void **state)
{
    (void)state;
    moon_regex_free(NULL);
    moon_regex_scratch_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_match_is_of_the_whole_text),
        cmocka_unit_test(it_works_on_bytes),
        cmocka_unit_test(mistakes_have_a_place),
        cmocka_unit_test(a_long_pattern_is_refused),
        cmocka_unit_test(runaway_patterns_give_up),
        cmocka_unit_test(deep_nesting_gives_up),
        cmocka_unit_test(literals),
        cmocka_unit_test(null_is_fine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
