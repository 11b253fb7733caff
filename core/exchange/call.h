// Call: one HTTP/1.1 request of the gateway's own, to anywhere, for whoever runs on a worker (scripts, first of all).
//
//   start -> name resolved (upstream/names.h) -> link lent by the worker's pool -> request sent -> response collected -> done
//              ^----------- another address after a failed connect; once more after a reused link died unanswered
//
// A call belongs to its worker and to whoever started it; nobody else frees it. Everything that start is given is copied.
// Redirects are not followed, cookies not kept, bodies not decoded.
#pragma once

#include "base/slice.h"

#include <stddef.h>
#include <stdint.h>

struct moon_call;
struct moon_headers;
struct moon_service;
struct moon_tls_client;

enum {
    MOON_CALL_MAX_COUNT = 1024,       // under way at a time on one worker
    MOON_CALL_TIMEOUT_MS = 60000,     // default
    MOON_CALL_BODY_MAX_LEN = 1048576, // default, of the response
    MOON_CALL_HEAD_MAX_LEN = 32768,   // of the request
};

struct moon_call_field {
    struct moon_slice name, value;
};

struct moon_call_args {
    // Case-sensitive, empty: GET. Any that a request may come in with, but CONNECT and TRACE.
    struct moon_slice method;
    // "http://host[:port][/path][?query]"; a fragment is cut off. The host is a name, an IPv4 address or an IPv6 one in
    // brackets. With `upstream` "/path[?query]" will do; a host is then what Host says, and nothing more.
    struct moon_slice url;
    // Empty, or the name of an upstream of the newest snapshot: its endpoints, balancing, limits and connections.
    struct moon_slice upstream;
    // Host, User-Agent and Accept may be given. Refused: Content-Length, Transfer-Encoding, Connection and what else belongs
    // to one hop, Expect. Names and values that are not HTTP's (CR, LF, NUL ...) are refused.
    const struct moon_call_field *fields;
    size_t field_count;
    struct moon_slice body;
    struct moon_tls_client
        *tls;            // what https is spoken with; NULL: one that trusts what the system does
    uint32_t timeout_ms; // of the whole call; 0: the default
    uint32_t connect_timeout_ms; // of each connection, at most the one of the settings; 0: that one
    size_t body_max_len;         // of the response's body; 0: the default
    // Told once, from the loop, never under moon_call_start; the owner frees the call then or later.
    void (*done)(void *owner, struct moon_call *call);
    void *owner;
};

// Starts a call; on the worker of the service. 0 and *out, or an error, when there is no call and done is not told:
//   MOON_EURL, MOON_EMETHOD, MOON_EFIELD, -EMSGSIZE   what was given is no URL, method, field; the head is too long
//   MOON_ELATER      not supported yet: an upstream that is built in
//   MOON_EUPSTREAM   there is no upstream of that name
//   MOON_EBUSY       MOON_CALL_MAX_COUNT calls are under way
//   MOON_ECANCELED   the worker is stopping
//   -ENOMEM, -ENOBUFS
int moon_call_start(struct moon_service *service, const struct moon_call_args *args,
                    struct moon_call **out);
// Withdraws the call, or lets go of one that is done: closes its connection if it is under way, frees everything. `done` is not
// told any more. Allowed from anywhere on the worker, under done as well, but not after the worker. A call that is done keeps an
// arena and its body, so let go soon. NULL is fine.
void moon_call_free(struct moon_call *call);

// ---- what came of it, once done was told; lives as long as the call

// 0, or why there is no response (moon_err_text says it in words):
//   MOON_ENAME       the host name does not exist, or has no address;  another negative value: the resolver failed
//   MOON_EBUSY       as many host names as may be are being resolved
//   MOON_ENOENDPOINT the upstream has no endpoint
//   MOON_ELIMIT      the upstream is at its limit
//   -ETIMEDOUT       connecting took too long
//   MOON_ETIMEOUT    timeout_ms is over
//   MOON_EOF         the peer closed the connection without a (whole) response;  -ECONNREFUSED, -ECONNRESET ...: as they say
//   MOON_ECERT       the peer's certificate is not accepted;  MOON_ETLS: there is no TLS to be had with it
//   MOON_EPROTO      what came is no HTTP/1.1 response to this request
//   MOON_EBODY       the body is longer than body_max_len
//   -ENOBUFS         the budget of buffers is used up
//   MOON_ECANCELED   the worker stopped
int moon_call_error(const struct moon_call *call);
// With an error all of these are empty: a response is whole or it is none.
uint16_t moon_call_status(const struct moon_call *call);
// As they came, Content-Length and the like included. A name may occur more than once.
const struct moon_headers *moon_call_headers(const struct moon_call *call);
struct moon_slice moon_call_body(const struct moon_call *call);

// ---- for gateway/

// Ends every call that is still under way with MOON_ECANCELED (done is told by a task), and lets no other begin.
void moon_call_stop_all(struct moon_service *service);
