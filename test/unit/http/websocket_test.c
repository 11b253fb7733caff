// Frames of WebSocket: what each input gives, in one piece and byte by byte (A51); heads and Closes that are written; UTF-8.
#include "fixture.h"

#include "http/websocket.h"

#include <stdio.h>

enum { CLIENT = MOON_WEBSOCKET_IS_MASKED, SERVER = 0, EXTENDED = MOON_WEBSOCKET_IS_EXTENDED };

// Reads all of `bytes`, `step` at a time, into a text: "opcode[+]:payload." for each frame, + when more of the message follows;
// then "BAD", "MORE" inside of a frame, or nothing.
static void read_frames(struct moon_slice bytes, unsigned flags, size_t step, char *text,
                        size_t cap)
{
    struct moon_websocket_reader r;
    size_t at = 0, to = 0;
    moon_websocket_init(&r, flags);
    text[0] = '\0';
    for (;;) {
        size_t len = bytes.len - at < step ? bytes.len - at : step;
        struct moon_slice in = {bytes.ptr + at, len}, data;
        enum moon_websocket_event event = moon_websocket_next(&r, &in, &data);
        at += len - in.len;
        assert_true(to + data.len + 16 < cap);
        switch (event) {
        case MOON_WEBSOCKET_MORE:
            if (at < bytes.len)
                continue;
            snprintf(text + to, cap - to, "%s", moon_websocket_is_at_border(&r) ? "" : "MORE");
            return;
        case MOON_WEBSOCKET_FRAME:
            to += (size_t)snprintf(text + to, cap - to, "%u%s:", r.opcode, r.is_final ? "" : "+");
            continue;
        case MOON_WEBSOCKET_DATA:
            moon_websocket_copy(&r, data, text + to);
            to += data.len;
            continue;
        case MOON_WEBSOCKET_END:
            to += (size_t)snprintf(text + to, cap - to, ".");
            continue;
        case MOON_WEBSOCKET_BAD:
            snprintf(text + to, cap - to, "BAD");
            return;
        }
    }
}

static const struct {
    struct moon_slice bytes;
    unsigned flags;
    const char *expected;
} rows[] = {
    {RAW(""), SERVER, ""},
    {RAW("\x81\x05Hello"), SERVER, "1:Hello."}, // RFC 6455 5.7
    {RAW("\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"), CLIENT, "1:Hello."},
    {RAW("\x01\x03Hel\x80\x02lo"), SERVER, "1+:Hel.0:lo."},
    {RAW("\x01\x03Hel\x89\x00\x80\x02lo"), SERVER, "1+:Hel.9:.0:lo."},
    {RAW("\x01\x00\x00\x00\x80\x00\x82\x01x"), SERVER, "1+:.0+:.0:.2:x."},
    {RAW("\x89\x05Hello\x8a\x85\x37\xfa\x21\x3d"), SERVER, "9:Hello.BAD"},
    {RAW("\x88\x02\x03\xe8"), SERVER, "8:\x03\xe8."},
    {RAW("\x82\x00"), SERVER, "2:."},
    {RAW("\x82\x05Hel"), SERVER, "2:HelMORE"},
    {RAW("\x82"), SERVER, "MORE"},
    {RAW("\x82\x7e\x00"), SERVER, "MORE"},
    {RAW("\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00yy"), SERVER, "2:yyMORE"},
    {RAW("\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xffz"), SERVER, "2:zMORE"},
    // masks where none belong, and none where they do
    {RAW("\x81\x05Hello"), CLIENT, "BAD"},
    {RAW("\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"), SERVER, "BAD"},
    // reserved bits and opcodes
    {RAW("\xc1\x01x"), SERVER, "BAD"},
    {RAW("\xa1\x01x"), SERVER, "BAD"},
    {RAW("\x91\x01x"), SERVER, "BAD"},
    {RAW("\x83\x01x"), SERVER, "BAD"},
    {RAW("\x87\x01x"), SERVER, "BAD"},
    {RAW("\x8b\x01x"), SERVER, "BAD"},
    {RAW("\x8f\x01x"), SERVER, "BAD"},
    {RAW("\xc1\x01x\x83\x01y\x8f\x00"), EXTENDED, "1:x.3:y.15:."},
    {RAW("\x8f\x7e\x00\x80"), EXTENDED, "BAD"},
    // lengths
    {RAW("\x82\x7e\x00\x7d"), SERVER, "BAD"}, // fits into the short one
    {RAW("\x82\x7f\x00\x00\x00\x00\x00\x00\xff\xff"), SERVER, "BAD"},
    {RAW("\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00"), SERVER, "BAD"}, // 2^63
    {RAW("\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff"), SERVER, "BAD"},
    // control frames
    {RAW("\x89\x7e\x00\x7e"), SERVER, "BAD"},
    {RAW("\x08\x00"), SERVER, "BAD"},
    {RAW("\x09\x00"), SERVER, "BAD"},
    // fragments
    {RAW("\x80\x01x"), SERVER, "BAD"},
    {RAW("\x00\x01x"), SERVER, "BAD"},
    {RAW("\x01\x01x\x81\x01y"), SERVER, "1+:x.BAD"},
    {RAW("\x01\x01x\x02\x01y"), SERVER, "1+:x.BAD"},
    {RAW("\x01\x01x\x80\x01y\x80\x01z"), SERVER, "1+:x.0:y.BAD"},
};

static void test_frames(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (size_t step = 1; step < 40; step += step < 4 ? 1 : 35) {
            char text[256];
            read_frames(rows[i].bytes, rows[i].flags, step, text, sizeof text);
            if (strcmp(text, rows[i].expected) != 0)
                fail_msg("row %zu, step %zu: expected %s, got %s", i, step, rows[i].expected, text);
        }
}

// Every length around the borders of the three forms, masked and not, reads as what was written.
static void test_heads_written(void **state)
{
    static const uint64_t lengths[] = {0,   1,     125,   126,
                                       127, 65535, 65536, UINT64_C(0x7fffffffffffffff)};
    static const uint8_t mask[4] = {1, 2, 3, 0};
    (void)state;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths * 2; i++) {
        struct moon_websocket_frame frame = {MOON_WEBSOCKET_BINARY, true, lengths[i / 2],
                                             i & 1 ? mask : NULL};
        char head[MOON_WEBSOCKET_HEAD_MAX_LEN];
        struct moon_slice in = {head, moon_websocket_head_write(&frame, head)}, data;
        struct moon_websocket_reader r;
        moon_websocket_init(&r, i & 1 ? CLIENT : SERVER);
        assert_int_equal(MOON_WEBSOCKET_FRAME, moon_websocket_next(&r, &in, &data));
        assert_int_equal(0, in.len);
        assert_true(r.left_len == frame.len && r.opcode == frame.opcode && r.is_final);
        assert_true(moon_websocket_skippable(&r) == frame.len);
        moon_websocket_skip(&r, frame.len);
        assert_true(moon_websocket_is_at_border(&r));
        assert_int_equal(MOON_WEBSOCKET_END, moon_websocket_next(&r, &in, &data));
    }
}

static void test_mask_at_any_offset(void **state)
{
    static const uint8_t mask[4] = {0x37, 0xfa, 0x21, 0x3d};
    char bytes[64];
    (void)state;
    for (size_t offset = 0; offset < 9; offset++)
        for (size_t len = 0; len < sizeof bytes; len++) {
            for (size_t i = 0; i < len; i++)
                bytes[i] = (char)i;
            moon_websocket_mask(mask, offset, bytes, len);
            for (size_t i = 0; i < len; i++)
                assert_int_equal((uint8_t)i ^ mask[(offset + i) % 4], (uint8_t)bytes[i]);
        }
}

static void test_close(void **state)
{
    char frame[MOON_WEBSOCKET_CLOSE_MAX_LEN], text[160], long_reason[200];
    static const uint8_t mask[4] = {9, 8, 7, 6};
    uint16_t code;
    struct moon_slice reason;
    (void)state;
    size_t len = moon_websocket_close_write(1001, MOON_SLICE("drain"), NULL, frame);
    assert_memory_equal("\x88\x07\x03\xe9"
                        "drain",
                        frame, len);
    len = moon_websocket_close_write(1001, MOON_SLICE("drain"), mask, frame);
    read_frames((struct moon_slice){frame, len}, CLIENT, 99, text, sizeof text);
    assert_string_equal("8:\x03\xe9"
                        "drain.",
                        text);
    assert_int_equal(
        2, moon_websocket_close_write(MOON_WEBSOCKET_NO_CODE, MOON_SLICE("x"), NULL, frame));
    memset(long_reason, 'x', sizeof long_reason);
    memcpy(long_reason + 122, "\xc3\xa4", 2); // is cut in two
    len = moon_websocket_close_write(1000, (struct moon_slice){long_reason, 200}, NULL, frame);
    assert_int_equal(2 + 2 + 122, len);

    assert_true(moon_websocket_close_parse(MOON_SLICE(""), &code, &reason));
    assert_int_equal(MOON_WEBSOCKET_NO_CODE, code);
    assert_true(moon_websocket_close_parse(MOON_SLICE("\x0b\xb8why"), &code, &reason));
    assert_true(code == 3000 && reason.len == 3);
    assert_false(moon_websocket_close_parse(MOON_SLICE("\x03"), &code, &reason));
    assert_false(moon_websocket_close_parse(MOON_SLICE("\x03\xe8\xff"), &code, &reason));
    static const unsigned good[] = {1000, 1003, 1007, 1014, 3000, 4999},
                          bad[] = {0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65535};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(moon_websocket_code_is_valid(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(moon_websocket_code_is_valid(bad[i]));
}

static void test_text(void **state)
{
    static const struct moon_slice good[] = {
        RAW(""),
        RAW("plain text that is long enough"),
        RAW("\0"),
        RAW("\xc2\x80\xdf\xbf"),
        RAW("\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf"),
        RAW("\xf0\x90\x80\x80\xf4\x8f\xbf\xbf"),
        RAW("12345678\xce\xba\xe1\xbd\xb9")};
    static const struct moon_slice bad[] = {RAW("\x80"),
                                            RAW("\xc0\x80"),
                                            RAW("\xc1\xbf"),
                                            RAW("\xe0\x9f\xbf"),
                                            RAW("\xed\xa0\x80"),
                                            RAW("\xf0\x8f\xbf\xbf"),
                                            RAW("\xf4\x90\x80\x80"),
                                            RAW("\xf5\x80\x80\x80"),
                                            RAW("\xff"),
                                            RAW("12345678\xc2"),
                                            RAW("\xe1\xbd"),
                                            RAW("\xf1\x80\x80"),
                                            RAW("\xc2\x41"),
                                            RAW("1234567\xfe"
                                                "8")};
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(moon_websocket_text_is_valid(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(moon_websocket_text_is_valid(bad[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frames),
        cmocka_unit_test(test_heads_written),
        cmocka_unit_test(test_mask_at_any_offset),
        cmocka_unit_test(test_close),
        cmocka_unit_test(test_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
