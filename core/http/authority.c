// host [":" port] as it stands in Host and in the absolute form (RFC 3986 3.2.2, RFC 9110 7.2), in
// the strict reading: a reg-name holds letters, digits and "-._~" only, ports are canonical
// decimals. Pure; slices point into the input.
#include "http/target.h"

#include "http/chars.h"

enum { HOST_MAX_LEN = 255, PORT_MAX_LEN = 5 };

// No empty label, except that the name may end in one dot.
static bool is_name(struct moon_slice host)
{
    if (host.len == 0 || host.len > HOST_MAX_LEN || host.ptr[0] == '.')
        return false;
    for (size_t i = 0; i < host.len; i++) {
        if (!moon_char_is(host.ptr[i], MOON_CHAR_HOST))
            return false;
        if (host.ptr[i] == '.' && host.ptr[i - 1] == '.')
            return false;
    }
    return true;
}

static bool is_octet(struct moon_slice s)
{
    unsigned value = 0;
    if (s.len == 0 || s.len > 3 || (s.len > 1 && s.ptr[0] == '0'))
        return false;
    for (size_t i = 0; i < s.len; i++) {
        if (!moon_char_is_digit(s.ptr[i]))
            return false;
        value = value * 10 + (unsigned)(s.ptr[i] - '0');
    }
    return value <= 255;
}

static bool is_ipv4(struct moon_slice s)
{
    for (int part = 0; part < 3; part++) {
        const char *dot = s.len ? memchr(s.ptr, '.', s.len) : NULL;
        if (!dot || !is_octet((struct moon_slice){s.ptr, (size_t)(dot - s.ptr)}))
            return false;
        s = moon_slice_skip(s, (size_t)(dot - s.ptr) + 1);
    }
    return is_octet(s);
}

static size_t hex_run(struct moon_slice s)
{
    size_t len = 0;
    while (len < s.len && len < 5 && moon_char_is(s.ptr[len], MOON_CHAR_HEX))
        len++;
    return len;
}

// IPv6address of RFC 3986, without brackets: eight groups, or fewer and one "::"; the last two may
// be an IPv4 address.
static bool is_ipv6(struct moon_slice s)
{
    int groups = 0;
    bool has_gap = moon_slice_starts(s, MOON_SLICE("::"));
    if (has_gap)
        s = moon_slice_skip(s, 2);
    while (s.len > 0) {
        size_t len = hex_run(s);
        if (len == 0 || len > 4)
            return false;
        if (len < s.len && s.ptr[len] == '.')
            return is_ipv4(s) && (has_gap ? groups <= 5 : groups == 6);
        groups++;
        s = moon_slice_skip(s, len);
        if (s.len == 0)
            break;
        if (moon_slice_starts(s, MOON_SLICE("::"))) {
            if (has_gap)
                return false;
            has_gap = true;
            s = moon_slice_skip(s, 2);
            continue;
        }
        if (s.ptr[0] != ':' || s.len == 1)
            return false;
        s = moon_slice_skip(s, 1);
    }
    return has_gap ? groups <= 7 : groups == 8;
}

static bool parse_port(struct moon_slice text, uint16_t *port)
{
    unsigned value = 0;
    if (text.len == 0 || text.len > PORT_MAX_LEN || text.ptr[0] == '0')
        return false;
    for (size_t i = 0; i < text.len; i++) {
        if (!moon_char_is_digit(text.ptr[i]))
            return false;
        value = value * 10 + (unsigned)(text.ptr[i] - '0');
    }
    if (value > UINT16_MAX)
        return false;
    *port = (uint16_t)value;
    return true;
}

// Length of the host part, brackets included.
static size_t host_len(struct moon_slice text)
{
    bool is_bracketed = text.len > 0 && text.ptr[0] == '[';
    const char *end = text.len ? memchr(text.ptr, is_bracketed ? ']' : ':', text.len) : NULL;
    if (!end)
        return text.len;
    return (size_t)(end - text.ptr) + (is_bracketed ? 1 : 0);
}

static bool is_host(struct moon_slice host)
{
    if (host.len == 0 || host.ptr[0] != '[')
        return is_name(host);
    if (host.len < 4 || host.ptr[host.len - 1] != ']')
        return false;
    return is_ipv6((struct moon_slice){host.ptr + 1, host.len - 2});
}

bool moon_authority_parse(struct moon_slice text, struct moon_authority *out)
{
    size_t len = host_len(text);
    struct moon_slice host = {text.ptr, len};
    uint16_t port = 0;
    if (!is_host(host))
        return false;
    if (len < text.len &&
        (text.ptr[len] != ':' || !parse_port(moon_slice_skip(text, len + 1), &port)))
        return false;
    *out = (struct moon_authority){host, port};
    return true;
}
