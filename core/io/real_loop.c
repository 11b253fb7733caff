// The loop of the real world. It blocks in epoll_wait on its own edge-triggered set; libuv's descriptor is one of that set, and
// libuv runs only when it has something to say (measured against its own loop: test/bench/poll).
//
//   epoll_wait -> clock -> events: on_ready -> deferred tasks -> `again` streams -> timers -> libuv -> bury closed streams
//
// Tasks run after a batch of events, not after each: links flush there, and sending in a row keeps the kernel's code and ours
// from driving each other out of the caches, and wakes a peer once where it would be woken again and again.
#include "base/err.h"
#include "io/real_priv.h"
#include "obs/heartbeat.h"
#include "obs/histogram.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

enum { BATCH_COUNT = 64 }; // bounds how long the first answer of a turn waits for the last event

struct real_signal {
    struct moon_list node;
    uv_signal_t handle;
    void (*fn)(void *owner, int signal_number);
    void *owner;
};

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec at;
    clock_gettime(clock, &at);
    return (uint64_t)at.tv_sec * 1000000000u + (uint64_t)at.tv_nsec;
}

static uint64_t loop_now_ns(struct moon_loop *loop)
{
    (void)loop;
    return clock_ns(CLOCK_MONOTONIC);
}

static uint64_t loop_wall_ms(struct moon_loop *loop)
{
    (void)loop;
    return clock_ns(CLOCK_REALTIME) / 1000000u;
}

static void loop_random(struct moon_loop *loop, void *to, size_t len)
{
    (void)loop;
    for (size_t done = 0; done < len;) {
        ssize_t n = getrandom((char *)to + done, len - done, 0);
        if (n < 0 && errno != EINTR)
            abort();
        done += n > 0 ? (size_t)n : 0;
    }
}

int real_watch(struct real_loop *loop, int fd, struct real_source *source, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = source};
    return epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

static int wait_ms(struct real_loop *loop)
{
    int uv_ms = uv_backend_timeout(&loop->uv);
    uint64_t next_ms = moon_wheel_next(loop->base.wheel), now_ms = loop->base.now_ms;
    if (!moon_list_is_empty(&loop->again) || !moon_list_is_empty(&loop->base.tasks))
        return 0;
    if (next_ms == UINT64_MAX)
        return uv_ms;
    uint64_t ms = next_ms > now_ms ? next_ms - now_ms : 0;
    if (ms > 60000)
        ms = 60000;
    return uv_ms >= 0 && (uint64_t)uv_ms < ms ? uv_ms : (int)ms;
}

// True when libuv is ready.
static bool dispatch(const struct epoll_event *event)
{
    struct real_source *source = event->data.ptr;
    switch ((enum real_kind)source->kind) {
    case REAL_STREAM:
        real_stream_event(source, event->events);
        break;
    case REAL_ACCEPTOR: {
        struct moon_socket *socket = &MOON_CONTAINER(source, struct real_socket, source)->base;
        if (socket->on_ready)
            socket->on_ready(socket->owner, MOON_READY_READ);
        break;
    }
    case REAL_UV:
        return true;
    }
    return false;
}

static void measure_turn(struct real_loop *loop)
{
    uint64_t now_ns = clock_ns(CLOCK_MONOTONIC);
    moon_histogram_add(loop->base.turns, (now_ns - loop->base.now_ns) / 1000u);
}

static void read_clock(struct real_loop *loop)
{
    loop->base.now_ns = clock_ns(CLOCK_MONOTONIC);
    loop->base.now_ms = loop->base.now_ns / 1000000u;
}

static void beat(struct real_loop *loop, uint64_t turn_ns)
{
    if (loop->base.heartbeat)
        moon_heartbeat_set(loop->base.heartbeat, turn_ns);
}

static void turn(struct real_loop *loop)
{
    struct epoll_event events[REAL_EVENT_COUNT];
    int timeout_ms = wait_ms(loop);
    beat(loop, 0);
    int count = epoll_wait(loop->epoll_fd, events, REAL_EVENT_COUNT, timeout_ms);
    bool is_uv_ready = uv_backend_timeout(&loop->uv) == 0;
    read_clock(loop);
    beat(loop, loop->base.now_ns);
    moon_loop_run_tasks(&loop->base);
    for (int i = 0; i < count; i++) {
        is_uv_ready = dispatch(&events[i]) || is_uv_ready;
        if (i % BATCH_COUNT == BATCH_COUNT - 1)
            moon_loop_run_tasks(&loop->base);
    }
    moon_loop_run_tasks(&loop->base);
    real_streams_again(loop);
    moon_wheel_advance(loop->base.wheel, loop->base.now_ms);
    moon_loop_run_tasks(&loop->base);
    if (is_uv_ready) {
        uv_run(&loop->uv, UV_RUN_NOWAIT);
        moon_loop_run_tasks(&loop->base);
    }
    real_streams_bury(loop);
    real_sockets_bury(loop);
    if (loop->base.turns)
        measure_turn(loop);
}

static int loop_run(struct moon_loop *base)
{
    struct real_loop *loop = real_loop(base);
    read_clock(loop);
    uv_run(&loop->uv, UV_RUN_NOWAIT); // puts its handles into its set
    while (!atomic_load_explicit(&loop->is_stopping, memory_order_relaxed))
        turn(loop);
    real_streams_bury(loop);
    real_sockets_bury(loop);
    return 0;
}

static void loop_stop(struct moon_loop *base)
{
    struct real_loop *loop = real_loop(base);
    atomic_store(&loop->is_stopping, true);
    uv_async_send(&loop->wake);
}

static void on_wake(uv_async_t *wake)
{
    real_mailboxes_deliver(wake->data);
}

static void on_signal(uv_signal_t *handle, int signal_number)
{
    struct real_signal *signal = handle->data;
    signal->fn(signal->owner, signal_number);
}

// It may have been held until now (moon_world_hold_signals).
static void release_signal(int signal_number)
{
    sigset_t released;
    sigemptyset(&released);
    sigaddset(&released, signal_number);
    pthread_sigmask(SIG_UNBLOCK, &released, NULL);
}

static int loop_signal(struct moon_loop *base, int signal_number,
                       void (*fn)(void *owner, int signal_number), void *owner)
{
    struct real_loop *loop = real_loop(base);
    struct real_signal *signal = calloc(1, sizeof *signal);
    if (!signal)
        abort();
    signal->fn = fn;
    signal->owner = owner;
    uv_signal_init(&loop->uv, &signal->handle);
    signal->handle.data = signal;
    moon_list_add_before(&loop->signals, &signal->node);
    int err = uv_signal_start(&signal->handle, on_signal, signal_number);
    if (!err)
        release_signal(signal_number);
    return err;
}

static int loop_accept_start(struct moon_loop *loop, struct moon_socket *socket,
                             moon_ready_fn *on_ready, void *owner)
{
    struct real_socket *bound = real_socket(socket);
    bound->source.kind = REAL_ACCEPTOR;
    socket->on_ready = on_ready;
    socket->owner = owner;
    return real_watch(real_loop(loop), bound->fd, &bound->source, EPOLLIN | EPOLLET);
}

static void loop_accept_stop(struct moon_loop *loop, struct moon_socket *socket)
{
    socket->on_ready = NULL;
    epoll_ctl(real_loop(loop)->epoll_fd, EPOLL_CTL_DEL, real_socket(socket)->fd, NULL);
}

static void on_signal_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void loop_free(struct moon_loop *base)
{
    struct real_loop *loop = real_loop(base);
    moon_loop_run_tasks(base);
    while (!moon_list_is_empty(&loop->signals)) {
        struct real_signal *signal = MOON_CONTAINER(loop->signals.next, struct real_signal, node);
        moon_list_del(&signal->node);
        uv_close((uv_handle_t *)&signal->handle, on_signal_closed);
    }
    uv_close((uv_handle_t *)&loop->wake, NULL);
    uv_run(&loop->uv, UV_RUN_DEFAULT);
    uv_loop_close(&loop->uv);
    real_streams_bury(loop);
    real_sockets_bury(loop);
    real_pipes_free(loop);
    close(loop->epoll_fd);
    moon_wheel_free(base->wheel);
    free(loop);
}

static const struct moon_loop_ops loop_ops = {
    .now_ns = loop_now_ns,
    .wall_ms = loop_wall_ms,
    .random = loop_random,
    .run = loop_run,
    .stop = loop_stop,
    .free = loop_free,
    .connect = real_connect,
    .accept_start = loop_accept_start,
    .accept_stop = loop_accept_stop,
    .accept = real_accept,
    .pipe_open = real_pipe_open,
    .pipe_close = real_pipe_close,
    .resolver_new = real_resolver_new,
    .datagram_open = real_datagram_open,
    .datagram_close = real_datagram_close,
    .signal = loop_signal,
};

// libuv's part takes five descriptors of its own. 0 or -errno.
static int library_open(struct real_loop *loop)
{
    int err = uv_loop_init(&loop->uv);
    if (err < 0)
        return err;
    loop->wake.data = loop;
    err = uv_async_init(&loop->uv, &loop->wake, on_wake);
    if (err < 0)
        uv_loop_close(&loop->uv);
    return err;
}

struct moon_loop *real_loop_new(struct moon_world *world)
{
    struct real_loop *loop = calloc(1, sizeof *loop);
    if (!loop)
        abort();
    loop->base.ops = &loop_ops;
    loop->base.world = world;
    read_clock(loop);
    loop->base.wheel = moon_wheel_new(loop->base.now_ms);
    moon_list_init(&loop->base.tasks);
    moon_list_init(&loop->again);
    moon_list_init(&loop->graveyard);
    moon_list_init(&loop->dead_sockets);
    moon_list_init(&loop->mailboxes);
    moon_list_init(&loop->signals);
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (loop->epoll_fd < 0 || library_open(loop) < 0) {
        if (loop->epoll_fd >= 0)
            close(loop->epoll_fd);
        moon_wheel_free(loop->base.wheel);
        free(loop);
        return NULL;
    }
    loop->uv_source.kind = REAL_UV;
    if (real_watch(loop, uv_backend_fd(&loop->uv), &loop->uv_source, EPOLLIN) < 0) {
        loop_free(&loop->base);
        return NULL;
    }
    return &loop->base;
}
