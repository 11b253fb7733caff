// Which loop should the gateway stand on? A relay of bytes, one upstream connection for each client, with four loops:
//
//   epoll    an edge-triggered set alone: the floor
//   outer    the same, libuv's descriptor is one of that set and libuv runs when it is ready (what core/io does)
//   nested   libuv's loop, our edge-triggered set is one uv_poll_t of it
//   uv       libuv's loop, a uv_poll_t for each socket (level-triggered: interest changes with what is awaited)
//
//   poll VARIANT PORT BACKEND_PORT      serves until it is killed
//
// A relay that cannot write stops reading: `uv` then drops READABLE and asks for WRITABLE, the others only remember it.
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

enum { BUFFER_LEN = 65536, EVENT_COUNT = 256 };

enum variant { EPOLL, OUTER, NESTED, UV };

struct side {
    struct side *other;
    uv_poll_t poll; // variant uv
    int fd, interest;
    bool is_listener, is_uv, is_closed;
    char *held; // what the other side did not take yet
    size_t held_len;
};

struct relay {
    enum variant variant;
    uv_loop_t uv;
    uv_poll_t nested;
    int epoll_fd;
    uint16_t backend;
    struct side listener, uv_side;
    char buffer[BUFFER_LEN];
};

static void on_poll(uv_poll_t *poll, int status, int events);

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void end(struct relay *relay, struct side *side)
{
    if (side->is_closed)
        return;
    side->is_closed = true;
    free(side->held);
    if (relay->variant == UV)
        uv_poll_stop(&side->poll);
    close(side->fd);
    if (relay->variant == UV)
        uv_close((uv_handle_t *)&side->poll, on_closed);
    end(relay,
        side->other); // epoll variants leak the struct: an event of this turn may point to it
}

// Level-triggered interest; an unchanged one costs nothing.
static void want(struct relay *relay, struct side *side, int interest)
{
    if (relay->variant != UV || side->interest == interest || side->is_closed)
        return;
    side->interest = interest;
    uv_poll_start(&side->poll, interest, on_poll);
}

static void watch(struct relay *relay, struct side *side)
{
    if (relay->variant == UV) {
        uv_poll_init(&relay->uv, &side->poll, side->fd);
        side->poll.data = side;
        want(relay, side, UV_READABLE);
        return;
    }
    uint32_t events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
    struct epoll_event event = {.events = side->is_listener ? EPOLLIN | EPOLLET : events,
                                .data.ptr = side};
    if (epoll_ctl(relay->epoll_fd, EPOLL_CTL_ADD, side->fd, &event) < 0)
        fail("epoll_ctl");
}

// False: it does not take all; what is left is held by `from`.
static bool pass(struct relay *relay, struct side *from, const char *bytes, size_t len)
{
    ssize_t n = send(from->other->fd, bytes, len, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN) {
        end(relay, from);
        return false;
    }
    size_t sent = n > 0 ? (size_t)n : 0;
    if (sent == len)
        return true;
    char *rest = malloc(len - sent);
    if (!rest)
        fail("malloc");
    memcpy(rest, bytes + sent, len - sent);
    free(from->held);
    from->held = rest;
    from->held_len = len - sent;
    want(relay, from, 0);
    want(relay, from->other, UV_READABLE | UV_WRITABLE);
    return false;
}

static bool pass_held(struct relay *relay, struct side *from)
{
    char *held = from->held;
    size_t len = from->held_len;
    if (!held)
        return true;
    from->held = NULL;
    bool is_done = pass(relay, from, held, len);
    free(held);
    if (is_done) {
        want(relay, from, UV_READABLE);
        want(relay, from->other, from->other->held ? 0 : UV_READABLE);
    }
    return is_done;
}

static void pump(struct relay *relay, struct side *from)
{
    while (!from->is_closed && pass_held(relay, from)) {
        ssize_t n = recv(from->fd, relay->buffer, BUFFER_LEN, 0);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            end(relay, from);
            return;
        }
        if (!pass(relay, from, relay->buffer, (size_t)n))
            return;
        if (n < BUFFER_LEN)
            return; // the next would block
    }
}

static void on_event(struct relay *relay, struct side *side, bool is_readable, bool is_writable)
{
    if (side->is_closed)
        return;
    if (is_writable && side->other->held)
        pump(relay, side->other);
    if (is_readable && !side->is_closed && !side->held)
        pump(relay, side);
}

static struct side *side_new(int fd)
{
    struct side *side = calloc(1, sizeof *side);
    int on = 1;
    if (!side || fd < 0)
        fail("poll: a socket");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    side->fd = fd;
    return side;
}

static void take_connections(struct relay *relay)
{
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons(relay->backend),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    for (;;) {
        int fd = accept4(relay->listener.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        struct side *client = side_new(fd);
        struct side *upstream = side_new(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        if (connect(upstream->fd, (struct sockaddr *)&at, sizeof at) < 0)
            fail("poll: connect");
        fcntl(upstream->fd, F_SETFL, O_NONBLOCK);
        client->other = upstream;
        upstream->other = client;
        watch(relay, client);
        watch(relay, upstream);
    }
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct relay *relay = poll->loop->data;
    struct side *side = poll->data;
    if (side->is_listener)
        take_connections(relay);
    else
        on_event(relay, side, status < 0 || events & UV_READABLE, events & UV_WRITABLE);
}

// One wait on our set. True when libuv is ready.
static bool turn(struct relay *relay, int timeout_ms)
{
    struct epoll_event events[EVENT_COUNT];
    bool is_uv_ready = false;
    int count = epoll_wait(relay->epoll_fd, events, EVENT_COUNT, timeout_ms);
    for (int i = 0; i < count; i++) {
        struct side *side = events[i].data.ptr;
        uint32_t got = events[i].events;
        if (side->is_uv)
            is_uv_ready = true;
        else if (side->is_listener)
            take_connections(relay);
        else
            on_event(relay, side, got & ~(uint32_t)EPOLLOUT, got & EPOLLOUT);
    }
    return is_uv_ready;
}

static void on_nested(uv_poll_t *poll, int status, int events)
{
    (void)status, (void)events;
    turn(poll->loop->data, 0);
}

static void serve(struct relay *relay)
{
    switch (relay->variant) {
    case EPOLL:
        for (;;)
            turn(relay, -1);
    case OUTER:
        relay->uv_side.is_uv = true;
        relay->uv_side.fd = uv_backend_fd(&relay->uv);
        watch(relay, &relay->uv_side);
        for (;;) {
            bool is_uv_ready = turn(relay, uv_backend_timeout(&relay->uv));
            if (is_uv_ready || uv_backend_timeout(&relay->uv) == 0)
                uv_run(&relay->uv, UV_RUN_NOWAIT);
        }
    case NESTED:
        uv_poll_init(&relay->uv, &relay->nested, relay->epoll_fd);
        uv_poll_start(&relay->nested, UV_READABLE, on_nested);
        uv_run(&relay->uv, UV_RUN_DEFAULT);
        return;
    case UV:
        uv_run(&relay->uv, UV_RUN_DEFAULT);
    }
}

static void on_signal(uv_signal_t *handle, int signal_number)
{
    (void)handle, (void)signal_number;
    exit(0);
}

int main(int argc, char **argv)
{
    static const char *const names[] = {"epoll", "outer", "nested", "uv"};
    static struct relay relay;
    bool is_known = false;
    for (unsigned i = 0; argc == 4 && i < 4; i++) {
        if (strcmp(argv[1], names[i]) != 0)
            continue;
        relay.variant = (enum variant)i;
        is_known = true;
    }
    if (!is_known) {
        fprintf(stderr, "usage: poll epoll|outer|nested|uv PORT BACKEND_PORT\n");
        return 2;
    }
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)atoi(argv[2])),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    uv_signal_t signal; // so that libuv has something to wait for
    uv_loop_init(&relay.uv);
    relay.uv.data = &relay;
    uv_signal_init(&relay.uv, &signal);
    uv_signal_start(&signal, on_signal, SIGTERM);
    relay.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    relay.backend = (uint16_t)atoi(argv[3]);
    relay.listener.is_listener = true;
    relay.listener.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (bind(relay.listener.fd, (struct sockaddr *)&at, sizeof at) < 0 ||
        listen(relay.listener.fd, 1024) < 0)
        fail("poll: listen");
    watch(&relay, &relay.listener);
    serve(&relay);
    return 0;
}
