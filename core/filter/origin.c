// Origins: parsed by the same strict rules as Host, so that nothing matches that a browser would not send.
#include "filter/origin.h"

#include "http/target.h"

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

// Takes scheme "://" off *text (RFC 3986 3.1).
static bool take_scheme(struct moon_slice *text, struct moon_slice *scheme)
{
    size_t len = 0;
    for (; len < text->len; len++) {
        char c = text->ptr[len];
        bool is_other = (c >= '0' && c <= '9') || c == '+' || c == '-' || c == '.';
        if (!is_letter(c) && (len == 0 || !is_other))
            break;
    }
    *scheme = (struct moon_slice){text->ptr, len};
    *text = moon_slice_skip(*text, len);
    if (len == 0 || !moon_slice_starts(*text, MOON_SLICE("://")))
        return false;
    *text = moon_slice_skip(*text, 3);
    return true;
}

static uint16_t default_port(struct moon_slice scheme)
{
    if (moon_slice_equal_fold(scheme, MOON_SLICE("https")))
        return 443;
    return moon_slice_equal_fold(scheme, MOON_SLICE("http")) ? 80 : 0;
}

static bool parse_rest(struct moon_slice text, struct moon_origin *out)
{
    struct moon_authority authority;
    if (!moon_authority_parse(text, &authority))
        return false;
    out->host = authority.host;
    out->port = authority.port ? authority.port : default_port(out->scheme);
    return true;
}

bool moon_origin_parse(struct moon_slice text, struct moon_origin *out)
{
    *out = (struct moon_origin){.is_wildcard = false};
    return take_scheme(&text, &out->scheme) && parse_rest(text, out);
}

// "*", "*:8080", "*.example.com", "*.example.com:8080". A name stands in for the star, so that what follows is judged whole.
static bool parse_wildcard(struct moon_slice text, struct moon_origin *out)
{
    struct moon_authority any;
    out->is_wildcard = true;
    if (text.len > 2 && text.ptr[1] == '.') {
        if (!parse_rest(moon_slice_skip(text, 2), out) || out->host.ptr[0] == '[')
            return false;
        out->host = (struct moon_slice){out->host.ptr - 1, out->host.len + 1};
        return true;
    }
    out->host = (struct moon_slice){text.ptr, 0};
    out->port = default_port(out->scheme);
    if (text.len == 1)
        return true;
    char digits[8] = "x";
    if (text.ptr[1] != ':' || text.len >= sizeof digits)
        return false;
    memcpy(digits + 1, text.ptr + 1, text.len - 1);
    if (!moon_authority_parse((struct moon_slice){digits, text.len}, &any) || !any.port)
        return false;
    out->port = any.port;
    return true;
}

bool moon_origin_parse_pattern(struct moon_slice text, struct moon_origin *out)
{
    *out = (struct moon_origin){.is_wildcard = false};
    if (!take_scheme(&text, &out->scheme))
        return false;
    return text.len && text.ptr[0] == '*' ? parse_wildcard(text, out) : parse_rest(text, out);
}

bool moon_origin_matches(const struct moon_origin *pattern, const struct moon_origin *origin)
{
    struct moon_slice host = origin->host;
    if (pattern->port != origin->port || !moon_slice_equal_fold(pattern->scheme, origin->scheme))
        return false;
    if (!pattern->is_wildcard)
        return moon_slice_equal_fold(pattern->host, host);
    if (pattern->host.len && host.len <= pattern->host.len)
        return false;
    host = moon_slice_skip(host, host.len - pattern->host.len);
    return moon_slice_equal_fold(pattern->host, host);
}
