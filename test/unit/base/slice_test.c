// Unit tests of base/slice: comparison, trimming, numbers, list elements.
#include "base/slice.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h> // after what it needs

static void assert_slice(struct moon_slice s, const char *text)
{
    assert_int_equal(s.len, strlen(text));
    assert_memory_equal(s.ptr, text, s.len);
}

static void equal_compares_bytes(void **state)
{
    (void)state;
    struct moon_slice none = {NULL, 0};
    assert_true(moon_slice_equal(MOON_SLICE("a\0b"), MOON_SLICE("a\0b")));
    assert_false(moon_slice_equal(MOON_SLICE("a\0b"), MOON_SLICE("a\0c")));
    assert_true(moon_slice_equal(none, MOON_SLICE("")));
    assert_true(moon_slice_starts(MOON_SLICE("abc"), none));
    assert_true(moon_slice_starts(MOON_SLICE("abc"), MOON_SLICE("ab")));
    assert_false(moon_slice_starts(MOON_SLICE("ab"), MOON_SLICE("abc")));
}

static void fold_knows_ascii_letters_only(void **state)
{
    (void)state;
    assert_true(moon_slice_equal_fold(MOON_SLICE("Content-LENGTH"), MOON_SLICE("content-length")));
    assert_false(moon_slice_equal_fold(MOON_SLICE("ab"), MOON_SLICE("abc")));
    assert_false(moon_slice_equal_fold(MOON_SLICE("["), MOON_SLICE("{")));
    assert_false(moon_slice_equal_fold(MOON_SLICE("@"), MOON_SLICE("`")));
    assert_false(moon_slice_equal_fold(MOON_SLICE("\xc4"), MOON_SLICE("\xe4")));
    assert_false(moon_slice_equal_fold(MOON_SLICE("\r"), MOON_SLICE("-")));
}

static void fold_agrees_with_a_table(void **state)
{
    (void)state;
    for (int i = 0; i < 256; i++) {
        for (int j = 0; j < 256; j++) {
            char a = (char)i, b = (char)j;
            int low_i = i >= 'A' && i <= 'Z' ? i + 32 : i;
            int low_j = j >= 'A' && j <= 'Z' ? j + 32 : j;
            bool equal =
                moon_slice_equal_fold((struct moon_slice){&a, 1}, (struct moon_slice){&b, 1});
            assert_int_equal(equal, low_i == low_j);
        }
    }
}

static void trim_takes_blanks_only(void **state)
{
    (void)state;
    assert_slice(moon_slice_trim(MOON_SLICE(" \t a b\t ")), "a b");
    assert_slice(moon_slice_trim(MOON_SLICE("\r\na\v")), "\r\na\v");
    assert_slice(moon_slice_trim(MOON_SLICE(" \t")), "");
    assert_int_equal(moon_slice_trim((struct moon_slice){NULL, 0}).len, 0);
}

static void numbers_are_digits_and_fit(void **state)
{
    (void)state;
    uint64_t value = 7;
    const char *const bad[] = {"",
                               "-1",
                               "+1",
                               " 1",
                               "1 ",
                               "0x1",
                               "1a",
                               "18446744073709551616",
                               "18446744073709551620",
                               "99999999999999999999",
                               "\xb2"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(moon_slice_to_u64(moon_slice_from(bad[i]), &value));
    assert_false(moon_slice_to_u64(MOON_SLICE("1\0"), &value));
    assert_int_equal(value, 7);
    assert_true(moon_slice_to_u64(MOON_SLICE("0"), &value));
    assert_int_equal(value, 0);
    assert_true(moon_slice_to_u64(MOON_SLICE("000000000000000000000000012"), &value));
    assert_int_equal(value, 12);
    assert_true(moon_slice_to_u64(MOON_SLICE("18446744073709551615"), &value));
    assert_true(value == UINT64_MAX);
}

static void numbers_are_written_in_full(void **state)
{
    (void)state;
    char digits[MOON_U64_DIGITS];
    assert_slice(moon_slice_from_u64(0, digits), "0");
    assert_slice(moon_slice_from_u64(9, digits), "9");
    assert_slice(moon_slice_from_u64(10, digits), "10");
    assert_slice(moon_slice_from_u64(1234567890, digits), "1234567890");
    assert_slice(moon_slice_from_u64(UINT64_MAX, digits), "18446744073709551615");
}

static void items_come_trimmed_and_empty_ones_too(void **state)
{
    (void)state;
    struct moon_slice rest = MOON_SLICE("close,\t TE ,, x,"), item;
    const char *const want[] = {"close", "TE", "", "x", ""};
    for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
        assert_true(moon_slice_next_item(&rest, &item));
        assert_slice(item, want[i]);
    }
    assert_false(moon_slice_next_item(&rest, &item));
    assert_false(moon_slice_next_item(&rest, &item));
}

static void an_empty_value_is_one_empty_item_and_no_value_is_none(void **state)
{
    (void)state;
    struct moon_slice rest = MOON_SLICE(""), none = {NULL, 0}, item;
    assert_true(moon_slice_next_item(&rest, &item));
    assert_int_equal(item.len, 0);
    assert_false(moon_slice_next_item(&rest, &item));
    assert_false(moon_slice_next_item(&none, &item));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_compares_bytes),
        cmocka_unit_test(fold_knows_ascii_letters_only),
        cmocka_unit_test(fold_agrees_with_a_table),
        cmocka_unit_test(trim_takes_blanks_only),
        cmocka_unit_test(numbers_are_digits_and_fit),
        cmocka_unit_test(numbers_are_written_in_full),
        cmocka_unit_test(items_come_trimmed_and_empty_ones_too),
        cmocka_unit_test(an_empty_value_is_one_empty_item_and_no_value_is_none),
    };
    return cmocka_run_group_tests_name("base/slice", tests, NULL, NULL);
}
