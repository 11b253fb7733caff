// Heads of HTTP/1.1 messages: finding where one ends, parsing it in the strict reading of DESIGN 7
// and reference A01-A27, and writing one. Pure: bytes in, struct moon_head out.
//
//   shared read buffer -> moon_head_scan (where is the empty line? any forbidden byte?) -> one copy into the exchange arena
//   -> moon_request_parse / moon_response_parse -> edits -> moon_request_write / moon_response_write
#pragma once

#include "base/slice.h"
#include "http/headers.h"
#include "http/target.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct moon_arena;

// What the gateway answers when a head cannot be used; `reason` is static text that names the cause.
struct moon_fault {
    uint16_t status;
    const char *reason;
};

enum moon_method {
    MOON_METHOD_OTHER, // valid token, not known: 501
    MOON_METHOD_GET,
    MOON_METHOD_HEAD,
    MOON_METHOD_POST,
    MOON_METHOD_PUT,
    MOON_METHOD_DELETE,
    MOON_METHOD_PATCH,
    MOON_METHOD_OPTIONS,
    MOON_METHOD_TRACE,
    MOON_METHOD_CONNECT,
    MOON_METHOD_EXTENSION, // registered and forwarded as it is: PROPFIND, PURGE, REPORT ...
};

// Of a method's name, which is case-sensitive; MOON_METHOD_OTHER when no request with it passes.
enum moon_method moon_method_from(struct moon_slice name);

enum moon_body_kind {
    MOON_BODY_NONE,
    MOON_BODY_LENGTH,  // content_length bytes (may be 0)
    MOON_BODY_CHUNKED, // RFC 9112 7.1
    MOON_BODY_CLOSE,   // until the end of the connection; responses only
};

struct moon_head {
    // requests
    enum moon_method method_id;
    struct moon_slice method;
    struct moon_target target;
    struct moon_authority host;  // of the Host field, or of the absolute form, which wins
    struct moon_slice host_text; // as forwarded; empty for HTTP/1.0 without Host
    bool expects_continue;       // Expect: 100-continue
    // responses
    uint16_t status;
    struct moon_slice reason;
    // both
    uint8_t minor;    // HTTP/1.minor as received; 1 for HTTP/2, which means the same
    bool is_h2;       // it came by HTTP/2
    bool keep_alive;  // the sender will keep its connection (version and Connection)
    bool has_upgrade; // Connection: upgrade with an Upgrade field (never for h2c)
    bool
        names_no_field; // Connection has been read: close, keep-alive and upgrade are all that stands there
    // requests: an extended CONNECT (RFC 8441), read as the GET with Upgrade that it stands for: 101 opens a tunnel on its stream
    bool is_h2_upgrade;
    enum moon_body_kind body;
    uint64_t content_length; // MOON_BODY_LENGTH
    struct moon_headers headers;
};

struct moon_head_limits {
    uint32_t head_bytes;   // start line and all fields; over: 431
    uint32_t field_count;  // over: 431
    uint32_t target_bytes; // over: 414
    enum moon_escaped_slash escaped_slash;
    bool allow_underscore; // header names with '_' (default: 400)
};

// Defaults of DESIGN 5: 32 KiB, 100 fields, a target of at most 16 KiB.
extern const struct moon_head_limits moon_head_limits_default;

// Where the scan of a head stands; zeroed at its first byte. Feed the whole of what has come so far each time: it goes on
// where it stopped, so that a head that drips in costs linear time.
struct moon_head_scan {
    uint32_t seen_len;
};

// > 0: the head is complete, its length up to and including the empty line, leading empty line (at most one CRLF before a
// request line) included. 0: more is needed. < 0: refused, *fault says what to answer (400, 414, 431).
// Refuses bare CR, bare LF, NUL and other controls, obs-fold and a line that begins with white space as soon as it sees them.
ssize_t moon_head_scan(struct moon_head_scan *scan, struct moon_slice bytes,
                       const struct moon_head_limits *limits, bool is_request,
                       struct moon_fault *fault);

// `text` is one whole head, already in the arena (slices point into it). 0, or -1 with *fault: 400, 414, 417, 431, 501, 505.
// On failure what was understood (method, target as received in target.path, minor) is filled in for the log.
int moon_request_parse(struct moon_arena *arena, struct moon_slice text,
                       const struct moon_head_limits *limits, struct moon_head *out,
                       struct moon_fault *fault);
// `request_method` decides the framing (HEAD, CONNECT). 1xx, 204 and 304 have no body. 0, or -1 with *fault: 502.
int moon_response_parse(struct moon_arena *arena, struct moon_slice text,
                        const struct moon_head_limits *limits, enum moon_method request_method,
                        struct moon_head *out, struct moon_fault *fault);

// Removes the fields that Connection names, and Connection itself: the part of moon_head_strip_hop that must be done before
// anyone edits the table. Those that are protected there stay here.
void moon_head_strip_named(struct moon_head *head);
// Removes what belongs to one hop (RFC 9110 7.6.1): the fields named by Connection, and Connection, Keep-Alive,
// Proxy-Connection, Proxy-Authenticate, Proxy-Authorization, TE, Trailer, Transfer-Encoding, Upgrade, HTTP2-Settings,
// Content-Length (framing is written anew). Connection may not name Host, Content-*, Authorization, Cookie, X-Forwarded-*
// and the like to have them removed: those stay.
void moon_head_strip_hop(struct moon_head *head);

// Removes the digests of the body (RFC 9530, RFC 3230, RFC 1864): for a message whose body is edited on its way.
void moon_head_forget_digests(struct moon_headers *headers);

// How the framing of an outgoing head reads.
struct moon_framing {
    enum moon_body_kind body;
    uint64_t content_length;
    bool close;                // Connection: close
    bool keep_alive;           // Connection: keep-alive said aloud (to an HTTP/1.0 client)
    struct moon_slice upgrade; // Connection: upgrade and Upgrade with this value; empty: none
    bool te_trailers;          // TE: trailers
    bool may_trail; // trailers may come behind a body of known length: HTTP/2 on both sides
};

// Bytes that writing `head` takes at the most; its headers hold no hop-by-hop field (moon_head_strip_hop).
size_t moon_head_size(const struct moon_head *head);
// Writes to `to`, which has moon_head_size bytes; returns the length. HTTP/1.1 always.
// Request line: method, canonical path and query in origin form; Host first.
size_t moon_request_write(const struct moon_head *head, const struct moon_framing *framing,
                          char *to);
size_t moon_response_write(const struct moon_head *head, const struct moon_framing *framing,
                           char *to);
// The standard reason phrase, "Unknown" when there is none.
struct moon_slice moon_status_reason(uint16_t status);
