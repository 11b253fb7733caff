// A stream of HTTP/2 as a byte stream (RFC 8441 5): what a tunnel takes over of a lane whose head was sent as 101. Whoever has it
// notices no difference to a connection of its own.
//
//   DATA -> `in` of the stream -> read (windows open by what was read)        writev -> DATA, as far as windows and `out` allow
//   END_STREAM is FIN, RST_STREAM is a reset: both ways
//
// It is io's struct moon_stream, made here because only a link knows streams. What has happened is told by a task of its own,
// never from under nghttp2. Lost: the stream or its connection is gone; the tunnel stays until it is closed.
#include "base/err.h"
#include "link/h2_link_priv.h"
#include "link/resources.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct tunnel {
    struct moon_stream base;  // first
    struct h2_stream *stream; // NULL: lost
    struct moon_loop *loop;
    struct moon_task task; // tells `ready`
    unsigned ready;
    int error; // of lost
};

static void tell_later(struct tunnel *tunnel, unsigned ready)
{
    tunnel->ready |= ready;
    moon_loop_defer(tunnel->loop, &tunnel->task);
}

static void tunnel_task(struct moon_task *task)
{
    struct tunnel *tunnel = MOON_CONTAINER(task, struct tunnel, task);
    unsigned ready = tunnel->ready;
    tunnel->ready = 0;
    if (tunnel->base.on_ready)
        tunnel->base.on_ready(tunnel->base.owner, ready);
    else
        tunnel->ready = ready;
}

static void lose(struct tunnel *tunnel, int err)
{
    tunnel->stream = NULL;
    tunnel->error =
        err == MOON_EOF ? -ECONNRESET : err; // without END_STREAM it is no end in good order
    tell_later(tunnel, MOON_READY_READ | MOON_READY_ERROR);
}

// ---- what the link tells

static void on_abort(void *owner, int err)
{
    lose(owner, err);
}

static void on_writable(void *owner)
{
    tell_later(owner, MOON_READY_WRITE);
}

static const struct moon_lane_events events = {.abort = on_abort, .writable = on_writable};

void h2_tunnel_has_input(struct h2_stream *stream)
{
    tell_later(stream->lane.owner, MOON_READY_READ | (stream->has_end ? MOON_READY_HUP : 0u));
}

void h2_tunnel_cut(struct h2_stream *stream)
{
    lose(stream->lane.owner, -ECONNRESET);
}

// ---- the stream's operations

static ssize_t tunnel_read(struct moon_stream *s, void *to, size_t len)
{
    struct tunnel *tunnel = (struct tunnel *)s;
    struct h2_stream *stream = tunnel->stream;
    if (!stream)
        return tunnel->error;
    struct moon_link *link = stream->link;
    struct moon_slice in = moon_buffer_bytes(&stream->in);
    if (in.len == 0)
        return stream->has_end ? MOON_EOF : 0;
    if (len > in.len)
        len = in.len;
    memcpy(to, in.ptr, len);
    moon_buffer_consume(&stream->in, link->res->buffers, len);
    moon_h2_consumed(link->h2->h2, &stream->h2, len);
    moon_link_flush_later(link);
    return (ssize_t)len;
}

static ssize_t tunnel_writev(struct moon_stream *s, const struct iovec *iov, int iov_count)
{
    struct tunnel *tunnel = (struct tunnel *)s;
    size_t all_len = 0;
    if (!tunnel->stream)
        return tunnel->error;
    for (int i = 0; i < iov_count; i++) {
        struct moon_slice bytes = {iov[i].iov_base, iov[i].iov_len};
        size_t len = bytes.len ? moon_h2_lane_send_body(&tunnel->stream->lane, bytes) : 0;
        all_len += len;
        if (len < bytes.len)
            break;
    }
    return (ssize_t)all_len;
}

static int tunnel_shutdown(struct moon_stream *s)
{
    struct tunnel *tunnel = (struct tunnel *)s;
    if (!tunnel->stream)
        return tunnel->error;
    moon_h2_lane_send_end(&tunnel->stream->lane, NULL);
    return 0;
}

static void tunnel_free(struct tunnel *tunnel)
{
    moon_task_cancel(&tunnel->task);
    free(tunnel);
}

// Our END_STREAM, and what the client still sends is not wanted.
static void tunnel_close(struct moon_stream *s)
{
    struct tunnel *tunnel = (struct tunnel *)s;
    struct h2_stream *stream = tunnel->stream;
    if (stream) {
        stream->h2.is_tunnel = false; // the codec resets behind END_STREAM
        if (stream->h2.is_sent && !stream->h2.is_read)
            moon_h2_reset(stream->link->h2->h2, &stream->h2, MOON_H2_CANCEL);
        moon_h2_lane_send_end(&stream->lane, NULL);
        stream->is_taken =
            false; // where windows hold the END_STREAM back, it has the time of a response
        h2_stream_leave(stream);
    }
    tunnel_free(tunnel);
}

static void tunnel_abort(struct moon_stream *s)
{
    struct tunnel *tunnel = (struct tunnel *)s;
    struct h2_stream *stream = tunnel->stream;
    if (stream) {
        moon_h2_reset(stream->link->h2->h2, &stream->h2, MOON_H2_CANCEL);
        moon_link_flush_later(stream->link);
        h2_stream_leave(stream);
    }
    tunnel_free(tunnel);
}

static void tunnel_again(struct moon_stream *s)
{
    tell_later((struct tunnel *)s, MOON_READY_READ);
}

static int tunnel_connected(struct moon_stream *s)
{
    (void)s;
    return 0;
}

static void tunnel_address(const struct moon_stream *s, bool peer, struct moon_address *out)
{
    const struct tunnel *tunnel = (const struct tunnel *)s;
    *out = (struct moon_address){.family = MOON_FAMILY_NONE};
    if (tunnel->stream)
        moon_link_address(tunnel->stream->link, peer, out);
}

static struct moon_tls_facts *tunnel_tls(const struct moon_stream *s)
{
    const struct tunnel *tunnel = (const struct tunnel *)s;
    return tunnel->stream ? moon_link_tls(tunnel->stream->link) : NULL;
}

// It has no pipes, and nothing stands in front of it: peek and set_peer are for streams as they were accepted.
static const struct moon_stream_ops tunnel_ops = {
    .read = tunnel_read,
    .writev = tunnel_writev,
    .shutdown = tunnel_shutdown,
    .close = tunnel_close,
    .abort = tunnel_abort,
    .again = tunnel_again,
    .connected = tunnel_connected,
    .address = tunnel_address,
    .tls = tunnel_tls,
};

int moon_h2_lane_take_stream(struct moon_lane *lane, struct moon_stream **out)
{
    struct h2_stream *stream = h2_stream_of(lane);
    bool is_fit = stream->h2.is_tunnel && !stream->is_lost && !stream->is_closed;
    struct tunnel *tunnel = is_fit ? calloc(1, sizeof *tunnel) : NULL;
    if (!tunnel) {
        moon_h2_lane_abort(lane);
        return -EPIPE;
    }
    tunnel->base.ops = &tunnel_ops;
    tunnel->stream = stream;
    tunnel->loop = stream->link->res->loop;
    tunnel->task.fn = tunnel_task;
    stream->is_taken = true;
    lane->events = &events;
    lane->owner = tunnel;
    lane->arena = NULL; // the exchange's
    lane->head = NULL;
    *out = &tunnel->base;
    return 0;
}
