// The filter contract: what a plugin in C, or the script room on behalf of one in Lua, may see and do. A filter sees a flow,
// never an exchange, a link or a socket.
//
// Head hooks (rewrite, access, header_filter, log) return a verdict. After MOON_WAIT the hook is called again once somebody
// called flow->ops->resume; it keeps its own state to know where it stood. Body hooks are pushed: they take bytes and pass
// on what they like with flow->ops->pass. An exchange that ends while a hook waits calls `cancel` of that filter, once.
//
// Order: filters of a phase run in list order, in both directions. Everything runs on the exchange's worker.
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
struct moon_loop;
struct moon_schema;
struct moon_value;

enum moon_verdict {
    MOON_NEXT, // go on with the next filter
    MOON_WAIT, // stop here until resume, then call this hook again
    MOON_DONE, // the flow was answered (ops->respond): later filters of the phase are left out
    MOON_FAIL, // the filter failed: 500, or the response is broken off when it has begun
};

enum moon_phase { MOON_PHASE_REWRITE, MOON_PHASE_ACCESS, MOON_PHASE_HEADER_FILTER, MOON_PHASE_LOG };

enum moon_direction { MOON_REQUEST, MOON_RESPONSE };

// Results of body hooks and of ops->pass besides a count of bytes taken.
enum {
    MOON_BODY_WAIT = -1, // took nothing: call again with the same bytes after resume
    // took nothing more: call again with the same bytes when there is room below
    MOON_BODY_FULL = -2,
    MOON_BODY_FAIL = -3, // break the message off
};

// What a filter may ask for; filled in by exchange/.
struct moon_flow_ops {
    // Ends a MOON_WAIT or MOON_BODY_WAIT. Safe to call from a timer; never calls back before it returns.
    void (*resume)(struct moon_flow *flow);
    // Answers the request (rewrite, access) with a body that lives in the arena, in the filter's conf or is static; the
    // hook returns MOON_DONE.
    // `type` may be empty: text/plain. Fields may be added to flow->response->headers after the call.
    void (*respond)(struct moon_flow *flow, uint16_t status, struct moon_slice type,
                    struct moon_slice body);
    // From a body hook: hands bytes to the next filter, the last one's go to the peer. Bytes taken, or MOON_BODY_ values.
    // `end` says that these are the last; it counts as taken only when all bytes were.
    ssize_t (*pass)(struct moon_flow *flow, enum moon_direction direction, struct moon_slice bytes,
                    bool end);
    // Breaks the exchange off: the client sees its connection reset, the upstream link is closed. The hook returns
    // MOON_FAIL or MOON_BODY_FAIL when it was called from one.
    void (*abort)(struct moon_flow *flow);
    // A unique id of the exchange, 32 hexadecimal digits in the arena; the same at every call.
    struct moon_slice (*id)(struct moon_flow *flow);
    // Where the client's connection ends on our side: the listener's port. Costs a system call.
    void (*local)(struct moon_flow *flow, struct moon_address *out);
};

struct moon_flow {
    const struct moon_flow_ops *ops;
    struct moon_arena *arena; // dies with the exchange
    struct moon_loop *loop;   // for timers and `now`
    struct moon_head *request;
    struct moon_head *response; // status 0 until there is one
    struct moon_address client;
    const char *scheme; // "http"
    // What the route matched of the request's path, without a slash at its end: empty for "/", and where there is no one
    // prefix. A filter that moves the path keeps it true.
    struct moon_slice matched_prefix;
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
    // The exchange gives up while a hook of this filter waits: disarm timers, drop what is under way.
    void (*cancel)(struct moon_flow *flow, void *conf, void *state);
};

// One use of a filter in a route.
struct moon_filter {
    const struct moon_filter_type *type;
    void *conf;
};

// A built-in upstream ("builtin:NAME"): answers where a backend would. Called once the request has been received whole;
// its body was counted and dropped. It calls ops->respond and returns MOON_DONE, or MOON_WAIT to be called again after
// ops->resume; *state is its own, NULL at first.
struct moon_builtin {
    const char *name;
    enum moon_verdict (*answer)(struct moon_flow *flow, void *owner, void **state);
    // The exchange ends while it waits. May be NULL.
    void (*cancel)(struct moon_flow *flow, void *owner, void *state);
    void *owner;
};

extern const struct moon_builtin moon_builtin_echo;
