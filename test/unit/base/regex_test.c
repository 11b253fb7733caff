// Unit tests of base/regex: whole matches, searches, the places of mistakes, bounds, literals.
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
    assert_int_equal(match("(*NO_JIT)a", MOON_SLICE("a")), 1);
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

// ---- searching

// "from-to from-to ..." of every match from the start on, each with its groups; JIT and interpreter must agree.
static void search(const char *pattern, unsigned options, struct moon_slice text, bool has_jit,
                   char *out, size_t cap)
{
    struct moon_regex_fault fault;
    struct moon_regex_span spans[MOON_REGEX_SPANS_MAX_COUNT];
    struct moon_regex *regex = moon_regex_new_search(moon_slice_from(pattern), options, &fault);
    struct moon_regex_scratch *scratch = moon_regex_scratch_new();
    assert_non_null(regex);
    regex->has_jit = regex->has_jit && has_jit;
    size_t from = 0, len = 0;
    bool is_after_empty = false;
    int count = 0;
    out[0] = '\0';
    while ((count = moon_regex_search(regex, scratch, text, from, is_after_empty, spans)) > 0) {
        for (int i = 0; i < count; i++)
            len += (size_t)snprintf(out + len, cap - len, "%s%d-%d",
                                    i     ? ","
                                    : len ? " "
                                          : "",
                                    spans[i].from, spans[i].to);
        assert_true(len < cap);
        from = (size_t)spans[0].to;
        is_after_empty = spans[0].from == spans[0].to;
    }
    assert_int_equal(count, 0);
    moon_regex_scratch_free(scratch);
    moon_regex_free(regex);
}

static void searches(void **state)
{
    (void)state;
    static const struct {
        const char *pattern;
        unsigned options;
        struct moon_slice text;
        const char *spans;
    } rows[] = {
        {"b", 0, MOON_SLICE("abcb"), "1-2 3-4"},
        {"x", 0, MOON_SLICE("abcb"), ""},
        {"(a)|(b)|(c)", 0, MOON_SLICE("ab"), "0-1,0-1,-1--1,-1--1 1-2,-1--1,1-2,-1--1"},
        {"a*", 0, MOON_SLICE("baac"), "0-0 1-3 3-3 4-4"},
        {"", 0, MOON_SLICE("ab"), "0-0 1-1 2-2"},
        {"", 0, MOON_SLICE(""), "0-0"},
        {"", 0, {NULL, 0}, "0-0"},
        {"^a", 0, MOON_SLICE("a\na"), "0-1"},
        {"^a", MOON_REGEX_MULTILINE, MOON_SLICE("a\na"), "0-1 2-3"},
        {"a.", 0, MOON_SLICE("a\nab"), "2-4"},
        {"a.", MOON_REGEX_DOTALL, MOON_SLICE("a\nab"), "0-2 2-4"},
        {"A", MOON_REGEX_CASELESS, MOON_SLICE("aA"), "0-1 1-2"},
        {"a b # c", MOON_REGEX_EXTENDED, MOON_SLICE("ab"), "0-2"},
        {"a", MOON_REGEX_ANCHORED, MOON_SLICE("aaba"), "0-1 1-2"},
        {"\\Ga", 0, MOON_SLICE("aaba"), "0-1 1-2"},
        {"(*NO_JIT)a", 0, MOON_SLICE("ba"), "1-2"},
        {"a", 0, MOON_SLICE("\0a"), "1-2"},
        {".", 0, MOON_SLICE("\xc3\xa4"), "0-1 1-2"},
        {".", MOON_REGEX_UTF, MOON_SLICE("\xc3\xa4-"), "0-2 2-3"},
        {"", MOON_REGEX_UTF, MOON_SLICE("\xc3\xa4"), "0-0 2-2"},
        {"-", MOON_REGEX_UTF, MOON_SLICE("\xc3-\xff-"), "1-2 3-4"},
        {"\xc3\xa4", MOON_REGEX_UTF | MOON_REGEX_CASELESS, MOON_SLICE("\xc3\x84"), "0-2"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        for (int has_jit = 0; has_jit < 2; has_jit++) {
            char got[256];
            search(rows[i].pattern, rows[i].options, rows[i].text, has_jit, got, sizeof got);
            if (strcmp(got, rows[i].spans) != 0)
                fail_msg("%s: %s, not %s", rows[i].pattern, got, rows[i].spans);
        }
}

static void groups_have_names(void **state)
{
    (void)state;
    struct moon_regex_fault fault;
    struct moon_regex *regex =
        moon_regex_new_search(MOON_SLICE("(?<year>\\d+)-(x)-(?<m>\\d)"), 0, &fault);
    struct moon_slice name = {NULL, 0};
    assert_int_equal(moon_regex_name(regex, 0, &name), 3);
    assert_true(moon_slice_equal(name, MOON_SLICE("m")));
    assert_int_equal(moon_regex_name(regex, 1, &name), 1);
    assert_true(moon_slice_equal(name, MOON_SLICE("year")));
    assert_int_equal(moon_regex_name(regex, 2, &name), 0);
    moon_regex_free(regex);
    regex = moon_regex_new_search(MOON_SLICE("a"), 0, &fault);
    assert_int_equal(moon_regex_name(regex, 0, &name), 0);
    moon_regex_free(regex);
}

static void groups_are_bounded(void **state)
{
    (void)state;
    struct moon_regex_fault fault;
    struct moon_regex_span spans[MOON_REGEX_SPANS_MAX_COUNT];
    char pattern[2 * MOON_REGEX_SPANS_MAX_COUNT + 1] = "";
    for (int i = 1; i < MOON_REGEX_SPANS_MAX_COUNT; i++)
        memcpy(pattern + (size_t)(i - 1) * 2, "()", 2);
    struct moon_regex *regex = moon_regex_new_search(moon_slice_from(pattern), 0, &fault);
    struct moon_regex_scratch *scratch = moon_regex_scratch_new();
    assert_int_equal(moon_regex_search(regex, scratch, MOON_SLICE("a"), 0, true, spans),
                     MOON_REGEX_SPANS_MAX_COUNT);
    assert_int_equal(spans[MOON_REGEX_SPANS_MAX_COUNT - 1].to, 1);
    moon_regex_free(regex);
    moon_regex_scratch_free(scratch);
    memcpy(pattern + 2 * MOON_REGEX_SPANS_MAX_COUNT - 2, "()", 2);
    assert_null(moon_regex_new_search(moon_slice_from(pattern), 0, &fault));
    assert_string_equal(fault.text, "the pattern has too many groups");
    assert_null(moon_regex_new_search(MOON_SLICE("(a"), 0, &fault));
    assert_null(moon_regex_new_search(MOON_SLICE("(*UTF)a"), 0, &fault));
}

static void runaway_searches_give_up(void **state)
{
    (void)state;
    struct moon_regex_fault fault;
    struct moon_regex_span spans[MOON_REGEX_SPANS_MAX_COUNT];
    struct moon_regex *regex = moon_regex_new_search(MOON_SLICE("(a+)+b"), 0, &fault);
    struct moon_regex_scratch *scratch = moon_regex_scratch_new();
    char text[64];
    memset(text, 'a', sizeof text);
    memcpy(text + sizeof text - 2, "cb", 2);
    assert_int_equal(
        moon_regex_search(regex, scratch, (struct moon_slice){text, 64}, 0, false, spans),
        MOON_ELIMIT);
    assert_int_equal(moon_regex_search(regex, scratch, MOON_SLICE("xaab"), 0, false, spans), 2);
    moon_regex_free(regex);
    moon_regex_scratch_free(scratch);
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
        cmocka_unit_test(searches),
        cmocka_unit_test(groups_have_names),
        cmocka_unit_test(groups_are_bounded),
        cmocka_unit_test(runaway_searches_give_up),
        cmocka_unit_test(null_is_fine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
