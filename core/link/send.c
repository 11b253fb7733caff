// Sending: lanes of HTTP/1.1 queue heads and short pieces in `out`, which the link's task flushes in one write; long pieces go
// straight to the stream, behind what is queued.
#include "conf/settings.h"
#include "link/link_priv.h"
#include "link/resources.h"

#include <errno.h>

void moon_link_broken(struct moon_link *link, int err)
{
    link->is_broken = true;
    // The kernel tells an error once; after a FIN it is EPIPE, and the end is one in good order.
    link->was_reset = err != -EPIPE;
    moon_buffer_fini(&link->out, link->res->buffers);
    link->write_deadline_ms = 0;
    link->wants_read = true; // the answer, or the reason, is in the receive queue
}

bool moon_link_is_alive_after(int err)
{
    return err == -ENOBUFS || err == -ENOMEM;
}

static void write_failed(struct moon_link *link, int err)
{
    if (link->role == MOON_LINK_CLIENT && !moon_link_is_alive_after(err)) {
        moon_link_broken(link, err);
    } else {
        link->error = err;
    }
    moon_link_flush_later(link);
}

static void write_blocked(struct moon_link *link)
{
    if (link->write_deadline_ms)
        return;
    link->write_deadline_ms =
        moon_loop_now_ms(link->res->loop) + link->res->settings->timeouts.body_ms;
    moon_link_rearm(link);
}

void moon_link_flush(struct moon_link *link)
{
    if (link->is_freed || link->is_connecting || link->is_broken ||
        moon_buffer_len(&link->out) == 0)
        return;
    struct moon_slice bytes = moon_buffer_bytes(&link->out);
    struct iovec iov = {(void *)bytes.ptr, bytes.len};
    ssize_t n = moon_stream_writev(link->stream, &iov, 1);
    if (n < 0) {
        write_failed(link, (int)n);
        return;
    }
    if (n > 0) {
        link->has_output = true;
        link->write_deadline_ms = 0;
        moon_buffer_consume(&link->out, link->res->buffers, (size_t)n);
    }
    if (moon_buffer_len(&link->out) > 0)
        write_blocked(link);
}

static size_t queue(struct moon_link *link, struct moon_slice bytes)
{
    if (bytes.len && moon_buffer_append(&link->out, link->res->buffers, bytes) < 0) {
        link->error = -ENOBUFS;
        moon_link_flush_later(link);
    }
    return bytes.len;
}

// Queues what of the pieces lies behind the first `skip` bytes.
static void queue_rest(struct moon_link *link, const struct iovec *iov, int iov_count, size_t skip)
{
    for (int i = 0; i < iov_count; i++) {
        struct moon_slice piece = {iov[i].iov_base, iov[i].iov_len};
        if (skip >= piece.len) {
            skip -= piece.len;
            continue;
        }
        queue(link, moon_slice_skip(piece, skip));
        skip = 0;
    }
}

// One piece of body with its chunk framing: into `out` when short, else straight to the stream behind what is queued.
static size_t send_piece(struct moon_link *link, struct moon_slice bytes)
{
    enum { SMALL_LEN = 2048, FRAMING_LEN = MOON_CHUNK_HEAD_LEN + 2 };
    size_t room = moon_buffer_room(&link->out);
    if (room <= FRAMING_LEN)
        return 0;
    if (bytes.len > room - FRAMING_LEN)
        bytes.len = room - FRAMING_LEN;
    char chunk[MOON_CHUNK_HEAD_LEN];
    bool is_chunked = link->write_kind == MOON_BODY_CHUNKED;
    struct iovec iov[4];
    int count = 0;
    struct moon_slice queued = moon_buffer_bytes(&link->out);
    if (queued.len)
        iov[count++] = (struct iovec){(void *)queued.ptr, queued.len};
    int own = count;
    if (is_chunked)
        iov[count++] = (struct iovec){chunk, moon_chunk_head_write(bytes.len, chunk)};
    iov[count++] = (struct iovec){(void *)bytes.ptr, bytes.len};
    if (is_chunked)
        iov[count++] = (struct iovec){"\r\n", 2};
    ssize_t n = 0;
    if (bytes.len > SMALL_LEN && !link->is_connecting)
        n = moon_stream_writev(link->stream, iov, count);
    if (n < 0) {
        write_failed(link, (int)n);
        return bytes.len;
    }
    size_t written = (size_t)n, drop = written < queued.len ? written : queued.len;
    queue_rest(link, iov + own, count - own, written - drop);
    if (drop)
        moon_buffer_consume(&link->out, link->res->buffers, drop);
    if (written) {
        link->has_output = true;
        link->write_deadline_ms = 0;
    }
    return bytes.len;
}

size_t moon_lane_send_body(struct moon_lane *lane, struct moon_slice bytes)
{
    if (lane->is_stream)
        return moon_h2_lane_send_body(lane, bytes);
    struct moon_link *link = moon_lane_link(lane);
    if (link->is_broken || link->error)
        return bytes.len;
    size_t taken = 0;
    while (taken < bytes.len && !link->is_broken && !link->error) {
        size_t n = send_piece(link, moon_slice_skip(bytes, taken));
        taken += n;
        if (n == 0)
            break;
    }
    if (taken < bytes.len)
        link->is_full = true;
    if (taken)
        moon_link_progress(link);
    moon_link_flush_later(link);
    return taken;
}

int moon_lane_send_head(struct moon_lane *lane, const struct moon_head *head,
                        const struct moon_framing *framing)
{
    if (lane->is_stream)
        return moon_h2_lane_send_head(lane, head, framing);
    struct moon_link *link = moon_lane_link(lane);
    bool is_server = link->role == MOON_LINK_SERVER;
    size_t cap = moon_head_size(head);
    char *to = moon_buffer_reserve(&link->out, link->res->buffers, cap);
    if (!to) {
        link->error = -ENOBUFS;
        moon_link_flush_later(link);
        return -ENOBUFS;
    }
    size_t len =
        is_server ? moon_response_write(head, framing, to) : moon_request_write(head, framing, to);
    moon_buffer_commit(&link->out, len);
    link->write_kind = (uint8_t)framing->body;
    if (is_server && framing->close)
        link->must_close = true;
    moon_link_flush_later(link);
    return 0;
}

void moon_lane_send_end(struct moon_lane *lane, const struct moon_headers *trailers)
{
    if (lane->is_stream) {
        moon_h2_lane_send_end(lane, trailers);
        return;
    }
    struct moon_link *link = moon_lane_link(lane);
    link->is_sent = true;
    moon_link_flush_later(link);
    if (link->write_kind != MOON_BODY_CHUNKED || link->is_broken || link->error)
        return;
    queue(link, MOON_SLICE("0\r\n"));
    for (uint32_t i = 0; trailers && i < trailers->count; i++) {
        queue(link, trailers->fields[i].name);
        queue(link, MOON_SLICE(": "));
        queue(link, trailers->fields[i].value);
        queue(link, MOON_SLICE("\r\n"));
    }
    queue(link, MOON_SLICE("\r\n"));
}

void moon_link_send_first(struct moon_link *link, struct moon_slice bytes)
{
    queue(link, bytes);
    moon_link_flush_later(link);
}
