// PROXY headers: a header that is accepted is accepted at its last byte and not before, lies within the bound, and its
// addresses, written again in either version, read the same, and so do its TLVs, sealed or not.
#include "fuzz.h"

#include "base/err.h"
#include "http/proxy_header.h"

#include <string.h>

static void check_again(const struct moon_proxy_header *header)
{
    char text[MOON_PROXY_WRITE_LEN];
    struct moon_proxy_header again;
    for (enum moon_proxy_version version = MOON_PROXY_V1; version <= MOON_PROXY_V2; version++) {
        size_t len = moon_proxy_header_write(version, header->source, header->destination, text);
        HOLDS(len > 0 && len < MOON_PROXY_WRITE_LEN);
        struct moon_slice in = {text, len};
        HOLDS(moon_proxy_header_read(in, &again) == (ssize_t)len);
        HOLDS(again.version == version && again.tlvs.len == 0);
        HOLDS(again.is_local == (header->source.family == MOON_FAMILY_NONE));
        HOLDS(moon_address_equal(&again.source, &header->source));
        HOLDS(moon_address_equal(&again.destination, &header->destination));
    }
}

static bool holds(struct moon_slice whole, struct moon_slice part)
{
    return part.ptr >= whole.ptr && part.ptr + part.len <= whole.ptr + whole.len;
}

// A TLS value is whole, and is found again at the place of the first of its type.
static void check_tlv(const struct moon_proxy_header *header, uint8_t type, struct moon_slice value)
{
    struct moon_proxy_tls tls;
    struct moon_slice first, inner;
    uint8_t inner_type;
    HOLDS(moon_proxy_tlv_find(header->tlvs, type, &first));
    HOLDS(first.ptr <= value.ptr);
    HOLDS(type != MOON_PROXY_TLV_ID || value.len <= MOON_PROXY_ID_MAX_LEN);
    if (type != MOON_PROXY_TLV_TLS)
        return;
    HOLDS(moon_proxy_tls_read(value, &tls));
    HOLDS(!tls.is_verified || tls.has_certificate);
    while (moon_proxy_tlv_next(&tls.tlvs, &inner_type, &inner))
        HOLDS(holds(value, inner));
    HOLDS(tls.tlvs.len == 0);
}

// The TLVs behind a header of our own, but for checksums, which are of the old one.
static void check_added(const struct moon_proxy_header *header)
{
    char text[2 * MOON_PROXY_READ_MAX_LEN];
    struct moon_proxy_header again;
    struct moon_slice rest = header->tlvs, kept, value;
    uint8_t type;
    size_t len = moon_proxy_header_write(MOON_PROXY_V2, header->source, header->destination, text),
           front = len;
    while (moon_proxy_tlv_next(&rest, &type, &value))
        if (type != MOON_PROXY_TLV_CRC32C)
            len = moon_proxy_header_add(text, len, MOON_PROXY_READ_MAX_LEN - 7, type, value);
    kept = (struct moon_slice){text + front, len - front};
    len = moon_proxy_header_seal(text, len, MOON_PROXY_READ_MAX_LEN);
    HOLDS(moon_proxy_header_read((struct moon_slice){text, len}, &again) == (ssize_t)len);
    HOLDS(again.tlvs.len == kept.len + 7);
    HOLDS(memcmp(again.tlvs.ptr, kept.ptr, kept.len) == 0);
    text[front - 1] ^= 1; // of a port
    HOLDS(moon_proxy_header_read((struct moon_slice){text, len}, &again) == MOON_EPROTO);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct moon_slice in = {(const char *)bytes, len}, value;
    struct moon_proxy_header header, part;
    uint8_t type;
    ssize_t n = moon_proxy_header_read(in, &header);
    HOLDS(n == MOON_EPROTO || (n >= 0 && n <= (ssize_t)len));
    if (n == 0)
        HOLDS(len < MOON_PROXY_READ_MAX_LEN);
    if (n <= 0)
        return 0;
    HOLDS(n <= MOON_PROXY_READ_MAX_LEN);
    for (size_t i = 0; i < (size_t)n; i += 1 + (size_t)n / 64)
        HOLDS(moon_proxy_header_read((struct moon_slice){in.ptr, i}, &part) == 0);
    struct moon_slice rest = header.tlvs;
    while (moon_proxy_tlv_next(&rest, &type, &value)) {
        HOLDS(holds((struct moon_slice){in.ptr, (size_t)n}, value));
        check_tlv(&header, type, value);
    }
    HOLDS(rest.len == 0);
    check_again(&header);
    if (header.source.family != MOON_FAMILY_NONE)
        check_added(&header);
    return 0;
}
