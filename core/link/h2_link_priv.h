// What h2_link.c, h2_lane.c, h2_tunnel.c and h2_deadlines.c share: the streams of a link that speaks HTTP/2.
#pragma once

#include "http/h2.h"
#include "link/link_priv.h"

// A stream, which is a lane. It lives until both the session and whoever is attached have let go of it, and then until the end
// of the link's task.
struct h2_stream {
    struct moon_lane lane; // first
    struct moon_h2_stream h2;
    struct moon_link *link;
    struct moon_list node; // in streams, or in dead
    struct moon_list work; // in work: it has something to tell
    struct moon_list full; // in full: it waits for room
    struct moon_buffer in; // body that came and was not taken
    // bytes since the window began, and its end (0: none runs): of the request's body, of the response's
    uint32_t in_len, out_len;
    uint64_t in_due_ms, out_due_ms;
    int error;          // of is_lost
    bool has_begun : 1; // the lane was opened
    bool has_fault : 1; // what else comes is dropped
    bool has_end : 1;   // END_STREAM came
    bool was_told_end : 1;
    bool is_closed : 1; // the session has forgotten it
    bool is_lost : 1;   // too early: abort is to be told
    bool is_paused : 1; // the owner took less than it was given
    bool is_held : 1;   // moon_lane_hold
    bool
        // what comes behind the head is a tunnel's: it stays in `in` until one takes it
        is_upgrade : 1;
    bool is_taken : 1;   // by h2_tunnel.c, which is attached
    bool was_paused : 1; // in this window of the body rate: paused or held
    bool has_input : 1;  // client role: a head has come, or what was to be one
    // client role: longest silence of the peer; in_due_ms and out_due_ms are when it, or a window that does not open, has lasted
    // too long
    uint32_t response_ms;
};

enum h2_drain { H2_SERVES, H2_NOTICED, H2_DRAINS };

struct moon_h2_link {
    struct moon_h2 *h2;
    struct moon_list streams, work, full, dead;
    uint64_t idle_due_ms, block_due_ms, tick_due_ms, drain_due_ms, sleep_due_ms; // 0: none
    // client role: the last time that anything came; the next look at its silence; the PING that waits for an answer; 0: none
    uint64_t heard_ms, ping_due_ms, pinged_ms;
    uint8_t drain;       // enum h2_drain
    bool is_over : 1;    // its end is queued
    bool was_pinged : 1; // since a response, or a part of one, came
};

static inline struct h2_stream *h2_stream_of(struct moon_lane *lane)
{
    return (struct h2_stream *)lane;
}

extern const struct moon_h2_events h2_client_events; // h2_client.c

// Nobody is attached any more, or nobody ever was: what it holds goes; it goes itself once the session has forgotten it.
void h2_stream_leave(struct h2_stream *stream);
// It has something to tell.
void h2_stream_works(struct h2_stream *stream);
// What else of its message comes is dropped.
void h2_stream_fault(struct h2_stream *stream, const struct moon_fault *fault);

// Nothing more is taken; the GOAWAY that is queued goes out, then the connection ends.
void h2_link_end(struct moon_link *link, int err);
// The second GOAWAY.
void h2_link_drain_now(struct moon_link *link);

struct moon_h2_link *h2_link_new(struct moon_link *link, const struct moon_h2_args *args);
// Events that both roles share.
void h2_stream_on_data(void *owner, struct moon_h2_stream *h2, struct moon_slice bytes);
void h2_stream_on_end(void *owner, struct moon_h2_stream *h2);
void h2_link_on_window(void *owner);
// The session has forgotten it: it goes, or waits for its owner to leave.
void h2_stream_bury(struct h2_stream *stream);
void h2_stream_drop_input(struct h2_stream *stream);

// h2_client.c
void h2_client_arm(struct moon_link *link);
void h2_client_on_due(struct moon_link *link, uint64_t now_ms);
void h2_client_stream_lost(struct h2_stream *stream);
// Bytes have come or gone: the peer is not silent.
void h2_client_progress(struct h2_stream *stream);
// So many bytes of the request were taken; `is_full`: not all that were offered.
void h2_client_sent(struct h2_stream *stream, size_t taken, bool is_full);
int h2_client_send_head(struct h2_stream *stream, const struct moon_head *head,
                        const struct moon_framing *framing);
// h2_silence.c
void h2_silence_arm(struct moon_link *link);
// False: the connection was dead, and has been given up.
bool h2_silence_on_due(struct moon_link *link, uint64_t now_ms);

// h2_tunnel.c: bytes or the end have come / the connection is closed. Of a stream that is taken and attached.
void h2_tunnel_has_input(struct h2_stream *stream);
void h2_tunnel_cut(struct h2_stream *stream);

// h2_deadlines.c
uint32_t h2_body_window_ms(const struct moon_link *link);
void h2_link_arm(struct moon_link *link);
