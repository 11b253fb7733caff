// Parsing and printing of transport addresses. inet_pton and inet_ntop do IPv6; no call here
// resolves a name. Invariant: an address that was parsed has zeros in every byte it does not use.
#include "base/address.h"

#include <arpa/inet.h>
#include <string.h>

enum { PORT_MAX_LEN = 5, PORT_MAX = 65535 };

// Strict: four decimal numbers without leading zeros, or any RFC 4291 form without zone.
static bool parse_literal(struct moon_slice text, enum moon_family family, uint16_t port,
                          struct moon_address *out)
{
    char copy[INET6_ADDRSTRLEN];
    if (text.len == 0 || text.len >= sizeof(copy) || memchr(text.ptr, '\0', text.len))
        return false;
    memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    struct moon_address parsed;
    memset(&parsed, 0, sizeof(parsed));
    if (inet_pton(family == MOON_FAMILY_IPV4 ? AF_INET : AF_INET6, copy, parsed.ip) != 1)
        return false;
    parsed.family = (uint8_t)family;
    parsed.port = port;
    *out = parsed;
    return true;
}

static bool parse_port(struct moon_slice text, uint16_t *out)
{
    uint64_t port;
    if (text.len > PORT_MAX_LEN || !moon_slice_to_u64(text, &port) || port > PORT_MAX)
        return false;
    *out = (uint16_t)port;
    return true;
}

static size_t write_decimal(char *out, unsigned value)
{
    char digits[MOON_U64_DIGITS];
    struct moon_slice text = moon_slice_from_u64(value, digits);
    memcpy(out, text.ptr, text.len);
    return text.len;
}

bool moon_address_parse(struct moon_slice text, struct moon_address *out)
{
    bool bracketed = text.len > 0 && text.ptr[0] == '[';
    if (bracketed)
        text = moon_slice_skip(text, 1);
    const char *end = text.len ? memchr(text.ptr, bracketed ? ']' : ':', text.len) : NULL;
    if (!end)
        return false;
    struct moon_slice ip = {text.ptr, (size_t)(end - text.ptr)};
    struct moon_slice rest = moon_slice_skip(text, ip.len + bracketed);
    uint16_t port;
    if (rest.len == 0 || rest.ptr[0] != ':' || !parse_port(moon_slice_skip(rest, 1), &port))
        return false;
    return parse_literal(ip, bracketed ? MOON_FAMILY_IPV6 : MOON_FAMILY_IPV4, port, out);
}

bool moon_address_parse_ip(struct moon_slice text, uint16_t port, struct moon_address *out)
{
    bool is_ipv6 = text.len > 0 && memchr(text.ptr, ':', text.len);
    return parse_literal(text, is_ipv6 ? MOON_FAMILY_IPV6 : MOON_FAMILY_IPV4, port, out);
}

bool moon_address_equal(const struct moon_address *a, const struct moon_address *b)
{
    if (a->family != b->family || a->port != b->port)
        return false;
    return memcmp(a->ip, b->ip, a->family == MOON_FAMILY_IPV4 ? 4 : sizeof(a->ip)) == 0;
}

uint32_t moon_address_hash(const struct moon_address *a)
{
    uint64_t parts[2], hash = a->port * 0x9e3779b97f4a7c15u;
    memcpy(parts, a->ip, sizeof parts);
    hash = (hash ^ parts[0]) * 0xbf58476d1ce4e5b9u;
    hash = (hash ^ (hash >> 29) ^ parts[1]) * 0x94d049bb133111ebu;
    return (uint32_t)(hash >> 32);
}

static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

// An IPv4 client of a dual-stack socket shows as ::ffff:a.b.c.d, and counts as what it is.
bool moon_address_is_loopback(const struct moon_address *a)
{
    static const uint8_t loopback[16] = {[15] = 1};
    if (a->family == MOON_FAMILY_IPV4)
        return a->ip[0] == 127;
    if (a->family != MOON_FAMILY_IPV6)
        return false;
    if (memcmp(a->ip, mapped, sizeof(mapped)) == 0)
        return a->ip[12] == 127;
    return memcmp(a->ip, loopback, sizeof(loopback)) == 0;
}

void moon_address_unmap(struct moon_address *a)
{
    if (a->family != MOON_FAMILY_IPV6 || memcmp(a->ip, mapped, sizeof(mapped)) != 0)
        return;
    memmove(a->ip, a->ip + sizeof(mapped), 4);
    memset(a->ip + 4, 0, sizeof(mapped));
    a->family = MOON_FAMILY_IPV4;
}

void moon_address_map(struct moon_address *a)
{
    if (a->family != MOON_FAMILY_IPV4)
        return;
    memmove(a->ip + sizeof(mapped), a->ip, 4);
    memcpy(a->ip, mapped, sizeof(mapped));
    a->family = MOON_FAMILY_IPV6;
}

static size_t write_byte(char *to, uint8_t n)
{
    size_t len = 0;
    if (n >= 100)
        to[len++] = (char)('0' + n / 100);
    if (n >= 10)
        to[len++] = (char)('0' + n / 10 % 10);
    to[len++] = (char)('0' + n % 10);
    return len;
}

// IPv4 by hand: it is printed for X-Forwarded-For.
size_t moon_address_format_ip(const struct moon_address *a, char out[MOON_ADDRESS_TEXT_LEN])
{
    size_t len = 0;
    out[0] = '\0';
    if (a->family == MOON_FAMILY_IPV6)
        return inet_ntop(AF_INET6, a->ip, out, INET6_ADDRSTRLEN) ? strlen(out) : 0;
    if (a->family != MOON_FAMILY_IPV4)
        return 0;
    for (int i = 0; i < 4; i++) {
        if (i > 0)
            out[len++] = '.';
        len += write_byte(out + len, a->ip[i]);
    }
    out[len] = '\0';
    return len;
}

size_t moon_address_format(const struct moon_address *a, char out[MOON_ADDRESS_TEXT_LEN])
{
    size_t len = moon_address_format_ip(a, out);
    if (len == 0)
        return 0;
    if (a->family == MOON_FAMILY_IPV6) {
        memmove(out + 1, out, len);
        out[0] = '[';
        out[len + 1] = ']';
        len += 2;
    }
    out[len++] = ':';
    len += write_decimal(out + len, a->port);
    out[len] = '\0';
    return len;
}
