// See grpc_health.h. Of protobuf what these messages need: a string, an enumeration, and skipping what is unknown.
#include "http/grpc_health.h"

#include "base/arena.h"
#include "http/grpc.h"

#include <string.h>

enum { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5, FIELD = 1 };

static size_t put_varint(char *to, size_t value)
{
    size_t len = 0;
    for (; value >= 0x80; value >>= 7)
        to[len++] = (char)(value | 0x80);
    to[len++] = (char)value;
    return len;
}

struct moon_slice moon_grpc_health_ask(struct moon_arena *arena, struct moon_slice service)
{
    enum { VARINT_LEN = 10 };
    char *out =
        moon_arena_try_bytes(arena, MOON_GRPC_FRAME_HEAD_LEN + 1 + VARINT_LEN + service.len);
    if (!out)
        return (struct moon_slice){NULL, 0};
    char *to = out + MOON_GRPC_FRAME_HEAD_LEN;
    if (service.len) {
        *to++ = FIELD << 3 | WIRE_BYTES;
        to += put_varint(to, service.len);
        memcpy(to, service.ptr, service.len);
        to += service.len;
    }
    size_t len = (size_t)(to - out) - MOON_GRPC_FRAME_HEAD_LEN;
    const char head[MOON_GRPC_FRAME_HEAD_LEN] = {0, (char)(len >> 24), (char)(len >> 16),
                                                 (char)(len >> 8), (char)len};
    memcpy(out, head, sizeof head);
    return (struct moon_slice){out, (size_t)(to - out)};
}

static bool take_varint(struct moon_slice *in, uint64_t *value)
{
    *value = 0;
    for (unsigned shift = 0; shift < 64 && in->len; shift += 7) {
        unsigned char c = (unsigned char)in->ptr[0];
        *in = moon_slice_skip(*in, 1);
        *value |= (uint64_t)(c & 0x7f) << shift;
        if (c < 0x80)
            return true;
    }
    return false;
}

static bool skip(struct moon_slice *in, uint64_t len)
{
    if (len > in->len)
        return false;
    *in = moon_slice_skip(*in, (size_t)len);
    return true;
}

static bool skip_field(struct moon_slice *in, unsigned wire)
{
    uint64_t value;
    switch (wire) {
    case WIRE_VARINT:
        return take_varint(in, &value);
    case WIRE_FIXED64:
        return skip(in, 8);
    case WIRE_BYTES:
        return take_varint(in, &value) && skip(in, value);
    case WIRE_FIXED32:
        return skip(in, 4);
    default:
        return false;
    }
}

int moon_grpc_health_read(struct moon_slice bytes)
{
    uint64_t status = 0, tag;
    struct moon_grpc_frames frames = {0};
    if (bytes.len < MOON_GRPC_FRAME_HEAD_LEN || bytes.ptr[0] != 0)
        return -1;
    if (!moon_grpc_frames_walk(&frames, (struct moon_slice){bytes.ptr, MOON_GRPC_FRAME_HEAD_LEN}) ||
        frames.left_len != bytes.len - MOON_GRPC_FRAME_HEAD_LEN)
        return -1;
    bytes = moon_slice_skip(bytes, MOON_GRPC_FRAME_HEAD_LEN);
    while (bytes.len) {
        if (!take_varint(&bytes, &tag))
            return -1;
        bool is_status = tag == (FIELD << 3 | WIRE_VARINT);
        if (is_status ? !take_varint(&bytes, &status) : !skip_field(&bytes, tag & 7))
            return -1;
    }
    return status <= 3 ? (int)status : 0;
}
