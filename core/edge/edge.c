// Accepting. A turn takes at most 64 connections; at a limit (descriptors, or our own bound that keeps a reserve for upstreams,
// admin and logs) accepting pauses until a connection ends or 100 ms have passed: it never spins at EMFILE (P11).
#include "edge/edge.h"

#include "base/err.h"
#include "base/list.h"
#include "edge/census.h"
#include "edge/choice.h"
#include "edge/handshake.h"
#include "edge/preface.h"
#include "edge/transparent.h"
#include "edge/udp.h"
#include "exchange/exchange.h"
#include "exchange/hold.h"
#include "exchange/tcp.h"
#include "io/loop.h"
#include "io/tls.h"
#include "io/world.h"
#include "link/link.h"
#include "link/proxied.h"
#include "link/resources.h"
#include "obs/counters.h"
#include "obs/log.h"
#include "route/listener.h"
#include "upstream/pool.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { ACCEPT_TURN_COUNT = 64, ACCEPT_RETRY_MS = 100 };

struct connection {
    struct moon_list node; // in edge->connections
    struct moon_edge *edge;
    struct moon_link *link;           // NULL: not yet
    struct moon_preface *preface;     // before all else; NULL: there is none, or it is done
    struct moon_handshake *handshake; // before the link; NULL: there is none, or it is done
    struct moon_choice *choice;       // of the handshake's certificate; NULL: nobody has a say
    struct moon_proxied *proxied;     // until the link has it
    struct moon_tcp *tcp;             // in the place of a link
    uint64_t number;                  // of either; 0 before
    struct moon_census_entry *census; // NULL: the listener has no limits
    struct moon_census_entry *shakes; // of its handshake; NULL: it has none, or no limit
    struct acceptor *acceptor;        // it came through
};

// Lives until its socket is closed and its last connection is gone.
struct acceptor {
    struct acceptor *next;
    struct moon_edge *edge;
    struct moon_socket *socket; // NULL: closed
    struct moon_arrival arrival;
    struct moon_address bound; // names the port; of a unix socket, a number in its place
    struct moon_udp *udp;      // has the socket; NULL: it is of connections
    size_t connection_count;
    struct moon_task task; // takes further connections in the next turn
    bool is_closing;       // a connection that still comes gets one answer
};

struct moon_edge {
    struct moon_service *service;
    struct moon_connection_budget *budget;
    struct acceptor *acceptors;
    struct acceptor *leaving; // of datagrams: those that drain
    struct moon_list connections;
    size_t connection_count;
    struct moon_timer retry;
    bool is_paused, is_draining;
};

static void resume_accepting(struct moon_edge *edge);

// ---- connections

static void acceptor_free_unused(struct acceptor *acceptor)
{
    if (acceptor->socket || acceptor->udp || acceptor->connection_count)
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
    if (connection->number)
        moon_pool_forget(edge->service->pool, connection->number);
    if (connection->census)
        moon_census_leave(edge->budget->census, connection->census);
    free(connection->census);
    moon_choice_free(connection->choice);
    if (connection->shakes)
        moon_census_leave(edge->budget->census, connection->shakes);
    free(connection->shakes);
    moon_list_del(&connection->node);
    edge->connection_count--;
    atomic_fetch_sub_explicit(&edge->budget->used_count, 1, memory_order_relaxed);
    moon_count_down(&edge->service->res->counters->connections_live);
    connection->acceptor->connection_count--;
    acceptor_free_unused(connection->acceptor);
    moon_proxied_unref(connection->proxied);
    free(connection);
    if (edge->is_paused && !edge->is_draining)
        resume_accepting(edge);
}

static const struct moon_link_events connection_events = {
    .open = on_open,
    .idle = on_idle,
    .closed = on_closed,
};

// The bytes of the stream are the client's requests from here on.
static void link_start(struct connection *connection, struct moon_stream *stream)
{
    struct moon_edge *edge = connection->edge;
    connection->link =
        moon_link_new(edge->service->res, MOON_LINK_SERVER, stream, &connection_events, connection);
    struct moon_link *link = connection->link;
    connection->number = moon_link_number(link);
    moon_link_set_proxied(link, connection->proxied);
    connection->proxied = NULL;
    if (connection->acceptor->is_closing)
        moon_link_drain_next(link);
    moon_link_start(link);
}

static void handshake_over(struct connection *connection)
{
    if (connection->shakes)
        moon_census_leave(connection->edge->budget->census, connection->shakes);
    free(connection->shakes);
    connection->shakes = NULL;
}

static void on_handshake(void *owner, struct moon_stream *stream)
{
    struct connection *connection = owner;
    connection->handshake = NULL;
    handshake_over(connection);
    moon_choice_free(connection->choice);
    connection->choice = NULL;
    if (stream)
        link_start(connection, stream);
    else
        on_closed(connection);
}

static struct moon_hold *hold_of(const struct acceptor *acceptor)
{
    const struct moon_arrival *arrival = &acceptor->arrival;
    return arrival->hold ? arrival->hold : acceptor->edge->service->hold;
}

static const struct moon_bind *bind_of(const struct acceptor *acceptor)
{
    return &hold_of(acceptor)->listeners->binds[acceptor->arrival.bind];
}

static const struct moon_front *front_of(const struct acceptor *acceptor)
{
    return moon_bind_front(hold_of(acceptor)->listeners, bind_of(acceptor));
}

static void tcp_start(struct connection *connection, struct moon_stream *stream)
{
    struct moon_tcp_args args = {.service = connection->edge->service,
                                 .arrival = &connection->acceptor->arrival,
                                 .stream = stream,
                                 .proxied = connection->proxied,
                                 .closed = on_closed,
                                 .owner = connection};
    connection->tcp = moon_tcp_open(&args);
    connection->number = moon_tcp_number(connection->tcp);
}

// Whether one more handshake may be under way, on the port and for its client.
static bool may_shake(struct connection *connection, const struct moon_stream *stream)
{
    const struct acceptor *acceptor = connection->acceptor;
    const struct moon_front *front = front_of(acceptor);
    struct moon_counters *counters = connection->edge->service->res->counters;
    struct moon_census *census = connection->edge->budget->census;
    struct moon_address peer;
    if (!front->limits.handshakes && !front->limits.handshakes_per_client)
        return true;
    connection->shakes = calloc(1, sizeof *connection->shakes);
    if (!connection->shakes)
        abort();
    connection->shakes->kind = MOON_CENSUS_HANDSHAKES;
    if (!moon_census_enter(census, connection->shakes, &acceptor->bound,
                           front->limits.handshakes)) {
        moon_count_up(&counters->refused_handshake_limit);
        return false;
    }
    moon_stream_address(stream, true, &peer);
    if (moon_census_enter_client(census, connection->shakes, &acceptor->bound, &peer,
                                 front->limits.handshakes_per_client))
        return true;
    moon_count_up(&counters->refused_client_handshake_limit);
    return false;
}

// The protocol of the port begins.
static void protocol_start(struct connection *connection, struct moon_stream *stream)
{
    const struct moon_bind *bind = bind_of(connection->acceptor);
    struct moon_resources *res = connection->edge->service->res;
    if (front_of(connection->acceptor)->protocol == MOON_PROTOCOL_TCP) {
        tcp_start(connection, stream);
        return;
    }
    if (!bind->tls) {
        link_start(connection, stream);
        return;
    }
    if (!may_shake(connection, stream)) {
        moon_preface_refuse(res, stream);
        on_closed(connection);
        return;
    }
    stream = moon_tls_accept(bind->tls, res->worker, res->loop, stream);
    connection->choice = moon_choice_new(res, hold_of(connection->acceptor),
                                         connection->acceptor->arrival.bind, stream);
    connection->handshake = moon_handshake_new(res, stream, on_handshake, connection);
}

static struct moon_census_entry *census_of(struct connection *connection)
{
    if (!connection->census)
        connection->census = calloc(1, sizeof *connection->census);
    if (!connection->census)
        abort();
    return connection->census;
}

// Whether its client may have one more.
static bool may_enter(struct connection *connection, const struct moon_stream *stream)
{
    const struct acceptor *acceptor = connection->acceptor;
    uint32_t bound = front_of(acceptor)->limits.per_client;
    struct moon_address peer;
    if (!bound)
        return true;
    moon_stream_address(stream, true, &peer);
    return moon_census_enter_client(connection->edge->budget->census, census_of(connection),
                                    &acceptor->bound, &peer, bound);
}

// Who the client is has been told.
static void client_known(struct connection *connection, struct moon_stream *stream)
{
    struct moon_resources *res = connection->edge->service->res;
    if (may_enter(connection, stream)) {
        protocol_start(connection, stream);
        return;
    }
    moon_count_up(&res->counters->refused_client_limit);
    moon_preface_refuse(res, stream);
    on_closed(connection);
}

static void on_preface(void *owner, struct moon_stream *stream, struct moon_proxied *proxied)
{
    struct connection *connection = owner;
    connection->preface = NULL;
    connection->proxied = proxied;
    if (stream)
        client_known(connection, stream);
    else
        on_closed(connection);
}

static struct connection *connection_new(struct acceptor *acceptor)
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
    return connection;
}

// Whether the port takes anything from that peer.
static bool is_welcome(struct connection *connection, const struct moon_front *front,
                       const struct moon_stream *stream)
{
    const struct acceptor *acceptor = connection->acceptor;
    struct moon_counters *counters = acceptor->edge->service->res->counters;
    struct moon_address peer;
    if (front->limits.connections &&
        !moon_census_enter(acceptor->edge->budget->census, census_of(connection), &acceptor->bound,
                           front->limits.connections)) {
        moon_count_up(&counters->refused_listener_limit);
        return false;
    }
    if (!front->has_proxy_header)
        return true;
    moon_stream_address(stream, true, &peer);
    if (moon_front_trusts(front, &peer))
        return true;
    moon_count_up(&counters->refused_proxy_untrusted);
    return false;
}

// Whether it is one of ours that the kernel has sent back; notes where it meant to go.
static bool loops(struct connection *connection, const struct moon_front *front,
                  const struct moon_stream *stream)
{
    struct moon_service *service = connection->edge->service;
    struct moon_transparent at = {.front = front,
                                  .bound = &connection->acceptor->bound,
                                  .outbound = moon_pool_outbound(service->pool),
                                  .res = service->res};
    if (!front->transparent || moon_transparent_read(&at, stream, &connection->proxied))
        return false;
    moon_count_up(&service->res->counters->refused_loop);
    return true;
}

static void connection_start(struct acceptor *acceptor, struct moon_stream *stream)
{
    struct moon_resources *res = acceptor->edge->service->res;
    const struct moon_front *front = front_of(acceptor);
    struct connection *connection = connection_new(acceptor);
    if (!is_welcome(connection, front, stream) || loops(connection, front, stream)) {
        moon_preface_refuse(res, stream);
        on_closed(connection);
    } else if (front->has_proxy_header) {
        connection->preface = moon_preface_new(res, stream, on_preface, connection);
    } else {
        client_known(connection, stream);
    }
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
static bool take(struct acceptor *acceptor)
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
            connection_start(acceptor, stream);
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
        if (acceptor->socket)
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

static void on_udp_drained(void *owner)
{
    struct acceptor *acceptor = owner;
    struct acceptor **at = &acceptor->edge->leaving;
    while (*at != acceptor)
        at = &(*at)->next;
    *at = acceptor->next;
    moon_udp_free(acceptor->udp);
    acceptor->udp = NULL;
    acceptor_free_unused(acceptor);
}

// Unix sockets have paths; a hash of one stands for it.
static void name_port(struct acceptor *acceptor, const struct moon_socket *socket)
{
    const struct moon_listeners *all = acceptor->edge->service->hold->listeners;
    const char *path = all->binds[acceptor->arrival.bind].path;
    moon_socket_address(socket, &acceptor->bound);
    for (size_t i = 0; path && path[i]; i++)
        acceptor->bound.ip[i % sizeof acceptor->bound.ip] =
            (uint8_t)(acceptor->bound.ip[i % sizeof acceptor->bound.ip] * 31 + path[i]);
}

static int acceptor_start(struct acceptor *acceptor, struct moon_socket *socket)
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
    if (front_of(acceptor)->protocol == MOON_PROTOCOL_UDP)
        return moon_udp_new(&args, &acceptor->udp);
    int err = moon_loop_accept_start(edge->service->res->loop, socket, on_ready, acceptor);
    acceptor->socket = err ? NULL : socket;
    return err;
}

int moon_edge_listen(struct moon_edge *edge, struct moon_socket *socket, uint32_t bind)
{
    struct acceptor *acceptor = calloc(1, sizeof *acceptor);
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

static const struct moon_socket *socket_of(const struct acceptor *acceptor)
{
    return acceptor->udp ? moon_udp_socket(acceptor->udp) : acceptor->socket;
}

void moon_edge_rebind(struct moon_edge *edge, const struct moon_socket *socket, uint32_t bind)
{
    for (struct acceptor *at = edge->acceptors; at; at = at->next)
        if (socket_of(at) == socket)
            at->arrival.bind = bind;
}

// Serves what the kernel has accepted for us already, then closes the socket. What its connections still ask is no matter for
// snapshots that do not know the port.
static void acceptor_close(struct acceptor *acceptor)
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
static void drain_connections(struct moon_edge *edge, const struct acceptor *acceptor)
{
    for (struct moon_list *at = edge->connections.next, *next; at != &edge->connections;
         at = next) {
        struct connection *connection = MOON_CONTAINER(at, struct connection, node);
        next = at->next;
        if (connection->link && (!acceptor || connection->acceptor == acceptor))
            moon_link_drain(connection->link);
    }
}

void moon_edge_unlisten(struct moon_edge *edge, const struct moon_socket *socket)
{
    for (struct acceptor **at = &edge->acceptors; *at; at = &(*at)->next) {
        struct acceptor *acceptor = *at;
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
    for (struct acceptor *acceptor = edge->acceptors, *next; acceptor; acceptor = next) {
        next = acceptor->next;
        acceptor_close(acceptor);
    }
    edge->acceptors = NULL;
    moon_loop_timer_del(edge->service->res->loop, &edge->retry);
}

// Whether any listener of its port takes requests from it.
static bool is_at_home(const struct connection *connection, const struct moon_tls_facts *tls)
{
    const struct moon_listeners *all = hold_of(connection->acceptor)->listeners;
    const struct moon_bind *bind = bind_of(connection->acceptor);
    for (uint32_t i = 0; i < bind->member_count; i++)
        if (moon_listener_takes(&all->listeners[bind->members[i]], tls->id, tls->is_verified,
                                tls->sni))
            return true;
    return false;
}

void moon_edge_settle(struct moon_edge *edge)
{
    for (struct moon_list *at = edge->connections.next, *next; at != &edge->connections;
         at = next) {
        struct connection *connection = MOON_CONTAINER(at, struct connection, node);
        const struct moon_tls_facts *tls =
            connection->link ? moon_link_tls(connection->link) : NULL;
        next = at->next;
        if (tls && !is_at_home(connection, tls))
            moon_link_drain(connection->link);
    }
}

void moon_edge_close_all(struct moon_edge *edge)
{
    for (struct moon_list *at = edge->connections.next, *next; at != &edge->connections;
         at = next) {
        struct connection *connection = MOON_CONTAINER(at, struct connection, node);
        next = at->next;
        moon_preface_free(connection->preface);
        moon_handshake_free(connection->handshake);
        moon_tcp_close(connection->tcp);
        moon_link_close(connection->link);
        on_closed(connection);
    }
    while (edge->leaving)
        on_udp_drained(edge->leaving);
}

// Its listener, where its port has one alone.
static struct moon_slice listener_of(const struct connection *connection)
{
    const struct acceptor *acceptor = connection->acceptor;
    const struct moon_hold *hold =
        acceptor->arrival.hold ? acceptor->arrival.hold : connection->edge->service->hold;
    const struct moon_bind *bind = bind_of(acceptor);
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
        struct moon_survey_row early;
        if (connection->tcp && moon_tcp_survey(connection->tcp, &early) && !fn(owner, &early))
            return false;
        if (!link || moon_link_is_busy(link)) // none: what comes before is under way
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
    for (const struct acceptor *at = edge->acceptors; at; at = at->next)
        if (at->udp && !moon_udp_survey(at->udp, fn, owner))
            return false;
    return true;
}

size_t moon_edge_connection_count(const struct moon_edge *edge)
{
    size_t count = edge->connection_count;
    for (const struct acceptor *at = edge->acceptors; at; at = at->next)
        count += at->udp ? moon_udp_session_count(at->udp) : 0;
    for (const struct acceptor *at = edge->leaving; at; at = at->next)
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
    free(edge);
}
