// Relay: two streams joined after a protocol switch. Bytes pass opaque, each side's end is passed on (half-close kept), and a
// side that does not take what the other sends stops the other from being read. A tunnel pins neither exchange nor route.
//
//   client stream --read--> [to_write of upstream] --write--> upstream stream      and the same the other way
#include "base/buffer.h"
#include "base/err.h"
#include "exchange/exchange_priv.h"
#include "obs/counters.h"

#include <stdlib.h>

enum { TUNNEL_IDLE_MS = 600000 }; // as long as neither side sends a byte

struct side {
    struct moon_relay *relay;
    struct side *peer;
    struct moon_stream *stream;
    struct moon_buffer to_write; // read from the peer, not yet taken here
    bool has_ended;              // EOF was read here
    bool was_shut;               // our end was sent here
};

struct moon_relay {
    struct side client, upstream;
    struct moon_resources *res;
    struct moon_list node;   // in res->relays
    struct moon_claim claim; // of the upstream connection
    struct moon_relay_identity identity;
    struct moon_timer timer;
    struct moon_task task; // frees
    uint64_t active_ms;
    bool is_over;
};

static void relay_end(struct moon_relay *relay, bool is_error)
{
    if (relay->is_over)
        return;
    relay->is_over = true;
    void (*close)(struct moon_stream *) = is_error ? moon_stream_abort : moon_stream_close;
    close(relay->client.stream);
    close(relay->upstream.stream);
    moon_buffer_fini(&relay->client.to_write, relay->res->buffers);
    moon_buffer_fini(&relay->upstream.to_write, relay->res->buffers);
    moon_loop_timer_del(relay->res->loop, &relay->timer);
    moon_list_del(&relay->node);
    moon_claim_release(&relay->claim);
    moon_count_down(&relay->res->counters->tunnels_live);
    moon_loop_defer(relay->res->loop, &relay->task);
}

static void relay_free(struct moon_task *task)
{
    struct moon_relay *relay = MOON_CONTAINER(task, struct moon_relay, task);
    moon_relay_identity_fini(&relay->identity);
    free(relay);
}

// Writes what waits; false when the tunnel is over or the stream is full.
static bool flush(struct side *to)
{
    struct moon_slice bytes = moon_buffer_bytes(&to->to_write);
    if (bytes.len == 0)
        return true;
    struct iovec iov = {(void *)bytes.ptr, bytes.len};
    ssize_t n = moon_stream_writev(to->stream, &iov, 1);
    if (n < 0) {
        relay_end(to->relay, true);
        return false;
    }
    moon_buffer_consume(&to->to_write, to->relay->res->buffers, (size_t)n);
    return (size_t)n == bytes.len;
}

static bool forward(struct side *to, struct moon_slice bytes)
{
    struct iovec iov = {(void *)bytes.ptr, bytes.len};
    ssize_t n = moon_stream_writev(to->stream, &iov, 1);
    if (n < 0 || moon_buffer_append(&to->to_write, to->relay->res->buffers,
                                    moon_slice_skip(bytes, n > 0 ? (size_t)n : 0)) < 0) {
        relay_end(to->relay, true);
        return false;
    }
    return (size_t)n == bytes.len;
}

static void side_ended(struct side *from)
{
    struct side *to = from->peer;
    from->has_ended = true;
    if (moon_buffer_len(&to->to_write) == 0 && !to->was_shut) {
        to->was_shut = true;
        moon_stream_shutdown(to->stream);
    }
    if (to->has_ended && to->was_shut && from->was_shut)
        relay_end(from->relay, false);
}

// Moves what comes from one side to the other until one of them would block.
static void pump(struct side *from)
{
    struct moon_relay *relay = from->relay;
    size_t turn_len = 0;
    if (!flush(from->peer))
        return;
    while (!relay->is_over && !from->has_ended) {
        if (turn_len >= MOON_TURN_LEN) {
            moon_stream_again(from->stream);
            return;
        }
        ssize_t n = moon_stream_read(from->stream, relay->res->read_buffer, MOON_READ_BODY_LEN);
        if (n == 0)
            return;
        if (n == MOON_EOF)
            break;
        if (n < 0) {
            relay_end(relay, true);
            return;
        }
        turn_len += (size_t)n;
        relay->active_ms = moon_loop_now_ms(relay->res->loop);
        if (!forward(from->peer, (struct moon_slice){relay->res->read_buffer, (size_t)n}))
            return;
    }
    if (!relay->is_over)
        side_ended(from);
}

static void on_ready(void *owner, unsigned ready)
{
    struct side *side = owner;
    if (ready & MOON_READY_WRITE && !side->relay->is_over)
        pump(side->peer);
    if (ready & ~(unsigned)MOON_READY_WRITE && !side->relay->is_over)
        pump(side);
}

static void on_timer(struct moon_timer *timer)
{
    struct moon_relay *relay = MOON_CONTAINER(timer, struct moon_relay, timer);
    uint64_t idle_ms = moon_loop_now_ms(relay->res->loop) - relay->active_ms;
    if (idle_ms >= TUNNEL_IDLE_MS)
        relay_end(relay, false);
    else
        moon_loop_timer_add(relay->res->loop, timer, TUNNEL_IDLE_MS - idle_ms);
}

static void side_init(struct side *side, struct moon_relay *relay, struct side *peer)
{
    side->relay = relay;
    side->peer = peer;
    moon_stream_set_owner(side->stream, on_ready, side);
    moon_stream_again(side->stream);
}

// Puts what was read beyond one side's head behind what is still to be written to the other.
static int join(struct moon_resources *res, struct side *to, struct moon_buffer *read)
{
    struct moon_slice bytes = moon_buffer_bytes(read);
    int err = bytes.len ? moon_buffer_append(&to->to_write, res->buffers, bytes) : 0;
    moon_buffer_fini(read, res->buffers);
    return err;
}

void moon_relay_start(struct moon_resources *res, struct moon_lane *down, struct moon_lane *up,
                      const struct moon_claim *claim, const struct moon_relay_identity *identity)
{
    struct moon_relay *relay = calloc(1, sizeof *relay);
    struct moon_buffer client_read = {0}, upstream_read = {0};
    if (!relay)
        abort();
    relay->res = res;
    relay->claim = *claim;
    relay->identity = *identity;
    relay->timer.fn = on_timer;
    relay->task.fn = relay_free;
    relay->active_ms = moon_loop_now_ms(res->loop);
    int err =
        moon_lane_take_stream(down, &relay->client.stream, &client_read, &relay->client.to_write);
    int up_err = moon_lane_take_stream(up, &relay->upstream.stream, &upstream_read,
                                       &relay->upstream.to_write);
    moon_count_up(&res->counters->tunnels_live);
    moon_list_add_before(&res->relays, &relay->node);
    int join_err = join(res, &relay->client, &upstream_read);
    if (join(res, &relay->upstream, &client_read) || join_err || err || up_err) {
        relay_end(relay, true);
        return;
    }
    moon_loop_timer_add(res->loop, &relay->timer, TUNNEL_IDLE_MS);
    side_init(&relay->client, relay, &relay->upstream);
    side_init(&relay->upstream, relay, &relay->client);
}

const struct moon_relay_identity *moon_relay_identity_at(const struct moon_list *node)
{
    return &MOON_CONTAINER(node, const struct moon_relay, node)->identity;
}

void moon_relay_stop_all(struct moon_resources *res)
{
    while (!moon_list_is_empty(&res->relays))
        relay_end(MOON_CONTAINER(res->relays.next, struct moon_relay, node), false);
}
