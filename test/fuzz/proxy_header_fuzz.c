// PROXY headers: a header that is accepted is accepted at its last byte and not before, lies within the bound, and its
// addresses, written again in either version, read the same.
#include "fuzz.h"

#include "base/err.h"
#include "http/proxy_header.h"

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
    while (moon_proxy_tlv_next(&rest, &type, &value))
        HOLDS(value.ptr >= in.ptr && value.ptr + value.len <= in.ptr + n);
    HOLDS(rest.len == 0);
    check_again(&header);
    return 0;
}
