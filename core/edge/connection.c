// One connection, from the accepted stream to its end: its limits, its PROXY header, its handshake; then it is a server link whose
// requests become exchanges, or a connection of a TCP route.
//
//   accepted -> [preface] -> [handshake] -> link
//                         -> tcp
#include "edge/edge_priv.h"

#include "edge/census.h"
#include "edge/handshake.h"
#include "edge/preface.h"
#include "exchange/hold.h"
#include "exchange/tcp.h"
#include "io/tls.h"
#include "link/link.h"
#include "link/resources.h"
#include "obs/counters.h"
#include "route/listener.h"
#include "upstream/pool.h"

#include <stdlib.h>

struct moon_connection {
    struct moon_list node; // in edge->connections
    struct moon_edge *edge;
    struct moon_link *link;           // NULL: not yet
    struct moon_preface *preface;     // before all else; NULL: there is none, or it is done
    struct moon_handshake *handshake; // before the link; NULL: there is none, or it is done
    struct moon_proxied *proxied;     // until the link has it
    struct moon_tcp *tcp;             // in the place of a link
    uint64_t number;                  // of either; 0 before
    struct moon_census_entry *census; // NULL: the listener has no limits
    struct moon_acceptor *acceptor;   // it came through
};

static void on_open(void *owner, struct moon_lane *lane)
{
    struct moon_connection *connection = owner;
    moon_exchange_open(connection->edge->service, lane, &connection->acceptor->arrival);
}

static void on_idle(void *owner)
{
    (void)owner;
}

static void on_closed(void *owner)
{
    struct moon_connection *connection = owner;
    struct moon_edge *edge = connection->edge;
    if (connection->number)
        moon_pool_forget(edge->service->pool, connection->number);
    if (connection->census)
        moon_census_leave(edge->budget->census, connection->census);
    free(connection->census);
    moon_list_del(&connection->node);
    edge->connection_count--;
    atomic_fetch_sub_explicit(&edge->budget->used_count, 1, memory_order_relaxed);
    moon_count_down(&edge->service->res->counters->connections_live);
    moon_acceptor_forget(connection->acceptor);
    free(connection->proxied);
    free(connection);
    moon_edge_resume(edge);
}

static const struct moon_link_events connection_events = {
    .open = on_open,
    .idle = on_idle,
    .closed = on_closed,
};

// The bytes of the stream are the client's requests from here on.
static void link_start(struct moon_connection *connection, struct moon_stream *stream)
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

static void on_handshake(void *owner, struct moon_stream *stream)
{
    struct moon_connection *connection = owner;
    connection->handshake = NULL;
    if (stream)
        link_start(connection, stream);
    else
        on_closed(connection);
}

static const struct moon_bind *bind_of(const struct moon_acceptor *acceptor)
{
    return &moon_acceptor_hold(acceptor)->listeners->binds[acceptor->arrival.bind];
}

static void tcp_start(struct moon_connection *connection, struct moon_stream *stream)
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

// The protocol of the port begins.
static void protocol_start(struct moon_connection *connection, struct moon_stream *stream)
{
    const struct moon_bind *bind = bind_of(connection->acceptor);
    struct moon_resources *res = connection->edge->service->res;
    if (moon_acceptor_front(connection->acceptor)->protocol == MOON_PROTOCOL_TCP) {
        tcp_start(connection, stream);
        return;
    }
    if (!bind->tls) {
        link_start(connection, stream);
        return;
    }
    stream = moon_tls_accept(bind->tls, res->worker, res->loop, stream);
    connection->handshake = moon_handshake_new(res, stream, on_handshake, connection);
}

static struct moon_census_entry *census_of(struct moon_connection *connection)
{
    if (!connection->census)
        connection->census = calloc(1, sizeof *connection->census);
    if (!connection->census)
        abort();
    return connection->census;
}

// Whether its client may have one more.
static bool may_enter(struct moon_connection *connection, const struct moon_stream *stream)
{
    const struct moon_acceptor *acceptor = connection->acceptor;
    uint32_t bound = moon_acceptor_front(acceptor)->limits.per_client;
    struct moon_address peer;
    if (!bound)
        return true;
    moon_stream_address(stream, true, &peer);
    return moon_census_enter_client(connection->edge->budget->census, census_of(connection),
                                    &acceptor->bound, &peer, bound);
}

// Who the client is has been told.
static void client_known(struct moon_connection *connection, struct moon_stream *stream)
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
    struct moon_connection *connection = owner;
    connection->preface = NULL;
    connection->proxied = proxied;
    if (stream)
        client_known(connection, stream);
    else
        on_closed(connection);
}

static struct moon_connection *connection_new(struct moon_acceptor *acceptor)
{
    struct moon_edge *edge = acceptor->edge;
    struct moon_connection *connection = calloc(1, sizeof *connection);
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
static bool is_welcome(struct moon_connection *connection, const struct moon_front *front,
                       const struct moon_stream *stream)
{
    const struct moon_acceptor *acceptor = connection->acceptor;
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

void moon_connection_start(struct moon_acceptor *acceptor, struct moon_stream *stream)
{
    struct moon_resources *res = acceptor->edge->service->res;
    const struct moon_front *front = moon_acceptor_front(acceptor);
    struct moon_connection *connection = connection_new(acceptor);
    if (!is_welcome(connection, front, stream)) {
        moon_preface_refuse(res, stream);
        on_closed(connection);
    } else if (front->has_proxy_header) {
        connection->preface = moon_preface_new(res, stream, on_preface, connection);
    } else {
        client_known(connection, stream);
    }
}

// ---- what the edge asks of it

static struct moon_connection *connection_at(const struct moon_list *node)
{
    return MOON_CONTAINER(node, struct moon_connection, node);
}

void moon_connection_drain(struct moon_list *node)
{
    struct moon_connection *connection = connection_at(node);
    if (connection->link)
        moon_link_drain(connection->link);
}

void moon_connection_close(struct moon_list *node)
{
    struct moon_connection *connection = connection_at(node);
    moon_preface_free(connection->preface);
    moon_handshake_free(connection->handshake);
    moon_tcp_close(connection->tcp);
    moon_link_close(connection->link);
    on_closed(connection);
}

const struct moon_acceptor *moon_connection_acceptor(const struct moon_list *node)
{
    return connection_at(node)->acceptor;
}

// Its listener, where its port has one alone.
static struct moon_slice listener_of(const struct moon_connection *connection)
{
    const struct moon_acceptor *acceptor = connection->acceptor;
    const struct moon_bind *bind = bind_of(acceptor);
    if (bind->member_count > 1)
        return (struct moon_slice){NULL, 0};
    const struct moon_listeners *all = moon_acceptor_hold(acceptor)->listeners;
    return moon_slice_from(all->listeners[bind->members[0]].name);
}

bool moon_connection_survey(const struct moon_list *node, moon_survey_fn *fn, void *owner)
{
    const struct moon_connection *connection = connection_at(node);
    struct moon_link *link = connection->link;
    struct moon_survey_row early;
    if (connection->tcp && moon_tcp_survey(connection->tcp, &early) && !fn(owner, &early))
        return false;
    if (!link || moon_link_is_busy(link)) // none: what comes before is under way
        return true;
    uint64_t now_ms = moon_loop_now_ms(connection->edge->service->res->loop);
    struct moon_survey_row row = {.number = moon_link_number(link),
                                  .state = moon_link_is_ending(link)    ? "ending"
                                           : moon_link_is_in_head(link) ? "head"
                                                                        : "idle",
                                  .age_ms = now_ms - moon_link_start_ms(link),
                                  .request_count = moon_link_lane_count(link),
                                  .listener = listener_of(connection)};
    moon_link_address(link, true, &row.client);
    return fn(owner, &row);
}
