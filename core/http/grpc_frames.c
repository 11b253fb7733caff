// Frames of messages, and what gRPC-Web makes of them: a frame for trailers, base64. See grpc.h.
#include "base/arena.h"
#include "http/grpc.h"
#include "http/headers.h"

#include <string.h>

// ---- frames

static uint32_t read_u32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

bool moon_grpc_frames_walk(struct moon_grpc_frames *frames, struct moon_slice bytes)
{
    while (bytes.len) {
        if (frames->left_len) {
            size_t len = bytes.len < frames->left_len ? bytes.len : frames->left_len;
            frames->left_len -= (uint32_t)len;
            bytes = moon_slice_skip(bytes, len);
            continue;
        }
        frames->head[frames->head_len++] = (uint8_t)bytes.ptr[0];
        bytes = moon_slice_skip(bytes, 1);
        if (frames->head[0] > 1) // compressed or not; nothing else goes from a client to a server
            return false;
        if (frames->head_len < MOON_GRPC_FRAME_HEAD_LEN)
            continue;
        frames->left_len = read_u32(frames->head + 1);
        frames->head_len = 0;
    }
    return true;
}

bool moon_grpc_frames_are_whole(const struct moon_grpc_frames *frames)
{
    return frames->left_len == 0 && frames->head_len == 0;
}

static char *put_lower(char *to, struct moon_slice name)
{
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        *to++ = (char)(c >= 'A' && c <= 'Z' ? c | 0x20 : c);
    }
    return to;
}

struct moon_slice moon_grpc_web_trailers(struct moon_arena *arena,
                                         const struct moon_headers *trailers)
{
    size_t len = 0;
    for (uint32_t i = 0; i < trailers->count; i++)
        len += trailers->fields[i].name.len + trailers->fields[i].value.len + 4;
    char *out = moon_arena_try_bytes(arena, MOON_GRPC_FRAME_HEAD_LEN + len);
    if (!out)
        return (struct moon_slice){NULL, 0};
    const char head[MOON_GRPC_FRAME_HEAD_LEN] = {(char)0x80, (char)(len >> 24), (char)(len >> 16),
                                                 (char)(len >> 8), (char)len};
    memcpy(out, head, sizeof head);
    char *to = out + sizeof head;
    for (uint32_t i = 0; i < trailers->count; i++) {
        const struct moon_field *field = &trailers->fields[i];
        to = put_lower(to, field->name);
        *to++ = ':';
        *to++ = ' ';
        if (field->value.len)
            memcpy(to, field->value.ptr, field->value.len);
        to += field->value.len;
        *to++ = '\r';
        *to++ = '\n';
    }
    return (struct moon_slice){out, (size_t)(to - out)};
}

// ---- base64

// 0 to 63, or -1.
static int value_of(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

// Adds a character to its group. False: it has no place there.
static bool add(struct moon_base64 *at, char c)
{
    if (c == '=') {
        if (at->count < 2)
            return false;
        at->pad_len++;
        at->bits <<= 6;
    } else {
        int value = value_of(c);
        if (value < 0 || at->pad_len)
            return false;
        at->bits = at->bits << 6 | (uint32_t)value;
    }
    at->count++;
    return true;
}

ssize_t moon_base64_decode(struct moon_base64 *at, struct moon_slice text, char *to, size_t cap,
                           size_t *len)
{
    size_t taken = 0;
    *len = 0;
    for (; taken < text.len && cap - *len >= 3; taken++) {
        if (!add(at, text.ptr[taken]))
            return -1;
        if (at->count < 4)
            continue;
        const char group[3] = {(char)(at->bits >> 16), (char)(at->bits >> 8), (char)at->bits};
        uint32_t spare = at->pad_len == 2 ? at->bits & 0xffff : at->pad_len ? at->bits & 0xff : 0;
        if (spare) // bits that stand for nothing (RFC 4648 3.5)
            return -1;
        memcpy(to + *len, group, 3u - at->pad_len);
        *len += 3u - at->pad_len;
        *at = (struct moon_base64){0};
    }
    return (ssize_t)taken;
}

size_t moon_base64_encode(struct moon_slice bytes, char *to)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *at = (const unsigned char *)bytes.ptr;
    char *start = to;
    size_t i = 0;
    for (; i + 3 <= bytes.len; i += 3) {
        uint32_t bits = (uint32_t)at[i] << 16 | (uint32_t)at[i + 1] << 8 | at[i + 2];
        *to++ = digits[bits >> 18];
        *to++ = digits[bits >> 12 & 63];
        *to++ = digits[bits >> 6 & 63];
        *to++ = digits[bits & 63];
    }
    if (i < bytes.len) {
        bool has_two = bytes.len - i == 2;
        uint32_t bits = (uint32_t)at[i] << 16 | (has_two ? (uint32_t)at[i + 1] << 8 : 0);
        *to++ = digits[bits >> 18];
        *to++ = digits[bits >> 12 & 63];
        *to++ = has_two ? digits[bits >> 6 & 63] : '=';
        *to++ = '=';
    }
    return (size_t)(to - start);
}
