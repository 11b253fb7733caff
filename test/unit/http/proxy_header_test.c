// PROXY headers: what is read and what is refused, byte by byte, and what is written.
#include "fixture.h"

#include "base/err.h"
#include "base/network.h"
#include "http/proxy_header.h"

#include <string.h>

#define V2 "\r\n\r\n\0\r\nQUIT\n"
#define BLOCK4 "\xc0\x00\x02\x01\xc6\x33\x64\x02\xdc\x04\x01\xbb"
#define BYTES(literal) ((struct moon_slice){(literal), sizeof(literal) - 1})

static void check_text(const struct moon_address *address, const char *want)
{
    char text[MOON_ADDRESS_TEXT_LEN];
    moon_address_format(address, text);
    assert_string_equal(text, want);
}

static void version_1(void **state)
{
    (void)state;
    struct moon_proxy_header header;
    struct moon_slice in = BYTES("PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\nGET /");
    assert_int_equal(moon_proxy_header_read(in, &header), in.len - 5);
    assert_int_equal(header.version, MOON_PROXY_V1);
    assert_false(header.is_local);
    check_text(&header.source, "192.0.2.1:56324");
    check_text(&header.destination, "198.51.100.2:443");
    in = BYTES("PROXY TCP6 2001:db8::1 ::1 0 65535\r\n");
    assert_int_equal(moon_proxy_header_read(in, &header), in.len);
    check_text(&header.source, "[2001:db8::1]:0");
    in = BYTES("PROXY UNKNOWN whatever this is\r\n");
    assert_int_equal(moon_proxy_header_read(in, &header), in.len);
    assert_true(header.is_local);
    assert_int_equal(header.source.family, MOON_FAMILY_NONE);
}

static void version_2(void **state)
{
    (void)state;
    struct moon_proxy_header header;
    struct moon_slice in = BYTES(V2 "\x21\x11\x00\x11" BLOCK4 "\x01\x00\x02h2GET /"), value;
    uint8_t type;
    assert_int_equal(moon_proxy_header_read(in, &header), in.len - 5);
    assert_int_equal(header.version, MOON_PROXY_V2);
    check_text(&header.source, "192.0.2.1:56324");
    check_text(&header.destination, "198.51.100.2:443");
    assert_true(moon_proxy_tlv_next(&header.tlvs, &type, &value));
    assert_int_equal(type, 1);
    assert_true(moon_slice_equal(value, MOON_SLICE("h2")));
    assert_false(moon_proxy_tlv_next(&header.tlvs, &type, &value));
    in = BYTES(V2 "\x20\x11\x00\x0c" BLOCK4);
    assert_int_equal(moon_proxy_header_read(in, &header), in.len);
    assert_true(header.is_local);
    assert_int_equal(header.source.family, MOON_FAMILY_NONE);
    in = BYTES(V2 "\x20\xff\x00\x02xx"); // of LOCAL nothing else is looked at
    assert_int_equal(moon_proxy_header_read(in, &header), in.len);
    in = BYTES(V2 "\x21\x00\x00\x00");
    assert_int_equal(moon_proxy_header_read(in, &header), in.len);
    assert_true(header.is_local);
}

static void checksums(void **state)
{
    (void)state;
    struct moon_proxy_header header;
    char good[] = V2 "\x21\x11\x00\x13" BLOCK4 "\x03\x00\x04\x00\x00\x00\x00";
    struct moon_slice in = BYTES(good);
    assert_int_equal(moon_proxy_header_read(in, &header), MOON_EPROTO);
    memcpy(good + sizeof good - 5, "\x20\xec\x95\x49", 4);
    assert_int_equal(moon_proxy_header_read(in, &header), in.len);
    good[20] ^= 1;
    assert_int_equal(moon_proxy_header_read(in, &header), MOON_EPROTO);
}

static void refused(void **state)
{
    (void)state;
    static const struct moon_slice rows[] = {
        RAW("GET / HTTP/1.1\r\n"),
        RAW("\r\n\r\n\1"),
        RAW("PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\n"),
        RAW("PROXY TCP4  192.0.2.1 198.51.100.2 56324 443\r\n"),
        RAW("PROXY TCP4 192.0.2.1 198.51.100.2 56324 443 \r\n"),
        RAW("PROXY TCP4 192.0.2.1 198.51.100.2 56324\r\n"),
        RAW("PROXY TCP4 192.0.2.1 198.51.100.2 56324 443 1\r\n"),
        RAW("PROXY TCP4 192.0.2.1 198.51.100.2 056324 443\r\n"),
        RAW("PROXY TCP4 192.0.2.1 198.51.100.2 65536 443\r\n"),
        RAW("PROXY TCP4 192.0.2.1 198.51.100.2 -1 443\r\n"),
        RAW("PROXY TCP4 192.0.2.01 198.51.100.2 1 443\r\n"),
        RAW("PROXY TCP4 ::1 ::1 1 443\r\n"),
        RAW("PROXY TCP6 192.0.2.1 198.51.100.2 1 443\r\n"),
        RAW("PROXY TCP4 host.example 198.51.100.2 1 443\r\n"),
        RAW("PROXY UDP4 192.0.2.1 198.51.100.2 1 443\r\n"),
        RAW("PROXY UNKNOWNS\r\n"),
        RAW("proxy TCP4 192.0.2.1 198.51.100.2 56324 443\r\n"),
        RAW("PROXY \r\n"),
        RAW("PROXY\r\n"),
        RAW(V2 "\x11\x11\x00\x0c" BLOCK4),                    // another version
        RAW(V2 "\x22\x11\x00\x0c" BLOCK4),                    // another command
        RAW(V2 "\x21\x41\x00\x0c" BLOCK4),                    // another family
        RAW(V2 "\x21\x13\x00\x0c" BLOCK4),                    // another transport
        RAW(V2 "\x21\x21\x00\x0c" BLOCK4),                    // too short for IPv6
        RAW(V2 "\x21\x11\x00\x0d" BLOCK4 "x"),                // half a TLV
        RAW(V2 "\x21\x11\x00\x10" BLOCK4 "\1\0\2x"),          // a TLV that does not fit
        RAW(V2 "\x21\x11\xff\xff" BLOCK4),                    // too long
        RAW(V2 "\x21\x11\x00\x13" BLOCK4 "\x20\0\4\1\0\0\0"), // TLS without its front
        RAW(V2 "\x21\x11\x00\x17" BLOCK4
               "\x20\0\x08\1\0\0\0\0\x22\0\1"), // a TLV in it that does not fit
    };
    char text[300];
    struct moon_proxy_header header;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_int_equal(moon_proxy_header_read(rows[i], &header), MOON_EPROTO);
    memset(text, 'x', sizeof text);
    memcpy(text, "PROXY UNKNOWN ", 14);
    assert_int_equal(moon_proxy_header_read((struct moon_slice){text, 106}, &header), 0);
    assert_int_equal(moon_proxy_header_read((struct moon_slice){text, 107}, &header), MOON_EPROTO);
}

static void drips(void **state)
{
    (void)state;
    static const struct moon_slice rows[] = {
        RAW("PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n"),
        RAW("PROXY UNKNOWN\r\n"),
        RAW(V2 "\x21\x11\x00\x11" BLOCK4 "\x01\x00\x02h2"),
    };
    struct moon_proxy_header header;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        for (size_t len = 0; len <= rows[i].len; len++)
            assert_int_equal(moon_proxy_header_read((struct moon_slice){rows[i].ptr, len}, &header),
                             len < rows[i].len ? 0 : (ssize_t)len);
}

static void check_written(enum moon_proxy_version version, const char *source, const char *dest,
                          struct moon_slice want)
{
    char text[MOON_PROXY_WRITE_LEN];
    struct moon_address from = {0}, at = {0};
    assert_true(!source || moon_address_parse(moon_slice_from(source), &from));
    assert_true(!dest || moon_address_parse(moon_slice_from(dest), &at));
    size_t len = moon_proxy_header_write(version, from, at, text);
    assert_int_equal(len, want.len);
    assert_memory_equal(text, want.ptr, len);
}

static void written(void **state)
{
    (void)state;
    check_written(MOON_PROXY_V1, "192.0.2.1:56324", "198.51.100.2:443",
                  BYTES("PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n"));
    check_written(MOON_PROXY_V2, "192.0.2.1:56324", "198.51.100.2:443",
                  BYTES(V2 "\x21\x11\x00\x0c" BLOCK4));
    check_written(MOON_PROXY_V1, "[2001:db8::1]:1", "192.0.2.1:2",
                  BYTES("PROXY TCP6 2001:db8::1 ::ffff:192.0.2.1 1 2\r\n"));
    check_written(MOON_PROXY_V1, NULL, NULL, BYTES("PROXY UNKNOWN\r\n"));
    check_written(MOON_PROXY_V1, "192.0.2.1:1", NULL, BYTES("PROXY UNKNOWN\r\n"));
    check_written(MOON_PROXY_V2, NULL, NULL, BYTES(V2 "\x20\x00\x00\x00"));
}

static void added(void **state)
{
    (void)state;
    char text[400], id[MOON_PROXY_ID_MAX_LEN + 1] = {0};
    struct moon_proxy_header header;
    struct moon_proxy_tls tls = {.is_tls = true, .has_certificate = true, .is_verified = true};
    struct moon_slice value;
    struct moon_address from, at;
    assert_true(moon_address_parse(MOON_SLICE("192.0.2.1:56324"), &from));
    assert_true(moon_address_parse(MOON_SLICE("198.51.100.2:443"), &at));
    size_t len = moon_proxy_header_write(MOON_PROXY_V2, from, at, text);
    char inner[64];
    size_t inner_len = moon_proxy_tls_put(inner, &tls);
    inner_len =
        moon_proxy_tlv_put(inner, inner_len, sizeof inner, MOON_PROXY_TLV_TLS_CN, MOON_SLICE("me"));
    len = moon_proxy_header_add(text, len, sizeof text, MOON_PROXY_TLV_TLS,
                                (struct moon_slice){inner, inner_len});
    struct moon_slice want = BYTES(V2 "\x21\x11\x00\x19" BLOCK4 "\x20\0\x0a\7\0\0\0\0\x22\0\2me");
    assert_int_equal(len, want.len);
    assert_memory_equal(text, want.ptr, len);
    len = moon_proxy_header_seal(text, len, sizeof text);
    assert_int_equal(moon_proxy_header_read((struct moon_slice){text, len}, &header), len);
    assert_true(moon_proxy_tlv_find(header.tlvs, MOON_PROXY_TLV_TLS, &value));
    assert_true(moon_proxy_tls_read(value, &tls));
    assert_true(tls.is_tls && tls.has_certificate && tls.is_verified && !tls.is_resumed);
    assert_true(moon_proxy_tlv_find(tls.tlvs, MOON_PROXY_TLV_TLS_CN, &value));
    assert_true(moon_slice_equal(value, MOON_SLICE("me")));
    assert_false(moon_proxy_tlv_find(header.tlvs, MOON_PROXY_TLV_ALPN, &value));
    text[40] ^= 1; // the seal is looked at
    assert_int_equal(moon_proxy_header_read((struct moon_slice){text, len}, &header), MOON_EPROTO);
    text[40] ^= 1;
    // what does not fit is left out, to the byte
    assert_int_equal(moon_proxy_header_add(text, len, len + 6, 0xe0, MOON_SLICE("full")), len);
    assert_int_equal(moon_proxy_header_add(text, len, len + 7, 0xe0, MOON_SLICE("full")), len + 7);
    // an id has its bound
    struct moon_slice long_id = {id, sizeof id};
    len = moon_proxy_header_write(MOON_PROXY_V2, from, at, text);
    assert_int_equal(moon_proxy_header_add(text, len, sizeof text, MOON_PROXY_TLV_ID, long_id),
                     len + 132);
    assert_int_equal(moon_proxy_header_read((struct moon_slice){text, len + 132}, &header),
                     MOON_EPROTO);
    long_id.len--;
    len = moon_proxy_header_add(text, len, sizeof text, MOON_PROXY_TLV_ID, long_id);
    assert_int_equal(moon_proxy_header_read((struct moon_slice){text, len}, &header), len);
}

static void networks(void **state)
{
    (void)state;
    static const struct {
        const char *network, *address;
        bool has;
    } rows[] = {
        {"10.0.0.0/8", "10.255.1.2", true},
        {"10.0.0.0/8", "11.0.0.0", false},
        {"0.0.0.0/0", "203.0.113.9", true},
        {"0.0.0.0/0", "::1", false},
        {"10.1.2.3", "10.1.2.3", true},
        {"10.1.2.3", "10.1.2.4", false},
        {"10.0.0.128/25", "10.0.0.200", true},
        {"10.0.0.128/25", "10.0.0.127", false},
        {"10.0.0.0/8", "::ffff:10.1.1.1", true},
        {"2001:db8::/33", "2001:db8:7fff::1", true},
        {"2001:db8::/33", "2001:db8:8000::", false},
        {"::/0", "::1", true},
    };
    static const char *const bad[] = {
        "",       "10.0.0.0/33", "10.0.0.1/8",  "10.0.0.0/",   "host/8",
        "::/129", "10/8",        "10.0.0.0/-1", "10.0.0.0/8 ", "unix"};
    struct moon_network network;
    struct moon_address address = {0};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_true(moon_network_parse(moon_slice_from(rows[i].network), &network));
        assert_true(moon_address_parse_ip(moon_slice_from(rows[i].address), 1, &address));
        assert_int_equal(moon_network_has(&network, &address), rows[i].has);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(moon_network_parse(moon_slice_from(bad[i]), &network));
    assert_true(moon_network_parse(MOON_SLICE("unix:"), &network));
    assert_false(moon_network_has(&network, &address));
    assert_true(moon_network_has(&network, &(struct moon_address){0}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(version_1), cmocka_unit_test(version_2), cmocka_unit_test(checksums),
        cmocka_unit_test(refused),   cmocka_unit_test(drips),     cmocka_unit_test(written),
        cmocka_unit_test(added),     cmocka_unit_test(networks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
