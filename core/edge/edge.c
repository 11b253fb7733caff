// Accepting. A turn takes at most 64 connections; at a limit (descriptors, or our own bound that keeps a reserve for upstreams,
// admin and logs) accepting pauses until a connection ends or 100 ms have passed: it never spins at EMFILE (P11).
#include "edge/edge.h"

#include "base/err.h"
#include "base/list.h"
#include "exchange/exchange.h"
#include "exchange/hold.h"
#include "io/loop.h"
#include "io/world.h"
#include "link/link.h"
#include "link/resources.h"
#include "obs/counters.h"
#include "obs/log.h"
#include "route/listener.h"

#include <errno.h>
#include <stdlib.h>

enum { ACCEPT_TURN_COUNT = 64, ACCEPT_RETRY_MS = 100 };

struct connection {
    struct moon_list node; // in edge->connections
    struct moon_edge *edge;
    struct moon_link *link;
    struct acceptor *acceptor; // it came through
};

// Lives until its socket is closed and its last connection is gone.
struct acceptor {
    struct acceptor *next;
    struct moon_edge *edge;
    struct moon_socket *socket; // NULL: closed
    struct moon_arrival arrival;
    size_t connection_count;
    struct moon_task task; // takes further connections in the next turn
    bool is_closing;       // a connection that still comes gets one answer
};

struct moon_edge {
    struct moon_service *service;
    struct moon_connection_budget *budget;
    struct acceptor *acceptors;
    struct moon_list connections;
    size_t connection_count;
    struct moon_timer retry;
    bool is_paused, is_draining;
};

static void resume_accepting(struct moon_edge *edge);

// ---- connections

static void acceptor_free_unused(struct acceptor *acceptor)
{
    if (acceptor->socket || acceptor->connection_count)
        return;
    moon_hold_unref(acceptor->arrival.hold);
    free(acceptor);
}

static void on_open(void *owner, struct moon_lane *lane)
{
    struct connection *connection = owner;
    moon_exchange_open(connection->edge->service, lane, &connection->acceptor->arrival);
}

static void on_idle(void *owner)
{
    (void)owner;
}

static void on_closed(void *owner)
{
    struct connection *connection = owner;
    struct moon_edge *edge = connection->edge;
    moon_list_del(&connection->node);
    edge->connection_count--;
    atomic_fetch_sub_explicit(&edge->budget->used_count, 1, memory_order_relaxed);
    moon_count_down(&edge->service->res->counters->connections_live);
    connection->acceptor->connection_count--;
    acceptor_free_unused(connection->acceptor);
    free(connection);
    if (edge->is_paused && !edge->is_draining)
        resume_accepting(edge);
}

static const struct moon_link_events connection_events = {
    .open = on_open,
    .idle = on_idle,
    .closed = on_closed,
};

static void connection_start(struct acceptor *acceptor, struct moon_stream *stream)
{
    struct moon_edge *edge = acceptor->edge;
    struct connection *connection = calloc(1, sizeof *connection);
    if (!connection)
        abort();
    struct moon_counters *counters = edge->service->res->counters;
    connection->edge = edge;
    connection->acceptor = acceptor;
    acceptor->connection_count++;
    moon_list_add_before(&edge->connections, &connection->node);
    edge->connection_count++;
    moon_count_up(&counters->connections_live);
    moon_count_up(&counters->connections_total);
    connection->link =
        moon_link_new(edge->service->res, MOON_LINK_SERVER, stream, &connection_events, connection);
    struct moon_link *link = connection->link;
    if (acceptor->is_closing)
        moon_link_drain_next(link);
    moon_link_start(link);
}

// ---- accepting

static void on_retry(struct moon_timer *timer)
{
    resume_accepting(MOON_CONTAINER(timer, struct moon_edge, retry));
}

static void pause_accepting(struct moon_edge *edge, const char *why)
{
    struct moon_resources *res = edge->service->res;
    if (!edge->is_paused)
        moon_log_warn(res->log, "accepting pauses: %s; raise the limit of open files (ulimit -n)",
                      why);
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

// True when more may wait: a turn takes only so many.
static bool take(struct acceptor *acceptor)
{
    struct moon_edge *edge = acceptor->edge;
    struct moon_loop *loop = edge->service->res->loop;
    for (int i = 0; i < ACCEPT_TURN_COUNT; i++) {
        struct moon_stream *stream;
        if (!reserve(edge)) {
            pause_accepting(edge, "as many connections as the descriptors allow are open");
            return false;
        }
        int err = moon_loop_accept(loop, acceptor->socket, &stream);
        if (!err) {
            connection_start(acceptor, stream);
            continue;
        }
        release(edge);
        if (err == -EAGAIN)
            return false;
        if (is_exhausted(err)) {
            pause_accepting(edge, moon_err_text(err));
            return false;
        }
    }
    return true;
}

static void take_turn(struct acceptor *acceptor)
{
    if (take(acceptor))
        moon_loop_defer(acceptor->edge->service->res->loop, &acceptor->task);
}

static void on_ready(void *owner, unsigned ready)
{
    (void)ready;
    struct acceptor *acceptor = owner;
    if (!acceptor->edge->is_paused)
        take_turn(acceptor);
}

static void acceptor_task(struct moon_task *task)
{
    struct acceptor *acceptor = MOON_CONTAINER(task, struct acceptor, task);
    if (!acceptor->edge->is_draining && !acceptor->edge->is_paused)
        take_turn(acceptor);
}

static void resume_accepting(struct moon_edge *edge)
{
    edge->is_paused = false;
    moon_loop_timer_del(edge->service->res->loop, &edge->retry);
    for (struct acceptor *acceptor = edge->acceptors; acceptor; acceptor = acceptor->next)
        moon_loop_defer(edge->service->res->loop, &acceptor->task);
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
    moon_list_init(&edge->connections);
    return edge;
}

int moon_edge_listen(struct moon_edge *edge, struct moon_socket *socket, uint32_t bind)
{
    struct acceptor *acceptor = calloc(1, sizeof *acceptor);
    if (!acceptor)
        abort();
    acceptor->edge = edge;
    acceptor->socket = socket;
    acceptor->arrival.bind = bind;
    acceptor->task.fn = acceptor_task;
    int err = moon_loop_accept_start(edge->service->res->loop, socket, on_ready, acceptor);
    if (err) {
        free(acceptor);
        return err;
    }
    acceptor->next = edge->acceptors;
    edge->acceptors = acceptor;
    return 0;
}

void moon_edge_rebind(struct moon_edge *edge, const struct moon_socket *socket, uint32_t bind)
{
    for (struct acceptor *at = edge->acceptors; at; at = at->next)
        if (at->socket == socket)
            at->arrival.bind = bind;
}

// Serves what the kernel has accepted for us already, then closes the socket. What its connections still ask is no matter for
// snapshots that do not know the port.
static void acceptor_close(struct acceptor *acceptor)
{
    struct moon_edge *edge = acceptor->edge;
    acceptor->is_closing = true;
    while (take(acceptor))
        ;
    acceptor->arrival.hold = moon_hold_ref(edge->service->hold);
    moon_loop_accept_stop(edge->service->res->loop, acceptor->socket);
    moon_socket_free(acceptor->socket);
    moon_task_cancel(&acceptor->task);
    acceptor->socket = NULL;
    acceptor_free_unused(acceptor);
}

// Connections of one acceptor, or of all (NULL).
static void drain_connections(struct moon_edge *edge, const struct acceptor *acceptor)
{
    for (struct moon_list *at = edge->connections.next, *next; at != &edge->connections;
         at = next) {
        struct connection *connection = MOON_CONTAINER(at, struct connection, node);
        next = at->next;
        if (!acceptor || connection->acceptor == acceptor)
            moon_link_drain(connection->link);
    }
}

void moon_edge_unlisten(struct moon_edge *edge, const struct moon_socket *socket)
{
    for (struct acceptor **at = &edge->acceptors; *at; at = &(*at)->next) {
        struct acceptor *acceptor = *at;
        if (acceptor->socket != socket)
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
    for (struct acceptor *acceptor = edge->acceptors, *next; acceptor; acceptor = next) {
        next = acceptor->next;
        acceptor_close(acceptor);
    }
    edge->acceptors = NULL;
    moon_loop_timer_del(edge->service->res->loop, &edge->retry);
}

void moon_edge_close_all(struct moon_edge *edge)
{
    for (struct moon_list *at = edge->connections.next, *next; at != &edge->connections;
         at = next) {
        struct connection *connection = MOON_CONTAINER(at, struct connection, node);
        next = at->next;
        moon_link_close(connection->link);
        on_closed(connection);
    }
}

// Its listener, where its port has one alone.
static struct moon_slice listener_of(const struct connection *connection)
{
    const struct moon_arrival *arrival = &connection->acceptor->arrival;
    const struct moon_hold *hold = arrival->hold ? arrival->hold : connection->edge->service->hold;
    const struct moon_bind *bind = &hold->listeners->binds[arrival->bind];
    if (bind->member_count > 1)
        return (struct moon_slice){NULL, 0};
    return moon_slice_from(hold->listeners->listeners[bind->members[0]].name);
}

bool moon_edge_survey(const struct moon_edge *edge, moon_survey_fn *fn, void *owner)
{
    const struct moon_list *all = &edge->connections;
    uint64_t now_ms = moon_loop_now_ms(edge->service->res->loop);
    for (const struct moon_list *at = all->next; at != all; at = at->next) {
        const struct connection *connection = MOON_CONTAINER(at, const struct connection, node);
        struct moon_link *link = connection->link;
        if (moon_link_is_busy(link))
            continue;
        struct moon_survey_row row = {.number = moon_link_number(link),
                                      .state = moon_link_is_ending(link)    ? "ending"
                                               : moon_link_is_in_head(link) ? "head"
                                                                            : "idle",
                                      .age_ms = now_ms - moon_link_start_ms(link),
                                      .request_count = moon_link_lane_count(link),
                                      .listener = listener_of(connection)};
        moon_link_address(link, true, &row.client);
        if (!fn(owner, &row))
            return false;
    }
    return true;
}

size_t moon_edge_connection_count(const struct moon_edge *edge)
{
    return edge->connection_count;
}

void moon_edge_free(struct moon_edge *edge)
{
    if (!edge)
        return;
    moon_edge_drain(edge);
    moon_edge_close_all(edge);
    moon_loop_timer_del(edge->service->res->loop, &edge->retry);
    free(edge);
}
