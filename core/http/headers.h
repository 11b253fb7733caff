// Header table: the fields of one head in order of arrival, names case-insensitive, edited in place and serialised once.
// Names and values are slices into the exchange arena (or static text); the table owns none of them.
// Well-known names carry an id, so that hot lookups compare a byte and absent ones cost one bit test.
#pragma once

#include "base/slice.h"

#include <stdbool.h>
#include <stdint.h>

struct moon_arena;

// X(enum suffix, "wire name"). At most 63 names: ids index the bits of `present`.
#define MOON_HEADER_NAMES(X)                              \
    X(HOST, "Host")                                       \
    X(CONNECTION, "Connection")                           \
    X(CONTENT_LENGTH, "Content-Length")                   \
    X(TRANSFER_ENCODING, "Transfer-Encoding")             \
    X(TE, "TE")                                           \
    X(TRAILER, "Trailer")                                 \
    X(UPGRADE, "Upgrade")                                 \
    X(KEEP_ALIVE, "Keep-Alive")                           \
    X(PROXY_CONNECTION, "Proxy-Connection")               \
    X(PROXY_AUTHENTICATE, "Proxy-Authenticate")           \
    X(PROXY_AUTHORIZATION, "Proxy-Authorization")         \
    X(HTTP2_SETTINGS, "HTTP2-Settings")                   \
    X(EXPECT, "Expect")                                   \
    X(DATE, "Date")                                       \
    X(SERVER, "Server")                                   \
    X(VIA, "Via")                                         \
    X(FORWARDED, "Forwarded")                             \
    X(X_FORWARDED_FOR, "X-Forwarded-For")                 \
    X(X_FORWARDED_PROTO, "X-Forwarded-Proto")             \
    X(X_FORWARDED_HOST, "X-Forwarded-Host")               \
    X(X_FORWARDED_CLIENT_CERT, "X-Forwarded-Client-Cert") \
    X(X_REQUEST_ID, "X-Request-Id")                       \
    X(ACCEPT, "Accept")                                   \
    X(ACCEPT_ENCODING, "Accept-Encoding")                 \
    X(ACCEPT_LANGUAGE, "Accept-Language")                 \
    X(AUTHORIZATION, "Authorization")                     \
    X(CONTENT_TYPE, "Content-Type")                       \
    X(CONTENT_ENCODING, "Content-Encoding")               \
    X(CONTENT_RANGE, "Content-Range")                     \
    X(CACHE_CONTROL, "Cache-Control")                     \
    X(COOKIE, "Cookie")                                   \
    X(SET_COOKIE, "Set-Cookie")                           \
    X(LOCATION, "Location")                               \
    X(USER_AGENT, "User-Agent")                           \
    X(REFERER, "Referer")                                 \
    X(ORIGIN, "Origin")                                   \
    X(RETRY_AFTER, "Retry-After")                         \
    X(MAX_FORWARDS, "Max-Forwards")                       \
    X(FROM, "From")                                       \
    X(IF_MODIFIED_SINCE, "If-Modified-Since")             \
    X(IF_NONE_MATCH, "If-None-Match")                     \
    X(ETAG, "ETag")                                       \
    X(LAST_MODIFIED, "Last-Modified")                     \
    X(CONTENT_DIGEST, "Content-Digest")

enum moon_header_id {
    MOON_H_OTHER, // every name that has no id
#define X(id, name) MOON_H_##id,
    MOON_HEADER_NAMES(X)
#undef X
        MOON_H_COUNT
};

struct moon_field {
    struct moon_slice name, value;
    uint8_t id; // enum moon_header_id
    bool
        // name.ptr starts the bytes "name: value\r\n" exactly, so runs of fields are copied at once
        is_verbatim;
};

struct moon_headers {
    struct moon_field *fields; // in the arena
    uint32_t count, cap;
    uint64_t present; // bit per id: at least one such field
};

// The id of a name in any case, MOON_H_OTHER when it has none.
enum moon_header_id moon_header_id(struct moon_slice name);
struct moon_slice moon_header_name(enum moon_header_id id); // the wire name; empty for MOON_H_OTHER
// A token of RFC 9110 5.6.2 in full / a value without controls but HTAB (RFC 9110 5.5).
bool moon_header_name_is_valid(struct moon_slice name);
bool moon_header_value_is_valid(struct moon_slice value);

static inline bool moon_headers_has(const struct moon_headers *h, enum moon_header_id id)
{
    return (h->present >> id) & 1;
}

// Room for `cap` fields; 0 or -ENOMEM (arena cap).
int moon_headers_init(struct moon_headers *h, struct moon_arena *arena, uint32_t cap);
// The first field of that id, or NULL. Not for MOON_H_OTHER.
const struct moon_field *moon_headers_get(const struct moon_headers *h, enum moon_header_id id);
// The first field of that name at or after *at; moves *at behind it. NULL when there is none. Start with *at = 0.
const struct moon_field *moon_headers_next(const struct moon_headers *h, struct moon_slice name,
                                           uint32_t *at);
// All values of that name joined by ", " (Cookie: "; "), so that policy and backend see the same. ptr NULL when absent;
// a lone value is given as it is, without a copy. ptr NULL and len 1 over the arena's cap.
struct moon_slice moon_headers_join(const struct moon_headers *h, struct moon_arena *arena,
                                    struct moon_slice name);
// Appends. 0 or -ENOMEM. The slices must live as long as the table.
int moon_headers_add(struct moon_headers *h, struct moon_arena *arena, struct moon_slice name,
                     struct moon_slice value);
// As add, the name known by id.
int moon_headers_add_id(struct moon_headers *h, struct moon_arena *arena, enum moon_header_id id,
                        struct moon_slice value);
// Replaces the first field of that name, removes its others; appends when absent. 0 or -ENOMEM.
int moon_headers_set(struct moon_headers *h, struct moon_arena *arena, struct moon_slice name,
                     struct moon_slice value);
// Removes every field of that name / id; the number removed.
uint32_t moon_headers_del(struct moon_headers *h, struct moon_slice name);
uint32_t moon_headers_del_id(struct moon_headers *h, enum moon_header_id id);
