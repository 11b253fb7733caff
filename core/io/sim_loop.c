// Loops of the simulated world, and who has the next turn. Where several things could happen now, chance picks: the next
// arrival or a loop, which loop, in which order its streams are told. When nothing can happen, time moves.
//
//   a turn: deferred tasks -> each ready stream and socket: on_ready, deferred tasks -> timers -> mail, deferred tasks after each
#include "io/sim_priv.h"

#include <errno.h>
#include <stdlib.h>

static uint64_t loop_now_ns(struct moon_loop *loop)
{
    return moon_sim_now_ms(loop->world) * 1000000u;
}

static uint64_t loop_wall_ms(struct moon_loop *loop)
{
    return moon_world_wall_ms(loop->world);
}

static void loop_random(struct moon_loop *loop, void *to, size_t len)
{
    for (size_t i = 0; i < len; i++)
        ((unsigned char *)to)[i] = (unsigned char)moon_sim_random_u64(loop->world);
}

// moon_sim_run steps it.
static int loop_run(struct moon_loop *loop)
{
    (void)loop;
    return -ENOTSUP;
}

static void loop_stop(struct moon_loop *loop)
{
    sim_loop(loop)->is_stopped = true;
}

static void loop_free(struct moon_loop *base)
{
    struct sim_loop *loop = sim_loop(base);
    moon_loop_run_tasks(base);
    moon_list_del(&loop->node);
    moon_wheel_free(base->wheel);
    free(loop->turn);
    free(loop);
}

// Nobody sends signals here.
static int loop_signal(struct moon_loop *loop, int signal_number,
                       void (*fn)(void *owner, int signal_number), void *owner)
{
    (void)loop;
    (void)signal_number;
    (void)fn;
    (void)owner;
    return -ENOTSUP;
}

static const struct moon_loop_ops loop_ops = {
    .now_ns = loop_now_ns,
    .wall_ms = loop_wall_ms,
    .random = loop_random,
    .run = loop_run,
    .stop = loop_stop,
    .free = loop_free,
    .connect = sim_connect,
    .accept_start = sim_accept_start,
    .accept_stop = sim_accept_stop,
    .accept = sim_accept,
    .pipe_open = sim_pipe_open,
    .pipe_close = sim_pipe_close,
    .signal = loop_signal,
};

struct moon_loop *sim_loop_new(struct moon_world *world)
{
    struct sim_loop *loop = calloc(1, sizeof *loop);
    if (!loop)
        abort();
    loop->base.ops = &loop_ops;
    loop->base.world = world;
    loop->base.now_ms = moon_sim_now_ms(world);
    loop->base.wheel = moon_wheel_new(loop->base.now_ms);
    moon_list_init(&loop->base.tasks);
    moon_list_init(&loop->ready);
    moon_list_init(&loop->mailboxes);
    moon_list_add_before(&sim_world(world)->loops, &loop->node);
    return &loop->base;
}

void moon_sim_set_outside(struct moon_loop *loop)
{
    sim_loop(loop)->is_outside = true;
}

void sim_ready(struct sim_loop *loop, struct sim_source *source, unsigned ready)
{
    source->ready |= ready;
    if (moon_list_is_empty(&source->node))
        moon_list_add_before(&loop->ready, &source->node);
}

// ---- one turn

static void tell(struct sim_loop *loop, struct sim_source *source)
{
    struct sim_world *world = sim_world_of(loop);
    unsigned ready = source->ready;
    moon_ready_fn *on_ready;
    void *owner;
    source->ready = 0;
    if (source->kind == SIM_STREAM) {
        struct sim_stream *stream = MOON_CONTAINER(source, struct sim_stream, source);
        on_ready = stream->is_closed ? NULL : stream->base.on_ready;
        owner = stream->base.owner;
        sim_trace(world, 't', stream->conn->id, ready);
    } else {
        struct sim_socket *socket = MOON_CONTAINER(source, struct sim_socket, source);
        on_ready = socket->is_closed ? NULL : socket->base.on_ready;
        owner = socket->base.owner;
        sim_trace(world, 'l', socket->address.port, ready);
    }
    if (on_ready && ready)
        on_ready(owner, ready);
    if (sim_below(world, 2)) // at the latest behind the last event, as in the real world
        moon_loop_run_tasks(&loop->base);
}

// Takes what is ready now; what becomes ready in this turn comes in the next.
static size_t collect(struct sim_loop *loop)
{
    size_t count = 0;
    while (!moon_list_is_empty(&loop->ready)) {
        struct sim_source *source = MOON_CONTAINER(loop->ready.next, struct sim_source, node);
        moon_list_del(&source->node);
        if (count == loop->turn_cap) {
            loop->turn_cap = count ? count * 2 : 16;
            loop->turn = realloc(loop->turn, loop->turn_cap * sizeof *loop->turn);
            if (!loop->turn)
                abort();
        }
        loop->turn[count++] = source;
    }
    return count;
}

static void turn(struct sim_loop *loop)
{
    struct sim_world *world = sim_world_of(loop);
    loop->base.now_ms = world->now_ms;
    moon_loop_run_tasks(&loop->base);
    for (size_t count = collect(loop); count > 0; count--) {
        size_t at = sim_below(world, count);
        struct sim_source *source = loop->turn[at];
        loop->turn[at] = loop->turn[count - 1];
        tell(loop, source);
    }
    moon_loop_run_tasks(&loop->base);
    moon_wheel_advance(loop->base.wheel, loop->base.now_ms);
    moon_loop_run_tasks(&loop->base);
    sim_mailboxes_deliver(loop);
    sim_conns_sweep(world, false);
    sim_sockets_sweep(world);
}

// ---- who is next

static bool is_runnable(const struct sim_world *world, const struct sim_loop *loop)
{
    return !loop->is_stopped &&
           (!moon_list_is_empty(&loop->ready) || !moon_list_is_empty(&loop->base.tasks) ||
            moon_wheel_next(loop->base.wheel) <= world->now_ms || sim_mailboxes_have(loop));
}

// One of the loops that could run, each with the same chance; NULL when there is none.
static struct sim_loop *choose(struct sim_world *world)
{
    struct sim_loop *chosen = NULL;
    unsigned count = 0;
    for (struct moon_list *at = world->loops.next; at != &world->loops; at = at->next) {
        struct sim_loop *loop = MOON_CONTAINER(at, struct sim_loop, node);
        if (is_runnable(world, loop) && (++count == 1 || sim_below(world, count) == 0))
            chosen = loop;
    }
    return chosen;
}

static uint64_t next_ms(const struct sim_world *world)
{
    uint64_t next = sim_wire_next_ms(world);
    for (struct moon_list *at = world->loops.next; at != &world->loops; at = at->next) {
        const struct sim_loop *loop = MOON_CONTAINER(at, struct sim_loop, node);
        uint64_t timer = loop->is_stopped ? UINT64_MAX : moon_wheel_next(loop->base.wheel);
        next = timer < next ? timer : next;
    }
    return next;
}

// False when nothing more happens before end_ms.
static bool step(struct sim_world *world, uint64_t end_ms)
{
    struct sim_loop *loop = choose(world);
    bool has_arrival = sim_wire_next_ms(world) <= world->now_ms;
    if (has_arrival && (!loop || sim_below(world, 2))) {
        sim_wire_deliver(world);
        return true;
    }
    if (loop) {
        turn(loop);
        return true;
    }
    uint64_t next = next_ms(world);
    if (next == UINT64_MAX)
        return false;
    world->now_ms = next < end_ms ? next : end_ms;
    return next <= end_ms;
}

bool moon_sim_run(struct moon_world *base, bool (*done)(void *arg), void *arg, uint64_t max_ms)
{
    struct sim_world *world = sim_world(base);
    uint64_t end_ms = world->now_ms + max_ms;
    do
        if (done && done(arg))
            return true;
    while (step(world, end_ms));
    return done && done(arg);
}
