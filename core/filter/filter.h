// The filter contract: what a plugin in C, or the script room on behalf of one in Lua, may see and do. A filter sees a flow,
// never an exchange, a link or a socket. Everything runs on the exchange's worker; filters of a phase run in list order, in
// both directions.
//
//   rewrite -> access -> request_body ... -> header_filter -> response_body ... -> log        (request_body may still run, and
//      wait, while the response is on its way)
//
// Head hooks (rewrite, access, header_filter, log) return a verdict. header_filter runs for every final response and for 101,
// the gateway's own answers included; it runs anew when another response replaces the one it saw (the upstream died while it
// waited, the request turned out broken). log runs once, last, when the connection may be gone. A filter that fails in
// header_filter gets a plain 500 in its place, which no filter sees but in log.
//
// Body hooks are pushed. They run for messages that have a body, an empty one included: not for requests without one, for
// tunnels, nor for responses to HEAD, 204 and 304. A hook gets bytes (never none) or, last and by itself, the end (no bytes).
// It returns how many bytes it has taken: passed on, kept, or dropped. The rest is offered again: at once when it took some;
// else when there is room (MOON_BODY_FULL) or after a resume (MOON_BODY_WAIT). What pass refused is refused in turn, or kept
// by the filter (bounded, never in the arena) for its next call; nobody calls it only for the sake of what it keeps.
// - It has taken the end (0) when it has passed the end on; until then it returns MOON_BODY_WAIT or MOON_BODY_FULL.
// - It may pass the end on early: the message ends there for all behind it, and what still comes is dropped unseen.
// - Content-Length, digests and the like of a filtered message are gone before header_filter, or on the way upstream.
//
// Waiting: a hook that returned MOON_WAIT or MOON_BODY_WAIT is not called again before somebody called resume. A flow may wait
// in several hooks at once (a request body, and a response head or body) and resume names none: every one is called again,
// and one whose cause has not come returns the same again. It keeps its own state to know where it stood. A body hook that
// is called again sees bytes that begin with those it refused.
// An exchange, or a response, that ends before the hook was called again calls `cancel` of the filter, once for all of its
// hooks that wait: timers are disarmed there. Later hooks of the filter may still run (header_filter of another response, log).
//
// The request's body before it is forwarded: a rewrite or access hook calls ops->read_request and returns MOON_WAIT. While it
// waits its reader gets the bytes as they arrive, and last the end (at once where there is no body); then, or when it has seen
// enough, it has the hook called by ops->resume. The reader is never called under a hook or a call of ops, nor when the hook
// does not wait (any more): a verdict other than WAIT, a cancel, replace_request and NULL stop it.
// - A client that expects 100 gets it when reading begins. A client that is read must keep up with the body rate, else 408 and
//   `cancel`; while the reader says WAIT, and while a hook waits that reads nothing, it need not.
// - What a reader took is gone: for later readers, who get the rest, and for the upstream. Whoever took bytes calls
//   ops->replace_request, or answers, before the access phase is over; else the answer is 500.
// - A body that was replaced is read again from its beginning, goes through all body filters, and is forwarded with its
//   length (an empty one without, but for POST, PUT and PATCH), without digests, trailers and Expect. It is sent again from
//   memory where the request is retried, whatever its length; behind body filters the bound is the usual one. What still comes
//   from the client is dropped; the connection serves another request when all had come before the response began.
// - flow->request_body_len counts what came from the client; flow->request tells of the body as it is forwarded.
//
// WebSocket: where a filter of the flow has a hook `websocket_frame`, and the response is a 101 to that protocol, the flow lives as
// long as the tunnel: heads may be read, nothing of them is sent any more, log runs at the tunnel's end. Every whole message (its
// fragments joined, at most as long as the route allows) goes through the filters in list order, in both directions, one at a
// time in each. The hook may change message->data and returns NEXT: on to the next filter, the last one's goes out as one
// frame; WAIT, as head hooks, and the sender is not read meanwhile; DONE: the message is dropped, and where close_code was set
// both sides get that Close; FAIL: both get close_code, or 1011. Ping, Pong and Close pass in their order and are not shown. No
// extension is agreed on. A response to another protocol on such a route is a 502: nothing passes unseen.
#pragma once

#include "base/address.h"
#include "base/slice.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct moon_arena;
struct moon_filter_compile;
struct moon_flow;
struct moon_head;
struct moon_headers;
struct moon_loop;
struct moon_opening;
struct moon_preread;
struct moon_schema;
struct moon_proxied;
struct moon_tls_facts;
struct moon_value;

enum moon_verdict {
    MOON_NEXT, // go on with the next filter
    MOON_WAIT, // stop here until resume, then call this hook again
    MOON_DONE, // the flow was answered (ops->respond): later filters of the phase are left out
    // the filter failed: 500, or the response is broken off when it has begun. In log: nothing, others still log
    MOON_FAIL,
};

enum moon_phase { MOON_PHASE_REWRITE, MOON_PHASE_ACCESS, MOON_PHASE_HEADER_FILTER, MOON_PHASE_LOG };

enum moon_direction { MOON_REQUEST, MOON_RESPONSE };

// Results of body hooks and of ops->pass besides a count of bytes taken.
enum {
    MOON_BODY_WAIT = -1, // took nothing: call again with the same bytes after resume
    // took nothing, because pass did not: call again with the same bytes when there is room below
    MOON_BODY_FULL = -2,
    MOON_BODY_FAIL =
        -3, // break the message off: a request is answered 500 (400 with flow->refusal) unless its response has begun
};

// Takes the request's body for a rewrite or access hook that waits.
struct moon_body_reader {
    // Gets bytes (never none) or, last and by itself, the end. Returns how many it has taken, and is offered the rest at once;
    // 0 for the end. MOON_BODY_WAIT: takes nothing for now, and is not called before read_request is called again; the client
    // is not read meanwhile. Anything else: the filter has failed, the request is answered 500.
    ssize_t (*body)(void *owner, struct moon_slice bytes, bool end);
    void *owner;
};

// A body that is made while it is sent, piece by piece, so that it never is in memory whole.
struct moon_body_source {
    // The next bytes, valid until the next call, which comes when they were taken. 0; an empty piece is the end.
    // MOON_BODY_WAIT: none now, call again after ops->resume. MOON_BODY_FAIL: break the response off.
    int (*next)(void *owner, struct moon_slice *piece);
    void *owner; // lives as long as the arena
};

enum {
    MOON_MESSAGE_REASON_MAX_LEN = 123,
    MOON_MESSAGE_RESTART = 1012, // the code for what a filter cannot judge any more
};

// A WebSocket message on its way through the filters.
struct moon_websocket_message {
    enum moon_direction direction; // MOON_REQUEST: from the client
    bool is_text;                  // UTF-8 then, and must remain so
    struct moon_slice data;        // valid while the message goes through the filters
    // What `data` lies in when a filter has replaced it: from malloc, freed with the message. Who replaces it again frees it.
    char *owned;
    uint16_t close_code; // 0: the tunnel goes on
    uint8_t close_reason_len;
    char close_reason[MOON_MESSAGE_REASON_MAX_LEN];
};

// What a filter may ask for; filled in by exchange/.
struct moon_flow_ops {
    // Ends every wait of the flow. Safe to call from anywhere on the worker; never calls back before it returns.
    void (*resume)(struct moon_flow *flow);
    // From rewrite or access (elsewhere ignored): answers the request with a body that lives in the arena, in the filter's
    // conf or is static; the hook returns MOON_DONE, at once or after it has waited. `type` may be empty: text/plain. Fields
    // may be added to flow->response->headers after the call.
    void (*respond)(struct moon_flow *flow, uint16_t status, struct moon_slice type,
                    struct moon_slice body);
    // The same with a body of unknown length, which `source` (copied) gives.
    void (*respond_from)(struct moon_flow *flow, uint16_t status, struct moon_slice type,
                         const struct moon_body_source *source);
    // From a body hook, for its own direction: hands bytes, or the end without bytes, to the next filter, the last one's go
    // to the peer. Bytes taken (0 for the end), or MOON_BODY_ values; the caller offers what was not taken again.
    ssize_t (*pass)(struct moon_flow *flow, enum moon_direction direction, struct moon_slice bytes,
                    bool end);
    // Breaks the exchange off, soon: the client's connection ends without (the rest of) an answer, the upstream link is
    // closed. Does nothing in log; never calls back before it returns. A hook that called it returns MOON_FAIL or
    // MOON_BODY_FAIL; whatever it returns, nothing further is sent.
    void (*abort)(struct moon_flow *flow);
    // A unique id of the exchange, 32 hexadecimal digits in the arena; the same at every call.
    struct moon_slice (*id)(struct moon_flow *flow);
    // Where the client's connection ends on our side: the listener's port. Costs a system call.
    void (*local)(struct moon_flow *flow, struct moon_address *out);
    // The name of the route.
    struct moon_slice (*route)(struct moon_flow *flow);
    // The name of the upstream that was chosen after access; empty before, and where none was.
    struct moon_slice (*upstream)(struct moon_flow *flow);
    // The endpoint of the last attempt; MOON_FAMILY_NONE before the first, and where the upstream is built in.
    void (*endpoint)(struct moon_flow *flow, struct moon_address *out);
    // From rewrite or access (elsewhere ignored), or while that hook waits: has the request's body read, which is copied; NULL
    // stops that. See "The request's body before it is forwarded". Never calls back before it returns.
    void (*read_request)(struct moon_flow *flow, const struct moon_body_reader *reader);
    // From where read_request may be called: from now on these bytes are the request's body. They stay as they are until the
    // arena is freed; who owns them sees to that (the arena is for short ones). May be called again.
    void (*replace_request)(struct moon_flow *flow, struct moon_slice bytes);
};

struct moon_flow {
    const struct moon_flow_ops *ops;
    struct moon_arena *arena; // dies with the exchange
    struct moon_loop *loop;   // for timers and `now`
    struct moon_head *request;
    struct moon_head *response; // status 0 until there is one
    struct moon_address client;
    const char *scheme; // "http" or "https"
    // What stands behind the response's body. Known when a body hook gets its end; what is left in it then is sent.
    struct moon_headers *response_trailers;
    // With MOON_BODY_FAIL of a request: what is wrong with it, static text. The answer is 400 then, and tells.
    const char *refusal;
    // what the client's handshake came to (io/tls.h), as long as the flow; NULL: plain
    const struct moon_tls_facts *tls;
    // what those in front of the connection said (link/proxied.h), as long as the flow; NULL: nothing
    const struct moon_proxied *proxied;
    // What the route matched of the request's path, without a slash at its end: empty for "/", and where there is no one
    // prefix. A filter that moves the path keeps it true.
    struct moon_slice matched_prefix;
    // What the filters of one producer (script/) share in this flow; NULL at first. Whoever sets it registers a hook on the
    // arena that cleans it up.
    void *guest;
    // Index among the gateway's data workers; their count: control's own worker. The same for all of a connection's flows.
    unsigned worker;
    uint64_t start_ms;                            // when the head was complete
    uint64_t request_body_len, response_body_len; // bytes seen so far
    bool is_complete;                             // in log: the response went out whole
};

struct moon_filter_type {
    const char *name;
    const struct moon_schema *schema; // of the plugin's configuration table; NULL: none is taken
    size_t state_len;                 // bytes of zeroed state that each exchange gets
    // every request is answered in access at the latest: its route needs no backends
    bool answers;
    // some requests are answered: its route may go without backends, and the others get 500 there
    bool may_answer;
    // stands on the code that came with the configuration, not on this table alone
    bool is_code;
    const char *excludes; // a type that may not stand in the same list, or NULL
    // Turns a checked configuration into what hooks get as `conf` (filter/compile.h). 0, or an error with the report
    // filled. May be NULL.
    int (*compile)(const struct moon_filter_compile *at, const struct moon_value *value,
                   void **conf);
    void (*unref)(void *conf);
    enum moon_verdict (*rewrite)(struct moon_flow *flow, void *conf, void *state);
    enum moon_verdict (*access)(struct moon_flow *flow, void *conf, void *state);
    enum moon_verdict (*header_filter)(struct moon_flow *flow, void *conf, void *state);
    enum moon_verdict (*log)(struct moon_flow *flow, void *conf, void *state);
    ssize_t (*request_body)(struct moon_flow *flow, void *conf, void *state,
                            struct moon_slice bytes, bool end);
    ssize_t (*response_body)(struct moon_flow *flow, void *conf, void *state,
                             struct moon_slice bytes, bool end);
    // See "WebSocket".
    enum moon_verdict (*websocket_frame)(struct moon_flow *flow, void *conf, void *state,
                                         struct moon_websocket_message *message);
    // Of a connection of a TCP or TLS route, in the place of all others (filter/preread.h).
    enum moon_verdict (*preread)(struct moon_preread *preread, void *conf);
    // The exchange gives up while a hook of this filter waits: disarm timers, drop what is under way.
    void (*cancel)(struct moon_flow *flow, void *conf, void *state);
    // Before there is an exchange (filter/opening.h); *state is NULL at first. Listed by listeners alone.
    enum moon_verdict (*certificate)(struct moon_opening *opening, void *conf, void **state);
    void (*cancel_opening)(struct moon_opening *opening, void *conf, void *state);
};

// One use of a filter in a route.
struct moon_filter {
    const struct moon_filter_type *type;
    void *conf;
};

// A built-in upstream ("builtin:NAME"): answers where a backend would. Called once the request has been received whole;
// its body was counted and dropped. It calls ops->respond or respond_from and returns MOON_DONE, or MOON_WAIT to be called again after
// ops->resume; *state is its own, NULL at first.
struct moon_builtin {
    const char *name;
    enum moon_verdict (*answer)(struct moon_flow *flow, void *owner, void **state);
    // The exchange ends while it waits. May be NULL.
    void (*cancel)(struct moon_flow *flow, void *owner, void *state);
    void *owner;
};

extern const struct moon_builtin moon_builtin_echo;
