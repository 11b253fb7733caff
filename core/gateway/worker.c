// A worker's life: serve, drain, stop.
//
//   serving --drain--> draining --nothing left, or drain_ms over, or stop--> stopping --tasks have run--> drained
#include "gateway/worker.h"

#include "base/arena.h"
#include "base/buffer.h"
#include "base/json.h"
#include "conf/settings.h"
#include "exchange/action.h"
#include "exchange/exchange.h"
#include "exchange/survey.h"
#include "io/loop.h"
#include "io/world.h"
#include "link/resources.h"
#include "obs/counters.h"
#include "obs/heartbeat.h"
#include "obs/histogram.h"
#include "obs/log.h"
#include "obs/series.h"
#include "route/route.h"
#include "upstream/pool.h"
#include "upstream/upstream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { ARENA_KEEP_COUNT = 1024, DRAIN_CHECK_MS = 20 };

enum order { ORDER_DRAIN, ORDER_STOP, ORDER_COUNT };

struct moon_worker {
    struct moon_worker_args args;
    struct moon_resources res;
    struct moon_service service;
    struct moon_counters counters;
    struct moon_heartbeat heartbeat;
    struct moon_histogram turns;
    struct moon_edge *edge;
    struct moon_mailbox *mailbox, *surveys;
    struct moon_message orders[ORDER_COUNT]; // each is posted at most once
    atomic_bool is_posted[ORDER_COUNT];
    struct moon_timer drain_check;
    uint64_t drain_deadline_ms;
    bool is_draining, is_drained;
};

static void finish(struct moon_worker *worker)
{
    if (worker->is_drained)
        return;
    worker->is_drained = true;
    moon_pool_drain(worker->service.pool);
    worker->args.on_drained(worker->args.owner, worker);
}

static void stop_now(struct moon_worker *worker)
{
    moon_edge_drain(worker->edge);
    moon_exchange_stop_all(&worker->service);
    moon_edge_close_all(worker->edge);
}

static bool is_idle(const struct moon_worker *worker)
{
    return moon_edge_connection_count(worker->edge) == 0 &&
           moon_list_is_empty(&worker->res.exchanges) && moon_list_is_empty(&worker->res.relays);
}

static void on_drain_check(struct moon_timer *timer)
{
    struct moon_worker *worker = MOON_CONTAINER(timer, struct moon_worker, drain_check);
    struct moon_loop *loop = worker->args.loop;
    if (!is_idle(worker) && moon_loop_now_ms(loop) >= worker->drain_deadline_ms)
        stop_now(worker);
    if (is_idle(worker))
        finish(worker);
    else
        moon_loop_timer_add(loop, timer, DRAIN_CHECK_MS);
}

static void begin_drain(struct moon_worker *worker, uint64_t within_ms)
{
    struct moon_loop *loop = worker->args.loop;
    worker->drain_deadline_ms = moon_loop_now_ms(loop) + within_ms;
    if (!worker->is_draining) {
        worker->is_draining = true;
        moon_edge_drain(worker->edge);
        moon_pool_drain(worker->service.pool);
        if (worker->args.on_draining)
            worker->args.on_draining(worker->args.owner, worker);
    }
    moon_loop_timer_add(loop, &worker->drain_check, 0);
}

static void take_switch(struct moon_worker *worker, struct moon_worker_switch *change)
{
    for (size_t i = 0; i < change->removed_count; i++) // on the snapshot that has them
        moon_edge_unlisten(worker->edge, change->removed[i]);
    moon_service_switch(&worker->service, change->snapshot);
    for (size_t i = 0; i < change->kept_count; i++)
        moon_edge_rebind(worker->edge, change->kept[i].socket, change->kept[i].bind);
    for (size_t i = 0; i < change->added_count; i++) {
        const struct moon_worker_socket *added = &change->added[i];
        int err = worker->is_draining ? -ECANCELED
                                      : moon_edge_listen(worker->edge, added->socket, added->bind);
        if (!err)
            continue;
        moon_socket_free(added->socket);
        change->err = err;
    }
    change->on_switched(change->owner, change);
}

static void on_order(void *owner, struct moon_message *message)
{
    struct moon_worker *worker = owner;
    bool is_order =
        message == &worker->orders[ORDER_DRAIN] || message == &worker->orders[ORDER_STOP];
    if (!is_order) {
        take_switch(worker, MOON_CONTAINER(message, struct moon_worker_switch, message));
        return;
    }
    bool is_stop = message == &worker->orders[ORDER_STOP];
    begin_drain(worker, is_stop ? 0 : worker->res.settings->timeouts.drain_ms);
}

// ---- surveys

struct surveying {
    struct moon_worker_survey *survey;
    FILE *out;
};

static void write_text(FILE *out, const char *key, struct moon_slice text)
{
    fprintf(out, ",\"%s\":", key);
    if (text.ptr)
        moon_json_text(out, text);
    else
        fputs("null", out);
}

static void write_address(FILE *out, const char *key, const struct moon_address *address)
{
    char text[MOON_ADDRESS_TEXT_LEN];
    if (address->family == MOON_FAMILY_NONE) {
        fprintf(out, ",\"%s\":null", key);
        return;
    }
    moon_address_format(address, text);
    fprintf(out, ",\"%s\":\"%s\"", key, text);
}

static bool write_row(void *owner, const struct moon_survey_row *row)
{
    struct surveying *at = owner;
    FILE *out = at->out;
    if (at->survey->row_count == at->survey->limit)
        return false;
    fprintf(out,
            "%s{\"id\":\"%u-%llu\",\"worker\":%u,\"state\":\"%s\",\"age_ms\":%llu,"
            "\"requests\":%u",
            at->survey->row_count++ ? ",\n" : "", at->survey->worker,
            (unsigned long long)row->number, at->survey->worker, row->state,
            (unsigned long long)row->age_ms, row->request_count);
    write_address(out, "client", &row->client);
    write_text(out, "listener", row->listener);
    write_text(out, "route", row->route);
    write_text(out, "upstream", row->upstream);
    write_address(out, "endpoint", &row->endpoint);
    fputc('}', out);
    return true;
}

static void on_survey(void *owner, struct moon_message *message)
{
    struct moon_worker *worker = owner;
    struct moon_worker_survey *survey = MOON_CONTAINER(message, struct moon_worker_survey, message);
    struct surveying at = {survey, open_memstream(&survey->text, &survey->text_len)};
    if (!at.out)
        abort();
    if (moon_exchange_survey(&worker->service, write_row, &at))
        moon_edge_survey(worker->edge, write_row, &at);
    if (fclose(at.out) != 0)
        abort();
    survey->on_surveyed(survey->owner, survey);
}

void moon_worker_survey(struct moon_worker *worker, struct moon_worker_survey *survey)
{
    moon_mailbox_post(worker->surveys, &survey->message);
}

// ---- public

static void post(struct moon_worker *worker, enum order order)
{
    if (!atomic_exchange(&worker->is_posted[order], true))
        moon_mailbox_post(worker->mailbox, &worker->orders[order]);
}

void moon_worker_drain(struct moon_worker *worker)
{
    post(worker, ORDER_DRAIN);
}

void moon_worker_stop(struct moon_worker *worker)
{
    post(worker, ORDER_STOP);
}

void moon_worker_switch(struct moon_worker *worker, struct moon_worker_switch *change)
{
    moon_mailbox_post(worker->mailbox, &change->message);
}

struct moon_worker *moon_worker_new(const struct moon_worker_args *args)
{
    struct moon_worker *worker = aligned_alloc(64, (sizeof *worker + 63) / 64 * 64);
    if (!worker)
        abort();
    memset(worker, 0, sizeof *worker);
    worker->args = *args;
    struct moon_resources *res = &worker->res;
    res->loop = args->loop;
    res->arenas = moon_arena_pool_new(ARENA_KEEP_COUNT);
    res->buffers = moon_buffer_pool_new(args->buffers);
    res->counters = &worker->counters;
    res->series = moon_series_new();
    res->access_ring = args->access_ring;
    res->log = args->log;
    res->read_buffer = malloc(MOON_READ_BODY_LEN);
    if (!res->read_buffer)
        abort();
    moon_list_init(&res->exchanges);
    moon_list_init(&res->relays);
    moon_loop_random(args->loop, res->id_seed, sizeof res->id_seed);
    worker->service.res = res;
    moon_service_switch(&worker->service, args->snapshot);
    worker->service.pool =
        moon_pool_new(res, moon_upstreams_registry(moon_snapshot_upstreams(args->snapshot)));
    worker->service.route_scratch = moon_route_scratch_new(res->settings->limits.header_bytes +
                                                           res->settings->limits.target_bytes);
    worker->edge = moon_edge_new(&worker->service, args->connections);
    worker->mailbox = moon_mailbox_new(args->loop, on_order, worker);
    worker->surveys = moon_mailbox_new(args->loop, on_survey, worker);
    worker->drain_check.fn = on_drain_check;
    args->loop->owner = worker;
    args->loop->turns = &worker->turns;
    args->loop->heartbeat = &worker->heartbeat;
    return worker;
}

void moon_worker_free(struct moon_worker *worker)
{
    if (!worker)
        return;
    moon_edge_free(worker->edge);
    moon_pool_free(worker->service.pool);
    moon_loop_timer_del(worker->args.loop, &worker->drain_check);
    moon_mailbox_free(worker->mailbox);
    moon_mailbox_free(worker->surveys);
    moon_loop_run_tasks(worker->args.loop); // links free themselves in one
    moon_buffer_pool_free(worker->res.buffers);
    moon_arena_pool_free(worker->res.arenas);
    moon_route_scratch_free(worker->service.route_scratch);
    free(worker->res.read_buffer);
    moon_series_free(worker->res.series);
    worker->args.loop->turns = NULL;
    worker->args.loop->heartbeat = NULL;
    moon_service_fini(&worker->service);
    free(worker);
}

int moon_worker_listen(struct moon_worker *worker, struct moon_socket *socket, uint32_t bind)
{
    return moon_edge_listen(worker->edge, socket, bind);
}

struct moon_loop *moon_worker_loop(const struct moon_worker *worker)
{
    return worker->args.loop;
}

size_t moon_worker_buffer_len(const struct moon_worker *worker)
{
    return moon_buffer_pool_used_len(worker->res.buffers);
}

const struct moon_counters *moon_worker_counters(const struct moon_worker *worker)
{
    return &worker->counters;
}

const struct moon_series *moon_worker_series(const struct moon_worker *worker)
{
    return worker->res.series;
}

const struct moon_histogram *moon_worker_turns(const struct moon_worker *worker)
{
    return &worker->turns;
}

const struct moon_heartbeat *moon_worker_heartbeat(const struct moon_worker *worker)
{
    return &worker->heartbeat;
}
