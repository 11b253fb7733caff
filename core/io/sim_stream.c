// The two ends of a simulated connection. They behave as TCP on Linux does:
//
// - Bytes that arrived before a RST can still be read; what was under way is lost. The error is told once, by the first call
//   that meets it; after that reading gives the end (0) and writing EPIPE. After a FIN reading never gives an error.
// - Closing with unread bytes sends a RST, else a FIN. What arrives at a closed end is answered by a RST.
// - A RST may overtake what its sender wrote before (chance, where the network has latency).
//
// Written bytes lie at once behind those the peer has received, and become readable when their segment arrives. A writer has as
// many bytes under way or unread as the socket buffer holds; room comes back with the acknowledgement of what was read.
#include "base/err.h"
#include "io/sim_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct sim_stream *sim_of(struct moon_stream *s)
{
    return (struct sim_stream *)s;
}

static struct sim_world *world_of(const struct sim_stream *stream)
{
    return stream->conn->world;
}

static uint64_t name_of(const struct sim_stream *stream)
{
    return stream->conn->id << 1 | (stream == &stream->conn->ends[1]);
}

struct sim_stream *sim_peer(const struct sim_stream *stream)
{
    return &stream->conn->ends[stream == &stream->conn->ends[0]];
}

// ---- received bytes

static void store(struct sim_stream *to, const char *bytes, size_t len)
{
    if (to->head + to->len + len > to->cap) {
        size_t cap = to->cap ? to->cap : 1024;
        while (cap < to->len + len)
            cap *= 2;
        char *moved = malloc(cap);
        if (!moved)
            abort();
        if (to->len)
            memcpy(moved, to->bytes + to->head, to->len);
        free(to->bytes);
        to->bytes = moved;
        to->head = 0;
        to->cap = cap;
    }
    memcpy(to->bytes + to->head + to->len, bytes, len);
    to->len += len;
}

static void drop(struct sim_stream *stream)
{
    free(stream->bytes);
    stream->bytes = NULL;
    stream->head = stream->len = stream->cap = stream->arrived_len = 0;
}

// Tells the writer that its bytes were read.
static void acknowledge(struct sim_stream *stream, size_t len)
{
    struct sim_stream *peer = sim_peer(stream);
    if (peer->is_closed || peer->was_reset)
        return;
    sim_send_at(peer, SIM_ACK, len, world_of(stream)->now_ms + sim_latency_ms(world_of(stream)));
}

ssize_t sim_stream_take(struct sim_stream *stream, char *to, size_t len)
{
    struct sim_world *world = world_of(stream);
    if (!stream->is_readable)
        return 0;
    if (stream->arrived_len == 0) {
        int err = stream->error;
        if (stream->has_fin || (stream->was_reset && !err))
            return MOON_EOF;
        stream->error = 0;
        stream->is_readable = err != 0; // the end is behind it
        return -err;
    }
    size_t there = len < stream->arrived_len ? len : stream->arrived_len;
    size_t n = sim_short(world, there);
    memcpy(to, stream->bytes + stream->head, n);
    stream->head += n;
    stream->len -= n;
    stream->arrived_len -= n;
    if (stream->len == 0)
        stream->head = 0;
    acknowledge(stream, n);
    sim_trace(world, 'r', name_of(stream), n);
    if (n < len && !stream->has_ended) {
        stream->is_readable = false;
        if (stream->arrived_len)
            sim_send_at(stream, SIM_READABLE, 0, world->now_ms + sim_latency_ms(world));
    }
    return (ssize_t)n;
}

static ssize_t write_room(struct sim_stream *stream)
{
    size_t cap = world_of(stream)->faults.socket_buffer_len;
    int err = stream->error;
    if (stream->is_writable && (err || stream->was_reset || stream->sent_fin)) {
        stream->error = 0;
        return err ? -err : -EPIPE;
    }
    if (stream->is_writable && stream->sent_len < cap)
        return (ssize_t)(cap - stream->sent_len);
    stream->is_writable = false;
    stream->wants_write = true;
    return 0;
}

ssize_t sim_stream_put(struct sim_stream *stream, const struct iovec *iov, int iov_count)
{
    struct sim_stream *peer = sim_peer(stream);
    ssize_t room = write_room(stream);
    size_t total = 0, done = 0, offered = 0;
    if (room <= 0)
        return room;
    for (int i = 0; i < iov_count; i++)
        offered += iov[i].iov_len;
    total = sim_short(world_of(stream), offered < (size_t)room ? offered : (size_t)room);
    for (int i = 0; i < iov_count && done < total; i++) {
        size_t n = iov[i].iov_len < total - done ? iov[i].iov_len : total - done;
        if (!peer->is_closed && n)
            store(peer, iov[i].iov_base, n);
        done += n;
    }
    stream->sent_len += done;
    sim_trace(world_of(stream), 'w', name_of(stream), done);
    if (done)
        sim_send(peer, SIM_SEGMENT, done);
    if (done < offered) {
        stream->is_writable = false;
        stream->wants_write = true;
        if (done < (size_t)room) // chance, not the buffer: room is there already
            sim_send_at(stream, SIM_WRITABLE, 0,
                        world_of(stream)->now_ms + sim_latency_ms(world_of(stream)));
    }
    return (ssize_t)done;
}

// ---- what arrives

// NULL on_ready: nobody is told, but the state is kept, as the real world does.
void sim_stream_tell(struct sim_stream *stream, unsigned ready)
{
    if (stream->loop && !stream->is_closed)
        sim_ready(stream->loop, &stream->source, ready);
}

static unsigned writable_again(struct sim_stream *stream)
{
    unsigned ready = stream->wants_write || stream->is_connecting ? MOON_READY_WRITE : 0;
    stream->is_writable = true;
    stream->wants_write = stream->is_connecting = false;
    return ready;
}

void sim_stream_reset(struct sim_stream *stream, int err)
{
    if (stream->is_closed || stream->was_reset)
        return;
    stream->len = stream->arrived_len;
    stream->was_reset = true;
    stream->error = stream->has_fin && err == ECONNRESET ? EPIPE : err;
    stream->has_ended = stream->is_readable = true;
    sim_stream_tell(stream,
                    MOON_READY_READ | MOON_READY_HUP | MOON_READY_ERROR | writable_again(stream));
}

static void arrive_segment(struct sim_stream *to, size_t len)
{
    if (to->is_closed) {
        if (!sim_peer(to)->is_closed)
            sim_send(sim_peer(to), SIM_RESET, 0);
        return;
    }
    if (to->was_reset)
        return;
    if (sim_chance(world_of(to), world_of(to)->faults.reset_permille)) {
        sim_stream_reset(to, ECONNRESET);
        sim_stream_reset(sim_peer(to), ECONNRESET);
        return;
    }
    to->arrived_len += len;
    to->is_readable = true;
    sim_stream_tell(to, MOON_READY_READ);
}

static void arrive_fin(struct sim_stream *to)
{
    if (to->is_closed || to->was_reset)
        return;
    to->has_fin = to->has_ended = to->is_readable = true;
    unsigned ready = MOON_READY_READ | MOON_READY_HUP;
    if (to->sent_fin) // EPOLLHUP
        ready |= writable_again(to);
    sim_stream_tell(to, ready);
}

// Room is told like the kernel's: once a third of the buffer is free.
static void arrive_ack(struct sim_stream *to, size_t len)
{
    size_t cap = world_of(to)->faults.socket_buffer_len;
    to->sent_len -= len;
    if (to->is_closed || to->is_writable || to->is_connecting || to->sent_len > cap - cap / 3)
        return;
    unsigned ready = writable_again(to);
    if (ready)
        sim_stream_tell(to, ready);
}

void sim_stream_arrive(struct sim_stream *to, const struct sim_event *event)
{
    switch (event->kind) {
    case SIM_CONNECT:
        return;
    case SIM_ESTABLISHED:
        if (!to->is_closed && !to->was_reset)
            sim_stream_tell(to, writable_again(to));
        return;
    case SIM_REFUSED:
        sim_stream_reset(to, ECONNREFUSED);
        return;
    case SIM_SEGMENT:
        arrive_segment(to, event->len);
        return;
    case SIM_FIN:
        arrive_fin(to);
        return;
    case SIM_RESET:
        sim_stream_reset(to, ECONNRESET);
        return;
    case SIM_ACK:
        arrive_ack(to, event->len);
        return;
    case SIM_WRITABLE:
        arrive_ack(to, 0);
        return;
    case SIM_READABLE:
        to->is_readable = true;
        sim_stream_tell(to, MOON_READY_READ);
        return;
    }
}

// ---- the stream's operations

static ssize_t stream_read(struct moon_stream *s, void *to, size_t len)
{
    return sim_stream_take(sim_of(s), to, len);
}

static ssize_t stream_peek(struct moon_stream *s, void *to, size_t len)
{
    const struct sim_stream *stream = sim_of(s);
    size_t n = len < stream->arrived_len ? len : stream->arrived_len;
    if (n)
        memcpy(to, stream->bytes + stream->head, n);
    return n || !stream->was_reset ? (ssize_t)n : -ECONNRESET;
}

static ssize_t stream_writev(struct moon_stream *s, const struct iovec *iov, int iov_count)
{
    return sim_stream_put(sim_of(s), iov, iov_count);
}

static int stream_shutdown(struct moon_stream *s)
{
    struct sim_stream *stream = sim_of(s);
    if (stream->is_connecting || stream->was_reset)
        return -ENOTCONN;
    if (!stream->sent_fin)
        sim_send(sim_peer(stream), SIM_FIN, 0);
    stream->sent_fin = true;
    if (stream->has_fin)
        sim_stream_tell(stream, MOON_READY_READ | MOON_READY_HUP | writable_again(stream));
    return 0;
}

static void send_reset(struct sim_stream *stream)
{
    struct sim_world *world = world_of(stream);
    struct sim_stream *peer = sim_peer(stream);
    if (stream->was_reset || peer->is_closed)
        return;
    if (world->faults.latency_max_ms && sim_below(world, 2))
        sim_send_at(peer, SIM_RESET, 0, world->now_ms + sim_latency_ms(world));
    else
        sim_send(peer, SIM_RESET, 0);
}

static void close_end(struct sim_stream *stream, bool is_abort)
{
    struct sim_stream *peer = sim_peer(stream);
    if (stream->is_closed)
        return;
    sim_trace(world_of(stream), is_abort ? 'a' : 'c', name_of(stream), stream->arrived_len);
    if (is_abort || stream->arrived_len || stream->is_connecting)
        send_reset(stream);
    else if (!stream->sent_fin && !stream->was_reset && !peer->is_closed)
        sim_send(peer, SIM_FIN, 0);
    stream->is_closed = true;
    moon_list_del(&stream->source.node);
    if (stream->loop)
        sim_descriptor_give(world_of(stream), stream->loop, 1);
    drop(stream);
}

static void stream_close(struct moon_stream *s)
{
    close_end(sim_of(s), false);
}

static void stream_abort(struct moon_stream *s)
{
    close_end(sim_of(s), true);
}

// What has come, or was told before to another owner.
static unsigned again_of(const struct sim_stream *stream)
{
    return MOON_READY_READ | (stream->has_ended ? MOON_READY_HUP : 0u) |
           (stream->was_reset ? MOON_READY_ERROR : 0u);
}

static void stream_again(struct moon_stream *s)
{
    sim_stream_tell(sim_of(s), again_of(sim_of(s)));
}

static int stream_connected(struct moon_stream *s)
{
    struct sim_stream *stream = sim_of(s);
    int err = stream->error;
    if (stream->is_connecting)
        return -EINPROGRESS;
    stream->error = 0;
    return -err;
}

static void stream_address(const struct moon_stream *s, bool peer, struct moon_address *out)
{
    const struct sim_stream *stream = (const struct sim_stream *)s;
    *out = peer ? sim_peer(stream)->address : stream->address;
    if (peer && stream->has_peer)
        *out = stream->peer;
}

static void stream_set_peer(struct moon_stream *s, const struct moon_address *peer)
{
    sim_of(s)->peer = *peer;
    sim_of(s)->has_peer = true;
}

static const struct moon_stream_ops stream_ops = {
    .read = stream_read,
    .writev = stream_writev,
    .shutdown = stream_shutdown,
    .close = stream_close,
    .abort = stream_abort,
    .again = stream_again,
    .connected = stream_connected,
    .pipe_in = sim_pipe_in,
    .pipe_out = sim_pipe_out,
    .address = stream_address,
    .peek = stream_peek,
    .set_peer = stream_set_peer,
};

// ---- life

static void stream_init(struct sim_stream *stream, struct sim_conn *conn)
{
    stream->base.ops = &stream_ops;
    stream->source.kind = SIM_STREAM;
    stream->conn = conn;
    moon_list_init(&stream->source.node);
}

struct sim_conn *sim_conn_new(struct sim_world *world)
{
    struct sim_conn *conn = calloc(1, sizeof *conn);
    if (!conn)
        abort();
    conn->world = world;
    conn->id = ++world->conn_count;
    stream_init(&conn->ends[0], conn);
    stream_init(&conn->ends[1], conn);
    conn->ends[1].is_closed = true; // until the connect arrives
    moon_list_add_before(&world->conns, &conn->node);
    return conn;
}

void sim_stream_give(struct sim_stream *stream, struct sim_loop *loop)
{
    stream->loop = loop;
    if (stream->arrived_len || stream->has_ended)
        sim_stream_tell(stream, again_of(stream));
}

void sim_conns_sweep(struct sim_world *world, bool all)
{
    for (struct moon_list *at = world->conns.next, *next; at != &world->conns; at = next) {
        struct sim_conn *conn = MOON_CONTAINER(at, struct sim_conn, node);
        next = at->next;
        if (!all && (!conn->ends[0].is_closed || !conn->ends[1].is_closed || conn->event_count))
            continue;
        moon_list_del(at);
        drop(&conn->ends[0]);
        drop(&conn->ends[1]);
        free(conn);
    }
}
