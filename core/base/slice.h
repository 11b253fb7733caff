// A borrowed run of bytes. A slice never owns; it is not NUL-terminated and may hold any byte.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct moon_slice {
    const char *ptr;
    size_t len;
};

// A slice of a string literal.
#define MOON_SLICE(literal) ((struct moon_slice){(literal), sizeof(literal) - 1})
// printf("%.*s") arguments of a slice.
#define MOON_SLICE_ARG(s) (int)(s).len, (s).ptr

// A copy with a NUL behind it, malloc'd; NULL without memory. strndup may look for a NUL behind it.
static inline char *moon_slice_dup(struct moon_slice s)
{
    char *out = malloc(s.len + 1);
    if (!out)
        return NULL;
    if (s.len)
        memcpy(out, s.ptr, s.len);
    out[s.len] = '\0';
    return out;
}

static inline struct moon_slice moon_slice_from(const char *text)
{
    return (struct moon_slice){text, text ? strlen(text) : 0};
}

static inline bool moon_slice_equal(struct moon_slice a, struct moon_slice b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

static inline bool moon_slice_starts(struct moon_slice s, struct moon_slice prefix)
{
    return s.len >= prefix.len && (prefix.len == 0 || memcmp(s.ptr, prefix.ptr, prefix.len) == 0);
}

static inline struct moon_slice moon_slice_skip(struct moon_slice s, size_t len)
{
    return (struct moon_slice){s.ptr + len, s.len - len};
}

// Equal but for the case of ASCII letters.
bool moon_slice_equal_fold(struct moon_slice a, struct moon_slice b);
// Without leading and trailing SP and HTAB (RFC 9110 OWS).
struct moon_slice moon_slice_trim(struct moon_slice s);
// 1*DIGIT, nothing else, no overflow; false leaves *out alone.
bool moon_slice_to_u64(struct moon_slice s, uint64_t *out);
enum { MOON_U64_DIGITS = 20 };
// The number in decimal; the slice lies in `digits`.
struct moon_slice moon_slice_from_u64(uint64_t value, char digits[static MOON_U64_DIGITS]);
// Takes the next element of a comma-separated list (RFC 9110 5.6.1) off *rest, trimmed. Empty elements are given too.
// False when *rest was exhausted; start with the whole value. Quoted strings are not understood.
bool moon_slice_next_item(struct moon_slice *rest, struct moon_slice *item);
