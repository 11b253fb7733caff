// Body framing: what each body gives, in one piece and byte by byte (A15, A16).
#include "fixture.h"

#include "http/body.h"

#include <stdio.h>

// Reads all of `bytes`, `step` at a time, into a text: data, "|T:" trailer lines, then "|END",
// "|BAD" or "|MORE", and how many bytes were left.
static void read_body(struct moon_body_reader *r, struct moon_slice bytes, size_t step, char *text,
                      size_t cap)
{
    size_t at = 0, to = 0;
    enum moon_body_event event = MOON_BODY_MORE;
    struct moon_slice data;
    while (event == MOON_BODY_MORE || event == MOON_BODY_DATA || event == MOON_BODY_TRAILERS) {
        size_t len = bytes.len - at < step ? bytes.len - at : step;
        struct moon_slice in = {bytes.ptr + at, len};
        event = moon_body_next(r, &in, &data);
        at += len - in.len;
        if (event == MOON_BODY_TRAILERS)
            to += (size_t)snprintf(text + to, cap - to, "|T:");
        assert_true(to + data.len < cap);
        if (data.len)
            memcpy(text + to, data.ptr, data.len);
        to += data.len;
        if (event == MOON_BODY_MORE && at == bytes.len)
            break;
    }
    const char *name = event == MOON_BODY_END ? "END" : event == MOON_BODY_BAD ? "BAD" : "MORE";
    snprintf(text + to, cap - to, "|%s", name);
    if (event == MOON_BODY_END && at < bytes.len)
        snprintf(text + strlen(text), cap - strlen(text), "+%zu", bytes.len - at);
}

struct row {
    struct moon_slice bytes;
    const char *expected;
};

static const struct row chunked[] = {
    {RAW("0\r\n\r\n"), "|END"},
    {RAW("5\r\nhello\r\n0\r\n\r\nGET"), "hello|END+3"},
    {RAW("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"), "hello world|END"},
    {RAW("A\r\n0123456789\r\na\r\n0123456789\r\n000\r\n\r\n"), "01234567890123456789|END"},
    {RAW("5;a\r\nhello\r\n0;b=c;d=\"e;\\\"\xff\tf\"\r\n\r\n"), "hello|END"},
    {RAW("0\r\nA: b\r\nC:d\r\n\r\n"), "|T:A: b\r\nC:d\r\n|END"},
    {RAW("3\r\nabc\r\n0\r\nX: \r\n\r\nrest"), "abc|T:X: \r\n|END+4"},
    {RAW("0000000000000005\r\nhello\r\n0\r\n\r\n"), "hello|END"},
    {RAW("5\r\nhel"), "hel|MORE"},
    {RAW("5\r\nhello\r\n"), "hello|MORE"},
    {RAW("0\r\n"), "|MORE"},
    {RAW("0\r\n\r"), "|MORE"},
    {RAW("7fffffffffffffff\r\nx"), "x|MORE"},
    {RAW("\r\n"), "|BAD"},
    {RAW("5\nhello"), "|BAD"},
    {RAW("5\rhello"), "|BAD"},
    {RAW("5\r\nhello\n0\r\n\r\n"), "hello|BAD"},
    {RAW("5\r\nhello\rX"), "hello|BAD"},
    {RAW("5\r\nhelloX\r\n"), "hello|BAD"},
    {RAW("5\r\nhello0\r\n\r\n"), "hello|BAD"},
    {RAW("5;\r\nhello"), "|BAD"},
    {RAW("5 \r\nhello"), "|BAD"},
    {RAW(" 5\r\nhello"), "|BAD"},
    {RAW("5 ;a\r\nhello"), "|BAD"},
    {RAW("5; a\r\nhello"), "|BAD"},
    {RAW("5;a\nhello"), "|BAD"},
    {RAW("5;a\rb\r\nhello"), "|BAD"},
    {RAW("5;a=\r\nhello"), "|BAD"},
    {RAW("5;=b\r\nhello"), "|BAD"},
    {RAW("5;a=\"b\"c\r\nhello"), "|BAD"},
    {RAW("5;a=\"\0\"\r\nhello"), "|BAD"},
    {RAW("5;a=\"\\\0\"\r\nhello"), "|BAD"},
    {RAW("5;a=\"\r\n\"\r\nhello"), "|BAD"},
    {RAW("5;a\x80\r\nhello"), "|BAD"},
    {RAW("5;a=b c\r\nhello"), "|BAD"},
    {RAW("0x5\r\nhello"), "|BAD"},
    {RAW("+5\r\nhello"), "|BAD"},
    {RAW("-5\r\nhello"), "|BAD"},
    {RAW("5_0\r\nhello"), "|BAD"},
    {RAW("g\r\n"), "|BAD"},
    {RAW("8000000000000000\r\n"), "|BAD"},
    {RAW("ffffffffffffffff\r\n"), "|BAD"},
    {RAW("10000000000000005\r\nhello"), "|BAD"},
    {RAW("00000000000000005\r\nhello"), "|BAD"},
    {RAW("0\r\n A: b\r\n\r\n"), "|BAD"},
    {RAW("0\r\n: b\r\n\r\n"), "|BAD"},
    {RAW("0\r\nA: b\n\r\n"), "|BAD"},
    {RAW("0\r\nA: b\rC\r\n"), "|BAD"},
    {RAW("0\r\nA: \0\r\n\r\n"), "|BAD"},
    {RAW("0\r\nA: b\r\n\rX"), "|BAD"},
    {RAW("0\r\n\rX"), "|BAD"},
};

static void check(enum moon_body_kind kind, uint64_t len, const struct row *row)
{
    char text[256];
    for (size_t step = 1; step <= row->bytes.len + 1; step++) {
        struct moon_body_reader r;
        moon_body_init(&r, kind, len);
        read_body(&r, row->bytes, step, text, sizeof text);
        moon_body_fini(&r);
        if (strcmp(text, row->expected) != 0)
            fail_msg("%.*s in steps of %zu: %s, not %s", MOON_SLICE_ARG(row->bytes), step, text,
                     row->expected);
    }
}

static void chunked_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof chunked / sizeof chunked[0]; i++)
        check(MOON_BODY_CHUNKED, 0, &chunked[i]);
}

static void other_kinds(void **state)
{
    (void)state;
    check(MOON_BODY_NONE, 0, &(struct row){RAW("GET"), "|END+3"});
    check(MOON_BODY_NONE, 0, &(struct row){RAW(""), "|END"});
    check(MOON_BODY_LENGTH, 0, &(struct row){RAW("GET"), "|END+3"});
    check(MOON_BODY_LENGTH, 5, &(struct row){RAW("helloGET"), "hello|END+3"});
    check(MOON_BODY_LENGTH, 5, &(struct row){RAW("hell"), "hell|MORE"});
    check(MOON_BODY_CLOSE, 0, &(struct row){RAW("all of it"), "all of it|MORE"});
}

static void end_of_connection(void **state)
{
    (void)state;
    struct moon_body_reader r;
    struct moon_slice in = MOON_SLICE("abc"), data;
    moon_body_init(&r, MOON_BODY_LENGTH, 4);
    assert_int_equal(moon_body_next(&r, &in, &data), MOON_BODY_DATA);
    assert_false(moon_body_eof(&r));
    assert_false(moon_body_is_over(&r));
    moon_body_init(&r, MOON_BODY_CLOSE, 0);
    assert_false(moon_body_is_over(&r));
    assert_true(moon_body_eof(&r));
    assert_true(moon_body_is_over(&r));
    assert_int_equal(moon_body_next(&r, &in, &data), MOON_BODY_END);
    moon_body_init(&r, MOON_BODY_CHUNKED, 0);
    assert_false(moon_body_eof(&r));
    moon_body_init(&r, MOON_BODY_NONE, 0);
    assert_true(moon_body_eof(&r));
}

static void skipping(void **state)
{
    (void)state;
    struct moon_body_reader r;
    struct moon_slice in = MOON_SLICE("ab"), data;
    moon_body_init(&r, MOON_BODY_LENGTH, 10);
    assert_int_equal(moon_body_skippable(&r), 10);
    moon_body_skip(&r, 8);
    assert_int_equal(moon_body_skippable(&r), 2);
    assert_int_equal(moon_body_next(&r, &in, &data), MOON_BODY_DATA);
    assert_slice(data, "ab");
    assert_true(moon_body_is_over(&r));
    assert_int_equal(moon_body_skippable(&r), 0);
    moon_body_init(&r, MOON_BODY_LENGTH, 10);
    moon_body_skip(&r, 10);
    assert_true(moon_body_is_over(&r));
    moon_body_init(&r, MOON_BODY_CLOSE, 0);
    assert_true(moon_body_skippable(&r) == UINT64_MAX);
    moon_body_skip(&r, 1 << 20);
    assert_false(moon_body_is_over(&r));
    moon_body_init(&r, MOON_BODY_CHUNKED, 0);
    assert_int_equal(moon_body_skippable(&r), 0);
}

// `unit` repeated `count` times behind `start`: the event that comes in the end.
static enum moon_body_event read_flood(const char *start, const char *unit, size_t count)
{
    struct moon_body_reader r;
    struct moon_slice in = moon_slice_from(start), data;
    enum moon_body_event event = MOON_BODY_MORE;
    moon_body_init(&r, MOON_BODY_CHUNKED, 0);
    for (size_t i = 0; i <= count && event != MOON_BODY_BAD; i++) {
        while ((event = moon_body_next(&r, &in, &data)) == MOON_BODY_DATA)
            continue;
        in = moon_slice_from(unit);
    }
    moon_body_fini(&r);
    return event;
}

static void bounds(void **state)
{
    (void)state;
    assert_int_equal(read_flood("1;", "a", 4000), MOON_BODY_MORE);
    assert_int_equal(read_flood("1;", "a", 5000), MOON_BODY_BAD);
    assert_int_equal(read_flood("", "1;abcdef\r\nx\r\n", 300), MOON_BODY_MORE);
    assert_int_equal(read_flood("", "1;abcdef\r\nx\r\n", 700), MOON_BODY_BAD);
    assert_int_equal(read_flood("0\r\n", "a", 8000), MOON_BODY_MORE);
    assert_int_equal(read_flood("0\r\n", "a", 8200), MOON_BODY_BAD);
    assert_int_equal(read_flood("0\r\n", "A:b\r\n", 64), MOON_BODY_MORE);
    assert_int_equal(read_flood("0\r\n", "A:b\r\n", 66), MOON_BODY_BAD);
}

static void chunk_heads(void **state)
{
    (void)state;
    char head[MOON_CHUNK_HEAD_LEN];
    assert_slice((struct moon_slice){head, moon_chunk_head_write(1, head)}, "1\r\n");
    assert_slice((struct moon_slice){head, moon_chunk_head_write(0x10, head)}, "10\r\n");
    assert_slice((struct moon_slice){head, moon_chunk_head_write(65535, head)}, "ffff\r\n");
    assert_slice((struct moon_slice){head, moon_chunk_head_write(UINT64_MAX, head)},
                 "ffffffffffffffff\r\n");
}

static void trailers(void **state)
{
    struct fixture *f = *state;
    struct moon_headers h;
    const struct moon_slice lines =
        MOON_SLICE("grpc-status: 0\r\nContent-Length: 5\r\nHost: x\r\nX-Sum:\tabc \r\n"
                   "Authorization: y\r\nConnection: close\r\nContent-Digest: d\r\n"
                   "Transfer-Encoding: chunked\r\nX-Forwarded-For: 1\r\nif-match: 2\r\n");
    assert_int_equal(moon_trailers_parse(f->arena, lines, &h), 0);
    assert_int_equal(h.count, 3);
    assert_slice(h.fields[0].name, "grpc-status");
    assert_slice(h.fields[0].value, "0");
    assert_slice(h.fields[1].value, "abc");
    assert_slice(h.fields[2].name, "Content-Digest");
    assert_int_equal(moon_trailers_parse(f->arena, MOON_SLICE(""), &h), 0);
    assert_int_equal(h.count, 0);
    static const struct moon_slice bad[] = {
        RAW("a\r\n"),          RAW("a b: c\r\n"), RAW(": c\r\n"),     RAW("a : c\r\n"),
        RAW("a: b\r\n c\r\n"), RAW("a: b"),       RAW("a: \x01\r\n"), RAW("\r\n")};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_true(moon_trailers_parse(f->arena, bad[i], &h) < 0);
    struct moon_arena *arena = moon_arena_new(f->pool, 8);
    assert_true(moon_trailers_parse(arena, lines, &h) < 0);
    moon_arena_free(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(chunked_table), TEST(other_kinds), TEST(end_of_connection), TEST(skipping),
        TEST(bounds),        TEST(chunk_heads), TEST(trailers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
