// Unit tests of what a proxy knows of gRPC: timeouts, messages, frames, base64.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h> // after what it needs

#include "base/arena.h"
#include "http/grpc.h"
#include "http/grpc_health.h"
#include "http/headers.h"

#include <string.h>

#define READS(text, expected)                                       \
    do {                                                            \
        uint64_t ms;                                                \
        assert_true(moon_grpc_timeout_read(MOON_SLICE(text), &ms)); \
        assert_int_equal(ms, expected);                             \
    } while (0)
#define REFUSES(text)                                                \
    do {                                                             \
        uint64_t ms;                                                 \
        assert_false(moon_grpc_timeout_read(MOON_SLICE(text), &ms)); \
    } while (0)
#define WRITES(ms, expected)                        \
    do {                                            \
        char to[MOON_GRPC_TIMEOUT_LEN + 1] = {0};   \
        to[moon_grpc_timeout_write(ms, to)] = '\0'; \
        assert_string_equal(to, expected);          \
    } while (0)

static void timeouts(void **state)
{
    (void)state;
    READS("1H", 3600000);
    READS("2M", 120000);
    READS("30S", 30000);
    READS("250m", 250);
    READS("1u", 1);
    READS("1001u", 2);
    READS("99999999n", 100);
    READS("0m", 0);
    READS("99999999H", UINT64_C(359999996400000));
    REFUSES("");
    REFUSES("m");
    REFUSES("5");
    REFUSES("5s");
    REFUSES("-5S");
    REFUSES("1.5S");
    REFUSES(" 5S");
    REFUSES("123456789m");
    WRITES(0, "1m");
    WRITES(1500, "1500m");
    WRITES(99999999, "99999999m");
    WRITES(100000000, "100000S");
    WRITES(UINT64_C(359999996400000), "99999999H");
}

static void messages(void **state)
{
    (void)state;
    struct moon_arena_pool *pool = moon_arena_pool_new(1);
    struct moon_arena *arena = moon_arena_new(pool, 65536);
    struct moon_slice out = moon_grpc_message(arena, MOON_SLICE("100% \xc3\xa4\n~"));
    assert_true(moon_slice_equal(out, MOON_SLICE("100%25 %C3%A4%0A~")));
    assert_int_equal(moon_grpc_message(arena, MOON_SLICE("")).len, 0);
    moon_arena_free(arena);
    moon_arena_pool_free(pool);
}

// Three messages, cut at every place.
static void frames_over_any_cut(void **state)
{
    (void)state;
    static const char bytes[] = "\0\0\0\0\3abc\0\0\0\0\0\1\0\0\0\2de";
    const size_t len = sizeof bytes - 1;
    for (size_t cut = 0; cut <= len; cut++) {
        struct moon_grpc_frames frames = {0};
        assert_true(moon_grpc_frames_walk(&frames, (struct moon_slice){bytes, cut}));
        assert_int_equal(moon_grpc_frames_are_whole(&frames),
                         cut == 0 || cut == 8 || cut == 13 || cut == len);
        assert_true(moon_grpc_frames_walk(&frames, (struct moon_slice){bytes + cut, len - cut}));
        assert_true(moon_grpc_frames_are_whole(&frames));
    }
    struct moon_grpc_frames frames = {0};
    assert_false(moon_grpc_frames_walk(&frames, MOON_SLICE("\x80\0\0\0\0")));
}

static void trailers_become_a_frame(void **state)
{
    (void)state;
    struct moon_arena_pool *pool = moon_arena_pool_new(1);
    struct moon_arena *arena = moon_arena_new(pool, 65536);
    struct moon_headers trailers = {0};
    moon_headers_add(&trailers, arena, MOON_SLICE("Grpc-Status"), MOON_SLICE("0"));
    moon_headers_add(&trailers, arena, MOON_SLICE("x"), MOON_SLICE(""));
    struct moon_slice frame = moon_grpc_web_trailers(arena, &trailers);
    const struct moon_slice expected = {"\x80\0\0\0\x15grpc-status: 0\r\nx: \r\n", 26};
    assert_true(moon_slice_equal(frame, expected));
    moon_arena_free(arena);
    moon_arena_pool_free(pool);
}

static bool decodes(struct moon_slice text, struct moon_slice expected, size_t cap)
{
    struct moon_base64 at = {0};
    char out[256];
    size_t out_len = 0;
    while (text.len) {
        size_t len;
        ssize_t taken = moon_base64_decode(&at, text, out + out_len, cap, &len);
        if (taken <= 0)
            return false;
        out_len += len;
        text = moon_slice_skip(text, (size_t)taken);
    }
    return !moon_base64_is_open(&at) &&
           moon_slice_equal((struct moon_slice){out, out_len}, expected);
}

static void base64(void **state)
{
    (void)state;
    for (size_t cap = 3; cap < 20; cap++) {
        assert_true(decodes(MOON_SLICE("TWFu"), MOON_SLICE("Man"), cap));
        assert_true(decodes(MOON_SLICE("TWE="), MOON_SLICE("Ma"), cap));
        assert_true(decodes(MOON_SLICE("TQ==TWFuTWE="), MOON_SLICE("MManMa"), cap)); // joined
    }
    assert_false(decodes(MOON_SLICE("TQ="), MOON_SLICE("M"), 64));
    assert_false(decodes(MOON_SLICE("TQ=a"), MOON_SLICE("M"), 64));
    assert_false(decodes(MOON_SLICE("=AAA"), MOON_SLICE(""), 64));
    assert_false(decodes(MOON_SLICE("TR=="), MOON_SLICE("M"), 64)); // bits left over
    assert_false(decodes(MOON_SLICE("TW u"), MOON_SLICE("Man"), 64));
    for (size_t len = 0; len < 40; len++) {
        char bytes[40], text[64];
        for (size_t i = 0; i < len; i++)
            bytes[i] = (char)(i * 37 + len);
        size_t text_len = moon_base64_encode((struct moon_slice){bytes, len}, text);
        assert_int_equal(text_len, (len + 2) / 3 * 4);
        assert_true(
            decodes((struct moon_slice){text, text_len}, (struct moon_slice){bytes, len}, 8));
    }
}

static void health_messages(void **state)
{
    (void)state;
    struct moon_arena_pool *pool = moon_arena_pool_new(1);
    struct moon_arena *arena = moon_arena_new(pool, 65536);
    const struct moon_slice empty = {"\0\0\0\0\0", 5}, named = {"\0\0\0\0\5\x0a\3a.b", 10};
    assert_true(moon_slice_equal(moon_grpc_health_ask(arena, MOON_SLICE("")), empty));
    assert_true(moon_slice_equal(moon_grpc_health_ask(arena, MOON_SLICE("a.b")), named));
    moon_arena_free(arena);
    moon_arena_pool_free(pool);
    const struct {
        struct moon_slice bytes;
        int status;
    } rows[] = {
        {{"\0\0\0\0\2\x08\1", 7}, 1},
        {{"\0\0\0\0\2\x08\2", 7}, 2},
        {{"\0\0\0\0\0", 5}, 0},                               // a default is left out
        {{"\0\0\0\0\7\x12\3abc\x08\1", 12}, 1},               // another field before it
        {{"\0\0\0\0\x0b\x25....\x19........\x08\3", 21}, -1}, // the length lies
        {{"\0\0\0\0\x10\x25....\x19........\x08\3", 21}, 3},  // fixed widths
        {{"\0\0\0\0\2\x08\x63", 7}, 0},                       // no status that is known
        {{"\0\0\0\0\2\x08\x81", 7}, -1},                      // cut off
        {{"\0\0\0\0\3\x12\5a", 8}, -1},                       // longer than all of it
        {{"\1\0\0\0\2\x08\1", 7}, -1},                        // compressed
        {{"\0\0\0\0\2\x08\1\0", 8}, -1},                      // more behind it
        {{"\0\0\0", 3}, -1},
        {{"", 0}, -1},
        {{"\0\0\0\0\2\x0b\1", 7}, -1}, // a group
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_int_equal(moon_grpc_health_read(rows[i].bytes), rows[i].status);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timeouts),
        cmocka_unit_test(messages),
        cmocka_unit_test(frames_over_any_cut),
        cmocka_unit_test(trailers_become_a_frame),
        cmocka_unit_test(base64),
        cmocka_unit_test(health_messages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
