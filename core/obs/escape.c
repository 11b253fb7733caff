// Escaping: plain runs are copied eight bytes at a time, the rest one character at a time.
#include "obs/escape.h"

#include <stdint.h>
#include <string.h>

// What one unplain character becomes.
struct piece {
    char text[12];
    uint8_t len;  // of text; 0: the character stands for itself
    uint8_t took; // bytes of the source
};

typedef void replace_fn(struct moon_slice at, struct piece *piece);

static bool is_plain(unsigned char c)
{
    return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
}

static bool are_plain(uint64_t eight)
{
    const uint64_t ones = UINT64_MAX / 255, high = ones * 0x80;
    uint64_t found = eight | (eight - ones * 0x20) | ((eight ^ ones * '"') - ones) |
                     ((eight ^ ones * '\\') - ones) | ((eight ^ ones * 0x7f) - ones);
    return (found & high) == 0;
}

// Length of the UTF-8 character at the start (RFC 3629: no overlong form, no surrogate, at most U+10FFFF); 0: none is there.
static unsigned utf8_len(struct moon_slice s)
{
    const unsigned char *p = (const unsigned char *)s.ptr;
    unsigned len = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    if (len == 0 || p[0] > 0xf4 || len > s.len)
        return 0;
    for (unsigned i = 1; i < len; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
        (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return len;
}

// U+0080 to U+009F: controls, too, to a terminal.
static bool is_c1(struct moon_slice s)
{
    return (unsigned char)s.ptr[0] == 0xc2 && (unsigned char)s.ptr[1] < 0xa0;
}

static size_t escape(struct moon_slice from, char *to, size_t cap, replace_fn *replace)
{
    size_t used = 0, at = 0;
    while (at < from.len) {
        uint64_t eight;
        while (from.len - at >= 8 && cap - used >= 8) {
            memcpy(&eight, from.ptr + at, 8);
            if (!are_plain(eight))
                break;
            memcpy(to + used, &eight, 8);
            used += 8;
            at += 8;
        }
        if (at == from.len || used == cap)
            break;
        if (is_plain((unsigned char)from.ptr[at])) {
            to[used++] = from.ptr[at++];
            continue;
        }
        struct piece piece = {.len = 0};
        replace(moon_slice_skip(from, at), &piece);
        const char *text = piece.len ? piece.text : from.ptr + at;
        size_t len = piece.len ? piece.len : piece.took;
        if (cap - used < len)
            break;
        memcpy(to + used, text, len);
        used += len;
        at += piece.took;
    }
    return used;
}

static char digit(unsigned value)
{
    return "0123456789abcdef"[value & 15];
}

static void hex_put(struct piece *piece, const char *prefix, unsigned char byte)
{
    size_t len = strlen(prefix);
    memcpy(piece->text, prefix, len);
    piece->text[len] = digit(byte >> 4);
    piece->text[len + 1] = digit(byte);
    piece->len = (uint8_t)(len + 2);
}

static void literal_put(struct piece *piece, const char *text)
{
    piece->len = (uint8_t)strlen(text);
    memcpy(piece->text, text, piece->len);
}

static void json_replace(struct moon_slice at, struct piece *piece)
{
    unsigned char c = (unsigned char)at.ptr[0];
    unsigned len = utf8_len(at);
    piece->took = (uint8_t)(len ? len : 1);
    if (c == '"' || c == '\\')
        literal_put(piece, c == '"' ? "\\\"" : "\\\\");
    else if (c < 0x20 || c == 0x7f)
        hex_put(piece, "\\u00", c);
    else if (len == 0)
        literal_put(piece, "\\ufffd");
    else if (is_c1(at))
        hex_put(piece, "\\u00", (unsigned char)at.ptr[1]);
}

static void text_replace(struct moon_slice at, struct piece *piece)
{
    unsigned len = utf8_len(at);
    if (len > 1 && !is_c1(at)) {
        piece->took = (uint8_t)len;
        return;
    }
    piece->took = 1; // the second byte of a C1 control is no character by itself
    hex_put(piece, "\\x", (unsigned char)at.ptr[0]);
}

static void label_replace(struct moon_slice at, struct piece *piece)
{
    unsigned char c = (unsigned char)at.ptr[0];
    unsigned len = utf8_len(at);
    piece->took = (uint8_t)(len ? len : 1);
    if (c == '"' || c == '\\')
        literal_put(piece, c == '"' ? "\\\"" : "\\\\");
    else if (c == '\n')
        literal_put(piece, "\\n");
    else if (len == 0)
        literal_put(piece, "\xef\xbf\xbd");
}

size_t moon_escape_json(struct moon_slice from, char *to, size_t cap)
{
    return escape(from, to, cap, json_replace);
}

size_t moon_escape_text(struct moon_slice from, char *to, size_t cap)
{
    return escape(from, to, cap, text_replace);
}

size_t moon_escape_label(struct moon_slice from, char *to, size_t cap)
{
    return escape(from, to, cap, label_replace);
}
