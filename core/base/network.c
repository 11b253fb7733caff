// See network.h.
#include "base/network.h"

#include <string.h>

enum { IPV4_BITS = 32, IPV6_BITS = 128 };

// Whether both begin with the same bits.
static bool has_prefix(const uint8_t *a, const uint8_t *b, unsigned bits)
{
    unsigned whole = bits / 8, rest = bits % 8;
    if (memcmp(a, b, whole) != 0)
        return false;
    return rest == 0 || ((a[whole] ^ b[whole]) >> (8 - rest)) == 0;
}

static bool is_clean(const struct moon_network *network, unsigned bits)
{
    for (unsigned bit = network->prefix_len; bit < bits; bit++)
        if (network->address.ip[bit / 8] & (0x80u >> (bit % 8)))
            return false;
    return true;
}

bool moon_network_parse(struct moon_slice text, struct moon_network *out)
{
    const char *slash = text.len ? memchr(text.ptr, '/', text.len) : NULL;
    struct moon_slice ip = {text.ptr, slash ? (size_t)(slash - text.ptr) : text.len};
    uint64_t prefix_len;
    *out = (struct moon_network){0};
    if (moon_slice_equal(text, MOON_SLICE("unix:")))
        return true;
    if (!moon_address_parse_ip(ip, 0, &out->address))
        return false;
    unsigned bits = out->address.family == MOON_FAMILY_IPV4 ? IPV4_BITS : IPV6_BITS;
    out->prefix_len = (uint8_t)bits;
    if (!slash)
        return true;
    struct moon_slice number = moon_slice_skip(text, ip.len + 1);
    if (number.len > 3 || !moon_slice_to_u64(number, &prefix_len) || prefix_len > bits)
        return false;
    out->prefix_len = (uint8_t)prefix_len;
    return is_clean(out, bits);
}

bool moon_network_has(const struct moon_network *network, const struct moon_address *address)
{
    struct moon_address own = *address;
    moon_address_unmap(&own);
    return own.family == network->address.family &&
           has_prefix(own.ip, network->address.ip, network->prefix_len);
}
