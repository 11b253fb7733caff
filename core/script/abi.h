// The contract between the Lua of the product (lua/moongate/_core) and the core: plain C types that LuaJIT's FFI reads. The
// build makes _core/abi.lua from this file (cmake/abi.lua); lint fails when it is stale.
//
// Functions here only read, edit or enqueue: none of them calls Lua, blocks, or sends a byte; what they start goes on after the
// coroutine has yielded. What needs a Lua state (starting coroutines, keeping functions) is the Lua C API of bind_native.c.
// A handle whose exchange has ended answers MOON_ABI_ENDED, whoever kept it.
#pragma once

#include <stddef.h>
#include <stdint.h>

enum {
    MOON_ABI_OK = 0,
    MOON_ABI_NONE = 1,     // there is no such thing: no error
    MOON_ABI_ENDED = -1,   // the handle's exchange is over
    MOON_ABI_PHASE = -2,   // not in this phase
    MOON_ABI_INVALID = -3, // the value cannot stand in a message
    MOON_ABI_MEMORY = -4,  // the exchange's memory is at its bound
    MOON_ABI_FOREIGN = -5, // what runs works for another exchange, or for none
    MOON_ABI_OVER = -6,    // what runs is a task, and the phase that started it has ended
};

// The phases a function may run in; _core/phases.lua has their names in this order.
enum {
    MOON_ABI_EVALUATE,
    MOON_ABI_REWRITE,
    MOON_ABI_ACCESS,
    MOON_ABI_HEADER_FILTER,
    MOON_ABI_BODY_FILTER,
    MOON_ABI_LOG,
    MOON_ABI_INIT_WORKER,
    MOON_ABI_TIMER,
    MOON_ABI_WEBSOCKET_FRAME,
    MOON_ABI_CERTIFICATE,
    MOON_ABI_PREREAD,
};

struct moon_abi_text {
    const char *ptr;
    size_t len;
};

// Handles are values: a slot of the VM that never moves, and how often it had been used when the handle was made. One layout
// under four names, because Lua hangs its methods on the name. The exchange's is a userdata that the core makes, the others are
// made of it.
struct moon_abi_exchange {
    void *slot;
    uint32_t generation;
    uint32_t is_response;
};
struct moon_abi_request {
    void *slot;
    uint32_t generation;
    uint32_t is_response;
};
struct moon_abi_response {
    void *slot;
    uint32_t generation;
    uint32_t is_response;
};
struct moon_abi_headers {
    void *slot;
    uint32_t generation;
    uint32_t is_response;
};

// What the functions of shared dictionaries return, MOON_ABI_OK aside (base/dict.h).
enum {
    MOON_ABI_DICT_NOT_FOUND = 1,
    MOON_ABI_DICT_EXISTS = 2,
    MOON_ABI_DICT_NO_MEMORY = 3,
    MOON_ABI_DICT_NOT_NUMBER = 4,
    MOON_ABI_DICT_TOO_LONG = 5, // for the buffer: `len` says what it takes, for now
    MOON_ABI_DICT_BAD_KEY = 6,  // empty, or too long
};
// Types of their values; 0: none.
enum {
    MOON_ABI_DICT_BOOLEAN = 1,
    MOON_ABI_DICT_NUMBER = 2,
    MOON_ABI_DICT_STRING = 3,
};
// Modes of a set; may be or-ed.
enum {
    MOON_ABI_DICT_ADD = 1,     // only where there is no such key
    MOON_ABI_DICT_REPLACE = 2, // only where there is one
    MOON_ABI_DICT_SAFE = 4,    // nothing makes room
};
// What opening a dictionary returns, MOON_ABI_OK and MOON_ABI_PHASE aside (base/dicts.h).
enum {
    MOON_ABI_DICTS_OTHER_LEN = 1, // opened; it keeps another length, and nobody was told so yet
    MOON_ABI_DICTS_BAD_NAME = 2,
    MOON_ABI_DICTS_BAD_LEN = 3,
    MOON_ABI_DICTS_FULL = 4,
    MOON_ABI_DICTS_NO_MEMORY = 5,
};
// Their bounds.
enum {
    MOON_ABI_DICTS_NAME_MAX_LEN = 255,
    MOON_ABI_DICTS_MAX_COUNT = 1024,
    MOON_ABI_DICTS_MIN_LEN = 16384,
    MOON_ABI_DICTS_MAX_GIB = 256,
};

struct moon_abi_dict_value {
    char *buffer;      // in: where a string goes
    size_t buffer_len; // in
    size_t len;        // out: of the string
    double number;     // out: the number; 0 or 1 for a boolean
    uint32_t flags;    // out
    uint8_t type;      // out
    uint8_t is_stale;  // out
};
struct moon_abi_dict_set {
    const char *string;  // in
    size_t len;          // in
    double number;       // in
    double ttl;          // in: seconds; 0 for ever
    uint32_t flags;      // in
    uint8_t type;        // in
    uint8_t mode;        // in
    uint8_t is_forcible; // out: something live made room
};
struct moon_abi_dict_incr {
    double by;           // in
    double init;         // in
    double init_ttl;     // in: seconds; 0 for ever
    double number;       // out: the sum
    uint8_t has_init;    // in: else a missing key is not found
    uint8_t is_forcible; // out
};
struct moon_abi_dict_keys {
    char *buffer;      // in: each key becomes its length (uint16_t) and its bytes
    size_t buffer_len; // in
    size_t max_count;  // in
    size_t count;      // out
    size_t len;        // out: filled; of MOON_ABI_DICT_TOO_LONG, what it takes
    uint32_t shard;    // the cursor: 0 at first, then as it was left
    uint32_t bucket;
    uint8_t is_last; // out
};

enum {
    MOON_ABI_PROXY_WITHIN_TLS = 256,
    // in struct moon_abi_proxy: the client spoke TLS, showed a certificate, and it was accepted
    MOON_ABI_PROXY_TLS = 1,
    MOON_ABI_PROXY_CERTIFICATE = 2,
    MOON_ABI_PROXY_VERIFIED = 4,
};
struct moon_abi_address {
    char text[64]; // empty: none
    uint16_t port;
};
struct moon_abi_proxy {
    struct moon_abi_address address; // whose it is
    int version;                     // 1 or 2
    int tls;                         // MOON_ABI_PROXY_TLS and so on
};

// Options of regular expressions (base/regex.h); may be or-ed.
enum {
    MOON_ABI_REGEX_CASELESS = 1,
    MOON_ABI_REGEX_MULTILINE = 2,
    MOON_ABI_REGEX_DOTALL = 4,
    MOON_ABI_REGEX_EXTENDED = 8,
    MOON_ABI_REGEX_UTF = 16,
    MOON_ABI_REGEX_ANCHORED = 32,
};

// Where a match or a group is; -1 for a group that took no part.
struct moon_abi_regex_span {
    int32_t from;
    int32_t to;
};

// A coroutine's wait: waking with a ticket of an earlier wait does nothing.
struct moon_abi_ticket {
    void *coroutine;
    uint32_t wait;
};

/// The index of a handle's slot, from 1 on, for tables that are let go with the exchange; 0 when it is over.
uint32_t moon_abi_slot_index(const void *handle);
/// Which use of which slot the running coroutine belongs to: 0, or MOON_ABI_NONE outside of an exchange.
int moon_abi_current(void *vm, uint32_t *slot, uint32_t *generation);
/// The phase that runs now, MOON_ABI_EVALUATE and so on.
int moon_abi_phase(void *vm);

/// Texts of an exchange. `what`: 'm' method, 's' scheme, 'h' host, 'p' path, 'q' query, 'i' id, 'r' route, 'u' upstream,
/// 'a' client address, 'b' the request's body as it was collected; of a TLS connection: 'V' version, 'C' cipher, 'S' the name
/// asked for, and of the client's certificate: 'J' subject, 'A' alternative names, 'F' fingerprint, 'N' serial. MOON_ABI_NONE: there is none.
int moon_abi_get_text(const void *handle, int what, struct moon_abi_text *out);
/// What the PROXY header of the client's connection said. MOON_ABI_NONE: there was none, or it said nothing.
int moon_abi_proxy_get(const void *handle, struct moon_abi_proxy *out);
/// The first of its TLVs of a type; plus MOON_ABI_PROXY_WITHIN_TLS: of those about the client's TLS. MOON_ABI_NONE: there is none.
int moon_abi_proxy_tlv(const void *handle, int type, struct moon_abi_text *out);
/// Where the client meant to go: as a PROXY header says, or the kernel of what was sent here, else where it has come.
int moon_abi_destination(const void *handle, struct moon_abi_address *out);
/// Changes 'm', 'h', 'p' (made canonical) or 'q', in rewrite and access.
int moon_abi_set_text(const void *handle, int what, const char *ptr, size_t len);
/// Numbers of an exchange. `what`: 's' response status, 'p' request port, 'c' client port, 'l' bytes of the response body so
/// far, 'n' bytes of the request body so far, 'd' seconds since its head was complete.
int moon_abi_get_number(const void *handle, int what, double *out);
/// The response's status, 200 to 599, in header_filter.
int moon_abi_set_status(const void *handle, int status);

/// Handles of headers come by their members: a JIT-compiled script need not make one then.
/// All values of a header joined by ", " (cookies by "; ").
int moon_abi_header_get(void *slot, uint32_t generation, uint32_t is_response, const char *name,
                        size_t len, struct moon_abi_text *out);
/// The next value of a header at or after *at, which moves behind it; start with 0.
int moon_abi_header_next(void *slot, uint32_t generation, uint32_t is_response, const char *name,
                         size_t len, uint32_t *at, struct moon_abi_text *out);
/// The field at an index, in order of arrival.
int moon_abi_header_at(void *slot, uint32_t generation, uint32_t is_response, uint32_t index,
                       struct moon_abi_text *name, struct moon_abi_text *value);
/// Replaces all fields of that name by one.
int moon_abi_header_set(void *slot, uint32_t generation, uint32_t is_response, const char *name,
                        size_t name_len, const char *value, size_t value_len);
/// Adds a field of that name.
int moon_abi_header_add(void *slot, uint32_t generation, uint32_t is_response, const char *name,
                        size_t name_len, const char *value, size_t value_len);
/// Removes all fields of that name.
int moon_abi_header_del(void *slot, uint32_t generation, uint32_t is_response, const char *name,
                        size_t len);

/// Answers the request in place of its backends, in rewrite and access; the phase ends when the coroutine yields. `type` may be
/// empty: text/plain, where there is a body.
int moon_abi_respond(const void *handle, int status, const char *body, size_t body_len,
                     const char *type, size_t type_len);

/// Begins to collect the request's body, at most `max` bytes; the running coroutine is woken when it is whole or over `max`.
/// MOON_ABI_NONE: it has been collected already.
int moon_abi_body_collect(const void *handle, size_t max);
/// What became of it: 0 and the body, MOON_ABI_NONE when it was longer than the bound.
int moon_abi_body_collected(const void *handle, struct moon_abi_text *out);
/// The request's body is these bytes from now on, in rewrite and access.
int moon_abi_body_replace(const void *handle, const char *ptr, size_t len);
/// Asks for the next piece of the request's body; the running coroutine is woken when it is there.
int moon_abi_chunk_ask(const void *handle);
/// The piece, valid until the next yield: 0, or MOON_ABI_NONE at the body's end.
int moon_abi_chunk_take(const void *handle, struct moon_abi_text *out);

/// What has come on the connection of that number, which preread runs for; valid until the next call.
int moon_abi_peek(void *vm, double number, size_t max, struct moon_abi_text *out);
/// Wakes the running coroutine when so many bytes are there, none more will come, or the time is over; it yields next.
/// MOON_ABI_NONE: none more will come, there is nothing to wait for.
int moon_abi_peek_wait(void *vm, double number, size_t count, double seconds);

/// The compiler has finished a trace, or given one up.
void moon_abi_count_trace(void *vm, int is_abort);
/// Seconds since 1970, as the worker's loop last saw them.
double moon_abi_now(void *vm);
/// Seconds of a clock that never jumps.
double moon_abi_clock(void *vm);
/// The ticket of the wait that the running coroutine is about to begin. MOON_ABI_PHASE: nothing runs that could wait.
int moon_abi_ticket(void *vm, struct moon_abi_ticket *out);
/// Lets the coroutine of a ticket go on, soon.
void moon_abi_wake(const struct moon_abi_ticket *ticket);
/// Wakes the running coroutine after so many seconds; it yields next.
int moon_abi_sleep(void *vm, double seconds);

/// The shared dictionary of that name, made with `size` bytes if there is none; 0: of any size. It outlives the VM.
int moon_abi_dict_open(void *vm, const char *name, size_t len, double size, void **out);
/// A live value.
int moon_abi_dict_get(void *vm, void *dict, const char *key, size_t len,
                      struct moon_abi_dict_value *value);
/// A value, live or not.
int moon_abi_dict_get_stale(void *vm, void *dict, const char *key, size_t len,
                            struct moon_abi_dict_value *value);
/// Replaces value, flags and time to live.
int moon_abi_dict_set(void *vm, void *dict, const char *key, size_t len,
                      struct moon_abi_dict_set *set);
/// Adds to a number.
int moon_abi_dict_incr(void *vm, void *dict, const char *key, size_t len,
                       struct moon_abi_dict_incr *incr);
/// Frees a key, live or not.
int moon_abi_dict_del(void *dict, const char *key, size_t len);
/// Seconds that are left to a live key; 0 for ever.
int moon_abi_dict_ttl(void *vm, void *dict, const char *key, size_t len, double *seconds);
/// A new time to live for a live key; 0 for ever.
int moon_abi_dict_expire(void *vm, void *dict, const char *key, size_t len, double seconds);
/// Some of the live keys, and where to go on.
int moon_abi_dict_keys(void *vm, void *dict, struct moon_abi_dict_keys *keys);
/// Everything becomes stale.
void moon_abi_dict_flush_all(void *dict);
/// Frees up to `max` stale keys, all for 0; how many.
double moon_abi_dict_flush_expired(void *vm, void *dict, double max);
/// The bytes that it was made with.
double moon_abi_dict_capacity(void *dict);
/// Those that nothing holds.
double moon_abi_dict_free_space(void *dict);

/// A compiled expression; NULL with what is wrong in `fault`.
void *moon_abi_regex_new(const char *pattern, size_t len, uint32_t options, char *fault,
                         size_t fault_len);
/// Frees it.
void moon_abi_regex_free(void *regex);
/// What a VM matches in.
void *moon_abi_regex_scratch_new(void);
/// Frees it.
void moon_abi_regex_scratch_free(void *scratch);
/// The number of a name's group, names being counted from 0 on; 0: there are no more.
uint32_t moon_abi_regex_name(const void *regex, uint32_t index, struct moon_abi_text *name);
/// The first match at or after `from`; after an empty match that ended there, `from` is given as -1 - from. `spans` has room for
/// 256. How many there are; 0: no match, MOON_ABI_INVALID: it gave up.
int moon_abi_regex_search(const void *regex, void *scratch, const char *text, size_t len,
                          int32_t from, struct moon_abi_regex_span *spans);
