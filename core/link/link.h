// Link: one connection of either role, a stream with its codec, HTTP/1.1 or HTTP/2. It reads and frames what comes, writes what is sent,
// holds what the peer does not take yet, and watches the deadlines of the connection.
//
//   server role            client role
//   bytes -> lane head ->  exchange  -> lane send_head -> bytes
//   bytes <- lane send <-  exchange  <- lane head      <- bytes
//
// A lane is one request and its response on a link; an HTTP/1.1 link has one at a time, an HTTP/2 link one for each stream. A
// server link whose client begins with the preface of HTTP/2 becomes one. While nobody is attached to the lane
// of a server link it waits for the next request, on a client link it idles in a pool.
// Ownership: moon_link_new takes the stream; moon_link_close frees the link after the present dispatch has returned, so it may
// be called from any event. Every event may close the link. Lanes never call back from inside a send; abort comes later.
#pragma once

#include "base/slice.h"
#include "http/head.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct moon_address;
struct moon_arena;
struct moon_buffer;
struct moon_lane;
struct moon_link;
struct moon_proxied;
struct moon_resources;
struct moon_stream;
struct moon_tls_facts;

enum moon_link_role { MOON_LINK_SERVER, MOON_LINK_CLIENT };

// What a lane tells the one who is attached to it.
struct moon_lane_events {
    // Client role: the connection stands, and nothing is read before this returns: for one who takes the stream. NULL: nobody does.
    void (*connected)(void *owner);
    // The head was parsed into the memory given at attach: a request, or a response (1xx ones come before the final one).
    void (*head)(void *owner);
    // The message is unusable (bad head, bad body framing, too slow). Nothing more comes from this message, and the link
    // will close when the lane ends.
    void (*fault)(void *owner, const struct moon_fault *fault);
    // Body bytes; returns how many were taken. Fewer: nothing more comes until moon_lane_resume.
    size_t (*body)(void *owner, struct moon_slice bytes);
    // Client role: how many body bytes are of use now: reads are no longer, but for a few KiB. NULL: any.
    size_t (*room)(void *owner);
    // The message is over. `trailers` (in the arena, perhaps none) are those that may be trailers.
    void (*end)(void *owner, const struct moon_headers *trailers);
    // The connection is lost or a deadline passed (MOON_ETIMEOUT); the lane is detached already, the link closes itself.
    void (*abort)(void *owner, int err);
    // There is room again after moon_lane_send_body took less than it was given.
    void (*writable)(void *owner);
};

// What a link tells the one who keeps it (edge/, or the pool).
struct moon_link_events {
    // Server role: a request begins; call moon_lane_attach. The head event follows.
    void (*open)(void *owner, struct moon_lane *lane);
    // The lane was ended and the link is fit for another message.
    void (*idle)(void *owner);
    // The link is no more; forget it.
    void (*closed)(void *owner);
    // Client role, HTTP/2: a lane that moon_link_open_lane gave is over, and idle is never told. May close the link.
    void (*left)(void *owner, struct moon_lane *lane);
    // Client role: the connection stands, and its peer has chosen another protocol by ALPN than the link speaks. The error that
    // its lanes are to be told; nothing of them was sent.
    int (*mismatch)(void *owner, bool is_h2);
    // Client role, HTTP/2: moon_link_lane_cap may be another. Told from under the codec: open no lane, end none.
    void (*recapped)(void *owner);
};

// One request and its response on the link. Public for the h1 codec and for embedding; use the functions below.
struct moon_lane {
    const struct moon_lane_events *events;
    void *owner; // NULL: detached
    struct moon_arena *arena;
    struct moon_head *head; // what is read: the request (server), the response (client)
    enum moon_method request_method;
    struct moon_headers trailers;
    bool is_stream; // of an HTTP/2 link
    bool is_load;   // the pool's: counts as in flight
};

struct moon_link *moon_link_new(struct moon_resources *res, enum moon_link_role role,
                                struct moon_stream *stream, const struct moon_link_events *events,
                                void *owner);
// Changes who keeps the link.
void moon_link_set_owner(struct moon_link *link, const struct moon_link_events *events,
                         void *owner);
// Server role: starts reading. Separate from new so that the owner is complete when the first event comes.
void moon_link_start(struct moon_link *link);
// Closes without telling anyone. NULL is fine.
void moon_link_close(struct moon_link *link);
// The same with a reset.
void moon_link_abort(struct moon_link *link);
// No further request after the one under way; an idle link closes now. For draining.
void moon_link_drain(struct moon_link *link);
// The same, but the first request is still waited for: a connection that was accepted before the drain began.
void moon_link_drain_next(struct moon_link *link);
bool moon_link_is_draining(const struct moon_link *link);
// How many messages the link has carried.
uint32_t moon_link_lane_count(const struct moon_link *link);
// Milliseconds at which the connection was made.
uint64_t moon_link_start_ms(const struct moon_link *link);
// Counts the links of the worker: no two have the same.
uint64_t moon_link_number(const struct moon_link *link);
// A part of a head has come, the rest has not.
bool moon_link_is_in_head(const struct moon_link *link);
// A lane of it is attached, or a stream is open.
bool moon_link_is_busy(const struct moon_link *link);
// It only waits for its end: what is queued is written, what comes is thrown away.
bool moon_link_is_ending(const struct moon_link *link);
// What those in front of it said (link/proxied.h); takes the reference. NULL: nothing.
void moon_link_set_proxied(struct moon_link *link, struct moon_proxied *proxied);
struct moon_proxied *moon_link_proxied(const struct moon_link *link);
// Client role, new: bytes that go out before everything else, as soon as the connection stands.
void moon_link_send_first(struct moon_link *link, struct moon_slice bytes);
// The stream underneath, the link's.
const struct moon_stream *moon_link_stream(const struct moon_link *link);
// `peer` or our own end; our own costs a system call.
void moon_link_address(const struct moon_link *link, bool peer, struct moon_address *out);
// What is known of its TLS connection (io/tls.h), the link's; NULL: it is plain.
struct moon_tls_facts *moon_link_tls(const struct moon_link *link);
// Client role, new: it speaks HTTP/2, once it stands. `peer_stream_count`: how many streams its peer is taken to allow before it
// says so; 0: as usual. 0 or -ENOMEM.
int moon_link_speak_h2(struct moon_link *link, uint32_t peer_stream_count);
// Client role: a lane to attach to, which is given back by moon_lane_end or _abort, or lost by abort. HTTP/1.1: the one lane. NULL:
// out of memory.
struct moon_lane *moon_link_open_lane(struct moon_link *link);
// Client role, HTTP/2: how many lanes the peer lets be open at once; 0: no more are to be opened.
uint32_t moon_link_lane_cap(const struct moon_link *link);
bool moon_link_is_connecting(const struct moon_link *link);
struct moon_link *moon_lane_link(struct moon_lane *lane);

struct moon_lane_attachment {
    const struct moon_lane_events *events;
    void *owner;
    struct moon_arena *arena;
    struct moon_head *head;
    enum moon_method request_method; // client role: decides how the response is framed
    // client role: longest silence of the peer, until its response is whole
    uint32_t response_ms;
};

void moon_lane_attach(struct moon_lane *lane, const struct moon_lane_attachment *attachment);
// Sends a head. 0, or an error after which abort follows. Interim responses may come first.
int moon_lane_send_head(struct moon_lane *lane, const struct moon_head *head,
                        const struct moon_framing *framing);
// Body bytes in the framing of the head; returns how many were taken (0: full, `writable` follows).
size_t moon_lane_send_body(struct moon_lane *lane, struct moon_slice bytes);
// How many body bytes the peer would take now, as far as it has said: the windows of a stream. SIZE_MAX: it has not.
size_t moon_lane_room(const struct moon_lane *lane);
// Ends the body. Trailers (may be NULL) go out only in a chunked body.
void moon_lane_send_end(struct moon_lane *lane, const struct moon_headers *trailers);
// More body may be delivered. Never calls back before it returns.
void moon_lane_resume(struct moon_lane *lane);
// Whether the request body waits for something on our side (a filter): its sender is not slow, nor is it silence when the one
// who is to get it does not answer yet. A client that ends its side with the body unread counts as gone meanwhile, as it does
// once the body was read. Ends with the lane.
void moon_lane_hold(struct moon_lane *lane, bool is_held);
// Server role: the request is read whole; its `end` may not have been told yet.
bool moon_lane_is_read(const struct moon_lane *lane);
// Client role: the time that connecting may take, from its beginning, TLS included; nothing where the connection stands.
void moon_lane_connect_within(struct moon_lane *lane, uint32_t ms);
// Client role: whether any byte of the response (HTTP/2: of its head) has come / any of the request has gone out / the connection stands. All may be
// asked under abort.
bool moon_lane_has_input(const struct moon_lane *lane);
bool moon_lane_has_output(const struct moon_lane *lane);
bool moon_lane_is_connected(const struct moon_lane *lane);
// Detaches. A server link goes on with the next request, or closes (lingering where input is unread); a client link becomes
// idle when it is fit for reuse, else it closes. `idle` is told in the first case.
void moon_lane_end(struct moon_lane *lane, bool reuse);
// Detaches and closes the link at once, after trying to write what is queued. Server role: the client can tell that the
// message is cut short: it lacks its end, or, where only the end of the connection would end it, is reset.
void moon_lane_abort(struct moon_lane *lane);

// Lets the rest of the body go from one lane to the other inside the kernel wherever that pays; the `end` event of `from`
// follows as ever, `body` perhaps not. Both sides must carry the same length. A wish: where it can't be, bytes are copied.
void moon_lane_splice(struct moon_lane *from, struct moon_lane *to);

// Gives up the codec: detaches, hands over the stream, what was read beyond the head (*in) and what was queued but not
// written yet (*out). The caller owns all three. 0 or -EPIPE when the link is broken (then it was closed). Of an HTTP/2 link
// whose head was 101 that one stream, in the form of a moon_stream; its bytes stay in it, the link stays with its keeper.
int moon_lane_take_stream(struct moon_lane *lane, struct moon_stream **stream,
                          struct moon_buffer *in, struct moon_buffer *out);
