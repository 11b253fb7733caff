// A worker's life: serve, drain, stop.
//
//   serving --drain--> draining --nothing left, or drain_ms over, or stop--> stopping --tasks have run--> drained
#include "gateway/worker.h"

#include "base/arena.h"
#include "base/buffer.h"
#include "base/json.h"
#include "conf/settings.h"
#include "exchange/action.h"
#include "exchange/call.h"
#include "exchange/exchange.h"
#include "exchange/relay.h"
#include "exchange/survey.h"
#include "gateway/certificates.h"
#include "http/h2.h"
#include "io/loop.h"
#include "io/tls.h"
#include "io/world.h"
#include "link/resources.h"
#include "obs/counters.h"
#include "obs/heartbeat.h"
#include "obs/histogram.h"
#include "obs/log.h"
#include "obs/series.h"
#include "route/route.h"
#include "script/generation.h"
#include "script/vm.h"
#include "upstream/names.h"
#include "upstream/pool.h"
#include "upstream/upstream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { ARENA_KEEP_COUNT = 1024, DRAIN_CHECK_MS = 20 };
// Old generations end with their last exchange; with this or that bound, exchanges go on without them.
enum { RETIRED_CHECK_MS = 250, RETIRED_MAX_MS = 60000, RETIRED_MAX_COUNT = 3 };

struct retired {
    struct moon_generation *generation;
    uint64_t deadline_ms;
};

enum order { ORDER_DRAIN, ORDER_STOP, ORDER_SETTLE, ORDER_COUNT };

struct moon_worker {
    struct moon_worker_args args;
    struct moon_resources res;
    struct moon_service service;
    struct moon_counters counters;
    struct moon_heartbeat heartbeat;
    struct moon_histogram turns;
    struct moon_edge *edge;
    struct moon_certificate_window *certificates; // NULL: no script gives any
    struct moon_mailbox *mailbox, *switches, *starts, *surveys;
    struct moon_message orders[ORDER_COUNT]; // each is posted at most once at a time
    atomic_bool is_posted[ORDER_COUNT];
    struct moon_timer drain_check;
    uint64_t drain_deadline_ms;
    bool is_draining, is_drained;
    struct moon_generation *generation;
    struct retired retired[RETIRED_MAX_COUNT]; // oldest first
    unsigned retired_count;
    struct moon_timer retired_check;
    struct moon_worker_start *start; // under way
    // started or starting, not serving yet: the sender's, who outlives the worker
    struct moon_generation *candidate;
    struct moon_worker_socket *held; // sockets that wait for the first generation's start
    size_t held_count;
    bool is_started;
};

// ---- generations

static struct moon_vm *vm_of(const struct moon_worker *worker, struct moon_generation *generation)
{
    return moon_generation_vm(generation, worker->args.index);
}

static struct moon_vm_seat seat_of(struct moon_worker *worker)
{
    return (struct moon_vm_seat){
        .loop = worker->args.loop,
        .service = &worker->service,
        .certificates =
            worker->certificates ? moon_certificate_window_ops(worker->certificates) : NULL,
        .counters = &worker->counters,
        .log = worker->args.log,
        .worker = worker->args.index};
}

static void count_states(struct moon_worker *worker)
{
    moon_count_set(&worker->counters.lua_states,
                   worker->retired_count + (worker->generation ? 1 : 0));
}

static void let_go(struct moon_worker *worker, unsigned index)
{
    struct moon_generation *generation = worker->retired[index].generation;
    moon_vm_close(vm_of(worker, generation));
    worker->retired_count--;
    memmove(&worker->retired[index], &worker->retired[index + 1],
            (worker->retired_count - index) * sizeof worker->retired[0]);
    count_states(worker);
    if (worker->args.on_retired)
        worker->args.on_retired(worker->args.owner, generation);
    else
        moon_generation_unref(generation);
}

static void on_retired_check(struct moon_timer *timer)
{
    struct moon_worker *worker = MOON_CONTAINER(timer, struct moon_worker, retired_check);
    uint64_t now_ms = moon_loop_now_ms(worker->args.loop);
    for (unsigned i = worker->retired_count; i > 0; i--) {
        const struct retired *retired = &worker->retired[i - 1];
        struct moon_vm *vm = vm_of(worker, retired->generation);
        if (moon_vm_exchange_count(vm) == 0 || now_ms >= retired->deadline_ms + RETIRED_CHECK_MS)
            let_go(worker, i - 1);
        else if (now_ms >= retired->deadline_ms)
            moon_vm_fail(vm); // the next look closes it
    }
    if (worker->retired_count)
        moon_loop_timer_add(worker->args.loop, timer, RETIRED_CHECK_MS);
}

static void retire(struct moon_worker *worker, struct moon_generation *generation)
{
    if (!generation)
        return;
    moon_vm_stop(vm_of(worker, generation));
    if (worker->retired_count == RETIRED_MAX_COUNT)
        let_go(worker, 0);
    worker->retired[worker->retired_count++] =
        (struct retired){generation, moon_loop_now_ms(worker->args.loop) + RETIRED_MAX_MS};
    moon_loop_timer_add(worker->args.loop, &worker->retired_check, RETIRED_CHECK_MS);
}

static void take_generation(struct moon_worker *worker, struct moon_generation *generation)
{
    if (generation && generation == worker->generation) {
        moon_vm_age(vm_of(worker, generation));
        return;
    }
    retire(worker, worker->generation);
    worker->generation = moon_generation_ref(generation);
    count_states(worker);
}

static void on_start_done(void *owner, int err)
{
    struct moon_worker *worker = owner;
    struct moon_worker_start *start = worker->start;
    worker->start = NULL;
    start->err = err;
    start->on_done(start->owner, start);
}

static void take_start(struct moon_worker *worker, struct moon_worker_start *start)
{
    struct moon_vm *vm = vm_of(worker, start->generation);
    worker->candidate = start->is_given_up ? NULL : start->generation;
    if (start->is_given_up) {
        moon_vm_close(vm);
        start->on_done(start->owner, start);
        return;
    }
    struct moon_vm_seat seat = seat_of(worker);
    worker->start = start;
    moon_vm_start(vm, &seat, on_start_done, worker);
}

// The first generation: then connections are taken.
static void on_first_started(void *owner, int err)
{
    struct moon_worker *worker = owner;
    worker->is_started = true;
    for (size_t i = 0; i < worker->held_count; i++) {
        int listen_err =
            err ? err
            : worker->is_draining
                ? -ECANCELED
                : moon_edge_listen(worker->edge, worker->held[i].socket, worker->held[i].bind);
        if (listen_err)
            moon_socket_free(worker->held[i].socket);
        err = err || worker->is_draining ? err : listen_err;
    }
    worker->held_count = 0;
    if (worker->args.on_started)
        worker->args.on_started(worker->args.owner, worker, err);
}

static void start_first(struct moon_worker *worker)
{
    struct moon_vm_seat seat = seat_of(worker);
    worker->generation = moon_generation_ref(worker->args.generation);
    count_states(worker);
    if (worker->generation)
        moon_vm_start(vm_of(worker, worker->generation), &seat, on_first_started, worker);
    else
        on_first_started(worker, 0);
}

static void end_generations(struct moon_worker *worker)
{
    if (worker->candidate)
        moon_vm_close(vm_of(worker, worker->candidate));
    if (worker->generation)
        moon_vm_close(vm_of(worker, worker->generation));
    for (unsigned i = 0; i < worker->retired_count; i++) {
        moon_vm_close(vm_of(worker, worker->retired[i].generation));
        moon_generation_unref(worker->retired[i].generation);
    }
    moon_loop_timer_del(worker->args.loop, &worker->retired_check);
    worker->retired_count = 0;
    moon_generation_unref(worker->generation);
    worker->generation = NULL;
}

// ---- the way out

static void finish(struct moon_worker *worker)
{
    if (worker->is_drained)
        return;
    worker->is_drained = true;
    if (worker->generation)
        moon_vm_stop(vm_of(worker, worker->generation));
    moon_call_stop_all(&worker->service);
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
    if (moon_loop_now_ms(loop) + MOON_RELAY_CLOSING_MS >= worker->drain_deadline_ms)
        moon_exchange_close_websockets(&worker->service);
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
    worker->candidate = NULL;
    take_generation(worker, change->generation);
    worker->res.access_ring = change->access_ring;
    for (size_t i = 0; i < change->kept_count; i++)
        moon_edge_rebind(worker->edge, change->kept[i].socket, change->kept[i].bind);
    moon_edge_settle(worker->edge);
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
    if (message == &worker->orders[ORDER_SETTLE]) {
        atomic_store(&worker->is_posted[ORDER_SETTLE], false);
        moon_edge_settle(worker->edge);
        return;
    }
    bool is_stop = message == &worker->orders[ORDER_STOP];
    begin_drain(worker, is_stop ? 0 : worker->res.settings->timeouts.drain_ms);
}

static void on_switch(void *owner, struct moon_message *message)
{
    take_switch(owner, MOON_CONTAINER(message, struct moon_worker_switch, message));
}

static void on_start(void *owner, struct moon_message *message)
{
    take_start(owner, MOON_CONTAINER(message, struct moon_worker_start, message));
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

void moon_worker_settle(struct moon_worker *worker)
{
    post(worker, ORDER_SETTLE);
}

void moon_worker_switch(struct moon_worker *worker, struct moon_worker_switch *change)
{
    moon_mailbox_post(worker->switches, &change->message);
}

void moon_worker_start(struct moon_worker *worker, struct moon_worker_start *start)
{
    moon_mailbox_post(worker->starts, &start->message);
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
    res->tls = args->tls;
    res->worker = args->index;
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
    worker->service.names = moon_names_new(res, args->names);
    moon_list_init(&worker->service.calls);
    worker->service.route_scratch = moon_route_scratch_new(res->settings->limits.header_bytes +
                                                           res->settings->limits.target_bytes);
    worker->edge = moon_edge_new(&worker->service, args->connections);
    worker->mailbox = moon_mailbox_new(args->loop, on_order, worker);
    worker->switches = moon_mailbox_new(args->loop, on_switch, worker);
    worker->starts = moon_mailbox_new(args->loop, on_start, worker);
    worker->surveys = moon_mailbox_new(args->loop, on_survey, worker);
    if (args->certificates)
        worker->certificates = moon_certificate_window_new(args->loop, args->certificates);
    worker->drain_check.fn = on_drain_check;
    worker->retired_check.fn = on_retired_check;
    args->loop->owner = worker;
    args->loop->turns = &worker->turns;
    args->loop->heartbeat = &worker->heartbeat;
    start_first(worker);
    return worker;
}

void moon_worker_free(struct moon_worker *worker)
{
    if (!worker)
        return;
    for (size_t i = 0; i < worker->held_count; i++)
        moon_socket_free(worker->held[i].socket);
    free(worker->held);
    moon_edge_free(worker->edge);
    end_generations(worker);
    moon_pool_free(worker->service.pool);
    moon_tls_client_unref(worker->res.tls_client);
    moon_names_free(worker->service.names);
    moon_loop_timer_del(worker->args.loop, &worker->drain_check);
    moon_mailbox_free(worker->mailbox);
    moon_mailbox_free(worker->switches);
    moon_mailbox_free(worker->starts);
    moon_mailbox_free(worker->surveys);
    moon_certificate_window_free(worker->certificates);
    moon_loop_run_tasks(worker->args.loop); // links free themselves in one
    moon_buffer_pool_free(worker->res.buffers);
    moon_arena_pool_free(worker->res.arenas);
    moon_route_scratch_free(worker->service.route_scratch);
    free(worker->res.read_buffer);
    moon_h2_shape_free(worker->res.h2_shape);
    moon_series_free(worker->res.series);
    worker->args.loop->turns = NULL;
    worker->args.loop->heartbeat = NULL;
    moon_service_fini(&worker->service);
    free(worker);
}

int moon_worker_listen(struct moon_worker *worker, struct moon_socket *socket, uint32_t bind)
{
    if (worker->is_started)
        return moon_edge_listen(worker->edge, socket, bind);
    worker->held = realloc(worker->held, (worker->held_count + 1) * sizeof *worker->held);
    if (!worker->held)
        abort();
    worker->held[worker->held_count++] = (struct moon_worker_socket){socket, bind};
    return 0;
}

struct moon_loop *moon_worker_loop(const struct moon_worker *worker)
{
    return worker->args.loop;
}

struct moon_service *moon_worker_service(struct moon_worker *worker)
{
    return &worker->service;
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
