// HTTP/2 (RFC 9113) of one connection, on nghttp2: bytes in, events out, frames into a buffer; never a socket.
//
//   bytes -> moon_h2_receive -> open, head, data, end, closed (from under nghttp2)     -> moon_h2_request_read -> struct moon_head
//   struct moon_head -> moon_h2_send_head, bytes -> moon_h2_send_body -> moon_h2_pump  -> `out`
//
// Client side: moon_h2_request_send begins a stream, its response's heads are read by moon_h2_response_read.
//
// Streams belong to the owner, who embeds struct moon_h2_stream; between `open` and `closed` the session knows them.
// Invariants: a body is not buffered here: what the peer's windows, or `out`, do not take now is not taken. Windows of ours
// open only by what the owner has consumed. Nothing is written from under moon_h2_receive.
#pragma once

#include "base/buffer.h"
#include "base/slice.h"
#include "http/head.h"

#include <stdbool.h>
#include <stdint.h>

struct moon_arena;
struct moon_h2;
struct moon_h2_shape;

enum {
    MOON_H2_PREFACE_LEN = 24,
    MOON_H2_STREAM_COUNT = 128,      // open at once on a connection
    MOON_H2_STREAM_LEN = 65535,      // window of a stream
    MOON_H2_CONNECTION_LEN = 262144, // of all its streams
    MOON_H2_PEER_STREAM_COUNT = 100, // what a peer is taken to allow before it has said how many
};

// Why a connection was ended by us; counted by these names.
enum moon_h2_cause {
    MOON_H2_FINE,
    MOON_H2_PROTOCOL, // a connection error of RFC 9113
    // streams reset, by the client or by its faults, faster than they are worth (A40, A42)
    MOON_H2_RESETS,
    MOON_H2_CONTROL,       // frames that carry nothing (A44)
    MOON_H2_CONTINUATIONS, // a header block in too many frames (A41)
    MOON_H2_FIELDS,        // one that is far over the limits (A43)
};

// RFC 9113 7.
enum moon_h2_code {
    MOON_H2_NO_ERROR = 0,
    MOON_H2_PROTOCOL_ERROR = 1,
    MOON_H2_INTERNAL_ERROR = 2,
    MOON_H2_REFUSED_STREAM = 7,
    MOON_H2_CANCEL = 8,
    MOON_H2_ENHANCE_YOUR_CALM = 11,
};

// A piece of the block.
struct moon_h2_part {
    uint32_t at, len;
};

// Of one stream; zeroed by its owner, kept by this room between `open` and `closed`.
struct moon_h2_stream {
    int32_t id;
    // The header block that is being received: pseudo-fields, then "name: value CRLF" for each field.
    struct moon_buffer block, trailer_block;
    struct moon_h2_part method, scheme, path, authority, protocol, status;
    uint32_t fields_at;                // where the fields begin
    uint32_t list_len;                 // as SETTINGS_MAX_HEADER_LIST_SIZE counts
    uint16_t field_count, crumb_count; // crumbs: Cookie fields, which are not among the others
    uint64_t left_len;                 // of the body to be sent, when its length is known
    struct moon_slice source;          // the body's bytes while they are offered
    void *trailers;                    // to be sent behind the body; copies
    uint32_t trailer_count;
    bool has_fields : 1; // pseudo-fields are over
    bool is_in_trailers : 1;
    bool is_too_large : 1; // the block is over a limit: what else it says is not kept
    bool has_left : 1;
    bool may_trail : 1;   // a length is no end: trailers may follow
    bool has_ended : 1;   // our side: no more body comes
    bool is_deferred : 1; // nghttp2 waits for more of it
    bool is_bodiless : 1; // the head came with END_STREAM
    bool is_read : 1;     // END_STREAM was received
    bool is_sent : 1;     // END_STREAM was sent
    bool is_tunnel : 1;   // its sides end each by itself; the owner's, who sets it with the head
    bool has_session : 1; // between open and closed
    // client side
    bool is_response : 1;
    bool has_final : 1;    // the head of the response has come; what comes now are trailers
    bool is_begun : 1;     // the request's head was written
    bool is_malformed : 1; // we have reset it for what came
    bool
        // told by `closed`: the peer has not begun to act upon it (RFC 9113 8.7)
        is_unprocessed : 1;
};

// All but `sent` are called from under moon_h2_receive; they may submit (moon_h2_send_head, _send_end, _reset), not pump.
struct moon_h2_events {
    // A request begins. NULL: it is refused (REFUSED_STREAM). Server side.
    struct moon_h2_stream *(*open)(void *owner);
    // Its head is complete, in `block`: moon_h2_request_read. Client side: moon_h2_response_read at once, interim ones as well.
    void (*head)(void *owner, struct moon_h2_stream *stream);
    // Body bytes. What the owner has done with them it tells by moon_h2_consumed, then or later.
    void (*data)(void *owner, struct moon_h2_stream *stream, struct moon_slice bytes);
    // END_STREAM. Trailers, if any: moon_h2_trailers_read.
    void (*end)(void *owner, struct moon_h2_stream *stream);
    // The stream is over, in good order when both sides have ended; the session forgets it. Also from under moon_h2_pump.
    void (*closed)(void *owner, struct moon_h2_stream *stream, uint32_t code);
    // Windows of the peer have opened: what was not taken may be taken now.
    void (*window)(void *owner);
    // The answer to moon_h2_ping.
    void (*pong)(void *owner);
    // The peer takes no further streams, and has not begun those that are closed in consequence. Client side.
    void (*goaway)(void *owner);
    // SETTINGS came: moon_h2_stream_cap may be another. Client side.
    void (*settings)(void *owner);
};

struct moon_h2_args {
    const struct moon_h2_events *events;
    void *owner;
    struct moon_buffer_pool *buffers; // blocks
    uint32_t header_bytes, header_count;
    uint64_t now_ms; // at its beginning
    bool is_client;
    bool is_suspect; // server side: less is borne with at its beginning
    // client side: streams that the peer takes until it says how many; 0: as usual
    uint32_t peer_stream_count;
    // of all sessions of a thread, which end before it; NULL: none sleeps
    struct moon_h2_shape *shape;
};

// The preface as far as `bytes` goes: > 0 it is there whole, 0 it may become one, < 0 it is none.
int moon_h2_is_preface(struct moon_slice bytes);

// Its SETTINGS are queued, behind the preface on the client side. NULL: out of memory.
struct moon_h2 *moon_h2_new(const struct moon_h2_args *args);
// Tells nobody. Streams stay the owner's. NULL is fine.
void moon_h2_free(struct moon_h2 *h2);
// Lets go of what the session keeps in the stream, which it has forgotten or will not be asked about again.
void moon_h2_stream_fini(struct moon_h2 *h2, struct moon_h2_stream *stream);

// Takes all of `bytes`, from the preface on. 0, or an error after which the connection is to be ended: moon_h2_pump writes its
// GOAWAY. moon_h2_cause says why.
int moon_h2_receive(struct moon_h2 *h2, struct moon_slice bytes, uint64_t now_ms);
enum moon_h2_cause moon_h2_cause(const struct moon_h2 *h2);
// Nothing is to be received any more, nor sent.
bool moon_h2_is_over(const struct moon_h2 *h2);
// The preface is not through, or a header block has begun and not ended: nothing else can come meanwhile.
bool moon_h2_is_in_block(const struct moon_h2 *h2);
// Under moon_h2_receive or moon_h2_pump.
bool moon_h2_is_busy(const struct moon_h2 *h2);
// No stream is open, and nothing is expected soon: memory is given back until something is asked of the connection.
void moon_h2_sleep(struct moon_h2 *h2);
bool moon_h2_is_asleep(const struct moon_h2 *h2);
// What sessions that sleep have in common. NULL: out of memory. NULL is fine for free.
struct moon_h2_shape *moon_h2_shape_new(void);
void moon_h2_shape_free(struct moon_h2_shape *shape);
// Moves frames that are due into `out`, as far as it has room. 0 or an error (-ENOBUFS, MOON_EPROTO).
int moon_h2_pump(struct moon_h2 *h2, struct moon_buffer *out);

// The head of a request from its block, under the same checks as an HTTP/1.1 head, and those of RFC 9113 8. Frees the block.
// 0, or -1 with *fault.
int moon_h2_request_read(struct moon_h2 *h2, struct moon_h2_stream *stream,
                         struct moon_arena *arena, const struct moon_head_limits *limits,
                         struct moon_head *out, struct moon_fault *fault);
// The head of a response, interim or not, under the checks of moon_response_parse and those of RFC 9113 8. Frees the block. 0, or
// -1 with *fault.
int moon_h2_response_read(struct moon_h2 *h2, struct moon_h2_stream *stream,
                          struct moon_arena *arena, enum moon_method request_method,
                          struct moon_head *out, struct moon_fault *fault);
// As moon_trailers_parse, or none. Frees their block.
int moon_h2_trailers_read(struct moon_h2 *h2, struct moon_h2_stream *stream,
                          struct moon_arena *arena, struct moon_headers *out);

// The owner has consumed bytes of the stream: its window opens. Of a stream that is closed: the connection's.
void moon_h2_consumed(struct moon_h2 *h2, struct moon_h2_stream *stream, size_t len);

// Queues a response head. `has_body`: moon_h2_send_body and moon_h2_send_end follow; else the stream ends with it, unless it is
// interim. 101 opens a tunnel, and goes out as 200 (RFC 8441 5). 0 or -ENOMEM.
int moon_h2_send_head(struct moon_h2 *h2, struct moon_h2_stream *stream,
                      const struct moon_head *head, const struct moon_framing *framing,
                      bool has_body);
struct moon_h2_request_args {
    const struct moon_head *head; // without hop-by-hop fields
    const struct moon_framing *framing;
    struct moon_slice scheme;
    bool
        // moon_h2_send_body and moon_h2_send_end follow; else the stream ends with the head
        has_body;
};

// Client side: begins a stream, which is zeroed. 0, -ENOMEM, or MOON_EPROTO: no more streams begin on this connection.
int moon_h2_request_send(struct moon_h2 *h2, struct moon_h2_stream *stream,
                         const struct moon_h2_request_args *args);
// Client side: the request waits for its turn, and moon_h2_reset takes it back: nothing of it is ever sent.
bool moon_h2_is_queued(const struct moon_h2 *h2, const struct moon_h2_stream *stream);
// Client side: how many streams the peer lets be open at once; 0: none may begin any more.
uint32_t moon_h2_stream_cap(const struct moon_h2 *h2);

// Body bytes, written to `out` as far as windows and room allow; returns how many were. 0 when busy.
size_t moon_h2_send_body(struct moon_h2 *h2, struct moon_h2_stream *stream, struct moon_slice bytes,
                         struct moon_buffer *out);
// No more body. `trailers` may be NULL.
void moon_h2_send_end(struct moon_h2 *h2, struct moon_h2_stream *stream,
                      const struct moon_headers *trailers);
// What the peer takes of the stream now.
size_t moon_h2_window(const struct moon_h2 *h2, const struct moon_h2_stream *stream);
void moon_h2_reset(struct moon_h2 *h2, struct moon_h2_stream *stream, enum moon_h2_code code);

// A PING; its answer is told by `pong`.
void moon_h2_ping(struct moon_h2 *h2);
// GOAWAY that ends the connection: ENHANCE_YOUR_CALM and the like. What is open is cut off.
void moon_h2_terminate(struct moon_h2 *h2, enum moon_h2_code code);
// The first GOAWAY of two (RFC 9113 6.8), and a PING whose answer says that the peer has seen it.
void moon_h2_drain_notice(struct moon_h2 *h2);
// The second: streams that came until now are served.
void moon_h2_drain(struct moon_h2 *h2);
