// ClientHellos: what is read of them, however they are cut, and what is refused; and protocols told apart by their first bytes.
#include "fixture.h"

#include "base/err.h"
#include "http/client_hello.h"
#include "http/first_bytes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct text {
    char bytes[65536];
    size_t len;
};

static void put(struct text *to, const void *bytes, size_t len)
{
    memcpy(to->bytes + to->len, bytes, len);
    to->len += len;
}

#define PUT(to, literal) put((to), (literal), sizeof(literal) - 1)

static void put_number(struct text *to, size_t value, unsigned len)
{
    while (len--)
        to->bytes[to->len++] = (char)(value >> 8 * len);
}

static void put_extension(struct text *to, unsigned type, const void *bytes, size_t len)
{
    put_number(to, type, 2);
    put_number(to, len, 2);
    put(to, bytes, len);
}

static void put_sni(struct text *to, const char *name)
{
    struct text value = {.len = 0};
    size_t len = strlen(name);
    put_number(&value, len + 3, 2);
    put_number(&value, 0, 1);
    put_number(&value, len, 2);
    put(&value, name, len);
    put_extension(to, 0, value.bytes, value.len);
}

// A message with these extensions; NULL: without any.
static void message(struct text *to, const struct text *extensions)
{
    struct text body = {.len = 0};
    PUT(&body, "\x03\x03");
    for (int i = 0; i < 32; i++)
        put_number(&body, (size_t)i, 1);
    PUT(&body, "\x00");                     // session
    PUT(&body, "\x00\x04\x13\x01\x3a\x3a"); // ciphers, one of them grease
    PUT(&body, "\x01\x00");
    if (extensions) {
        put_number(&body, extensions->len, 2);
        put(&body, extensions->bytes, extensions->len);
    }
    put_number(to, 1, 1);
    put_number(to, body.len, 3);
    put(to, body.bytes, body.len);
}

// In records of so many bytes.
static void records(struct text *to, const struct text *message, size_t record_len)
{
    for (size_t at = 0; at < message->len; at += record_len) {
        size_t len = message->len - at < record_len ? message->len - at : record_len;
        PUT(to, "\x16\x03\x01");
        put_number(to, len, 2);
        put(to, message->bytes + at, len);
    }
}

static int read_copy(const struct text *in, size_t len, struct text *scratch,
                     struct moon_client_hello *out)
{
    memcpy(scratch->bytes, in->bytes, len);
    return moon_client_hello_read(scratch->bytes, len, out);
}

static void check_text(struct moon_slice got, const char *want)
{
    assert_int_equal(got.len, strlen(want));
    assert_memory_equal(got.ptr, want, got.len);
}

static void usual(struct text *extensions)
{
    put_extension(extensions, 0x1a1a, "", 0); // grease
    put_sni(extensions, "DB.Example.org.");
    put_extension(extensions, 16, "\x00\x0f\x02\x3a\x3a\x02h2\x08http/1.1", 17);
    put_extension(extensions, 43, "\x06\x2a\x2a\x03\x04\x03\x03", 7);
    put_extension(extensions, 0xffee, "whatever", 8);
}

static void reads_it_however_it_is_cut(void **state)
{
    (void)state;
    static struct text extensions, hello, wire, scratch;
    static const size_t cuts[] = {16384, 100, 3, 1};
    usual(&extensions);
    message(&hello, &extensions);
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        struct moon_client_hello out;
        wire.len = 0;
        records(&wire, &hello, cuts[i]);
        for (size_t len = 0; len < wire.len; len++)
            assert_int_equal(read_copy(&wire, len, &scratch, &out), 0);
        PUT(&wire, "early data, or whatever follows");
        assert_int_equal(read_copy(&wire, wire.len, &scratch, &out), 1);
        check_text(out.sni, "db.example.org");
        assert_int_equal(out.version, 0x0304);
        struct moon_slice protocol;
        assert_true(moon_alpn_next(&out.alpn, &protocol));
        check_text(protocol, "h2");
        assert_true(moon_alpn_next(&out.alpn, &protocol));
        check_text(protocol, "http/1.1");
        assert_false(moon_alpn_next(&out.alpn, &protocol));
    }
}

static void needs_no_name_and_no_extensions(void **state)
{
    (void)state;
    static struct text hello, other, none, wire, scratch;
    struct moon_client_hello out;
    message(&hello, NULL);
    records(&wire, &hello, 16384);
    assert_int_equal(read_copy(&wire, wire.len, &scratch, &out), 1);
    assert_int_equal(out.sni.len, 0);
    assert_int_equal(out.alpn.len, 0);
    assert_int_equal(out.version, 0x0303);
    wire.len = 0;
    message(&other, &none);
    records(&wire, &other, 16384);
    assert_int_equal(read_copy(&wire, wire.len, &scratch, &out), 1);
    assert_int_equal(out.sni.len, 0);
}

// One with a single extension; what reading it says.
static int with_extension(unsigned type, const void *bytes, size_t len)
{
    static struct text extensions, hello, wire, scratch;
    struct moon_client_hello out;
    extensions.len = hello.len = wire.len = 0;
    put_extension(&extensions, type, bytes, len);
    message(&hello, &extensions);
    records(&wire, &hello, 16384);
    return read_copy(&wire, wire.len, &scratch, &out);
}

static void refuses_what_is_malformed(void **state)
{
    (void)state;
    static struct text extensions, hello, wire, scratch;
    struct moon_client_hello out;
    assert_int_equal(with_extension(0,
                                    "\x00\x04\x00\x00\x01"
                                    "a",
                                    6),
                     1);
    assert_int_equal(with_extension(0, "", 0), MOON_EPROTO);
    assert_int_equal(with_extension(0, "\x00\x03\x00\x00\x00", 5), MOON_EPROTO); // an empty name
    assert_int_equal(with_extension(0, "\x00\x04\x00\x00\x01.", 6),
                     MOON_EPROTO); // nothing but a dot
    assert_int_equal(with_extension(0,
                                    "\x00\x04\x01\x00\x01"
                                    "a",
                                    6),
                     MOON_EPROTO); // another type of name
    assert_int_equal(with_extension(0,
                                    "\x00\x04\x00\x00\x02"
                                    "a",
                                    6),
                     MOON_EPROTO); // beyond the list
    assert_int_equal(with_extension(0,
                                    "\x00\x05\x00\x00\x02"
                                    "a\0",
                                    7),
                     MOON_EPROTO); // a NUL in it
    assert_int_equal(with_extension(0,
                                    "\x00\x04\x00\x00\x01"
                                    "ab",
                                    7),
                     MOON_EPROTO); // bytes behind it
    assert_int_equal(with_extension(16, "\x00\x00", 2), MOON_EPROTO);
    assert_int_equal(with_extension(16, "\x00\x01\x00", 3), MOON_EPROTO);
    assert_int_equal(with_extension(16, "\x00\x02\x02h", 4), MOON_EPROTO);
    assert_int_equal(with_extension(43, "\x01\x03", 2), MOON_EPROTO);
    put_sni(&extensions, "a.example");
    put_sni(&extensions, "b.example");
    message(&hello, &extensions);
    records(&wire, &hello, 16384);
    assert_int_equal(read_copy(&wire, wire.len, &scratch, &out), MOON_EPROTO); // two names
    wire.bytes[0] = 0x15;                                                      // an alert
    assert_int_equal(read_copy(&wire, wire.len, &scratch, &out), MOON_EPROTO);
    wire.bytes[0] = 0x16;
    wire.bytes[5] = 2; // a ServerHello
    assert_int_equal(read_copy(&wire, wire.len, &scratch, &out), MOON_EPROTO);
    assert_int_equal(moon_client_hello_read(memcpy(scratch.bytes, "\x16\x03\x01\0\0", 5), 5, &out),
                     MOON_EPROTO); // an empty record
    assert_int_equal(moon_client_hello_read(memcpy(scratch.bytes, "\x16\x02", 2), 2, &out),
                     MOON_EPROTO);
}

// Names of 255 bytes are read, longer ones refused.
static void bounds_names(void **state)
{
    (void)state;
    char value[300] = {0};
    for (size_t len = 255; len <= 256; len++) {
        value[0] = (char)((len + 3) >> 8), value[1] = (char)(len + 3);
        value[3] = (char)(len >> 8), value[4] = (char)len;
        memset(value + 5, 'a', len);
        assert_int_equal(with_extension(0, value, len + 5), len == 255 ? 1 : MOON_EPROTO);
    }
}

static void refuses_what_is_too_long(void **state)
{
    (void)state;
    static struct text extensions, hello, wire, scratch;
    static char padding[20000];
    struct moon_client_hello out;
    put_sni(&extensions, "a.example");
    put_extension(&extensions, 21, padding, 16384 - 43 - 2 - 18 - 4); // to the last byte
    message(&hello, &extensions);
    assert_int_equal(hello.len, 16384 + 4);
    records(&wire, &hello, 8000);
    assert_int_equal(read_copy(&wire, wire.len, &scratch, &out), 1);
    check_text(out.sni, "a.example");
    wire.len = 0; // so many records that they do not fit the peek
    records(&wire, &hello, 4);
    assert_true(wire.len > MOON_HELLO_PEEK_LEN);
    assert_int_equal(read_copy(&wire, MOON_HELLO_PEEK_LEN - 1, &scratch, &out), 0);
    assert_int_equal(read_copy(&wire, MOON_HELLO_PEEK_LEN, &scratch, &out), MOON_ELIMIT);
    put_extension(&extensions, 21, padding, 1);
    hello.len = wire.len = 0;
    message(&hello, &extensions);
    records(&wire, &hello, 16384);
    assert_int_equal(read_copy(&wire, 9, &scratch, &out), MOON_ELIMIT); // said at once
}

static void tells_protocols_apart(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t len;
        enum moon_first want;
    } rows[] = {
#define ROW(literal, want) {literal, sizeof(literal) - 1, want}
        ROW("", MOON_FIRST_MORE),
        ROW("\x16", MOON_FIRST_MORE),
        ROW("\x16\x03", MOON_FIRST_MORE),
        ROW("\x16\x03\x01", MOON_FIRST_TLS),
        ROW("\x16\x03\x05", MOON_FIRST_OPAQUE),
        ROW("\x16\x04", MOON_FIRST_OPAQUE),
        ROW("G", MOON_FIRST_MORE),
        ROW("GET", MOON_FIRST_MORE),
        ROW("GET ", MOON_FIRST_HTTP1),
        ROW("PROPFIND /", MOON_FIRST_HTTP1),
        ROW("M-SEARCH *", MOON_FIRST_HTTP1),
        ROW("P", MOON_FIRST_MORE),
        ROW("PRI * HTTP/2.0\r\n\r\nSM\r\n\r", MOON_FIRST_MORE),
        ROW("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", MOON_FIRST_H2),
        ROW("PRI * HTTP/2.0\r\n\r\nXX", MOON_FIRST_OPAQUE),
        ROW("POST ", MOON_FIRST_HTTP1),
        ROW("HELO x", MOON_FIRST_OPAQUE),
        ROW("get /", MOON_FIRST_OPAQUE),
        ROW("*1\r\n", MOON_FIRST_OPAQUE),
        ROW(" GET", MOON_FIRST_OPAQUE),
        ROW("SSH-2.0", MOON_FIRST_OPAQUE),
        ROW("ABCDEFGHIJKLMNO", MOON_FIRST_MORE),
        ROW("ABCDEFGHIJKLMNOP", MOON_FIRST_OPAQUE),
        ROW("\0", MOON_FIRST_OPAQUE),
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct moon_slice bytes = {rows[i].bytes, rows[i].len};
        if (moon_first_bytes(bytes) != rows[i].want)
            fail_msg("row %zu", i);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_it_however_it_is_cut),
        cmocka_unit_test(needs_no_name_and_no_extensions),
        cmocka_unit_test(refuses_what_is_malformed),
        cmocka_unit_test(bounds_names),
        cmocka_unit_test(refuses_what_is_too_long),
        cmocka_unit_test(tells_protocols_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
