// Peers: see peer.h. Reading and writing keep to the contract of io/stream.h: read until it would block, write until it would.
#include "test/sim/peer.h"

#include "base/err.h"
#include "io/loop.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { READ_LEN = 16384 };

void text_add(struct text *text, const void *bytes, size_t len)
{
    if (text->head + text->len + len > text->cap) {
        size_t cap = text->cap ? text->cap : 4096;
        while (cap < text->len + len)
            cap *= 2;
        char *moved = malloc(cap);
        if (!moved)
            abort();
        if (text->len)
            memcpy(moved, text->bytes + text->head, text->len);
        free(text->bytes);
        text->bytes = moved;
        text->head = 0;
        text->cap = cap;
    }
    if (len)
        memcpy(text->bytes + text->head + text->len, bytes, len);
    text->len += len;
}

void text_take(struct text *text, size_t len)
{
    text->head += len;
    text->len -= len;
    if (text->len == 0)
        text->head = 0;
}

void text_fini(struct text *text)
{
    free(text->bytes);
    *text = (struct text){0};
}

static size_t less(size_t a, size_t b)
{
    return a < b ? a : b;
}

static void pump_out(struct peer *peer)
{
    while (peer->out.len && !peer->is_connecting && !peer->has_write_failed) {
        size_t len = peer->slow_len ? less(peer->out.len, peer->write_credit) : peer->out.len;
        if (len == 0)
            return;
        struct iovec iov = {peer->out.bytes + peer->out.head, len};
        ssize_t n = moon_stream_writev(peer->stream, &iov, 1);
        if (n == 0)
            return;
        if (n < 0) {
            peer->has_write_failed = true;
            text_fini(&peer->out);
            return;
        }
        text_take(&peer->out, (size_t)n);
        peer->out_total += (size_t)n;
        peer->write_credit -= peer->slow_len ? (size_t)n : 0;
    }
    if (peer->wants_end && peer->out.len == 0 && !peer->is_connecting) {
        peer->wants_end = false;
        moon_stream_shutdown(peer->stream);
    }
}

bool peer_read(struct peer *peer, size_t len)
{
    char bytes[READ_LEN];
    if (peer->is_connecting || peer_is_over(peer))
        return false;
    len = less(len, sizeof bytes);
    len = peer->slow_len ? less(len, peer->read_credit) : len;
    ssize_t n = len ? moon_stream_read(peer->stream, bytes, len) : 0;
    if (n == MOON_EOF)
        peer->has_ended = peer->has_hup = true;
    else if (n < 0)
        peer->error = (int)n;
    if (n <= 0)
        return false;
    text_add(&peer->in, bytes, (size_t)n);
    peer->in_total += (size_t)n;
    peer->read_credit -= peer->slow_len ? (size_t)n : 0;
    return true;
}

static void pump_in(struct peer *peer)
{
    while (!peer->is_paused && peer_read(peer, READ_LEN))
        ;
}

void peer_pump(struct peer *peer)
{
    if (peer->stream)
        pump_out(peer);
    if (peer->stream)
        pump_in(peer);
}

static void on_ready(void *owner, unsigned ready)
{
    struct peer *peer = owner;
    if (peer->is_connecting) {
        int err = moon_stream_connected(peer->stream);
        if (err == -EINPROGRESS)
            return;
        peer->is_connecting = false;
        peer->error = err;
    }
    if (ready & (MOON_READY_HUP | MOON_READY_ERROR))
        peer->has_hup = true;
    peer_pump(peer);
    peer->on_change(peer->owner);
}

static void on_timer(struct moon_timer *timer)
{
    struct peer *peer = MOON_CONTAINER(timer, struct peer, timer);
    moon_loop_timer_add(peer->loop, timer, peer->slow_ms);
    peer->read_credit = peer->write_credit = peer->slow_len;
    peer_pump(peer);
    peer->on_change(peer->owner);
}

void peer_adopt(struct peer *peer, struct moon_loop *loop, struct moon_stream *stream)
{
    peer->loop = loop;
    peer->stream = stream;
    peer->timer.fn = on_timer;
    moon_stream_set_owner(stream, on_ready, peer);
}

void peer_open(struct peer *peer, struct moon_loop *loop, const struct moon_address *to)
{
    struct moon_stream *stream;
    if (moon_loop_connect(loop, to, &stream) < 0)
        abort();
    peer_adopt(peer, loop, stream);
    peer->is_connecting = true;
}

void peer_slow(struct peer *peer, size_t len, size_t ms)
{
    peer->slow_len = peer->read_credit = peer->write_credit = len;
    peer->slow_ms = ms;
    moon_loop_timer_add(peer->loop, &peer->timer, ms);
}

void peer_send(struct peer *peer, const void *bytes, size_t len)
{
    if (!peer->stream || peer->has_write_failed)
        return;
    text_add(&peer->out, bytes, len);
    pump_out(peer);
}

void peer_shutdown(struct peer *peer)
{
    peer->wants_end = true;
    if (peer->stream)
        pump_out(peer);
}

static void leave(struct peer *peer, void (*leave_stream)(struct moon_stream *stream))
{
    if (!peer->stream)
        return;
    leave_stream(peer->stream);
    peer->stream = NULL;
    moon_loop_timer_del(peer->loop, &peer->timer);
    text_fini(&peer->out);
}

void peer_close(struct peer *peer)
{
    leave(peer, moon_stream_close);
}

void peer_reset(struct peer *peer)
{
    leave(peer, moon_stream_abort);
}

void peer_fini(struct peer *peer)
{
    peer_close(peer);
    text_fini(&peer->in);
    text_fini(&peer->out);
}

bool peer_is_over(const struct peer *peer)
{
    return !peer->stream || peer->has_ended || peer->error;
}
