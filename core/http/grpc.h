// gRPC as a proxy has to know it: which requests are gRPC, `grpc-timeout`, statuses and messages of answers, the frames of
// messages, and gRPC-Web's own form of them. Pure: bytes in, bytes out.
// Sources: gRPC's PROTOCOL-HTTP2, PROTOCOL-WEB and http-grpc-status-mapping.
#pragma once

#include "base/slice.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct moon_arena;
struct moon_head;
struct moon_headers;

enum moon_grpc_kind {
    MOON_GRPC_NONE,
    MOON_GRPC,          // application/grpc, or with a suffix: application/grpc+proto
    MOON_GRPC_WEB,      // application/grpc-web
    MOON_GRPC_WEB_TEXT, // application/grpc-web-text: the same in base64
};

enum moon_grpc_status {
    MOON_GRPC_OK = 0,
    MOON_GRPC_UNKNOWN = 2,
    MOON_GRPC_DEADLINE_EXCEEDED = 4,
    MOON_GRPC_PERMISSION_DENIED = 7,
    MOON_GRPC_UNIMPLEMENTED = 12,
    MOON_GRPC_INTERNAL = 13,
    MOON_GRPC_UNAVAILABLE = 14,
    MOON_GRPC_UNAUTHENTICATED = 16,
};

enum {
    MOON_GRPC_TIMEOUT_LEN = 10,   // of a timeout as it is written: at most 8 digits and a unit
    MOON_GRPC_FRAME_HEAD_LEN = 5, // before each message: a flag, its length in 4 bytes
};

// Of a head, by its Content-Type; `suffix` gets what follows the type: "+proto", ";charset=utf-8" or nothing. May be NULL.
enum moon_grpc_kind moon_grpc_kind_of(const struct moon_head *head, struct moon_slice *suffix);
// The path is "/service/method", nothing more.
bool moon_grpc_split_path(struct moon_slice path, struct moon_slice *service,
                          struct moon_slice *method);
// The request is a call that a gRPC route may take: by its Content-Type and its path; or what a browser asks before a call of
// gRPC-Web (an OPTIONS that names x-grpc-web).
bool moon_grpc_is_call(const struct moon_head *request);

// Milliseconds of `grpc-timeout`, rounded up. False: it is malformed.
bool moon_grpc_timeout_read(struct moon_slice text, uint64_t *ms);
// Writes it, at least "1m"; returns the length. What does not fit in 8 digits is rounded down to a coarser unit.
size_t moon_grpc_timeout_write(uint64_t ms, char to[MOON_GRPC_TIMEOUT_LEN]);

enum moon_grpc_status moon_grpc_status_of(uint16_t http_status);
// `text` as `grpc-message` carries it: what is not printable ASCII, and "%", as %XX. Cut off at a bound (1 KiB of text). In the
// arena; empty when there is no room.
struct moon_slice moon_grpc_message(struct moon_arena *arena, struct moon_slice text);

// ---- frames

// Where a sequence of length-prefixed messages stands; zeroed at its start.
struct moon_grpc_frames {
    uint32_t left_len; // of the message under way
    uint8_t head_len;  // bytes of a frame's head that were seen
    uint8_t head[MOON_GRPC_FRAME_HEAD_LEN];
};

// Walks over bytes. False: a frame has another flag than 0 or 1 (in gRPC-Web: a request with trailers).
bool moon_grpc_frames_walk(struct moon_grpc_frames *frames, struct moon_slice bytes);
// Between two messages.
bool moon_grpc_frames_are_whole(const struct moon_grpc_frames *frames);

// The frame that gRPC-Web has for trailers: flag 0x80, "name: value\r\n" with names in lower case. In the arena; ptr NULL when
// there is no room.
struct moon_slice moon_grpc_web_trailers(struct moon_arena *arena,
                                         const struct moon_headers *trailers);

// ---- base64 (RFC 4648 4), streamed

// Zeroed at the start. Padding may stand wherever a group of four ends: pieces that were encoded apart are one text together.
struct moon_base64 {
    uint32_t bits;
    uint8_t count;   // characters of the group so far
    uint8_t pad_len; // of them padding
};

// Decodes as much as `cap` bytes of output hold; *len gets their number. Characters taken, or -1: it is no base64.
ssize_t moon_base64_decode(struct moon_base64 *at, struct moon_slice text, char *to, size_t cap,
                           size_t *len);
// A group is not whole.
static inline bool moon_base64_is_open(const struct moon_base64 *at)
{
    return at->count > 0;
}
// Encodes, padded; `to` has room for (len + 2) / 3 * 4. Returns the length.
size_t moon_base64_encode(struct moon_slice bytes, char *to);
