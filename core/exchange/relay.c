// See relay.h. Bytes are copied through the worker's read buffer while messages are short; once a side sends more than that it is
// bulk, and moves through a pipe inside the kernel. A pipe is borrowed for one turn, or for as long as bytes are in it.
//
//   client stream --read--> [to_write, pipe of upstream] --write--> upstream stream      and the same the other way
#include "exchange/relay.h"

#include "base/err.h"
#include "conf/settings.h"
#include "io/loop.h"
#include "link/link.h"
#include "link/resources.h"
#include "obs/counters.h"

#include <stdlib.h>

enum {
    IDLE_MS = 600000,
    READ_LEN = 16384,    // of a side that is not bulk; as much as this at once makes it so
    BULK_MIN_LEN = 8192, // less in a turn, and it is not any more
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
    void *owner;
    bool is_over;
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

// ---- reading; results as those of a read

static ssize_t copy_some(struct side *from)
{
    struct moon_resources *res = from->relay->res;
    ssize_t n = moon_stream_read(from->stream, res->read_buffer, READ_LEN);
    if (n <= 0)
        return n;
    from->is_bulk = n == READ_LEN && res->settings->splice && moon_stream_has_pipe(from->stream) &&
                    moon_stream_has_pipe(from->peer->stream);
    forward(from->peer, (struct moon_slice){res->read_buffer, (size_t)n});
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
    if (!to->pipe && !borrow_pipe(to))
        return copy_some(from);
    ssize_t n = moon_stream_pipe_in(from->stream, to->pipe, MOON_TURN_LEN);
    if (n <= 0)
        return n;
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
    if (idle_ms >= relay->idle_ms)
        relay_end(relay, false);
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
    relay->owner = args->owner;
    relay->timer.fn = on_timer;
    relay->task.fn = relay_free;
    relay->active_ms = moon_loop_now_ms(res->loop);
    moon_count_up(&res->counters->tunnels_live);
    moon_list_add_before(&res->relays, &relay->node);
    moon_loop_timer_add(res->loop, &relay->timer, relay->idle_ms);
    side_init(&relay->client, relay, &relay->upstream, args->client, args->to_client);
    side_init(&relay->upstream, relay, &relay->client, args->upstream, args->to_upstream);
    return relay;
}

// Puts what was read beyond one side's head behind what is still to be written to the other.
static int join(struct moon_resources *res, struct moon_buffer *to, struct moon_buffer *read)
{
    struct moon_slice bytes = moon_buffer_bytes(read);
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
    int join_err = join(res, &args.to_client, &upstream_read);
    if (!join(res, &args.to_upstream, &client_read) && !join_err && !err && !up_err) {
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

void moon_relay_stop_all(struct moon_resources *res)
{
    while (!moon_list_is_empty(&res->relays))
        relay_end(MOON_CONTAINER(res->relays.next, struct moon_relay, node), false);
}
