// Who spoke first where: by port and destination, for ten minutes, within a bound.
#include "edge/speakers.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h> // after what it needs

static struct moon_destination destination(const char *port, const char *meant)
{
    struct moon_destination out = {0};
    assert_true(moon_address_parse(moon_slice_from(port), &out.port));
    if (meant)
        assert_true(moon_address_parse(moon_slice_from(meant), &out.meant));
    return out;
}

static void each_by_itself(void **state)
{
    (void)state;
    struct moon_speakers *speakers = moon_speakers_new();
    struct moon_destination mail = destination("0.0.0.0:1", "192.0.2.1:25"),
                            web = destination("0.0.0.0:1", "192.0.2.1:80"),
                            six = destination("0.0.0.0:1", "[c000:201::]:25"),
                            other = destination("0.0.0.0:2", "192.0.2.1:25"),
                            none = destination("0.0.0.0:1", NULL);
    assert_false(moon_speakers_has(speakers, &mail, 1));
    moon_speakers_set(speakers, &mail, true, 1);
    assert_true(moon_speakers_has(speakers, &mail, 1));
    assert_false(moon_speakers_has(speakers, &web, 1));
    assert_false(moon_speakers_has(speakers, &six, 1));
    assert_false(moon_speakers_has(speakers, &other, 1));
    assert_false(moon_speakers_has(speakers, &none, 1));
    moon_speakers_set(speakers, &none, true, 2);
    moon_speakers_set(speakers, &web, false, 2);
    assert_true(moon_speakers_has(speakers, &none, 3));
    moon_speakers_set(speakers, &mail, false, 3);
    assert_false(moon_speakers_has(speakers, &mail, 3));
    assert_true(moon_speakers_has(speakers, &none, 3));
    moon_speakers_free(speakers);
    moon_speakers_free(NULL);
}

static void not_for_ever(void **state)
{
    (void)state;
    struct moon_speakers *speakers = moon_speakers_new();
    struct moon_destination mail = destination("0.0.0.0:1", "192.0.2.1:25");
    moon_speakers_set(speakers, &mail, true, 1000);
    assert_true(moon_speakers_has(speakers, &mail, 999 + MOON_SPEAKERS_MS));
    assert_false(moon_speakers_has(speakers, &mail, 1000 + MOON_SPEAKERS_MS));
    moon_speakers_set(speakers, &mail, true, 1000 + MOON_SPEAKERS_MS);
    assert_true(moon_speakers_has(speakers, &mail, 1001 + MOON_SPEAKERS_MS));
    moon_speakers_free(speakers);
}

static int known_count(const struct moon_speakers *speakers, int first, int count, uint64_t now_ms)
{
    struct moon_destination to = destination("0.0.0.0:1", "192.0.2.1:25");
    int known = 0;
    for (int i = first; i < first + count; i++) {
        to.meant.ip[2] = (uint8_t)(i >> 8);
        to.meant.ip[3] = (uint8_t)i;
        known += moon_speakers_has(speakers, &to, now_ms);
    }
    return known;
}

// Neighbours in a net spread well; of too many the newest stay, and one that is used again and again does, too.
static void bounded(void **state)
{
    (void)state;
    struct moon_speakers *speakers = moon_speakers_new();
    struct moon_destination to = destination("0.0.0.0:1", "192.0.2.1:25"),
                            port = destination("0.0.0.0:1", NULL);
    for (int i = 0; i < 10000; i++) {
        to.meant.ip[2] = (uint8_t)(i >> 8);
        to.meant.ip[3] = (uint8_t)i;
        moon_speakers_set(speakers, &to, true, (uint64_t)i);
        moon_speakers_set(speakers, &port, true, (uint64_t)i);
        if (i == 255)
            assert_true(known_count(speakers, 0, 256, 255) > 240);
    }
    assert_true(moon_speakers_has(speakers, &port, 10000));
    assert_true(known_count(speakers, 9744, 256, 10000) > 230);
    assert_true(known_count(speakers, 0, 10000, 10000) > 1000);
    assert_true(known_count(speakers, 0, 10000, 10000) <= 1024);
    assert_int_equal(known_count(speakers, 0, 5000, 10000), 0);
    moon_speakers_free(speakers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_by_itself),
                                       cmocka_unit_test(not_for_ever), cmocka_unit_test(bounded)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
