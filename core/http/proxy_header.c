// See proxy_header.h. Strict: what version 1 leaves to the reader (more spaces, leading zeros, lower case) is refused.
#include "http/proxy_header.h"

#include "base/err.h"

#include <stdio.h>
#include <string.h>

enum {
    V1_MAX_LEN = 107, // with its line end
    V2_HEAD_LEN = 16,
    TLV_HEAD_LEN = 3,
    TLS_HEAD_LEN = 5,
    SUM_LEN = 4,
    // of a client, in MOON_PROXY_TLV_TLS; IN_SESSION: its certificate, at least once
    IS_TLS = 1,
    ON_CONNECTION = 2,
    IN_SESSION = 4,
    IPV4_BLOCK_LEN = 12,
    IPV6_BLOCK_LEN = 36,
    UNIX_BLOCK_LEN = 216,
};

static const char signature[12] = {0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d,
                                   0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a};

// ---- version 1

// Takes the next word off the line; words have exactly one space between them.
static bool next_word(struct moon_slice *rest, struct moon_slice *word)
{
    const char *space = rest->len ? memchr(rest->ptr, ' ', rest->len) : NULL;
    *word = (struct moon_slice){rest->ptr, space ? (size_t)(space - rest->ptr) : rest->len};
    *rest = moon_slice_skip(*rest, word->len + (space ? 1 : 0));
    return word->len > 0;
}

static bool read_port(struct moon_slice text, uint16_t *out)
{
    uint64_t port;
    bool is_padded = text.len > 1 && text.ptr[0] == '0';
    if (is_padded || text.len > 5 || !moon_slice_to_u64(text, &port) || port > UINT16_MAX)
        return false;
    *out = (uint16_t)port;
    return true;
}

static bool read_words(struct moon_slice rest, struct moon_proxy_header *out)
{
    struct moon_slice words[5];
    for (int i = 0; i < 5; i++)
        if (!next_word(&rest, &words[i]))
            return false;
    bool is_ipv4 = moon_slice_equal(words[0], MOON_SLICE("TCP4"));
    uint8_t family = is_ipv4 ? MOON_FAMILY_IPV4 : MOON_FAMILY_IPV6;
    if (rest.len || (!is_ipv4 && !moon_slice_equal(words[0], MOON_SLICE("TCP6"))))
        return false;
    if (words[4].ptr[words[4].len] != '\r') // a space at the end
        return false;
    return moon_address_parse_ip(words[1], 0, &out->source) &&
           moon_address_parse_ip(words[2], 0, &out->destination) && out->source.family == family &&
           out->destination.family == family && read_port(words[3], &out->source.port) &&
           read_port(words[4], &out->destination.port);
}

static ssize_t read_v1(struct moon_slice in, struct moon_proxy_header *out)
{
    static const struct moon_slice start = MOON_SLICE("PROXY "), unknown = MOON_SLICE("UNKNOWN");
    struct moon_slice seen = {in.ptr, in.len < start.len ? in.len : start.len};
    if (!moon_slice_starts(start, seen))
        return MOON_EPROTO;
    size_t bound = in.len < V1_MAX_LEN ? in.len : V1_MAX_LEN;
    const char *end = memchr(in.ptr, '\n', bound);
    if (!end)
        return in.len >= V1_MAX_LEN ? MOON_EPROTO : 0;
    size_t len = (size_t)(end - in.ptr) + 1;
    if (len < start.len + 2 || end[-1] != '\r')
        return MOON_EPROTO;
    struct moon_slice rest = {in.ptr + start.len, len - start.len - 2};
    out->version = MOON_PROXY_V1;
    if (moon_slice_starts(rest, unknown)) {
        out->is_local = true;
        return rest.len == unknown.len || rest.ptr[unknown.len] == ' ' ? (ssize_t)len : MOON_EPROTO;
    }
    return read_words(rest, out) ? (ssize_t)len : MOON_EPROTO;
}

// ---- version 2

static unsigned u16_at(const char *at)
{
    return (unsigned)(uint8_t)at[0] << 8 | (uint8_t)at[1];
}

static uint32_t crc32c(uint32_t sum, const char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        sum ^= (uint8_t)bytes[i];
        for (int bit = 0; bit < 8; bit++)
            sum = sum >> 1 ^ (0x82f63b78u & (0u - (sum & 1)));
    }
    return sum;
}

// Over the whole header, with zeros in the place of the checksum, which lies at `before`.
static uint32_t sum_of(struct moon_slice header, size_t before)
{
    static const char zeros[SUM_LEN] = {0};
    size_t behind = before + SUM_LEN;
    uint32_t sum = crc32c(UINT32_MAX, header.ptr, before);
    sum = crc32c(sum, zeros, sizeof zeros);
    return ~crc32c(sum, header.ptr + behind, header.len - behind);
}

static bool is_checked(struct moon_slice header, struct moon_slice value)
{
    return value.len == SUM_LEN && sum_of(header, (size_t)(value.ptr - header.ptr)) ==
                                       ((uint32_t)u16_at(value.ptr) << 16 | u16_at(value.ptr + 2));
}

bool moon_proxy_tlv_next(struct moon_slice *rest, uint8_t *type, struct moon_slice *value)
{
    if (rest->len < TLV_HEAD_LEN)
        return false;
    size_t len = u16_at(rest->ptr + 1);
    if (len > rest->len - TLV_HEAD_LEN)
        return false;
    *type = (uint8_t)rest->ptr[0];
    *value = (struct moon_slice){rest->ptr + TLV_HEAD_LEN, len};
    *rest = moon_slice_skip(*rest, TLV_HEAD_LEN + len);
    return true;
}

bool moon_proxy_tlv_find(struct moon_slice tlvs, uint8_t type, struct moon_slice *value)
{
    uint8_t found;
    while (moon_proxy_tlv_next(&tlvs, &found, value))
        if (found == type)
            return true;
    return false;
}

bool moon_proxy_tls_read(struct moon_slice value, struct moon_proxy_tls *out)
{
    if (value.len < TLS_HEAD_LEN)
        return false;
    uint8_t client = (uint8_t)value.ptr[0];
    bool is_zero = u16_at(value.ptr + 1) == 0 && u16_at(value.ptr + 3) == 0;
    out->is_tls = client & IS_TLS;
    out->has_certificate = client & (ON_CONNECTION | IN_SESSION);
    out->is_resumed = out->has_certificate && !(client & ON_CONNECTION);
    out->is_verified = out->has_certificate && is_zero;
    out->tlvs = moon_slice_skip(value, TLS_HEAD_LEN);
    return true;
}

static bool is_whole(struct moon_slice rest)
{
    struct moon_slice value;
    uint8_t type;
    while (moon_proxy_tlv_next(&rest, &type, &value))
        ;
    return rest.len == 0;
}

static bool check_tlv(struct moon_slice header, uint8_t type, struct moon_slice value)
{
    struct moon_proxy_tls tls;
    switch (type) {
    case MOON_PROXY_TLV_CRC32C:
        return is_checked(header, value);
    case MOON_PROXY_TLV_ID:
        return value.len <= MOON_PROXY_ID_MAX_LEN;
    case MOON_PROXY_TLV_TLS:
        return moon_proxy_tls_read(value, &tls) && is_whole(tls.tlvs);
    default:
        return true;
    }
}

static bool check_tlvs(struct moon_slice header, struct moon_slice rest)
{
    struct moon_slice value;
    uint8_t type;
    while (moon_proxy_tlv_next(&rest, &type, &value))
        if (!check_tlv(header, type, value))
            return false;
    return rest.len == 0;
}

// The length of the addresses, or -1.
static int block_len(unsigned family)
{
    static const int lens[] = {0, IPV4_BLOCK_LEN, IPV6_BLOCK_LEN, UNIX_BLOCK_LEN};
    unsigned address = family >> 4, transport = family & 15;
    return address > 3 || transport > 2 ? -1 : lens[address];
}

static void read_block(const char *at, int len, struct moon_proxy_header *out)
{
    size_t ip_len = len == IPV4_BLOCK_LEN ? 4 : 16;
    if (len != IPV4_BLOCK_LEN && len != IPV6_BLOCK_LEN)
        return;
    out->source.family = out->destination.family =
        len == IPV4_BLOCK_LEN ? MOON_FAMILY_IPV4 : MOON_FAMILY_IPV6;
    memcpy(out->source.ip, at, ip_len);
    memcpy(out->destination.ip, at + ip_len, ip_len);
    out->source.port = (uint16_t)u16_at(at + 2 * ip_len);
    out->destination.port = (uint16_t)u16_at(at + 2 * ip_len + 2);
}

static ssize_t read_v2(struct moon_slice in, struct moon_proxy_header *out)
{
    size_t seen = in.len < sizeof signature ? in.len : sizeof signature;
    if (memcmp(in.ptr, signature, seen) != 0)
        return MOON_EPROTO;
    if (in.len < V2_HEAD_LEN)
        return 0;
    unsigned version = (uint8_t)in.ptr[12] >> 4, command = (uint8_t)in.ptr[12] & 15;
    size_t len = u16_at(in.ptr + 14);
    int block = block_len((uint8_t)in.ptr[13]);
    if (version != 2 || command > 1 || V2_HEAD_LEN + len > MOON_PROXY_READ_MAX_LEN)
        return MOON_EPROTO;
    if (command == 1 && (block < 0 || len < (size_t)block))
        return MOON_EPROTO;
    if (in.len < V2_HEAD_LEN + len)
        return 0;
    out->version = MOON_PROXY_V2;
    out->is_local = command == 0 || block == 0;
    if (command == 0) // the rest is to be ignored
        return (ssize_t)V2_HEAD_LEN + (ssize_t)len;
    struct moon_slice header = {in.ptr, V2_HEAD_LEN + len};
    read_block(in.ptr + V2_HEAD_LEN, block, out);
    out->tlvs = moon_slice_skip(header, V2_HEAD_LEN + (size_t)block);
    return check_tlvs(header, out->tlvs) ? (ssize_t)header.len : MOON_EPROTO;
}

ssize_t moon_proxy_header_read(struct moon_slice in, struct moon_proxy_header *out)
{
    *out = (struct moon_proxy_header){0};
    if (in.len == 0)
        return 0;
    return in.ptr[0] == signature[0] ? read_v2(in, out) : read_v1(in, out);
}

// ---- writing

static size_t write_v1(const struct moon_address *source, const struct moon_address *destination,
                       char *to)
{
    char from[MOON_ADDRESS_TEXT_LEN], at[MOON_ADDRESS_TEXT_LEN];
    static const struct moon_slice unknown = MOON_SLICE("PROXY UNKNOWN\r\n");
    if (source->family == MOON_FAMILY_NONE) {
        memcpy(to, unknown.ptr, unknown.len);
        return unknown.len;
    }
    moon_address_format_ip(source, from);
    moon_address_format_ip(destination, at);
    return (size_t)snprintf(to, MOON_PROXY_WRITE_LEN, "PROXY TCP%c %s %s %u %u\r\n",
                            source->family == MOON_FAMILY_IPV4 ? '4' : '6', from, at, source->port,
                            destination->port);
}

static void put_u16(char *to, unsigned value)
{
    to[0] = (char)(value >> 8);
    to[1] = (char)value;
}

static size_t write_v2(const struct moon_address *source, const struct moon_address *destination,
                       char *to)
{
    bool is_known = source->family != MOON_FAMILY_NONE,
         is_ipv4 = source->family == MOON_FAMILY_IPV4;
    size_t ip_len = is_ipv4 ? 4 : 16, len = is_known ? 2 * ip_len + 4 : 0;
    memcpy(to, signature, sizeof signature);
    to[12] = is_known ? 0x21 : 0x20;
    to[13] = is_known ? (is_ipv4 ? 0x11 : 0x21) : 0;
    put_u16(to + 14, (unsigned)len);
    if (!is_known)
        return V2_HEAD_LEN;
    memcpy(to + V2_HEAD_LEN, source->ip, ip_len);
    memcpy(to + V2_HEAD_LEN + ip_len, destination->ip, ip_len);
    put_u16(to + V2_HEAD_LEN + 2 * ip_len, source->port);
    put_u16(to + V2_HEAD_LEN + 2 * ip_len + 2, destination->port);
    return V2_HEAD_LEN + len;
}

size_t moon_proxy_header_write(enum moon_proxy_version version, struct moon_address source,
                               struct moon_address destination, char *to)
{
    if (destination.family == MOON_FAMILY_NONE) // half of it can't be said
        source.family = MOON_FAMILY_NONE;
    if (source.family != destination.family && source.family != MOON_FAMILY_NONE) {
        moon_address_map(&source);
        moon_address_map(&destination);
    }
    switch (version) {
    case MOON_PROXY_NONE:
        return 0;
    case MOON_PROXY_V1:
        return write_v1(&source, &destination, to);
    case MOON_PROXY_V2:
        return write_v2(&source, &destination, to);
    }
    return 0;
}

// ---- writing TLVs

size_t moon_proxy_tlv_put(char *to, size_t len, size_t room, uint8_t type, struct moon_slice value)
{
    if (value.len > UINT16_MAX || room - len < TLV_HEAD_LEN + value.len)
        return len;
    to[len] = (char)type;
    put_u16(to + len + 1, (unsigned)value.len);
    if (value.len)
        memcpy(to + len + TLV_HEAD_LEN, value.ptr, value.len);
    return len + TLV_HEAD_LEN + value.len;
}

size_t moon_proxy_tls_put(char *to, const struct moon_proxy_tls *tls)
{
    int shown = tls->is_resumed ? IN_SESSION : IN_SESSION | ON_CONNECTION;
    to[0] = (char)((tls->is_tls ? IS_TLS : 0) | (tls->has_certificate ? shown : 0));
    memset(to + 1, 0, TLS_HEAD_LEN - 1);
    to[TLS_HEAD_LEN - 1] = tls->is_verified ? 0 : 1; // X509_V_ERR_UNSPECIFIED
    return TLS_HEAD_LEN;
}

size_t moon_proxy_header_add(char *to, size_t len, size_t room, uint8_t type,
                             struct moon_slice value)
{
    len = moon_proxy_tlv_put(to, len, room, type, value);
    put_u16(to + 14, (unsigned)(len - V2_HEAD_LEN));
    return len;
}

size_t moon_proxy_header_seal(char *to, size_t len, size_t room)
{
    size_t sealed =
        moon_proxy_header_add(to, len, room, MOON_PROXY_TLV_CRC32C, MOON_SLICE("\0\0\0\0"));
    if (sealed == len)
        return len;
    uint32_t sum = sum_of((struct moon_slice){to, sealed}, sealed - SUM_LEN);
    put_u16(to + sealed - 4, sum >> 16);
    put_u16(to + sealed - 2, sum & UINT16_MAX);
    return sealed;
}
