// See relay.h. Bytes are copied through the worker's read buffer while messages are short; once a side sends more than that it is
// bulk, and moves through a pipe inside the kernel. A pipe is borrowed for one turn, or for as long as bytes are in it.
//
//   client stream --read--> [to_write, pipe of upstream] --write--> upstream stream      and the same the other way
//
// Where both sides speak WebSocket the heads of frames are read on the way (payloads stay opaque, and long ones are spliced), so
// that a Close can be put in where one frame ends and the next has not begun:
//
//   open --close--> closing: what comes goes on to the border of a frame, then a Close in its place; what still comes is dropped
//        --both sides have sent their Close, or ended, or CLOSING_MS are over--> over
#include "exchange/relay.h"

#include "base/err.h"
#include "conf/settings.h"
#include "http/websocket.h"
#include "io/loop.h"
#include "link/link.h"
#include "link/resources.h"
#include "obs/counters.h"

#include <stdlib.h>

enum {
    IDLE_MS = 600000,
    READ_LEN = 16384,    // of a side that is not bulk; as much as this at once makes it so
    BULK_MIN_LEN = 8192, // less in a turn, and it is not any more
    CLOSING_MS = MOON_RELAY_CLOSING_MS,
};

struct side {
    struct moon_relay *relay;
    struct side *peer;
    struct moon_stream *stream;
    struct moon_buffer to_write; // read from the peer, not yet taken here
    struct moon_pipe *pipe;      // holds what comes behind it; NULL: none is borrowed
    size_t pipe_len;             // bytes in it
    uint64_t read_len;           // bytes that came from here
    bool has_ended;              // EOF was read here
    bool was_shut;               // our end was sent here
    bool is_broken;              // writing failed here: what it has sent before is still read
    bool is_bulk;                // what comes from here goes through a pipe
    bool has_closed;             // its Close came from here
    bool was_closed;             // a Close was sent here: nothing may follow it
    bool is_lost;                // what comes from here breaks the protocol: it is opaque
    struct moon_websocket_reader frames; // that come from here
};

struct moon_relay {
    struct side client, upstream;
    struct moon_resources *res;
    struct moon_list node; // in res->relays
    struct moon_claim claim;
    struct moon_relay_identity identity;
    struct moon_timer timer;
    struct moon_task task; // frees
    uint64_t active_ms;
    uint32_t idle_ms;
    void (*ended)(void *owner, const struct moon_relay_result *result);
    void (*spoke)(void *owner, bool is_upstream);
    void *owner;
    bool is_over, is_websocket;
    bool is_closing; // a Close was sent to both sides, or waits for the border of a frame
};

void moon_relay_identity_fini(struct moon_relay_identity *identity)
{
    free(identity->listener);
    free(identity->route);
    free(identity->upstream);
}

// ---- the end

static void return_pipe(struct side *to)
{
    if (!to->pipe)
        return;
    moon_loop_pipe_close(to->relay->res->loop, to->pipe); // closed for good where bytes are in it
    moon_count_down(&to->relay->res->counters->pipes_live);
    to->pipe = NULL;
    to->pipe_len = 0;
}

static void side_fini(struct side *side, bool is_error)
{
    return_pipe(side);
    moon_buffer_fini(&side->to_write, side->relay->res->buffers);
    if (is_error)
        moon_stream_abort(side->stream);
    else
        moon_stream_close(side->stream);
}

static void relay_end(struct moon_relay *relay, bool is_error)
{
    if (relay->is_over)
        return;
    relay->is_over = true;
    struct moon_relay_result result = {.client_len = relay->client.read_len,
                                       .upstream_len = relay->upstream.read_len,
                                       .is_complete =
                                           relay->client.was_shut && relay->upstream.was_shut,
                                       .identity = &relay->identity};
    side_fini(&relay->client, is_error);
    side_fini(&relay->upstream, is_error);
    moon_loop_timer_del(relay->res->loop, &relay->timer);
    moon_list_del(&relay->node);
    moon_claim_release(&relay->claim);
    moon_count_down(&relay->res->counters->tunnels_live);
    if (relay->is_websocket)
        moon_count_down(&relay->res->counters->websockets_live);
    moon_loop_defer(relay->res->loop, &relay->task);
    if (relay->ended)
        relay->ended(relay->owner, &result);
}

static void relay_free(struct moon_task *task)
{
    struct moon_relay *relay = MOON_CONTAINER(task, struct moon_relay, task);
    moon_relay_identity_fini(&relay->identity);
    free(relay);
}

// ---- writing

// What it has sent before it broke is in its receive queue: an answer, perhaps, that explains it.
static void write_failed(struct side *to)
{
    to->is_broken = true;
    return_pipe(to);
    moon_buffer_fini(&to->to_write, to->relay->res->buffers);
    moon_stream_again(to->stream);
}

static bool waits(const struct side *to)
{
    return moon_buffer_len(&to->to_write) > 0 || to->pipe_len > 0;
}

static void flush_pipe(struct side *to)
{
    while (to->pipe_len) {
        ssize_t n = moon_stream_pipe_out(to->stream, to->pipe, to->pipe_len);
        if (n < 0)
            write_failed(to);
        if (n <= 0)
            return;
        to->pipe_len -= (size_t)n;
    }
}

static void flush(struct side *to)
{
    struct moon_slice bytes = moon_buffer_bytes(&to->to_write);
    if (bytes.len) {
        struct iovec iov = {(void *)bytes.ptr, bytes.len};
        ssize_t n = moon_stream_writev(to->stream, &iov, 1);
        if (n < 0) {
            write_failed(to);
            return;
        }
        moon_buffer_consume(&to->to_write, to->relay->res->buffers, (size_t)n);
        if ((size_t)n < bytes.len)
            return;
    }
    flush_pipe(to);
}

static void forward(struct side *to, struct moon_slice bytes)
{
    struct iovec iov = {(void *)bytes.ptr, bytes.len};
    ssize_t n = moon_stream_writev(to->stream, &iov, 1);
    if (n < 0) {
        write_failed(to);
        return;
    }
    if (moon_buffer_append(&to->to_write, to->relay->res->buffers,
                           moon_slice_skip(bytes, (size_t)n)) < 0)
        relay_end(to->relay, true);
}

// ---- frames

static bool is_followed(const struct side *from)
{
    return from->relay->is_websocket && !from->is_lost;
}

// Reads the heads among the bytes that come from here. How many of them may go on: all, or those up to where a Close of ours is
// to be put in, or none behind a Close.
static size_t follow(struct side *from, struct moon_slice bytes)
{
    struct side *to = from->peer;
    struct moon_slice in = bytes, data;
    size_t len = to->was_closed ? 0 : bytes.len;
    for (;;) {
        bool is_border = from->relay->is_closing && moon_websocket_is_at_border(&from->frames);
        if (is_border && !to->was_closed && len == bytes.len)
            len = bytes.len - in.len;
        switch (moon_websocket_next(&from->frames, &in, &data)) {
        case MOON_WEBSOCKET_MORE:
            return len;
        case MOON_WEBSOCKET_FRAME:
        case MOON_WEBSOCKET_DATA:
            break;
        case MOON_WEBSOCKET_END:
            if (from->frames.opcode != MOON_WEBSOCKET_CLOSE)
                break;
            from->has_closed = true;
            to->was_closed |= len == bytes.len; // it was passed on
            break;
        case MOON_WEBSOCKET_BAD:
            from->is_lost = true;
            return len;
        }
    }
}

// Puts a Close behind what was sent here so far, where a frame has ended.
static void put_close(struct side *to)
{
    struct moon_relay *relay = to->relay;
    const struct side *from = to->peer;
    if (!relay->is_closing || to->was_closed || !is_followed(from) || to->is_broken ||
        to->was_shut || to->pipe_len || !moon_websocket_is_at_border(&from->frames))
        return;
    uint8_t mask[4];
    char frame[MOON_WEBSOCKET_CLOSE_MAX_LEN];
    moon_loop_random(relay->res->loop, mask, sizeof mask);
    size_t len = moon_websocket_close_write(MOON_WEBSOCKET_GOING_AWAY, MOON_SLICE("going away"),
                                            to == &relay->upstream ? mask : NULL, frame);
    to->was_closed = true;
    moon_count_up(&relay->res->counters->websocket_closes_total);
    if (moon_buffer_append(&to->to_write, relay->res->buffers, (struct moon_slice){frame, len}) < 0)
        relay_end(relay, true);
    else
        flush(to);
}

static bool is_done(const struct side *side)
{
    return side->has_closed || side->has_ended || side->is_broken;
}

// Both sides have said that they close, and were told so.
static bool is_closed(const struct moon_relay *relay)
{
    const struct side *client = &relay->client, *upstream = &relay->upstream;
    return relay->is_closing && is_done(client) && is_done(upstream) && !waits(client) &&
           !waits(upstream);
}

// ---- reading; results as those of a read

static ssize_t copy_some(struct side *from)
{
    struct moon_resources *res = from->relay->res;
    size_t len = from->is_bulk ? MOON_READ_BODY_LEN : READ_LEN; // bulk: in short frames
    ssize_t n = moon_stream_read(from->stream, res->read_buffer, len);
    if (n <= 0)
        return n;
    from->is_bulk = n >= READ_LEN && res->settings->splice && moon_stream_has_pipe(from->stream) &&
                    moon_stream_has_pipe(from->peer->stream);
    struct moon_slice bytes = {res->read_buffer, (size_t)n};
    if (is_followed(from))
        bytes.len = follow(from, bytes);
    else if (from->relay->is_closing)
        bytes.len = 0; // there is no border to wait for: the time is what ends it
    if (bytes.len)
        forward(from->peer, bytes);
    if (from->relay->is_closing && !from->relay->is_over)
        put_close(from->peer);
    return n;
}

static bool borrow_pipe(struct side *to)
{
    struct moon_resources *res = to->relay->res;
    struct moon_pipe *pipe;
    if (moon_loop_pipe_open(res->loop, &pipe) < 0)
        return false;
    moon_count_up(&res->counters->pipes_live);
    to->pipe = pipe;
    return true;
}

static ssize_t splice_some(struct side *from)
{
    struct moon_resources *res = from->relay->res;
    struct side *to = from->peer;
    bool has_frames = is_followed(from);
    uint64_t left = has_frames ? moon_websocket_skippable(&from->frames) : MOON_TURN_LEN;
    if (left < BULK_MIN_LEN || from->relay->is_closing || (!to->pipe && !borrow_pipe(to)))
        return copy_some(from);
    ssize_t n = moon_stream_pipe_in(from->stream, to->pipe,
                                    left < MOON_TURN_LEN ? (size_t)left : MOON_TURN_LEN);
    if (n <= 0)
        return n;
    if (has_frames)
        moon_websocket_skip(&from->frames, (uint64_t)n);
    to->pipe_len += (size_t)n;
    moon_count_add(&res->counters->spliced_bytes_total, (uint64_t)n);
    flush_pipe(to);
    return n;
}

static void count_bytes(struct side *from, size_t len)
{
    struct moon_relay *relay = from->relay;
    struct moon_counters *counters = relay->res->counters;
    if (len == 0)
        return;
    if (relay->spoke && from->read_len == 0 && from->peer->read_len == 0)
        relay->spoke(relay->owner, from == &relay->upstream);
    from->read_len += len;
    relay->active_ms = moon_loop_now_ms(relay->res->loop);
    moon_count_add(from == &relay->client ? &counters->relay_client_bytes_total
                                          : &counters->relay_upstream_bytes_total,
                   len);
}

static void side_ended(struct side *from)
{
    struct side *to = from->peer;
    from->has_ended = true;
    if (waits(to))
        return;
    if (from->is_broken) {
        relay_end(from->relay, true);
        return;
    }
    if (!to->was_shut) {
        to->was_shut = true;
        moon_stream_shutdown(to->stream);
    }
    if (to->has_ended && from->was_shut)
        relay_end(from->relay, false);
}

// Moves what comes from one side to the other until one of them would block.
static void pump(struct side *from)
{
    struct moon_relay *relay = from->relay;
    struct side *to = from->peer;
    size_t turn_len = 0;
    ssize_t n = 1;
    if (to->is_broken)
        return;
    flush(to);
    put_close(to);
    while (n > 0 && turn_len < MOON_TURN_LEN && !relay->is_over && !to->is_broken && !waits(to) &&
           !from->has_ended) {
        n = from->is_bulk ? splice_some(from) : copy_some(from);
        turn_len += n > 0 ? (size_t)n : 0;
    }
    count_bytes(from, turn_len);
    if (relay->is_over)
        return;
    from->is_bulk = from->is_bulk && turn_len >= BULK_MIN_LEN;
    if (to->pipe_len == 0)
        return_pipe(to);
    if (turn_len >= MOON_TURN_LEN && !waits(to) && n > 0)
        moon_stream_again(from->stream);
    if (n < 0 && n != MOON_EOF)
        relay_end(relay, true);
    else if (n == MOON_EOF || from->has_ended)
        side_ended(from);
    if (!relay->is_over && is_closed(relay))
        relay_end(relay, false);
}

static void on_ready(void *owner, unsigned ready)
{
    struct side *side = owner;
    if (ready & MOON_READY_WRITE && !side->relay->is_over)
        pump(side->peer);
    if (ready & ~(unsigned)MOON_READY_WRITE && !side->relay->is_over)
        pump(side);
}

// Ends at once where there are no frames.
static void begin_closing(struct moon_relay *relay)
{
    if (relay->is_closing)
        return;
    if (!is_followed(&relay->client) && !is_followed(&relay->upstream)) {
        relay_end(relay, false);
        return;
    }
    relay->is_closing = true;
    moon_loop_timer_add(relay->res->loop, &relay->timer, CLOSING_MS);
    pump(&relay->client);
    if (!relay->is_over)
        pump(&relay->upstream);
}

static void on_timer(struct moon_timer *timer)
{
    struct moon_relay *relay = MOON_CONTAINER(timer, struct moon_relay, timer);
    uint64_t idle_ms = moon_loop_now_ms(relay->res->loop) - relay->active_ms;
    if (relay->is_closing)
        relay_end(relay, false);
    else if (idle_ms >= relay->idle_ms)
        begin_closing(relay);
    else
        moon_loop_timer_add(relay->res->loop, timer, relay->idle_ms - idle_ms);
}

// ---- public

static void side_init(struct side *side, struct moon_relay *relay, struct side *peer,
                      struct moon_stream *stream, struct moon_buffer to_write)
{
    *side = (struct side){.relay = relay, .peer = peer, .stream = stream, .to_write = to_write};
    moon_stream_set_owner(side->stream, on_ready, side);
    moon_stream_again(side->stream);
}

// What came behind the heads lies at the end of what is to be written.
static void follow_early(struct side *from, size_t len)
{
    struct moon_slice bytes = moon_buffer_bytes(&from->peer->to_write);
    follow(from, moon_slice_skip(bytes, bytes.len - len));
}

static void frames_init(struct moon_relay *relay, const struct moon_relay_args *args)
{
    relay->is_websocket = true;
    moon_count_up(&relay->res->counters->websockets_total);
    moon_count_up(&relay->res->counters->websockets_live);
    // an extension may have been agreed on: compressed messages have a reserved bit set
    moon_websocket_init(&relay->client.frames,
                        MOON_WEBSOCKET_IS_MASKED | MOON_WEBSOCKET_IS_EXTENDED);
    moon_websocket_init(&relay->upstream.frames, MOON_WEBSOCKET_IS_EXTENDED);
    follow_early(&relay->client, args->client_len);
    follow_early(&relay->upstream, args->upstream_len);
}

struct moon_relay *moon_relay_new(struct moon_resources *res, const struct moon_relay_args *args)
{
    struct moon_relay *relay = calloc(1, sizeof *relay);
    if (!relay)
        abort();
    relay->res = res;
    relay->claim = args->claim;
    relay->identity = args->identity;
    relay->idle_ms = args->idle_ms ? args->idle_ms : IDLE_MS;
    relay->ended = args->ended;
    relay->spoke = args->spoke;
    relay->owner = args->owner;
    relay->timer.fn = on_timer;
    relay->task.fn = relay_free;
    relay->active_ms = moon_loop_now_ms(res->loop);
    moon_count_up(&res->counters->tunnels_live);
    moon_list_add_before(&res->relays, &relay->node);
    moon_loop_timer_add(res->loop, &relay->timer, relay->idle_ms);
    side_init(&relay->client, relay, &relay->upstream, args->client, args->to_client);
    side_init(&relay->upstream, relay, &relay->client, args->upstream, args->to_upstream);
    if (args->is_websocket)
        frames_init(relay, args);
    return relay;
}

// Puts what was read beyond one side's head behind what is still to be written to the other.
static int join(struct moon_resources *res, struct moon_buffer *to, struct moon_buffer *read,
                size_t *len)
{
    struct moon_slice bytes = moon_buffer_bytes(read);
    *len = bytes.len;
    int err = bytes.len ? moon_buffer_append(to, res->buffers, bytes) : 0;
    moon_buffer_fini(read, res->buffers);
    return err;
}

void moon_relay_start(struct moon_resources *res, struct moon_lane *down, struct moon_lane *up,
                      const struct moon_relay_args *rest)
{
    struct moon_relay_args args = *rest;
    struct moon_buffer client_read = {0}, upstream_read = {0};
    int err = moon_lane_take_stream(down, &args.client, &client_read, &args.to_client);
    int up_err = moon_lane_take_stream(up, &args.upstream, &upstream_read, &args.to_upstream);
    int join_err = join(res, &args.to_client, &upstream_read, &args.upstream_len);
    if (!join(res, &args.to_upstream, &client_read, &args.client_len) && !join_err && !err &&
        !up_err) {
        moon_relay_new(res, &args);
        return;
    }
    moon_stream_abort(args.client);
    moon_stream_abort(args.upstream);
    moon_buffer_fini(&args.to_client, res->buffers);
    moon_buffer_fini(&args.to_upstream, res->buffers);
    moon_claim_release(&args.claim);
    moon_relay_identity_fini(&args.identity);
}

void moon_relay_close(struct moon_relay *relay)
{
    relay_end(relay, true);
}

const struct moon_relay_identity *moon_relay_identity_at(const struct moon_list *node)
{
    return &MOON_CONTAINER(node, const struct moon_relay, node)->identity;
}

void moon_relay_close_websockets(struct moon_resources *res)
{
    for (struct moon_list *at = res->relays.next, *next; at != &res->relays; at = next) {
        struct moon_relay *relay = MOON_CONTAINER(at, struct moon_relay, node);
        next = at->next;
        if (relay->is_websocket)
            begin_closing(relay);
    }
}

void moon_relay_stop_all(struct moon_resources *res)
{
    moon_relay_close_websockets(res); // says what it can without waiting
    while (!moon_list_is_empty(&res->relays))
        relay_end(MOON_CONTAINER(res->relays.next, struct moon_relay, node), false);
}
