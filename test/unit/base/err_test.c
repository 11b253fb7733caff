// Unit tests of base/err: every code has a text, and none is NULL.
#include "base/err.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h> // after what it needs

static void ours_have_texts_of_their_own(void **state)
{
    (void)state;
    assert_string_equal(moon_err_text(MOON_EOF), "end of stream");
    for (int err = MOON_ESILENT; err <= MOON_EOF; err++)
        assert_string_not_equal(moon_err_text(err), moon_err_text(-20000));
}

static void system_errors_have_texts(void **state)
{
    (void)state;
    assert_string_equal(moon_err_text(0), "success");
    assert_string_equal(moon_err_text(-ECONNREFUSED), "connection refused");
    assert_string_equal(moon_err_text(-ECONNRESET), "connection reset by peer");
}

static void strange_numbers_are_answered(void **state)
{
    (void)state;
    assert_string_equal(moon_err_text(-9999), "unknown system error");
    assert_string_equal(moon_err_text(-20000), "unknown error");
    assert_non_null(moon_err_text(INT32_MAX));
    assert_non_null(moon_err_text(INT32_MIN));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ours_have_texts_of_their_own),
        cmocka_unit_test(system_errors_have_texts),
        cmocka_unit_test(strange_numbers_are_answered),
    };
    return cmocka_run_group_tests_name("base/err", tests, NULL, NULL);
}
