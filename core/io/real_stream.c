// TCP streams of the real world, on the descriptor itself. Readiness is remembered, so that reading a drained stream or
// writing to a full one costs no system call: the next edge from epoll makes it ready again.
#include "base/err.h"
#include "io/real_priv.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

struct real_stream {
    struct moon_stream base; // first
    struct real_source source;
    bool is_readable, is_writable; // as far as is known
    bool has_ended;                // FIN, RST or an error was seen: reads go on until they say so
    bool has_failed;               // of these, RST or an error
    bool is_connecting, wants_write, is_closed;
    int fd;
    struct real_loop *loop;
    struct moon_list node; // in loop->again, later in loop->graveyard
    struct moon_address peer;
};

static struct real_stream *real_of(struct moon_stream *s)
{
    return (struct real_stream *)s;
}

static ssize_t stream_read(struct moon_stream *s, void *to, size_t len)
{
    struct real_stream *stream = real_of(s);
    if (!stream->is_readable)
        return 0;
    ssize_t n;
    do
        n = recv(stream->fd, to, len, 0);
    while (n < 0 && errno == EINTR);
    if (n == 0)
        return MOON_EOF;
    if (n < 0) {
        if (errno != EAGAIN)
            return -errno;
        stream->is_readable = false;
        return 0;
    }
    if ((size_t)n < len && !stream->has_ended)
        stream->is_readable = false;
    return n;
}

// Readiness is kept while bytes lie there: the next edge comes with new ones.
static ssize_t stream_peek(struct moon_stream *s, void *to, size_t len)
{
    struct real_stream *stream = real_of(s);
    ssize_t n;
    if (!stream->is_readable)
        return 0;
    do
        n = recv(stream->fd, to, len, MSG_PEEK);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno != EAGAIN)
        return -errno;
    if (n < 0)
        stream->is_readable = false;
    return n < 0 ? 0 : n;
}

static size_t offered_len(const struct iovec *iov, int iov_count)
{
    size_t len = 0;
    for (int i = 0; i < iov_count; i++)
        len += iov[i].iov_len;
    return len;
}

static ssize_t stream_writev(struct moon_stream *s, const struct iovec *iov, int iov_count)
{
    struct real_stream *stream = real_of(s);
    ssize_t n;
    if (!stream->is_writable) {
        stream->wants_write = true;
        return 0;
    }
    struct msghdr message = {.msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)iov_count};
    do
        n = iov_count == 1 ? send(stream->fd, iov->iov_base, iov->iov_len, MSG_NOSIGNAL)
                           : sendmsg(stream->fd, &message, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno != EAGAIN)
        return -errno;
    // A part only: the kernel met its bound and will tell of room, as after EAGAIN.
    if (n < 0 || (size_t)n < offered_len(iov, iov_count)) {
        stream->is_writable = false;
        stream->wants_write = true;
    }
    return n < 0 ? 0 : n;
}

static int stream_shutdown(struct moon_stream *s)
{
    return shutdown(real_of(s)->fd, SHUT_WR) < 0 ? -errno : 0;
}

static void stream_close(struct moon_stream *s)
{
    struct real_stream *stream = real_of(s);
    if (stream->is_closed)
        return;
    stream->is_closed = true;
    close(stream->fd);
    moon_list_del(&stream->node);
    moon_list_add_before(&stream->loop->graveyard, &stream->node);
}

static void stream_abort(struct moon_stream *s)
{
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    setsockopt(real_of(s)->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    stream_close(s);
}

static void stream_again(struct moon_stream *s)
{
    struct real_stream *stream = real_of(s);
    if (!stream->is_closed && moon_list_is_empty(&stream->node))
        moon_list_add_before(&stream->loop->again, &stream->node);
}

static int stream_connected(struct moon_stream *s)
{
    struct real_stream *stream = real_of(s);
    int err = 0;
    socklen_t len = sizeof err;
    if (stream->is_connecting)
        return -EINPROGRESS;
    if (!stream->has_ended)
        return 0;
    getsockopt(stream->fd, SOL_SOCKET, SO_ERROR, &err, &len);
    return -err;
}

static ssize_t stream_pipe_in(struct moon_stream *s, struct moon_pipe *pipe, size_t max_len)
{
    struct real_stream *stream = real_of(s);
    if (!stream->is_readable)
        return 0;
    ssize_t n = real_pipe_splice(stream->fd, -1, pipe, true, max_len);
    if (n == 0 && !stream->has_ended)
        stream->is_readable = false;
    return n;
}

static ssize_t stream_pipe_out(struct moon_stream *s, struct moon_pipe *pipe, size_t max_len)
{
    struct real_stream *stream = real_of(s);
    if (!stream->is_writable) {
        stream->wants_write = true;
        return 0;
    }
    ssize_t n = real_pipe_splice(-1, stream->fd, pipe, false, max_len);
    if (n == 0) {
        stream->is_writable = false;
        stream->wants_write = true;
    }
    return n;
}

static void stream_address(const struct moon_stream *s, bool peer, struct moon_address *out)
{
    const struct real_stream *stream = (const struct real_stream *)s;
    struct sockaddr_storage at;
    socklen_t len = sizeof at;
    *out = (struct moon_address){0};
    if (peer)
        *out = stream->peer;
    else if (getsockname(stream->fd, (struct sockaddr *)&at, &len) == 0)
        real_from_sockaddr(&at, out);
}

static void stream_set_peer(struct moon_stream *s, const struct moon_address *peer)
{
    real_of(s)->peer = *peer;
}

// netfilter has a number for it in each family, which is the same. A socket for IPv6 carries IPv4, too.
static bool stream_origin(const struct moon_stream *s, struct moon_address *out)
{
    enum { ORIGINAL_DST = 80 };
    int fd = ((const struct real_stream *)s)->fd;
    struct sockaddr_storage at = {0};
    socklen_t len = sizeof at;
    if (getsockopt(fd, IPPROTO_IPV6, ORIGINAL_DST, &at, &len) < 0) {
        len = sizeof at;
        if (getsockopt(fd, IPPROTO_IP, ORIGINAL_DST, &at, &len) < 0)
            return false;
    }
    real_from_sockaddr(&at, out);
    return out->family != MOON_FAMILY_NONE;
}

static const struct moon_stream_ops stream_ops = {
    .read = stream_read,
    .writev = stream_writev,
    .shutdown = stream_shutdown,
    .close = stream_close,
    .abort = stream_abort,
    .again = stream_again,
    .connected = stream_connected,
    .pipe_in = stream_pipe_in,
    .pipe_out = stream_pipe_out,
    .address = stream_address,
    .peek = stream_peek,
    .set_peer = stream_set_peer,
    .origin = stream_origin,
};

static int stream_new(struct real_loop *loop, int fd, bool is_connecting, struct real_stream **out)
{
    struct real_stream *stream = calloc(1, sizeof *stream);
    if (!stream)
        abort();
    stream->base.ops = &stream_ops;
    stream->source.kind = REAL_STREAM;
    stream->fd = fd;
    stream->loop = loop;
    stream->is_connecting = is_connecting;
    stream->is_readable = !is_connecting;
    stream->is_writable = !is_connecting;
    moon_list_init(&stream->node);
    int err = real_watch(loop, fd, &stream->source, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
    if (err) {
        free(stream);
        return err;
    }
    *out = stream;
    return 0;
}

// What an edge means to the owner. The first EPOLLOUT comes with the registration and tells nothing, unless it connects.
static unsigned ready_of(struct real_stream *stream, uint32_t events)
{
    unsigned ready = 0;
    if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
        stream->has_ended = true;
        ready |= MOON_READY_HUP;
    }
    if (events & EPOLLERR) {
        stream->has_failed = true;
        ready |= MOON_READY_ERROR;
    }
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
        stream->is_readable = true;
        ready |= MOON_READY_READ;
    }
    if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) {
        stream->is_writable = true;
        if (stream->wants_write || stream->is_connecting)
            ready |= MOON_READY_WRITE;
        stream->wants_write = false;
        stream->is_connecting = false;
    }
    return ready;
}

void real_stream_event(struct real_source *source, uint32_t events)
{
    struct real_stream *stream = MOON_CONTAINER(source, struct real_stream, source);
    if (stream->is_closed)
        return;
    unsigned ready = ready_of(stream, events);
    if (stream->base.on_ready && ready)
        stream->base.on_ready(stream->base.owner, ready);
}

static unsigned again_of(const struct real_stream *stream)
{
    return MOON_READY_READ | (stream->has_ended ? MOON_READY_HUP : 0u) |
           (stream->has_failed ? MOON_READY_ERROR : 0u);
}

void real_streams_again(struct real_loop *loop)
{
    struct moon_list turn; // those that ask once more now come in the next turn
    moon_list_init(&turn);
    while (!moon_list_is_empty(&loop->again)) {
        struct moon_list *node = loop->again.next;
        moon_list_del(node);
        moon_list_add_before(&turn, node);
    }
    while (!moon_list_is_empty(&turn)) {
        struct real_stream *stream = MOON_CONTAINER(turn.next, struct real_stream, node);
        moon_list_del(&stream->node);
        if (stream->base.on_ready)
            stream->base.on_ready(stream->base.owner, again_of(stream));
        moon_loop_run_tasks(&loop->base);
    }
}

void real_streams_bury(struct real_loop *loop)
{
    while (!moon_list_is_empty(&loop->graveyard)) {
        struct real_stream *stream = MOON_CONTAINER(loop->graveyard.next, struct real_stream, node);
        moon_list_del(&stream->node);
        free(stream);
    }
}

int real_connect(struct moon_loop *loop, const struct moon_address *to, struct moon_stream **out)
{
    struct sockaddr_storage at;
    socklen_t len = real_to_sockaddr(to, &at);
    struct real_stream *stream;
    int fd = socket(at.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    real_set_tcp_options(fd);
    if (connect(fd, (struct sockaddr *)&at, len) < 0 && errno != EINPROGRESS) {
        int err = -errno;
        close(fd);
        return err;
    }
    int err = stream_new(real_loop(loop), fd, true, &stream);
    if (err) {
        close(fd);
        return err;
    }
    stream->peer = *to;
    *out = &stream->base;
    return 0;
}

int real_accept(struct moon_loop *loop, struct moon_socket *socket, struct moon_stream **out)
{
    struct sockaddr_storage at;
    socklen_t len = sizeof at;
    struct real_stream *stream;
    int fd = accept4(real_socket(socket)->fd, (struct sockaddr *)&at, &len,
                     SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return -errno;
    int err = stream_new(real_loop(loop), fd, false, &stream);
    if (err) {
        close(fd);
        return err;
    }
    real_from_sockaddr(&at, &stream->peer);
    *out = &stream->base;
    return 0;
}
