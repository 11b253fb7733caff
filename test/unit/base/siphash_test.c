// SipHash-1-3 against the reference vectors: key 00 to 0f, input 00, 01, 02 and so on.
#include "base/siphash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const uint64_t seed[2] = {0x0706050403020100u, 0x0f0e0d0c0b0a0908u};

static void the_reference_vectors(void **state)
{
    (void)state;
    static const uint64_t wanted[] = {
        0xabac0158050fc4dcu, 0xc9f49bf37d57ca93u, 0x82cb9b024dc7d44du, 0x8bf80ab8e7ddf7fbu,
        0xcf75576088d38328u, 0xdef9d52f49533b67u, 0xc50d2b50c59f22a7u, 0xd3927d989bb11140u,
    };
    unsigned char bytes[sizeof wanted / sizeof wanted[0]];
    for (size_t len = 0; len < sizeof bytes; len++) {
        bytes[len] = (unsigned char)len;
        assert_true(moon_siphash(seed, bytes, len) == wanted[len]);
    }
    assert_true(moon_siphash(seed, NULL, 0) == wanted[0]);
}

// Every byte and the length count, wherever the words are cut; and no byte more is read (ASan watches).
static void every_byte_counts(void **state)
{
    (void)state;
    for (size_t len = 1; len <= 40; len++) {
        unsigned char *bytes = malloc(len);
        memset(bytes, 0, len);
        uint64_t before = moon_siphash(seed, bytes, len);
        assert_true(before != moon_siphash(seed, bytes, len - 1));
        for (size_t i = 0; i < len; i++) {
            bytes[i] = 1;
            assert_true(before != moon_siphash(seed, bytes, len));
            bytes[i] = 0;
        }
        assert_true(before == moon_siphash(seed, bytes, len));
        free(bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_reference_vectors),
        cmocka_unit_test(every_byte_counts),
    };
    return cmocka_run_group_tests_name("base/siphash", tests, NULL, NULL);
}
