// Body framing of HTTP/1.1 (RFC 9112 6 and 7): Content-Length, chunked and close-delimited in; chunked out. Separate from the
// head parser because a body must be skippable: bytes that splice(2) moves are only counted here.
#pragma once

#include "base/slice.h"
#include "http/head.h"

#include <stdbool.h>
#include <stdint.h>

// X() bounds of chunk extensions and trailers.
struct moon_body_limits {
    uint32_t extension_bytes; // of one body, all chunks together; over: MOON_ELIMIT
    uint32_t trailer_bytes;
    uint32_t trailer_count;
};

extern const struct moon_body_limits moon_body_limits_default; // 4 KiB, 8 KiB, 64

enum moon_body_event {
    MOON_BODY_MORE, // everything was consumed; feed more
    MOON_BODY_DATA, // `data` holds body bytes
    // the trailer section is complete (only when it has fields): `data` holds its lines
    MOON_BODY_TRAILERS,
    MOON_BODY_END, // the body is over; what was not consumed belongs to the next message
    MOON_BODY_BAD, // the framing is broken: nothing after this can be trusted
};

struct moon_body_reader {
    enum moon_body_kind kind;
    uint8_t state;
    uint64_t left_len; // of the length-delimited body, or of the chunk
    uint32_t extension_len, trailer_len, trailer_count;
    char *trailer; // malloc'd while a trailer section is incomplete
};

void moon_body_init(struct moon_body_reader *r, enum moon_body_kind kind, uint64_t content_length);
void moon_body_fini(struct moon_body_reader *r);

// Takes bytes off *in and tells the next event; *data is a slice of *in (or of the reader, trailers: until the next call).
// A body of kind NONE, or LENGTH 0, ends at once, with *in empty or not.
enum moon_body_event moon_body_next(struct moon_body_reader *r, struct moon_slice *in,
                                    struct moon_slice *data);
// The peer ended its side: true when that ends the body in good order (CLOSE, or already over).
bool moon_body_eof(struct moon_body_reader *r);
bool moon_body_is_over(const struct moon_body_reader *r);

// Bytes that may be moved past the reader at once, without it seeing them: the rest of a length-delimited body,
// UINT64_MAX for a close-delimited one, 0 for chunked and for a body that is over.
uint64_t moon_body_skippable(const struct moon_body_reader *r);
void moon_body_skip(struct moon_body_reader *r, uint64_t len); // len <= moon_body_skippable

enum { MOON_CHUNK_HEAD_LEN = 20 };
// "hex CRLF" for a chunk of len bytes (len > 0); returns its length. The data and a CRLF follow it.
size_t moon_chunk_head_write(uint64_t len, char to[MOON_CHUNK_HEAD_LEN]);

// Parses trailer lines into a table: only fields that may be trailers stay (RFC 9110 6.5.1: no framing, routing,
// authentication, content or Connection fields); names and values are checked as in heads. 0, or -EBADMSG, -ENOMEM.
int moon_trailers_parse(struct moon_arena *arena, struct moon_slice lines,
                        struct moon_headers *out);
