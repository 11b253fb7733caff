// See edge.h. Accepting. A turn takes at most 64 connections; at a limit (descriptors, or our own bound that keeps a reserve for
// upstreams, admin and logs) accepting pauses until a connection ends or 100 ms have passed: it never spins at EMFILE (P11).
#include "edge/edge_priv.h"

#include "base/err.h"
#include "edge/speakers.h"
#include "edge/udp.h"
#include "exchange/hold.h"
#include "io/world.h"
#include "link/resources.h"
#include "obs/counters.h"
#include "obs/log.h"
#include "route/listener.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { ACCEPT_TURN_COUNT = 64, ACCEPT_RETRY_MS = 100 };

static void resume_accepting(struct moon_edge *edge);

// ---- acceptors

static void acceptor_free_unused(struct moon_acceptor *acceptor)
{
    if (acceptor->socket || acceptor->udp || acceptor->connection_count)
        return;
    moon_hold_unref(acceptor->arrival.hold);
    free(acceptor);
}

void moon_acceptor_forget(struct moon_acceptor *acceptor)
{
    acceptor->connection_count--;
    acceptor_free_unused(acceptor);
}

struct moon_hold *moon_acceptor_hold(const struct moon_acceptor *acceptor)
{
    struct moon_hold *last = acceptor->arrival.hold;
    return last ? last : acceptor->edge->service->hold;
}

const struct moon_front *moon_acceptor_front(const struct moon_acceptor *acceptor)
{
    const struct moon_listeners *all = moon_acceptor_hold(acceptor)->listeners;
    return moon_bind_front(all, &all->binds[acceptor->arrival.bind]);
}

// ---- accepting

static void on_retry(struct moon_timer *timer)
{
    resume_accepting(MOON_CONTAINER(timer, struct moon_edge, retry));
}

// `why` says what to do about it, where there is something.
static void pause_accepting(struct moon_edge *edge, const char *why)
{
    struct moon_resources *res = edge->service->res;
    if (!edge->is_paused)
        moon_log_warn(res->log, "accepting pauses: %s", why);
    edge->is_paused = true;
    moon_count_up(&res->counters->accept_paused_total);
    moon_loop_timer_add(res->loop, &edge->retry, ACCEPT_RETRY_MS);
}

static bool reserve(struct moon_edge *edge)
{
    struct moon_connection_budget *budget = edge->budget;
    size_t used = atomic_fetch_add_explicit(&budget->used_count, 1, memory_order_relaxed);
    if (used < atomic_load_explicit(&budget->max_count, memory_order_relaxed))
        return true;
    atomic_fetch_sub_explicit(&budget->used_count, 1, memory_order_relaxed);
    return false;
}

static void release(struct moon_edge *edge)
{
    atomic_fetch_sub_explicit(&edge->budget->used_count, 1, memory_order_relaxed);
}

static bool is_exhausted(int err)
{
    return err == -EMFILE || err == -ENFILE || err == -ENOBUFS || err == -ENOMEM;
}

static void pause_for(struct moon_edge *edge, int err)
{
    char why[128];
    snprintf(why, sizeof why, "%s%s", moon_err_text(err),
             is_exhausted(err) ? "; raise the limit of open files (ulimit -n)" : "");
    pause_accepting(edge, why);
}

// True when more may wait: a turn takes only so many.
static bool take(struct moon_acceptor *acceptor)
{
    struct moon_edge *edge = acceptor->edge;
    struct moon_loop *loop = edge->service->res->loop;
    int failed_count = 0;
    for (int i = 0; i < ACCEPT_TURN_COUNT; i++) {
        struct moon_stream *stream;
        if (!reserve(edge)) {
            pause_accepting(edge,
                            "as many connections as the descriptors allow are open; raise the "
                            "limit of open files (ulimit -n)");
            return false;
        }
        int err = moon_loop_accept(loop, acceptor->socket, &stream);
        if (!err) {
            moon_connection_start(acceptor, stream);
            continue;
        }
        release(edge);
        if (err == -EAGAIN)
            return false;
        // One connection that failed before it was taken is nothing; where all do, the next turn would be like this one.
        if (is_exhausted(err) || ++failed_count == ACCEPT_TURN_COUNT) {
            pause_for(edge, err);
            return false;
        }
    }
    return true;
}

static void take_turn(struct moon_acceptor *acceptor)
{
    if (take(acceptor))
        moon_loop_defer(acceptor->edge->service->res->loop, &acceptor->task);
}

static void on_ready(void *owner, unsigned ready)
{
    (void)ready;
    struct moon_acceptor *acceptor = owner;
    if (!acceptor->edge->is_paused)
        take_turn(acceptor);
}

static void acceptor_task(struct moon_task *task)
{
    struct moon_acceptor *acceptor = MOON_CONTAINER(task, struct moon_acceptor, task);
    if (!acceptor->edge->is_draining && !acceptor->edge->is_paused)
        take_turn(acceptor);
}

static void resume_accepting(struct moon_edge *edge)
{
    edge->is_paused = false;
    moon_loop_timer_del(edge->service->res->loop, &edge->retry);
    for (struct moon_acceptor *acceptor = edge->acceptors; acceptor; acceptor = acceptor->next)
        if (acceptor->socket)
            moon_loop_defer(edge->service->res->loop, &acceptor->task);
}

void moon_edge_resume(struct moon_edge *edge)
{
    if (edge->is_paused && !edge->is_draining)
        resume_accepting(edge);
}

// ---- public

struct moon_edge *moon_edge_new(struct moon_service *service, struct moon_connection_budget *budget)
{
    struct moon_edge *edge = calloc(1, sizeof *edge);
    if (!edge)
        abort();
    edge->service = service;
    edge->budget = budget;
    edge->retry.fn = on_retry;
    edge->speakers = moon_speakers_new();
    moon_list_init(&edge->connections);
    return edge;
}

static void on_udp_drained(void *owner)
{
    struct moon_acceptor *acceptor = owner;
    struct moon_acceptor **at = &acceptor->edge->leaving;
    while (*at != acceptor)
        at = &(*at)->next;
    *at = acceptor->next;
    moon_udp_free(acceptor->udp);
    acceptor->udp = NULL;
    acceptor_free_unused(acceptor);
}

// Unix sockets have paths; a hash of one stands for it.
static void name_port(struct moon_acceptor *acceptor, const struct moon_socket *socket)
{
    const struct moon_listeners *all = acceptor->edge->service->hold->listeners;
    const char *path = all->binds[acceptor->arrival.bind].path;
    moon_socket_address(socket, &acceptor->bound);
    for (size_t i = 0; path && path[i]; i++)
        acceptor->bound.ip[i % sizeof acceptor->bound.ip] =
            (uint8_t)(acceptor->bound.ip[i % sizeof acceptor->bound.ip] * 31 + path[i]);
}

static int acceptor_start(struct moon_acceptor *acceptor, struct moon_socket *socket)
{
    struct moon_edge *edge = acceptor->edge;
    name_port(acceptor, socket);
    struct moon_udp_args args = {.service = edge->service,
                                 .budget = edge->budget,
                                 .arrival = &acceptor->arrival,
                                 .bound = &acceptor->bound,
                                 .socket = socket,
                                 .drained = on_udp_drained,
                                 .owner = acceptor};
    if (moon_acceptor_front(acceptor)->protocol == MOON_PROTOCOL_UDP)
        return moon_udp_new(&args, &acceptor->udp);
    int err = moon_loop_accept_start(edge->service->res->loop, socket, on_ready, acceptor);
    acceptor->socket = err ? NULL : socket;
    return err;
}

int moon_edge_listen(struct moon_edge *edge, struct moon_socket *socket, uint32_t bind)
{
    struct moon_acceptor *acceptor = calloc(1, sizeof *acceptor);
    if (!acceptor)
        abort();
    acceptor->edge = edge;
    acceptor->arrival.bind = bind;
    acceptor->task.fn = acceptor_task;
    int err = acceptor_start(acceptor, socket);
    if (err) {
        free(acceptor);
        return err;
    }
    acceptor->next = edge->acceptors;
    edge->acceptors = acceptor;
    return 0;
}

static const struct moon_socket *socket_of(const struct moon_acceptor *acceptor)
{
    return acceptor->udp ? moon_udp_socket(acceptor->udp) : acceptor->socket;
}

void moon_edge_rebind(struct moon_edge *edge, const struct moon_socket *socket, uint32_t bind)
{
    for (struct moon_acceptor *at = edge->acceptors; at; at = at->next)
        if (socket_of(at) == socket)
            at->arrival.bind = bind;
}

// Serves what the kernel has accepted for us already, then closes the socket. What its connections still ask is no matter for
// snapshots that do not know the port.
static void acceptor_close(struct moon_acceptor *acceptor)
{
    struct moon_edge *edge = acceptor->edge;
    acceptor->is_closing = true;
    acceptor->arrival.hold = moon_hold_ref(edge->service->hold);
    if (acceptor->udp) {
        acceptor->next = edge->leaving;
        edge->leaving = acceptor;
        moon_udp_drain(acceptor->udp);
        return;
    }
    while (take(acceptor))
        ;
    moon_loop_accept_stop(edge->service->res->loop, acceptor->socket);
    moon_socket_free(acceptor->socket);
    moon_task_cancel(&acceptor->task);
    acceptor->socket = NULL;
    acceptor_free_unused(acceptor);
}

// Connections of one acceptor, or of all (NULL).
static void drain_connections(struct moon_edge *edge, const struct moon_acceptor *acceptor)
{
    for (struct moon_list *at = edge->connections.next, *next; at != &edge->connections;
         at = next) {
        next = at->next;
        if (!acceptor || moon_connection_acceptor(at) == acceptor)
            moon_connection_drain(at);
    }
}

void moon_edge_unlisten(struct moon_edge *edge, const struct moon_socket *socket)
{
    for (struct moon_acceptor **at = &edge->acceptors; *at; at = &(*at)->next) {
        struct moon_acceptor *acceptor = *at;
        if (socket_of(acceptor) != socket)
            continue;
        *at = acceptor->next;
        drain_connections(edge, acceptor);
        acceptor_close(acceptor);
        return;
    }
}

void moon_edge_drain(struct moon_edge *edge)
{
    if (edge->is_draining)
        return;
    edge->is_draining = true;
    drain_connections(edge, NULL);
    for (struct moon_acceptor *acceptor = edge->acceptors, *next; acceptor; acceptor = next) {
        next = acceptor->next;
        acceptor_close(acceptor);
    }
    edge->acceptors = NULL;
    moon_loop_timer_del(edge->service->res->loop, &edge->retry);
}

void moon_edge_settle(struct moon_edge *edge)
{
    for (struct moon_list *at = edge->connections.next, *next; at != &edge->connections;
         at = next) {
        next = at->next;
        if (!moon_connection_is_at_home(at))
            moon_connection_drain(at);
    }
}

void moon_edge_close_all(struct moon_edge *edge)
{
    while (!moon_list_is_empty(&edge->connections))
        moon_connection_close(edge->connections.next);
    while (edge->leaving)
        on_udp_drained(edge->leaving);
}

bool moon_edge_survey(const struct moon_edge *edge, moon_survey_fn *fn, void *owner)
{
    const struct moon_list *all = &edge->connections;
    for (const struct moon_list *at = all->next; at != all; at = at->next)
        if (!moon_connection_survey(at, fn, owner))
            return false;
    for (const struct moon_acceptor *at = edge->acceptors; at; at = at->next)
        if (at->udp && !moon_udp_survey(at->udp, fn, owner))
            return false;
    return true;
}

size_t moon_edge_connection_count(const struct moon_edge *edge)
{
    size_t count = edge->connection_count;
    for (const struct moon_acceptor *at = edge->acceptors; at; at = at->next)
        count += at->udp ? moon_udp_session_count(at->udp) : 0;
    for (const struct moon_acceptor *at = edge->leaving; at; at = at->next)
        count += moon_udp_session_count(at->udp);
    return count;
}

void moon_edge_free(struct moon_edge *edge)
{
    if (!edge)
        return;
    moon_edge_drain(edge);
    moon_edge_close_all(edge);
    moon_loop_timer_del(edge->service->res->loop, &edge->retry);
    moon_speakers_free(edge->speakers);
    free(edge);
}
