// The search for control bytes: each byte at each place of each length, in steps, words and bytes.
#include "fixture.h"

#include "http/chars.h"

enum { LEN = 70 };

static size_t find_slowly(const char *p, size_t len)
{
    size_t at = 0;
    while (at < len && (uint8_t)p[at] >= 0x20 && p[at] != 0x7f)
        at++;
    return at;
}

static void finds_the_first(void **state)
{
    (void)state;
    for (size_t len = 0; len <= LEN; len++) {
        char *text = malloc(len ? len : 1); // of its own, so that a sanitizer sees a read behind it
        for (size_t at = 0; at < len; at++) {
            for (int byte = 0; byte < 256; byte++) {
                memset(text, 'a', len);
                text[at] = (char)byte;
                assert_int_equal(moon_chars_find_control(text, len), find_slowly(text, len));
                text[len - 1] = '\n'; // and one behind it
                assert_int_equal(moon_chars_find_control(text, len), find_slowly(text, len));
            }
        }
        free(text);
    }
}

// Bytes next to the bounds beside each other: what a step says of one is not about its neighbour.
static void neighbours_do_not_matter(void **state)
{
    (void)state;
    static const char odd[] = {0x1f, 0x20, 0x21, 0x7e, 0x7f, (char)0x80, (char)0x9f, (char)0xff, 0};
    char text[24];
    for (size_t a = 0; a < sizeof odd; a++) {
        for (size_t b = 0; b < sizeof odd; b++) {
            for (size_t c = 0; c < sizeof odd; c++) {
                for (size_t at = 0; at + 3 <= sizeof text; at++) {
                    memset(text, '~', sizeof text);
                    text[at] = odd[a], text[at + 1] = odd[b], text[at + 2] = odd[c];
                    assert_int_equal(moon_chars_find_control(text, sizeof text),
                                     find_slowly(text, sizeof text));
                }
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_the_first),
        cmocka_unit_test(neighbours_do_not_matter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
