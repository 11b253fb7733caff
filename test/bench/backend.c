// The backend of the benchmarks: HTTP/1.1 on 127.0.0.1, one thread, edge-triggered epoll, made to cost little. GET /<n>
// answers with n bytes; a request with a Content-Length is read to its end first; one with an Upgrade becomes a tunnel that
// echoes. It understands what the proxies under test send and nothing else.
//
//   backend PORT [any]  serves until it is killed; any: on every address, so that all of 127.0.0.0/8 leads here
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    HEAD_CAP_LEN = 8192,
    BODY_LEN = 1 << 20,
    EVENT_COUNT = 256,
    SEND_BUFFER_LEN = 65536, // of answers longer than BODY_LEN
    ANSWER_CAP_LEN = 256,    // of a head
    SMALL_LEN = 1024, // of a body that is sent as a part of its head, by send instead of sendmsg
};

struct connection {
    int fd;
    bool must_close, is_tunnel;
    bool is_drained, has_ended; // is_drained: until the next event there is no more to read
    size_t in_len;              // of a head that is not complete yet
    uint64_t upload_left;
    size_t head_len, head_sent; // of the answer under way
    uint64_t body_left;
    char head[ANSWER_CAP_LEN + SMALL_LEN];
    char in[HEAD_CAP_LEN];
};

static char body[BODY_LEN];

// The last request without a body and the head that answered it. In a run all are alike, and what the backend takes of its core
// the load generator has not.
static struct {
    char request[1024], head[ANSWER_CAP_LEN + SMALL_LEN];
    size_t request_len, head_len;
    uint64_t body_left;
} known;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void drop(struct connection *c)
{
    close(c->fd);
    free(c);
}

// A long answer that nobody takes waits here, not in the kernel: the TCP memory of the machine, which the proxy needs, too, would
// be full with a thousand of them.
static void begin_answer(struct connection *c, uint64_t len)
{
    static const int send_buffer_len = SEND_BUFFER_LEN;
    if (len > BODY_LEN)
        setsockopt(c->fd, SOL_SOCKET, SO_SNDBUF, &send_buffer_len, sizeof send_buffer_len);
    c->head_len = (size_t)snprintf(c->head, ANSWER_CAP_LEN,
                                   "HTTP/1.1 200 OK\r\nServer: backend\r\n"
                                   "Date: Mon, 01 Jan 2024 00:00:00 GMT\r\n"
                                   "Content-Type: application/octet-stream\r\n"
                                   "Content-Length: %llu\r\n\r\n",
                                   (unsigned long long)len);
    c->head_sent = 0;
    c->body_left = len;
    if (len <= SMALL_LEN) {
        memcpy(c->head + c->head_len, body, len);
        c->head_len += len;
        c->body_left = 0;
    }
}

// 1 all is sent, 0 the socket is full, -1 broken.
static int send_answer(struct connection *c)
{
    while (c->head_sent < c->head_len || c->body_left) {
        size_t part = c->body_left < BODY_LEN ? (size_t)c->body_left : BODY_LEN;
        size_t head_left = c->head_len - c->head_sent;
        struct iovec iov[2] = {{c->head + c->head_sent, head_left}, {body, part}};
        struct msghdr message = {.msg_iov = head_left ? iov : iov + 1,
                                 .msg_iovlen = (head_left ? 1u : 0u) + (part ? 1u : 0u)};
        ssize_t n = part ? sendmsg(c->fd, &message, MSG_NOSIGNAL)
                         : send(c->fd, iov[0].iov_base, head_left, MSG_NOSIGNAL);
        if (n < 0)
            return errno == EAGAIN ? 0 : -1;
        size_t of_head = (size_t)n < head_left ? (size_t)n : head_left;
        c->head_sent += of_head;
        c->body_left -= (size_t)n - of_head;
    }
    c->head_len = c->head_sent = 0;
    return c->must_close ? -1 : 1;
}

static void begin_tunnel(struct connection *c)
{
    c->is_tunnel = true;
    c->head_len = (size_t)snprintf(c->head, sizeof c->head,
                                   "HTTP/1.1 101 Switching Protocols\r\n"
                                   "Connection: Upgrade\r\nUpgrade: echo\r\n\r\n");
    c->head_sent = 0;
    c->body_left = 0;
}

static bool take_known(struct connection *c)
{
    if (!c->in_len || c->in_len != known.request_len ||
        memcmp(c->in, known.request, known.request_len) != 0)
        return false;
    memcpy(c->head, known.head, known.head_len);
    c->head_len = known.head_len;
    c->head_sent = c->in_len = 0;
    c->body_left = known.body_left;
    c->upload_left = 0;
    c->must_close = false;
    return true;
}

// `request` is whole, and c->head what answers it.
static void get_to_know(const struct connection *c, const char *request, size_t len)
{
    if (len > sizeof known.request)
        return;
    memcpy(known.request, request, len);
    memcpy(known.head, c->head, c->head_len);
    known.request_len = len;
    known.head_len = c->head_len;
    known.body_left = c->body_left;
}

// Takes a head off `in`; false when it is not complete.
static bool take_request(struct connection *c)
{
    if (take_known(c))
        return true;
    char *end = memmem(c->in, c->in_len, "\r\n\r\n", 4);
    if (!end)
        return false;
    *end = 0;
    size_t len = (size_t)(end - c->in) + 4, rest = c->in_len - len;
    const char *slash = strchr(c->in, '/');
    uint64_t size = slash ? strtoull(slash + 1, NULL, 10) : 0;
    const char *length = c->in[0] == 'P' ? strcasestr(c->in, "\r\ncontent-length:") : NULL;
    c->upload_left = length ? strtoull(length + 17, NULL, 10) : 0;
    c->must_close = strcasestr(c->in, "\r\nconnection: close") != NULL;
    bool is_upgrade = strcasestr(c->in, "\r\nupgrade:") != NULL;
    if (is_upgrade)
        begin_tunnel(c);
    else
        begin_answer(c, size);
    *end = '\r';
    if (!is_upgrade && !length && !c->must_close && size <= BODY_LEN)
        get_to_know(c, c->in, len);
    size_t of_body = rest < c->upload_left ? rest : (size_t)c->upload_left;
    c->upload_left -= of_body;
    c->in_len = rest - of_body;
    memmove(c->in, c->in + len + of_body, c->in_len);
    return true;
}

// 1 something came, 0 nothing more for now, -1 over. A read that came back short saw all there was: what comes later is another
// event, so that a small request costs one recv.
static int receive(struct connection *c)
{
    ssize_t n;
    size_t want = HEAD_CAP_LEN - c->in_len;
    if (c->is_drained)
        return 0;
    if (c->upload_left) { // MSG_TRUNC: TCP throws the bytes away without copying them
        want = c->upload_left < (1u << 30) ? (size_t)c->upload_left : 1u << 30;
        n = recv(c->fd, NULL, want, MSG_TRUNC);
    } else {
        n = recv(c->fd, c->in + c->in_len, want, 0);
    }
    c->is_drained = n > 0 && (size_t)n < want && !c->has_ended;
    if (n <= 0)
        return n < 0 && errno == EAGAIN ? 0 : -1;
    if (c->upload_left)
        c->upload_left -= (uint64_t)n;
    else
        c->in_len += (size_t)n;
    return 1;
}

// Sends back what is in `in`, as far as the socket takes it: as send_answer.
static int send_echo(struct connection *c)
{
    while (c->in_len) {
        ssize_t n = send(c->fd, c->in, c->in_len, MSG_NOSIGNAL);
        if (n < 0)
            return errno == EAGAIN ? 0 : -1;
        c->in_len -= (size_t)n;
        memmove(c->in, c->in + n, c->in_len);
    }
    return 1;
}

// -1: over.
static int serve(struct connection *c)
{
    for (;;) {
        if (c->head_len && !c->upload_left) {
            int sent = send_answer(c);
            if (sent <= 0)
                return sent;
        }
        if (!c->head_len && c->is_tunnel) {
            int sent = send_echo(c);
            if (sent <= 0)
                return sent;
        } else if (!c->head_len && c->in_len && take_request(c)) {
            continue;
        }
        int got = receive(c);
        if (got <= 0)
            return got;
    }
}

static int serve_event(struct connection *c, uint32_t events)
{
    c->has_ended |= (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    if (events & EPOLLIN || c->has_ended)
        c->is_drained = false;
    return serve(c);
}

static void take_connections(int epoll_fd, int listener)
{
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), on = 1;
        if (fd < 0)
            return;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct connection *c = malloc(sizeof *c);
        if (!c)
            fail("malloc");
        memset(c, 0, offsetof(struct connection, head));
        c->fd = fd;
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                                    .data.ptr = c};
        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
            fail("epoll_ctl");
    }
}

// `is_any`: on every address of the machine, so that all of 127.0.0.0/8 leads here.
static int open_listener(uint16_t port, bool is_any)
{
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons(port),
                             .sin_addr.s_addr = htonl(is_any ? INADDR_ANY : INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&at, sizeof at) < 0 || listen(fd, 4096) < 0)
        fail("backend: listen");
    return fd;
}

int main(int argc, char **argv)
{
    if (argc != 2 && argc != 3) {
        fprintf(stderr, "usage: backend PORT [any]\n");
        return 2;
    }
    memset(body, 'x', sizeof body);
    int listener = open_listener((uint16_t)atoi(argv[1]), argc > 2),
        epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN}, events[EVENT_COUNT];
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int count = epoll_wait(epoll_fd, events, EVENT_COUNT, -1);
        for (int i = 0; i < count; i++) {
            struct connection *c = events[i].data.ptr;
            if (!c)
                take_connections(epoll_fd, listener);
            else if (serve_event(c, events[i].events) < 0)
                drop(c);
        }
    }
}
