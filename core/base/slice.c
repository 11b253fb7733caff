// The slice operations that are too long to inline: folding, trimming, numbers, comma-separated
// lists. All of them work on wire data: any byte may occur, nothing is NUL-terminated, no locale is
// consulted.
#include "base/slice.h"

static unsigned char fold(char c)
{
    return c >= 'A' && c <= 'Z' ? (unsigned char)(c | 0x20) : (unsigned char)c;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

bool moon_slice_equal_fold(struct moon_slice a, struct moon_slice b)
{
    if (a.len != b.len)
        return false;
    for (size_t i = 0; i < a.len; i++) {
        if (a.ptr[i] != b.ptr[i] && fold(a.ptr[i]) != fold(b.ptr[i]))
            return false;
    }
    return true;
}

struct moon_slice moon_slice_trim(struct moon_slice s)
{
    while (s.len > 0 && is_blank(s.ptr[0])) {
        s.ptr++;
        s.len--;
    }
    while (s.len > 0 && is_blank(s.ptr[s.len - 1]))
        s.len--;
    return s;
}

bool moon_slice_to_u64(struct moon_slice s, uint64_t *out)
{
    if (s.len == 0)
        return false;
    uint64_t value = 0;
    for (size_t i = 0; i < s.len; i++) {
        unsigned digit = (unsigned)(unsigned char)s.ptr[i] - '0';
        if (digit > 9)
            return false;
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, digit, &value))
            return false;
    }
    *out = value;
    return true;
}

struct moon_slice moon_slice_from_u64(uint64_t value, char digits[static MOON_U64_DIGITS])
{
    size_t at = MOON_U64_DIGITS;
    do {
        digits[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    return (struct moon_slice){digits + at, MOON_U64_DIGITS - at};
}

// A value that ends in a comma has one more, empty element: the rest is then empty but not NULL.
// NULL means exhausted.
bool moon_slice_next_item(struct moon_slice *rest, struct moon_slice *item)
{
    if (rest->ptr == NULL)
        return false;
    const char *comma = rest->len ? memchr(rest->ptr, ',', rest->len) : NULL;
    if (comma == NULL) {
        *item = moon_slice_trim(*rest);
        *rest = (struct moon_slice){NULL, 0};
        return true;
    }
    size_t len = (size_t)(comma - rest->ptr);
    *item = moon_slice_trim((struct moon_slice){rest->ptr, len});
    *rest = moon_slice_skip(*rest, len + 1);
    return true;
}
