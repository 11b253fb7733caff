// The body of struct moon_link, for the files of this room.
#pragma once

#include "base/buffer.h"
#include "http/body.h"
#include "io/loop.h"
#include "link/link.h"

struct moon_h2_link;
struct moon_splice;

enum link_read {
    LINK_READ_HEAD, // waiting for a head, or inside one
    LINK_READ_BODY,
    LINK_READ_DONE,    // the message is over; server: nothing is read until the lane ends
    LINK_READ_DISCARD, // lingering: the rest is thrown away
};

struct moon_link {
    struct moon_stream *stream; // NULL once closed
    struct moon_resources *res;
    const struct moon_link_events *events;
    void *owner;
    struct moon_lane lane;        // HTTP/1.1: the one lane
    struct moon_h2_link *h2;      // NULL: HTTP/1.1
    struct moon_proxied *proxied; // of a PROXY header; NULL: none
    struct moon_buffer in, out;
    struct moon_body_reader body;
    struct moon_timer timer;
    struct moon_task task;                        // flush, go on reading, free
    uint64_t read_deadline_ms, write_deadline_ms; // 0: none
    struct moon_link *splice_wish;  // splice to there as soon as what was read has been taken
    struct moon_link *wished_by;    // the other end of somebody's wish
    struct moon_splice *splice_out; // moves what is read here to another link
    struct moon_splice *splice_in;  // moves into this link
    uint64_t start_ms;
    uint64_t number;     // of the worker
    uint32_t window_len; // body bytes since the window began (body rate), or discarded bytes
    uint32_t lane_count;
    uint32_t response_ms; // client role: longest silence of the peer
    // bytes at the front of `in` that are body already: framing taken off, not delivered yet
    uint32_t ready_len;
    struct moon_head_scan scan;
    uint16_t head_len;     // of the message under way; 0: too long to matter
    uint16_t head_cap_len; // how much to read at most for the next head; 0: as usual
    uint8_t role;          // enum moon_link_role
    uint8_t read_state;    // enum link_read
    uint8_t write_kind;    // enum moon_body_kind of the message being sent
    bool is_connecting : 1;
    bool is_dispatching : 1; // inside on_ready: what is queued is flushed when it returns
    bool is_paused : 1;      // the owner took less than it was given
    bool was_paused : 1;     // in this window of the body rate
    bool is_held : 1;        // the request body waits on our side (moon_lane_hold)
    bool wants_read : 1;     // the task goes on reading
    bool is_full : 1;        // somebody waits for `writable`
    bool must_close : 1;     // after the lane now open
    bool is_draining : 1;
    bool awaits_flush : 1; // the next pipelined request waits until `out` is short
    bool is_sent : 1;      // the message of this side is written whole (into `out` at least)
    bool has_input : 1;    // bytes came since attach
    bool has_output : 1;   // bytes went to the stream since attach
    bool peer_ended : 1;   // FIN seen
    bool is_closing : 1;   // flush `out`, then close
    // writing failed: output is dropped, reading goes on (a 413 may have come before the RST)
    bool is_broken : 1;
    bool was_reset : 1;   // writing met the reset: reading will find a clean end instead
    bool may_linger : 1;  // none was seen, but some may be on its way: the same for a short while
    bool must_linger : 1; // input is left unread: end our side and discard before closing
    bool is_freed : 1;    // closed; the task frees it
    int error;            // found while sending, told by the task
};

// send.c
// Writes what is queued, as far as the stream takes it. Tells nobody.
void moon_link_flush(struct moon_link *link);
// Client role: writing failed. What comes is still read, because the answer may be there already.
void moon_link_broken(struct moon_link *link, int err);
// Writing failed for want of memory here: the connection lives on, and reading would wait for its peer.
bool moon_link_is_alive_after(int err);

// link.c
void moon_link_flush_later(struct moon_link *link);
// Closes and tells the keeper.
void moon_link_end(struct moon_link *link);
// The connection is lost: tells the lane (abort) and the keeper (closed), closes.
void moon_link_fail(struct moon_link *link, int err);
void moon_link_progress(struct moon_link *link);

// deadlines.c
void moon_link_rearm(struct moon_link *link);
void moon_link_on_timer(struct moon_timer *timer);

// h1.c: takes messages off `in`; stops when nothing can be taken.
void moon_h1_process(struct moon_link *link, struct moon_slice *in);
// The peer ended its side.
void moon_h1_eof(struct moon_link *link);
void moon_h1_fault(struct moon_link *link, const struct moon_fault *fault);

// TLS, and this protocol was agreed on (ALPN).
bool moon_link_has_agreed(const struct moon_link *link, struct moon_slice protocol);
struct moon_head_limits moon_link_limits(const struct moon_link *link);

// h2_link.c: from now on the link speaks HTTP/2. False: out of memory.
bool moon_h2_begin(struct moon_link *link);
void moon_h2_link_free(struct moon_link *link);
// Takes all of `bytes`.
void moon_h2_take(struct moon_link *link, struct moon_slice bytes);
// The link's task: tells what is to be told, fills `out`; then, when `out` was flushed, those who wait for room.
void moon_h2_run(struct moon_link *link);
void moon_h2_flushed(struct moon_link *link);
void moon_h2_eof(struct moon_link *link);
// The connection is lost: every lane is told.
void moon_h2_abort_all(struct moon_link *link, int err);
// The connection is closed: no lane is told.
void moon_h2_detach_all(struct moon_link *link);
void moon_h2_drain_link(struct moon_link *link);
bool moon_h2_is_busy_link(const struct moon_link *link);
void moon_h2_on_due(struct moon_link *link, uint64_t now_ms);

// h2_client.c: the client role.
// What was queued while it connected may go out now.
void moon_h2_client_connected(struct moon_link *link);
// The connection is lost: lanes whose response has not come whole are told. The link closes with the last lane; at once where there
// is none.
void moon_h2_client_lost(struct moon_link *link, int err);
void moon_h2_lane_attach(struct moon_lane *lane, const struct moon_lane_attachment *attachment);

// h2_lane.c: lane.c's functions for a lane that is a stream.
struct moon_link *moon_h2_lane_link(struct moon_lane *lane);
int moon_h2_lane_send_head(struct moon_lane *lane, const struct moon_head *head,
                           const struct moon_framing *framing);
size_t moon_h2_lane_send_body(struct moon_lane *lane, struct moon_slice bytes);
void moon_h2_lane_send_end(struct moon_lane *lane, const struct moon_headers *trailers);
size_t moon_h2_lane_room(const struct moon_lane *lane);
void moon_h2_lane_resume(struct moon_lane *lane);
void moon_h2_lane_hold(struct moon_lane *lane, bool is_held);
bool moon_h2_lane_is_read(const struct moon_lane *lane);
bool moon_h2_lane_has_input(const struct moon_lane *lane);
bool moon_h2_lane_has_output(const struct moon_lane *lane);
void moon_h2_lane_end(struct moon_lane *lane);
void moon_h2_lane_abort(struct moon_lane *lane);
// h2_tunnel.c: of a stream whose head was sent as 101.
int moon_h2_lane_take_stream(struct moon_lane *lane, struct moon_stream **stream);

// splice.c: starts the splice that is wished for, when nothing stands in its way. False: copy.
bool moon_splice_begin(struct moon_link *from);
void moon_splice_run(struct moon_splice *splice);
// The target does not take what is in the pipe: the source is not read.
bool moon_splice_is_stuck(const struct moon_splice *splice);
// Takes back a wish from or for this link.
void moon_splice_unwish(struct moon_link *link);
// The link closes: whatever is spliced from or to it ends.
void moon_splice_cut(struct moon_link *link);
