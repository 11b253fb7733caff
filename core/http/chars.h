// Byte classes of RFC 9110, 9112 and 3986; private to this room.
#pragma once

#include "base/slice.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum moon_char {
    MOON_CHAR_TOKEN = 1,       // tchar of RFC 9110 5.6.2
    MOON_CHAR_VALUE = 2,       // field-vchar, SP, HTAB, obs-text
    MOON_CHAR_PATH = 4,        // pchar without '%', and '/'
    MOON_CHAR_TARGET = 8,      // visible ASCII but '#'
    MOON_CHAR_UNRESERVED = 16, // RFC 3986 2.3
    MOON_CHAR_HOST = 32,       // what a reg-name may hold here
    MOON_CHAR_HEX = 64,
};

extern const uint8_t moon_chars[256];

static inline bool moon_char_is(char c, enum moon_char class)
{
    return (moon_chars[(uint8_t)c] & class) != 0;
}

static inline bool moon_char_is_digit(char c)
{
    return c >= '0' && c <= '9';
}

// The value of a hex digit; only for bytes of MOON_CHAR_HEX.
static inline unsigned moon_char_hex(char c)
{
    return c <= '9' ? (unsigned)(c - '0') : (unsigned)((c | 0x20) - 'a' + 10);
}

// Where the first byte below 0x20 (HTAB, CR and LF included) or 0x7f stands; len when there is
// none.
size_t moon_chars_find_control(const char *p, size_t len);
// Every byte of s is of that class; true for an empty s.
bool moon_chars_all(struct moon_slice s, enum moon_char class);
