// A byte stream of the world, edge-style (DESIGN 2). `on_ready` is a hint that something changed: the owner reads until the
// stream says "would block" (0), or stops early and asks for another turn with `moon_stream_again`.
// EOF, abort and error are separate: EOF is MOON_EOF from read (the peer ended its side; writing goes on), an error is the
// errno of the failing call. After MOON_READY_ERROR, read until read itself fails: data may have come before the RST.
// The base struct is public because reading and writing are dispatched inline on the hot path; everything behind `ops` is io's.
#pragma once

#include "base/address.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

enum {
    MOON_READY_READ = 1,  // bytes, EOF or an error may be waiting
    MOON_READY_WRITE = 2, // room again after a write that would block; or connected
    MOON_READY_HUP = 4,   // the peer has ended its side (seen ahead of what is still unread)
    MOON_READY_ERROR = 8, // reset or another failure: read on, the read will say which
};

struct moon_stream;
struct moon_pipe;
struct moon_tls_facts;

// May close the stream.
typedef void moon_ready_fn(void *owner, unsigned ready);

struct moon_stream_ops {
    ssize_t (*read)(struct moon_stream *s, void *to, size_t len);
    ssize_t (*writev)(struct moon_stream *s, const struct iovec *iov, int iov_count);
    int (*shutdown)(struct moon_stream *s);
    void (*close)(struct moon_stream *s);
    void (*abort)(struct moon_stream *s);
    void (*again)(struct moon_stream *s);
    int (*connected)(struct moon_stream *s);
    ssize_t (*pipe_in)(struct moon_stream *s, struct moon_pipe *pipe, size_t max_len);
    ssize_t (*pipe_out)(struct moon_stream *s, struct moon_pipe *pipe, size_t max_len);
    void (*address)(const struct moon_stream *s, bool peer, struct moon_address *out);
    ssize_t (*peek)(struct moon_stream *s, void *to, size_t len);
    void (*set_peer)(struct moon_stream *s, const struct moon_address *peer);
    struct moon_tls_facts *(*tls)(const struct moon_stream *s);            // NULL: plain
    bool (*origin)(const struct moon_stream *s, struct moon_address *out); // NULL: never
};

struct moon_stream {
    const struct moon_stream_ops *ops;
    moon_ready_fn *on_ready;
    void *owner;
};

// Sets or changes who is told. NULL on_ready: nobody; readiness is remembered, and a later non-NULL owner should call again().
static inline void moon_stream_set_owner(struct moon_stream *s, moon_ready_fn *on_ready,
                                         void *owner)
{
    s->on_ready = on_ready;
    s->owner = owner;
}

// > 0 bytes; 0 would block; MOON_EOF; -errno. len > 0. A read shorter than len means the next would block: the
// implementation answers that one without a system call.
static inline ssize_t moon_stream_read(struct moon_stream *s, void *to, size_t len)
{
    return s->ops->read(s, to, len);
}

// > 0 bytes taken; 0 would block; -errno. Where fewer were taken than offered MOON_READY_WRITE will follow. Never raises SIGPIPE.
static inline ssize_t moon_stream_writev(struct moon_stream *s, const struct iovec *iov,
                                         int iov_count)
{
    return s->ops->writev(s, iov, iov_count);
}

// Ends our side (FIN). 0 or -errno.
static inline int moon_stream_shutdown(struct moon_stream *s)
{
    return s->ops->shutdown(s);
}

// Closes and frees; on_ready is not called again. NULL is fine. Safe from inside on_ready.
static inline void moon_stream_close(struct moon_stream *s)
{
    if (s)
        s->ops->close(s);
}

// As close, but the peer sees a reset (RST) rather than an end.
static inline void moon_stream_abort(struct moon_stream *s)
{
    if (s)
        s->ops->abort(s);
}

// on_ready(MOON_READY_READ) will be called in the next turn, whether or not anything new has come; with MOON_READY_HUP and
// MOON_READY_ERROR where they were told before, for the owner of now may be another.
static inline void moon_stream_again(struct moon_stream *s)
{
    s->ops->again(s);
}

// Of a stream from moon_loop_connect: 0 connected, -EINPROGRESS, or the -errno it failed with. A connected stream is told
// MOON_READY_WRITE, a failed one MOON_READY_ERROR.
static inline int moon_stream_connected(struct moon_stream *s)
{
    return s->ops->connected(s);
}

// splice(2) where the stream can; both as read and writev in their results. A stream without pipes has pipe_in == NULL.
static inline bool moon_stream_has_pipe(const struct moon_stream *s)
{
    return s->ops->pipe_in != NULL;
}

static inline ssize_t moon_stream_pipe_in(struct moon_stream *s, struct moon_pipe *pipe,
                                          size_t max_len)
{
    return s->ops->pipe_in(s, pipe, max_len);
}

static inline ssize_t moon_stream_pipe_out(struct moon_stream *s, struct moon_pipe *pipe,
                                           size_t max_len)
{
    return s->ops->pipe_out(s, pipe, max_len);
}

static inline void moon_stream_address(const struct moon_stream *s, bool peer,
                                       struct moon_address *out)
{
    s->ops->address(s, peer, out);
}

// As read, but the bytes stay and the end of the stream is not told: 0, or fewer bytes than are needed, with MOON_READY_HUP seen
// means that no more come. For what stands in front of a protocol, on a stream as it was accepted.
static inline ssize_t moon_stream_peek(struct moon_stream *s, void *to, size_t len)
{
    return s->ops->peek(s, to, len);
}

// Who the peer is for everybody who asks from now on: the client that a proxy in front speaks of. As it was accepted, too.
static inline void moon_stream_set_peer(struct moon_stream *s, const struct moon_address *peer)
{
    s->ops->set_peer(s, peer);
}

// Where the peer of an accepted stream meant to go before the kernel redirected it here (SO_ORIGINAL_DST). False: nobody knows; `out`
// is no address then.
static inline bool moon_stream_origin(const struct moon_stream *s, struct moon_address *out)
{
    *out = (struct moon_address){0};
    return s->ops->origin && s->ops->origin(s, out);
}

// What is known of the TLS connection (io/tls.h), the stream's; NULL: it is none, or not made yet.
static inline struct moon_tls_facts *moon_stream_tls(const struct moon_stream *s)
{
    return s->ops->tls ? s->ops->tls(s) : NULL;
}
