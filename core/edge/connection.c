// One connection, from the accepted stream to its end: its limits, its PROXY header, what its first bytes say, its handshake; then it
// is a server link whose requests become exchanges, or a connection of a TCP or TLS route.
//
//   accepted -> [preface] -> [sniff] -> [handshake] -> link
//                                                   -> tcp
//                                    -> tcp: passed through, or opaque
#include "edge/edge_priv.h"

#include "edge/census.h"
#include "edge/choice.h"
#include "edge/handshake.h"
#include "edge/preface.h"
#include "edge/sniff.h"
#include "edge/speakers.h"
#include "edge/transparent.h"
#include "exchange/hold.h"
#include "exchange/tcp.h"
#include "io/tls.h"
#include "link/link.h"
#include "link/proxied.h"
#include "link/resources.h"
#include "obs/counters.h"
#include "route/listener.h"
#include "route/route.h"
#include "upstream/pool.h"

#include <stdlib.h>
#include <string.h>

enum { SILENCE_MS = 100, SHORT_SILENCE_MS = 10 };

struct moon_connection {
    struct moon_list node; // in edge->connections
    struct moon_edge *edge;
    struct moon_link *link;           // NULL: not yet
    struct moon_preface *preface;     // before all else; NULL: there is none, or it is done
    struct moon_sniff *sniff;         // of ports of several protocols; NULL: likewise
    struct moon_handshake *handshake; // before the link; NULL: there is none, or it is done
    struct moon_choice *choice;       // of the handshake's certificate; NULL: nobody has a say
    struct moon_proxied *proxied;     // until the link has it
    struct moon_tcp *tcp;             // in the place of a link
    uint64_t number;                  // of either; 0 before
    struct moon_census_entry *census; // NULL: the listener has no limits
    struct moon_census_entry *shakes; // of its handshake; NULL: it has none, or no limit
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

// It counts as under way no more, and nobody has a say about its certificate.
static void handshake_over(struct moon_connection *connection)
{
    if (connection->shakes)
        moon_census_leave(connection->edge->budget->census, connection->shakes);
    free(connection->shakes);
    connection->shakes = NULL;
    moon_choice_free(connection->choice);
    connection->choice = NULL;
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
    handshake_over(connection);
    moon_list_del(&connection->node);
    edge->connection_count--;
    atomic_fetch_sub_explicit(&edge->budget->used_count, 1, memory_order_relaxed);
    moon_count_down(&edge->service->res->counters->connections_live);
    moon_acceptor_forget(connection->acceptor);
    moon_proxied_unref(connection->proxied);
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

static const struct moon_bind *bind_of(const struct moon_acceptor *acceptor)
{
    return &moon_acceptor_hold(acceptor)->listeners->binds[acceptor->arrival.bind];
}

static const struct moon_listener *listener_at(const struct moon_acceptor *acceptor, int index)
{
    return &moon_acceptor_hold(acceptor)->listeners->listeners[index];
}

static int find_name(const struct moon_acceptor *acceptor, struct moon_slice sni)
{
    return moon_listeners_find_name(moon_acceptor_hold(acceptor)->listeners, acceptor->arrival.bind,
                                    sni);
}

// ---- bytes as they are

// Where it goes, as far as is known before a route has it.
static struct moon_destination destination_of(const struct moon_connection *connection)
{
    const struct moon_proxied *proxied = connection->proxied;
    return (struct moon_destination){.port = connection->acceptor->bound,
                                     .meant =
                                         proxied ? proxied->destination : (struct moon_address){0}};
}

static void on_spoke(void *owner, bool is_upstream)
{
    const struct moon_connection *connection = owner;
    struct moon_destination destination = destination_of(connection);
    moon_speakers_set(connection->edge->speakers, &destination, is_upstream,
                      moon_loop_now_ms(connection->edge->service->res->loop));
}

static void tcp_start(struct moon_connection *connection, struct moon_stream *stream, int listener,
                      const struct moon_sniffed *sniffed)
{
    struct moon_tcp_args args = {.service = connection->edge->service,
                                 .arrival = &connection->acceptor->arrival,
                                 .listener = listener,
                                 .stream = stream,
                                 .proxied = connection->proxied,
                                 .closed = on_closed,
                                 .owner = connection};
    if (sniffed) {
        args.sni = sniffed->sni;
        args.alpn = sniffed->alpn;
        args.spoke = sniffed->is_silent ? on_spoke : NULL;
    }
    connection->tcp = moon_tcp_open(&args);
    connection->number = moon_tcp_number(connection->tcp);
}

static void refuse(struct moon_connection *connection, struct moon_stream *stream,
                   _Atomic uint64_t *counter)
{
    moon_count_up(counter);
    moon_preface_refuse(connection->edge->service->res, stream);
    on_closed(connection);
}

// ---- TLS

// A listener of TLS has what was decrypted, where it is still the one that the handshake was for.
static void decrypted_start(struct moon_connection *connection, struct moon_stream *stream)
{
    const struct moon_tls_facts *facts = moon_stream_tls(stream);
    int index = find_name(connection->acceptor, facts->sni);
    const struct moon_listener *listener =
        index < 0 ? NULL : listener_at(connection->acceptor, index);
    if (listener && listener->front.protocol == MOON_PROTOCOL_HTTPS)
        link_start(connection, stream);
    else if (listener && listener->tls &&
             memcmp(facts->id, moon_tls_terms_id(listener->tls), MOON_TLS_ID_LEN) == 0)
        tcp_start(connection, stream, index,
                  &(struct moon_sniffed){.sni = facts->sni, .alpn = MOON_SLICE("")});
    else
        refuse(connection, stream, &connection->edge->service->res->counters->refused_hello_name);
}

static void on_handshake(void *owner, struct moon_stream *stream)
{
    struct moon_connection *connection = owner;
    connection->handshake = NULL;
    handshake_over(connection);
    if (!stream)
        on_closed(connection);
    else if (!moon_stream_tls(stream)->is_proof &&
             moon_bind_speaks(bind_of(connection->acceptor), MOON_PROTOCOL_TLS))
        decrypted_start(connection, stream);
    else
        link_start(connection, stream);
}

// Whether one more handshake may be under way, on the port and for its client.
static bool may_shake(struct moon_connection *connection, const struct moon_stream *stream)
{
    const struct moon_acceptor *acceptor = connection->acceptor;
    const struct moon_front *front = moon_acceptor_front(acceptor);
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

static void handshake_start(struct moon_connection *connection, struct moon_stream *stream)
{
    struct moon_resources *res = connection->edge->service->res;
    const struct moon_acceptor *acceptor = connection->acceptor;
    if (!may_shake(connection, stream)) {
        moon_preface_refuse(res, stream);
        on_closed(connection);
        return;
    }
    stream = moon_tls_accept(bind_of(acceptor)->tls, res->worker, res->loop, stream);
    connection->choice =
        moon_choice_new(res, moon_acceptor_hold(acceptor), acceptor->arrival.bind, stream);
    connection->handshake = moon_handshake_new(res, stream, on_handshake, connection);
}

// Whether anybody has it, listener and route.
static bool is_meant(const struct moon_acceptor *acceptor, int listener, struct moon_slice sni)
{
    if (listener < 0)
        return false;
    return listener_at(acceptor, listener)->front.protocol == MOON_PROTOCOL_HTTPS ||
           moon_routes_stream(moon_acceptor_hold(acceptor)->routes, listener, sni) >= 0;
}

// Whoever has the name that was asked for: it ends TLS, or passes it on.
static void named_start(struct moon_connection *connection, struct moon_stream *stream,
                        const struct moon_sniffed *sniffed)
{
    struct moon_resources *res = connection->edge->service->res;
    const struct moon_tls_server *server = bind_of(connection->acceptor)->tls;
    int listener = find_name(connection->acceptor, sniffed->sni);
    if (server && moon_tls_has_proof(server, sniffed->sni, sniffed->alpn)) {
        handshake_start(connection, stream);
    } else if (!is_meant(connection->acceptor, listener, sniffed->sni)) {
        moon_count_up(&res->counters->refused_hello_name);
        moon_sniff_refuse(res, stream, MOON_ALERT_UNRECOGNIZED_NAME);
        on_closed(connection);
    } else if (listener_at(connection->acceptor, listener)->is_passthrough) {
        tcp_start(connection, stream, listener, sniffed);
    } else {
        handshake_start(connection, stream);
    }
}

// ---- the protocol of the port begins

// What is no TLS that anybody here reads, and no request that anybody here answers.
static void opaque_start(struct moon_connection *connection, struct moon_stream *stream,
                         const struct moon_sniffed *sniffed)
{
    struct moon_resources *res = connection->edge->service->res;
    const struct moon_bind *bind = bind_of(connection->acceptor);
    if (bind->opaque >= 0)
        tcp_start(connection, stream, bind->opaque, sniffed);
    else if (bind->names && sniffed->first != MOON_FIRST_TLS)
        connection->handshake = moon_handshake_refuse(res, stream, on_handshake, connection);
    else
        refuse(connection, stream, &res->counters->refused_first_bytes);
}

static void count_detected(struct moon_counters *counters, const struct moon_sniffed *sniffed)
{
    _Atomic uint64_t *const by_first[] = {
        [MOON_FIRST_MORE] = NULL,
        [MOON_FIRST_TLS] = &counters->detected_tls,
        [MOON_FIRST_H2] = &counters->detected_h2,
        [MOON_FIRST_HTTP1] = &counters->detected_http1,
        [MOON_FIRST_OPAQUE] = &counters->detected_opaque,
    };
    moon_count_up(sniffed->is_silent ? &counters->detected_silent : by_first[sniffed->first]);
}

static void sniff_start(struct moon_connection *connection, struct moon_stream *stream);

static void on_sniffed(void *owner, struct moon_stream *stream, const struct moon_sniffed *sniffed)
{
    struct moon_connection *connection = owner;
    const struct moon_bind *bind = bind_of(connection->acceptor);
    connection->sniff = NULL;
    if (!stream) {
        on_closed(connection);
        return;
    }
    if (moon_acceptor_front(connection->acceptor)->detects)
        count_detected(connection->edge->service->res->counters, sniffed);
    bool is_request = sniffed->first == MOON_FIRST_HTTP1 || sniffed->first == MOON_FIRST_H2;
    if (sniffed->first == MOON_FIRST_TLS && bind->names && !sniffed->has_hello)
        sniff_start(connection, stream); // a reload has brought TLS meanwhile
    else if (sniffed->first == MOON_FIRST_TLS && bind->names)
        named_start(connection, stream, sniffed);
    else if (is_request && moon_bind_speaks(bind, MOON_PROTOCOL_HTTP))
        link_start(connection, stream);
    else
        opaque_start(connection, stream, sniffed);
}

// How long a client may be silent before it is taken for one who waits for the server to speak; shorter where the last one did:
// who speaks first does so at once, as fast as it can, whatever the way to it.
static uint32_t silence_of(const struct moon_connection *connection)
{
    struct moon_destination destination = destination_of(connection);
    uint64_t now_ms = moon_loop_now_ms(connection->edge->service->res->loop);
    if (bind_of(connection->acceptor)->opaque < 0)
        return 0;
    return moon_speakers_has(connection->edge->speakers, &destination, now_ms) ? SHORT_SILENCE_MS
                                                                               : SILENCE_MS;
}

static void sniff_start(struct moon_connection *connection, struct moon_stream *stream)
{
    struct moon_resources *res = connection->edge->service->res;
    const struct moon_bind *bind = bind_of(connection->acceptor);
    unsigned tls = 1u << MOON_PROTOCOL_HTTPS | 1u << MOON_PROTOCOL_TLS;
    struct moon_sniff_args args = {.res = res,
                                   .stream = stream,
                                   .reads_hello = bind->names != NULL,
                                   .is_tls_alone = (bind->protocols & ~tls) == 0,
                                   .has_opaque = bind->opaque >= 0,
                                   .silence_ms = silence_of(connection),
                                   .done = on_sniffed,
                                   .owner = connection};
    connection->sniff = moon_sniff_new(&args);
}

static void protocol_start(struct moon_connection *connection, struct moon_stream *stream)
{
    const struct moon_bind *bind = bind_of(connection->acceptor);
    switch (bind->protocols) {
    case 1u << MOON_PROTOCOL_HTTP:
        link_start(connection, stream);
        break;
    case 1u << MOON_PROTOCOL_HTTPS:
        handshake_start(connection, stream);
        break;
    case 1u << MOON_PROTOCOL_TCP:
        tcp_start(connection, stream, bind->opaque, NULL);
        break;
    default: // several, or TLS by name
        sniff_start(connection, stream);
        break;
    }
}

// ---- limits

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

// Whether it is one of ours that the kernel has sent back; notes where it meant to go.
static bool loops(struct moon_connection *connection, const struct moon_front *front,
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

void moon_connection_start(struct moon_acceptor *acceptor, struct moon_stream *stream)
{
    struct moon_resources *res = acceptor->edge->service->res;
    const struct moon_front *front = moon_acceptor_front(acceptor);
    struct moon_connection *connection = connection_new(acceptor);
    if (!is_welcome(connection, front, stream) || loops(connection, front, stream)) {
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

void moon_connection_close(struct moon_list *node)
{
    struct moon_connection *connection = connection_at(node);
    moon_preface_free(connection->preface);
    moon_sniff_free(connection->sniff);
    moon_handshake_free(connection->handshake);
    moon_tcp_close(connection->tcp);
    moon_link_close(connection->link);
    on_closed(connection);
}

void moon_connection_drain(struct moon_list *node)
{
    struct moon_connection *connection = connection_at(node);
    if (connection->link)
        moon_link_drain(connection->link);
    else if (connection->sniff && moon_sniff_is_silent(connection->sniff))
        moon_connection_close(node); // idle, as a link without a request
}

const struct moon_acceptor *moon_connection_acceptor(const struct moon_list *node)
{
    return connection_at(node)->acceptor;
}

bool moon_connection_is_at_home(const struct moon_list *node)
{
    const struct moon_connection *connection = connection_at(node);
    const struct moon_tls_facts *tls = connection->link ? moon_link_tls(connection->link) : NULL;
    const struct moon_bind *bind = bind_of(connection->acceptor);
    for (uint32_t i = 0; tls && i < bind->member_count; i++) {
        const struct moon_listener *listener = listener_at(connection->acceptor, bind->members[i]);
        if (listener->front.protocol == MOON_PROTOCOL_HTTPS &&
            moon_listener_takes(listener, tls->id, tls->is_verified, tls->sni))
            return true;
    }
    return !tls;
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
