// A loop: one thread's part of the world. Clock, timers, deferred work, streams, pipes, signals and a mailbox.
// A turn is: take events, call on_ready of each stream, run the deferred tasks, fire timers, take mail.
// Everything here belongs to the loop's thread but moon_mailbox_post and moon_loop_stop.
#pragma once

#include "base/list.h"
#include "base/wheel.h"
#include "io/stream.h"

#include <stdint.h>

struct moon_heartbeat;
struct moon_histogram;
struct moon_loop;
struct moon_resolver;
struct moon_resolver_options;
struct moon_socket;
struct moon_world;

// Public for the same reason as struct moon_stream: time and timers are read several times for every request.
struct moon_loop {
    const struct moon_loop_ops *ops;
    // monotonic, as of the start of this turn (refreshed before timers fire)
    uint64_t now_ms;
    uint64_t now_ns;          // the same time, more precisely; 0 where a world does not keep it
    struct moon_wheel *wheel; // of this loop
    struct moon_list tasks;   // deferred
    struct moon_world *world;
    void *owner; // free for the room that made the loop: a worker
    // how long turns take, from waking up to waiting again; NULL: not measured
    struct moon_histogram *turns;
    // says when it is in one; NULL: nobody asks
    struct moon_heartbeat *heartbeat;
};

// Runs once, soon: in this turn, after the on_ready, timer or mail now being dispatched has returned, and perhaps after those of
// other streams. Embedded, zeroed before first use.
struct moon_task {
    struct moon_list node;
    void (*fn)(struct moon_task *task); // off the list when fn runs
};

struct moon_loop_ops {
    uint64_t (*now_ns)(struct moon_loop *loop);
    uint64_t (*wall_ms)(struct moon_loop *loop);
    void (*random)(struct moon_loop *loop, void *to, size_t len);
    int (*run)(struct moon_loop *loop);
    void (*stop)(struct moon_loop *loop);
    void (*free)(struct moon_loop *loop);
    int (*connect)(struct moon_loop *loop, const struct moon_address *to, struct moon_stream **out);
    int (*accept_start)(struct moon_loop *loop, struct moon_socket *socket, moon_ready_fn *on_ready,
                        void *owner);
    void (*accept_stop)(struct moon_loop *loop, struct moon_socket *socket);
    int (*accept)(struct moon_loop *loop, struct moon_socket *socket, struct moon_stream **out);
    int (*pipe_open)(struct moon_loop *loop, struct moon_pipe **out);
    void (*pipe_close)(struct moon_loop *loop, struct moon_pipe *pipe);
    // NULL: this world has no datagrams
    int (*datagram_open)(struct moon_loop *loop, const struct moon_address *to,
                         struct moon_socket **out);
    void (*datagram_close)(struct moon_loop *loop, struct moon_socket *socket);
    // NULL: this world has none
    struct moon_resolver *(*resolver_new)(struct moon_loop *loop,
                                          const struct moon_resolver_options *options);
    int (*signal)(struct moon_loop *loop, int signal_number,
                  void (*fn)(void *owner, int signal_number), void *owner);
};

static inline uint64_t moon_loop_now_ms(const struct moon_loop *loop)
{
    return loop->now_ms;
}

// The start of this turn, for durations that are recorded: when what is dispatched now had come. No system call.
static inline uint64_t moon_loop_turn_ns(const struct moon_loop *loop)
{
    return loop->now_ns ? loop->now_ns : loop->now_ms * 1000000u;
}

// A precise reading, for durations that are recorded.
static inline uint64_t moon_loop_now_ns(struct moon_loop *loop)
{
    return loop->ops->now_ns(loop);
}

// Milliseconds since 1970-01-01 UTC; it may jump.
static inline uint64_t moon_loop_wall_ms(struct moon_loop *loop)
{
    return loop->ops->wall_ms(loop);
}

static inline void moon_loop_random(struct moon_loop *loop, void *to, size_t len)
{
    loop->ops->random(loop, to, len);
}

// Until moon_loop_stop. 0 or -errno.
static inline int moon_loop_run(struct moon_loop *loop)
{
    return loop->ops->run(loop);
}

// Thread safe, async-signal safe not.
static inline void moon_loop_stop(struct moon_loop *loop)
{
    loop->ops->stop(loop);
}

// The loop is not running; every stream, timer, mailbox and pipe of it is closed. NULL is fine.
static inline void moon_loop_free(struct moon_loop *loop)
{
    if (loop)
        loop->ops->free(loop);
}

static inline void moon_loop_timer_add(struct moon_loop *loop, struct moon_timer *timer,
                                       uint64_t delay_ms)
{
    moon_wheel_add(loop->wheel, timer, loop->now_ms + delay_ms);
}

static inline void moon_loop_timer_del(struct moon_loop *loop, struct moon_timer *timer)
{
    moon_wheel_del(loop->wheel, timer);
}

static inline void moon_loop_defer(struct moon_loop *loop, struct moon_task *task)
{
    if (moon_list_is_empty(&task->node))
        moon_list_add_before(&loop->tasks, &task->node);
}

// Runs what is deferred, until nothing is: for whoever takes a loop down that does not run any more.
static inline void moon_loop_run_tasks(struct moon_loop *loop)
{
    while (!moon_list_is_empty(&loop->tasks)) {
        struct moon_task *task = MOON_CONTAINER(loop->tasks.next, struct moon_task, node);
        moon_list_del(&task->node);
        task->fn(task);
    }
}

// Takes a deferred task back; harmless when it is not queued.
static inline void moon_task_cancel(struct moon_task *task)
{
    moon_list_del(&task->node);
}

// A stream on its way; *out is owned by the caller, who sets its owner at once. -errno when it failed on the spot
// (EADDRNOTAVAIL, EMFILE, ECONNREFUSED ...). TCP_NODELAY, keepalive and TCP_USER_TIMEOUT are set.
static inline int moon_loop_connect(struct moon_loop *loop, const struct moon_address *to,
                                    struct moon_stream **out)
{
    return loop->ops->connect(loop, to, out);
}

// Tells `on_ready` when the bound socket has connections to take. One loop a socket.
static inline int moon_loop_accept_start(struct moon_loop *loop, struct moon_socket *socket,
                                         moon_ready_fn *on_ready, void *owner)
{
    return loop->ops->accept_start(loop, socket, on_ready, owner);
}

static inline void moon_loop_accept_stop(struct moon_loop *loop, struct moon_socket *socket)
{
    loop->ops->accept_stop(loop, socket);
}

// 0 and *out; -EAGAIN when none waits; -EMFILE, -ENFILE, -ENOBUFS, -ENOMEM when the process is at a limit: no further
// on_ready comes for what already waits, so call accept again later. -ECONNABORTED and the like: try the next one.
static inline int moon_loop_accept(struct moon_loop *loop, struct moon_socket *socket,
                                   struct moon_stream **out)
{
    return loop->ops->accept(loop, socket, out);
}

// Pipes for splice, at most 64 a loop, kept in a free list: -EMFILE when none is left (the caller copies instead).
static inline int moon_loop_pipe_open(struct moon_loop *loop, struct moon_pipe **out)
{
    return loop->ops->pipe_open(loop, out);
}

// A pipe that is not empty is closed for good, never pooled. NULL is fine.
static inline void moon_loop_pipe_close(struct moon_loop *loop, struct moon_pipe *pipe)
{
    if (pipe)
        loop->ops->pipe_close(loop, pipe);
}

// fn runs on this loop at every such signal of the process.
static inline int moon_loop_signal(struct moon_loop *loop, int signal_number,
                                   void (*fn)(void *owner, int signal_number), void *owner)
{
    return loop->ops->signal(loop, signal_number, fn, owner);
}
