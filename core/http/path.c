// One canonical path per resource (RFC 3986 6.2.2): what is routed, judged and forwarded.
// Unreserved characters are decoded, other escapes get upper-case digits, what may not stand raw in
// a URI is escaped, then dot segments are resolved; `//` stays. What backends read in two ways is
// refused: %00, overlong UTF-8, dot segments with parameters, broken escapes.
#include "http/target.h"

#include "base/arena.h"
#include "http/chars.h"

// Canonical as it stands: no escape, nothing to escape, no segment that begins with a dot.
static bool is_plain(struct moon_slice path)
{
    char before = 0;
    for (size_t i = 0; i < path.len; i++) {
        char c = path.ptr[i];
        if (!moon_char_is(c, MOON_CHAR_PATH) || (c == '.' && before == '/'))
            return false;
        before = c;
    }
    return true;
}

// The byte that the escape at `s` stands for; -1 when it is none.
static int escape_value(struct moon_slice s)
{
    if (s.len < 3 || s.ptr[0] != '%' || !moon_char_is(s.ptr[1], MOON_CHAR_HEX) ||
        !moon_char_is(s.ptr[2], MOON_CHAR_HEX))
        return -1;
    return (int)(moon_char_hex(s.ptr[1]) << 4 | moon_char_hex(s.ptr[2]));
}

// Lead bytes that encode in more bytes than needed: loose decoders read '/' or '.' out of them.
static bool is_overlong(int lead, struct moon_slice rest)
{
    int next = escape_value(rest);
    if (next < 0x80 || next > 0xbf)
        return false;
    return lead == 0xc0 || lead == 0xc1 || (lead == 0xe0 && next < 0xa0) ||
           (lead == 0xf0 && next < 0x90);
}

static char *put_escape(char *to, unsigned byte)
{
    static const char digits[] = "0123456789ABCDEF";
    *to++ = '%';
    *to++ = digits[byte >> 4];
    *to++ = digits[byte & 15];
    return to;
}

// '/' or '\' that came escaped, and '\' that came raw. NULL: refused.
static char *put_slash(char *to, unsigned byte, enum moon_escaped_slash slash, const char **reason)
{
    switch (slash) {
    case MOON_SLASH_KEEP:
        return put_escape(to, byte);
    case MOON_SLASH_DECODE:
        *to++ = '/';
        return to;
    case MOON_SLASH_REJECT:
        break;
    }
    *reason = byte == '/' ? "escaped slash in the path" : "backslash in the path";
    return NULL;
}

static char *put_escaped(char *to, struct moon_slice rest, enum moon_escaped_slash slash,
                         const char **reason)
{
    int byte = escape_value(rest);
    if (byte <= 0) {
        *reason = byte == 0 ? "NUL in the path" : "broken escape in the path";
        return NULL;
    }
    if (byte == '/' || byte == '\\')
        return put_slash(to, (unsigned)byte, slash, reason);
    if (is_overlong(byte, moon_slice_skip(rest, 3))) {
        *reason = "overlong UTF-8 in the path";
        return NULL;
    }
    if (!moon_char_is((char)byte, MOON_CHAR_UNRESERVED))
        return put_escape(to, (unsigned)byte);
    *to++ = (char)byte;
    return to;
}

static char *put_raw(char *to, char c, enum moon_escaped_slash slash, const char **reason)
{
    if (moon_char_is(c, MOON_CHAR_PATH)) {
        *to++ = c;
        return to;
    }
    if (c == '\\')
        return put_slash(to, '\\', slash, reason);
    if (moon_char_is(c, MOON_CHAR_TARGET) && c != '?')
        return put_escape(to, (uint8_t)c);
    *reason = "forbidden byte in the path";
    return NULL;
}

// Decoded and escaped into `to` (room for 3 bytes each); the end, or NULL.
static char *recode(struct moon_slice path, enum moon_escaped_slash slash, char *to,
                    const char **reason)
{
    for (size_t i = 0; i < path.len && to;) {
        if (path.ptr[i] == '%') {
            to = put_escaped(to, moon_slice_skip(path, i), slash, reason);
            i += 3;
        } else {
            to = put_raw(to, path.ptr[i], slash, reason);
            i++;
        }
    }
    return to;
}

// 1 for ".", 2 for "..", with or without parameters; else 0.
static size_t dot_count(struct moon_slice segment)
{
    size_t dots = 0;
    while (dots < segment.len && segment.ptr[dots] == '.')
        dots++;
    bool ends = dots == segment.len || segment.ptr[dots] == ';';
    return ends && dots <= 2 ? dots : 0;
}

// Removes dot segments in place (RFC 3986 5.2.4); the new length, or 0 when a dot segment carries
// parameters.
static size_t resolve_dots(char *path, size_t len)
{
    size_t to = 0;
    for (size_t at = 0; at < len;) {
        const char *slash = memchr(path + at + 1, '/', len - at - 1);
        size_t end = slash ? (size_t)(slash - path) : len;
        struct moon_slice segment = {path + at + 1, end - at - 1};
        size_t dots = dot_count(segment);
        if (dots && dots != segment.len)
            return 0;
        if (dots == 0) {
            memmove(path + to, path + at, end - at);
            to += end - at;
        }
        while (dots == 2 && to > 0 && path[--to] != '/')
            continue;
        if (dots && end == len)
            path[to++] = '/';
        at = end;
    }
    return to;
}

struct moon_slice moon_path_normalise(struct moon_arena *arena, struct moon_slice path,
                                      enum moon_escaped_slash slash, const char **reason)
{
    const struct moon_slice refused = {NULL, 0};
    if (path.len == 0 || path.ptr[0] != '/') {
        *reason = "path without a leading slash";
        return refused;
    }
    if (is_plain(path))
        return path;
    char *copy = moon_arena_try_bytes(arena, path.len * 3);
    if (!copy) {
        *reason = "path too long";
        return refused;
    }
    char *end = recode(path, slash, copy, reason);
    if (!end)
        return refused;
    size_t len = resolve_dots(copy, (size_t)(end - copy));
    if (len == 0) {
        *reason = "dot segment with parameters in the path";
        return refused;
    }
    struct moon_slice canonical = {copy, len};
    return moon_slice_equal(canonical, path) ? path : canonical;
}
