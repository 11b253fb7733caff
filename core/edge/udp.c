// See udp.h. One batch of datagrams is received at a time; runs of one session go out with one call.
#include "edge/udp.h"

#include "base/err.h"
#include "base/list.h"
#include "edge/census.h"
#include "edge/edge.h"
#include "exchange/access.h"
#include "exchange/action.h"
#include "exchange/exchange.h"
#include "exchange/hold.h"
#include "io/datagram.h"
#include "io/loop.h"
#include "io/world.h"
#include "link/resources.h"
#include "obs/counters.h"
#include "obs/log.h"
#include "obs/series.h"
#include "route/listener.h"
#include "route/route.h"
#include "upstream/pool.h"
#include "upstream/registry.h"
#include "upstream/upstream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    IDLE_MS = 60000,
    DRAIN_IDLE_MS = 1000,
    SESSION_MAX_COUNT = 65536, // of a worker and port, whatever the limits
    BATCHES_A_TURN = 16,
};

struct session {
    struct session *next;  // in its bucket
    struct moon_list node; // in udp->sessions, the oldest first
    struct moon_udp *udp;
    struct moon_socket *socket; // connected to the endpoint
    struct moon_claim claim;
    struct moon_census_entry census;
    struct moon_address client, local; // who it is of; where its last datagram came to
    struct moon_timer timer;
    struct moon_task task; // takes further answers in the next turn
    struct moon_series_sample sample;
    char *listener, *route, *upstream;
    struct moon_address endpoint;
    uint64_t number, start_ms, start_ns, active_ms;
    uint64_t client_len, upstream_len; // bytes that each has sent
    uint32_t idle_ms;
};

struct moon_udp {
    struct moon_udp_args args;
    struct session **buckets;
    uint32_t bucket_count, session_count; // a power of two
    struct moon_list sessions;
    struct moon_task task; // takes further datagrams, or tells that it has drained
    struct moon_datagram *batch;
    char *bytes; // of the batch; touched only as far as datagrams are long
    bool is_draining;
};

static struct moon_resources *res_of(const struct moon_udp *udp)
{
    return udp->args.service->res;
}

// ---- the table

static struct session **bucket_of(struct moon_udp *udp, const struct moon_address *client)
{
    uint32_t hash = (uint32_t)(moon_address_hash(client) ^ res_of(udp)->id_seed[1]) * 0x9e3779b1u;
    return &udp->buckets[(hash >> 8) & (udp->bucket_count - 1)];
}

static void grow(struct moon_udp *udp)
{
    uint32_t count = udp->bucket_count ? udp->bucket_count * 2 : 64;
    free(udp->buckets);
    udp->buckets = calloc(count, sizeof *udp->buckets);
    if (!udp->buckets)
        abort();
    udp->bucket_count = count;
    for (struct moon_list *at = udp->sessions.next; at != &udp->sessions; at = at->next) {
        struct session *session = MOON_CONTAINER(at, struct session, node);
        struct session **bucket = bucket_of(udp, &session->client);
        session->next = *bucket;
        *bucket = session;
    }
}

static struct session *find(struct moon_udp *udp, const struct moon_address *client)
{
    struct session *session = *bucket_of(udp, client);
    while (session && !moon_address_equal(&session->client, client))
        session = session->next;
    return session;
}

// ---- the end of a session

static void record(struct session *session)
{
    struct moon_resources *res = res_of(session->udp);
    session->sample.us = (moon_loop_now_ns(res->loop) - session->start_ns) / 1000;
    struct moon_record line = {.scheme = MOON_SLICE("udp"),
                               .protocol = MOON_SLICE("UDP"),
                               .client = &session->client,
                               .endpoint = &session->endpoint,
                               .route = moon_slice_from(session->route),
                               .upstream = moon_slice_from(session->upstream),
                               .request_len = session->client_len,
                               .response_len = session->upstream_len,
                               .attempt_count = 1,
                               .us = session->sample.us,
                               .is_complete = true};
    moon_access_record_stream(session->udp->args.service, &line, &session->sample);
}

static void session_end(struct session *session)
{
    struct moon_udp *udp = session->udp;
    struct moon_resources *res = res_of(udp);
    struct session **at = bucket_of(udp, &session->client);
    while (*at != session)
        at = &(*at)->next;
    *at = session->next;
    record(session);
    moon_list_del(&session->node);
    moon_loop_timer_del(res->loop, &session->timer);
    moon_task_cancel(&session->task);
    moon_loop_accept_stop(res->loop, session->socket);
    moon_loop_datagram_close(res->loop, session->socket);
    moon_claim_release(&session->claim);
    moon_census_leave(udp->args.budget->census, &session->census);
    atomic_fetch_sub_explicit(&udp->args.budget->used_count, 1, memory_order_relaxed);
    moon_count_down(&res->counters->udp_sessions_live);
    free(session->listener);
    free(session->route);
    free(session->upstream);
    free(session);
    if (--udp->session_count == 0 && udp->is_draining)
        moon_loop_defer(res->loop, &udp->task);
}

static void on_timer(struct moon_timer *timer)
{
    struct session *session = MOON_CONTAINER(timer, struct session, timer);
    struct moon_loop *loop = res_of(session->udp)->loop;
    uint32_t bound_ms = session->idle_ms;
    if (session->udp->is_draining && bound_ms > DRAIN_IDLE_MS)
        bound_ms = DRAIN_IDLE_MS;
    uint64_t idle_ms = moon_loop_now_ms(loop) - session->active_ms;
    if (idle_ms >= bound_ms)
        session_end(session);
    else
        moon_loop_timer_add(loop, timer, bound_ms - idle_ms);
}

// ---- answers

static void drop(struct moon_udp *udp, int count)
{
    if (count > 0)
        moon_count_add(&res_of(udp)->counters->udp_dropped_total, (uint64_t)count);
}

// The endpoint says that it is not there: the next datagram chooses anew.
static void endpoint_failed(struct session *session, int err)
{
    moon_log_debug(res_of(session->udp)->log, "upstream \"%s\": %s", session->upstream,
                   moon_err_text(err));
    atomic_fetch_add_explicit(&session->claim.state->connect_failures_total, 1,
                              memory_order_relaxed);
    moon_count_up(&res_of(session->udp)->counters->upstream_connect_failures_total);
    session->sample.status = 502;
    session_end(session);
}

static void answer(struct session *session, int count)
{
    struct moon_udp *udp = session->udp;
    uint64_t len = 0;
    for (int i = 0; i < count; i++) {
        udp->batch[i].peer = session->client;
        udp->batch[i].local = session->local;
        len += udp->batch[i].len;
    }
    int sent = moon_datagrams_send(udp->args.socket, udp->batch, count);
    drop(udp, count - (sent > 0 ? sent : 0));
    session->upstream_len += len;
    session->active_ms = moon_loop_now_ms(res_of(udp)->loop);
    session->sample.status = 200;
    moon_count_add(&res_of(udp)->counters->udp_datagrams_out_total, (uint64_t)count);
}

static void take_answers(struct session *session)
{
    struct moon_udp *udp = session->udp;
    for (int i = 0; i < BATCHES_A_TURN; i++) {
        int count = moon_datagrams_receive(session->socket, udp->batch, MOON_DATAGRAM_BATCH_COUNT);
        if (count < 0) {
            endpoint_failed(session, count);
            return;
        }
        if (count > 0)
            answer(session, count);
        if (count < MOON_DATAGRAM_BATCH_COUNT) // the next edge comes with new ones
            return;
    }
    moon_loop_defer(res_of(udp)->loop, &session->task);
}

static void on_answers(void *owner, unsigned ready)
{
    (void)ready;
    take_answers(owner);
}

static void on_answers_task(struct moon_task *task)
{
    take_answers(MOON_CONTAINER(task, struct session, task));
}

// ---- new sessions

static const struct moon_hold *hold_of(const struct moon_udp *udp)
{
    const struct moon_arrival *arrival = udp->args.arrival;
    return arrival->hold ? arrival->hold : udp->args.service->hold;
}

static bool reserve(struct moon_udp *udp)
{
    struct moon_connection_budget *budget = udp->args.budget;
    if (udp->is_draining || udp->session_count >= SESSION_MAX_COUNT)
        return false;
    size_t used = atomic_fetch_add_explicit(&budget->used_count, 1, memory_order_relaxed);
    if (used < atomic_load_explicit(&budget->max_count, memory_order_relaxed))
        return true;
    atomic_fetch_sub_explicit(&budget->used_count, 1, memory_order_relaxed);
    return false;
}

// Within the limits of the listener, over all workers.
static bool may_enter(struct session *session)
{
    const struct moon_udp_args *args = &session->udp->args;
    const struct moon_hold *hold = hold_of(session->udp);
    const struct moon_bind *bind = &hold->listeners->binds[args->arrival->bind];
    const struct moon_front *front = moon_bind_front(hold->listeners, bind);
    struct moon_counters *counters = res_of(session->udp)->counters;
    struct moon_census *census = args->budget->census;
    if (!moon_census_enter(census, &session->census, args->bound, front->limits.connections)) {
        moon_count_up(&counters->refused_listener_limit);
        return false;
    }
    if (moon_census_enter_client(census, &session->census, args->bound, &session->client,
                                 front->limits.per_client))
        return true;
    moon_count_up(&counters->refused_client_limit);
    return false;
}

// Its names and its endpoint. 0 or -errno.
static int choose(struct session *session)
{
    struct moon_service *service = session->udp->args.service;
    const struct moon_hold *hold = hold_of(session->udp);
    int listener = hold->listeners->binds[session->udp->args.arrival->bind].members[0];
    int index = moon_routes_stream(hold->routes, listener, MOON_SLICE(""));
    if (index < 0)
        return -ENOENT;
    const struct moon_action *action = moon_actions_at(hold->actions, index);
    const struct moon_backend *backend = moon_pool_split(service->pool, &action->split);
    if (!backend || backend->upstream == MOON_BACKEND_MISSING)
        return -ENOENT;
    const struct moon_upstream *upstream =
        moon_upstreams_at(hold->upstreams, (size_t)backend->upstream);
    int err =
        upstream->builtin ? -ENOENT : moon_pool_pick(service->pool, upstream, &session->claim);
    if (err)
        return err;
    session->endpoint = session->claim.state->address;
    session->idle_ms = action->timeouts.idle_ms ? action->timeouts.idle_ms : IDLE_MS;
    session->listener = strdup(hold->listeners->listeners[listener].name);
    session->route = strdup(action->name);
    session->upstream = moon_slice_dup(upstream->name);
    session->sample = (struct moon_series_sample){
        .route = action->series, .upstream = upstream->series, .status = 504};
    return 0;
}

static int session_open(struct session *session)
{
    struct moon_loop *loop = res_of(session->udp)->loop;
    int err = may_enter(session) ? choose(session) : MOON_ELIMIT;
    if (!err)
        err = moon_loop_datagram_open(loop, &session->endpoint, &session->socket);
    if (err)
        return err;
    err = moon_loop_accept_start(loop, session->socket, on_answers, session);
    if (err)
        moon_loop_datagram_close(loop, session->socket);
    return err;
}

static void session_discard(struct session *session)
{
    struct moon_connection_budget *budget = session->udp->args.budget;
    atomic_fetch_sub_explicit(&budget->used_count, 1, memory_order_relaxed);
    moon_census_leave(budget->census, &session->census);
    moon_claim_release(&session->claim);
    free(session->listener);
    free(session->route);
    free(session->upstream);
    free(session);
}

// NULL: there is no room, or nowhere to go.
static struct session *session_new(struct moon_udp *udp, const struct moon_address *client)
{
    struct moon_resources *res = res_of(udp);
    if (!reserve(udp)) {
        moon_count_up(&res->counters->refused_listener_limit);
        return NULL;
    }
    struct session *session = calloc(1, sizeof *session);
    if (!session)
        abort();
    session->udp = udp;
    session->client = *client;
    int err = session_open(session);
    if (err) {
        moon_log_debug(res->log, "a UDP session was refused: %s", moon_err_text(err));
        session_discard(session);
        return NULL;
    }
    session->timer.fn = on_timer;
    session->task.fn = on_answers_task;
    session->number = ++res->link_count;
    session->start_ms = session->active_ms = moon_loop_now_ms(res->loop);
    session->start_ns = moon_loop_turn_ns(res->loop);
    moon_list_add_before(&udp->sessions, &session->node);
    if (++udp->session_count > udp->bucket_count) {
        grow(udp); // puts it in, too
    } else {
        struct session **bucket = bucket_of(udp, client);
        session->next = *bucket;
        *bucket = session;
    }
    moon_count_up(&res->counters->udp_sessions_live);
    moon_count_up(&res->counters->udp_sessions_total);
    moon_loop_timer_add(res->loop, &session->timer, session->idle_ms);
    return session;
}

// ---- datagrams of clients

// A run of the batch that is of one source.
static void forward(struct moon_udp *udp, const struct moon_datagram *run, int count)
{
    struct session *session = find(udp, &run->peer);
    if (!session)
        session = session_new(udp, &run->peer);
    if (!session) {
        drop(udp, count);
        return;
    }
    session->local = run[count - 1].local;
    session->active_ms = moon_loop_now_ms(res_of(udp)->loop);
    for (int i = 0; i < count; i++)
        session->client_len += run[i].len;
    int sent = moon_datagrams_send(session->socket, run, count);
    drop(udp, count - (sent > 0 ? sent : 0));
    if (sent < 0 && sent != -EAGAIN && sent != -ENOBUFS && sent != -EMSGSIZE)
        endpoint_failed(session, sent);
}

static void forward_all(struct moon_udp *udp, int count)
{
    moon_count_add(&res_of(udp)->counters->udp_datagrams_in_total, (uint64_t)count);
    for (int from = 0, to; from < count; from = to) {
        to = from + 1;
        while (to < count && moon_address_equal(&udp->batch[from].peer, &udp->batch[to].peer))
            to++;
        forward(udp, &udp->batch[from], to - from);
    }
}

static void take(struct moon_udp *udp)
{
    for (int i = 0; i < BATCHES_A_TURN; i++) {
        int count = moon_datagrams_receive(udp->args.socket, udp->batch, MOON_DATAGRAM_BATCH_COUNT);
        if (count > 0)
            forward_all(udp, count);
        if (count >= 0 && count < MOON_DATAGRAM_BATCH_COUNT) // the next edge comes with new ones
            return;
    }
    moon_loop_defer(res_of(udp)->loop, &udp->task);
}

static void on_ready(void *owner, unsigned ready)
{
    (void)ready;
    take(owner);
}

static void on_task(struct moon_task *task)
{
    struct moon_udp *udp = MOON_CONTAINER(task, struct moon_udp, task);
    if (udp->is_draining && udp->session_count == 0)
        udp->args.drained(udp->args.owner);
    else
        take(udp);
}

// ---- public

int moon_udp_new(const struct moon_udp_args *args, struct moon_udp **out)
{
    struct moon_udp *udp = calloc(1, sizeof *udp);
    if (!udp)
        abort();
    udp->args = *args;
    udp->task.fn = on_task;
    moon_list_init(&udp->sessions);
    grow(udp);
    udp->batch = calloc(MOON_DATAGRAM_BATCH_COUNT, sizeof *udp->batch);
    udp->bytes = malloc((size_t)MOON_DATAGRAM_BATCH_COUNT * MOON_DATAGRAM_LEN);
    if (!udp->batch || !udp->bytes)
        abort();
    for (int i = 0; i < MOON_DATAGRAM_BATCH_COUNT; i++)
        udp->batch[i].ptr = udp->bytes + (size_t)i * MOON_DATAGRAM_LEN;
    int err = moon_loop_accept_start(res_of(udp)->loop, args->socket, on_ready, udp);
    if (err) {
        free(udp->batch);
        free(udp->bytes);
        free(udp->buckets);
        free(udp);
        return err;
    }
    *out = udp;
    return 0;
}

void moon_udp_drain(struct moon_udp *udp)
{
    struct moon_loop *loop = res_of(udp)->loop;
    if (udp->is_draining)
        return;
    udp->is_draining = true;
    for (struct moon_list *at = udp->sessions.next; at != &udp->sessions; at = at->next)
        moon_loop_timer_add(loop, &MOON_CONTAINER(at, struct session, node)->timer, DRAIN_IDLE_MS);
    if (udp->session_count == 0)
        moon_loop_defer(loop, &udp->task);
}

void moon_udp_free(struct moon_udp *udp)
{
    if (!udp)
        return;
    udp->is_draining = true;
    while (!moon_list_is_empty(&udp->sessions))
        session_end(MOON_CONTAINER(udp->sessions.next, struct session, node));
    moon_task_cancel(&udp->task);
    moon_loop_accept_stop(res_of(udp)->loop, udp->args.socket);
    moon_socket_free(udp->args.socket);
    free(udp->batch);
    free(udp->bytes);
    free(udp->buckets);
    free(udp);
}

const struct moon_socket *moon_udp_socket(const struct moon_udp *udp)
{
    return udp->args.socket;
}

size_t moon_udp_session_count(const struct moon_udp *udp)
{
    return udp->session_count;
}

bool moon_udp_survey(const struct moon_udp *udp, moon_survey_fn *fn, void *owner)
{
    uint64_t now_ms = moon_loop_now_ms(res_of(udp)->loop);
    for (const struct moon_list *at = udp->sessions.next; at != &udp->sessions; at = at->next) {
        const struct session *session = MOON_CONTAINER(at, const struct session, node);
        struct moon_survey_row row = {.number = session->number,
                                      .state = "udp",
                                      .age_ms = now_ms - session->start_ms,
                                      .client = session->client,
                                      .endpoint = session->endpoint,
                                      .listener = moon_slice_from(session->listener),
                                      .route = moon_slice_from(session->route),
                                      .upstream = moon_slice_from(session->upstream)};
        if (!fn(owner, &row))
            return false;
    }
    return true;
}
