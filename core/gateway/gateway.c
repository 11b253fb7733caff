// The process as a whole: configuration in, sockets open, workers running, and the way out.
//
//   new (compile, open sockets, make workers) -> run (threads) -> drain -> every worker drained -> loops stop -> free
//
// The control thread owns this struct; workers reach it only through its mailbox.
#include "base/dicts.h"
#include "base/err.h"
#include "conf/settings.h"
#include "edge/census.h"
#include "exchange/access.h"
#include "exchange/health_monitor.h"
#include "gateway/certificates.h"
#include "gateway/explain.h"
#include "gateway/gateway_priv.h"
#include "gateway/obtain.h"
#include "io/loop.h"
#include "io/tls.h"
#include "io/world.h"
#include "obs/log.h"
#include "obs/renewals.h"
#include "route/listener.h"
#include "upstream/discovery.h"
#include "upstream/name_desk.h"
#include "upstream/registry.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

enum { RESERVED_DESCRIPTORS = 16, WORKER_DESCRIPTORS = 6, SETTLE_MS = 1000 };

// ---- the way out

static void everything_drained(struct moon_gateway *gateway)
{
    gateway->is_over = true;
    for (unsigned i = 0; i < gateway->seat_count; i++)
        moon_loop_stop(gateway->seats[i].loop);
    moon_loop_stop(gateway->control.loop);
}

// Said when every worker drains: who reads it may count on it.
static bool take_draining(struct moon_gateway *gateway, const struct moon_message *message)
{
    bool is_it = false;
    for (unsigned i = 0; i < gateway->seat_count; i++)
        is_it |= message == &gateway->seats[i].draining;
    if (is_it && ++gateway->draining_count == gateway->seat_count)
        moon_log_info(gateway->args.log, "draining");
    return is_it;
}

// Said when every worker runs and takes connections; one whose scripts cannot start ends the gateway.
static void tell_ready(struct moon_gateway *gateway)
{
    if (!gateway->is_running || gateway->started_count < gateway->seat_count)
        return;
    if (gateway->run_err) {
        moon_gateway_drain(gateway);
        return;
    }
    moon_log_info(gateway->args.log, "ready (%u worker%s)", gateway->seat_count,
                  gateway->seat_count == 1 ? "" : "s");
    moon_world_notify(gateway->args.world, "READY=1");
    if (!gateway->args.is_last_good)
        moon_last_good_keep(&gateway->last_good);
}

static bool take_started(struct moon_gateway *gateway, const struct moon_message *message)
{
    for (unsigned i = 0; i < gateway->seat_count; i++) {
        if (message != &gateway->seats[i].started)
            continue;
        if (gateway->seats[i].start_err)
            gateway->run_err = gateway->seats[i].start_err;
        gateway->started_count++;
        tell_ready(gateway);
        return true;
    }
    return false;
}

static void on_message(void *owner, struct moon_message *message)
{
    struct moon_gateway *gateway = owner;
    if (take_draining(gateway, message) || take_started(gateway, message))
        return;
    if (message == &gateway->control.drained) {
        everything_drained(gateway);
        return;
    }
    if (++gateway->drained_count < gateway->seat_count)
        return;
    if (gateway->control.worker)
        moon_worker_stop(gateway->control.worker); // admin answers to the last
    else
        everything_drained(gateway);
}

static void on_started(void *owner, struct moon_worker *worker, int err)
{
    (void)worker;
    struct moon_seat *seat = owner;
    seat->start_err = err;
    moon_mailbox_post(seat->gateway->mailbox, &seat->started);
}

static void on_draining(void *owner, struct moon_worker *worker)
{
    (void)worker;
    struct moon_seat *seat = owner;
    if (seat != &seat->gateway->control)
        moon_mailbox_post(seat->gateway->mailbox, &seat->draining);
}

static void on_drained(void *owner, struct moon_worker *worker)
{
    (void)worker;
    struct moon_seat *seat = owner;
    moon_mailbox_post(seat->gateway->mailbox, &seat->drained);
}

void moon_gateway_drain(struct moon_gateway *gateway)
{
    bool was_draining = atomic_exchange(&gateway->is_draining, true);
    moon_world_notify(gateway->args.world, "STOPPING=1");
    for (unsigned i = 0; i < gateway->seat_count; i++) {
        if (was_draining)
            moon_worker_stop(gateway->seats[i].worker);
        else
            moon_worker_drain(gateway->seats[i].worker);
    }
    if (was_draining)
        moon_log_info(gateway->args.log, "stopping at once");
}

void moon_gateway_reload(struct moon_gateway *gateway, struct moon_reload_waiter *waiter)
{
    moon_reload_request(&gateway->reload, waiter);
}

bool moon_gateway_is_over(const struct moon_gateway *gateway)
{
    return gateway->is_over;
}

// ---- opening

static unsigned index_of(const struct moon_gateway *gateway, const struct moon_seat *seat)
{
    return seat == &gateway->control ? gateway->seat_count : (unsigned)(seat - gateway->seats);
}

// Control's own requests are not logged.
static struct moon_ring *access_ring_of(struct moon_gateway *gateway, const struct moon_seat *seat)
{
    if (seat == &gateway->control)
        return NULL;
    return moon_telemetry_ring(gateway->telemetry, index_of(gateway, seat));
}

static void on_retired(void *owner, struct moon_generation *generation)
{
    struct moon_seat *seat = owner;
    moon_gateway_bury(seat->gateway, generation);
}

int moon_seat_fill(struct moon_gateway *gateway, struct moon_seat *seat,
                   struct moon_snapshot *snapshot, struct moon_connection_budget *connections)
{
    bool is_control = seat == &gateway->control;
    struct moon_worker_args args = {.loop = seat->loop,
                                    .index = index_of(gateway, seat),
                                    .snapshot = snapshot,
                                    .buffers = &gateway->buffers,
                                    .connections = connections,
                                    .log = gateway->args.log,
                                    .generation =
                                        is_control ? NULL : moon_snapshot_generation(snapshot),
                                    .on_started = is_control ? NULL : on_started,
                                    .on_retired = on_retired,
                                    .tls = gateway->tls,
                                    .names = gateway->name_desk,
                                    .certificates = gateway->certificate_orders,
                                    .on_draining = on_draining,
                                    .access_ring = access_ring_of(gateway, seat),
                                    .on_drained = on_drained,
                                    .owner = seat};
    seat->gateway = gateway;
    seat->worker = moon_worker_new(&args);
    return seat->worker ? 0 : -ENOMEM;
}

// Every socket finds an owner: its worker, or, after an error, nobody, and is closed.
static int make_workers(struct moon_gateway *gateway)
{
    int err = 0;
    for (unsigned i = 0; i < gateway->seat_count; i++) {
        struct moon_seat *seat = &gateway->seats[i];
        if (!err)
            seat->loop = moon_loop_new(gateway->args.world);
        if (!err)
            err = seat->loop
                      ? moon_seat_fill(gateway, seat, gateway->snapshot, &gateway->connections)
                      : -EMFILE;
        for (size_t k = 0; k < gateway->ports.count; k++) {
            struct moon_socket *socket = gateway->ports.items[k].sockets[i];
            if (!err)
                err = moon_worker_listen(seat->worker, socket, (uint32_t)k);
            if (err)
                moon_socket_free(socket);
        }
    }
    return err;
}

static int open_ports(struct moon_gateway *gateway, struct moon_report *report)
{
    struct moon_ports_args args = {gateway->args.world,
                                   moon_snapshot_listeners(gateway->snapshot),
                                   NULL,
                                   gateway->seat_count,
                                   gateway->args.log,
                                   report};
    return moon_ports_open(&args, &gateway->ports);
}

struct moon_telemetry_args moon_gateway_telemetry_args(const struct moon_gateway *gateway,
                                                       const struct moon_snapshot *snapshot,
                                                       struct moon_report *report)
{
    struct moon_telemetry_args args = {.log = moon_snapshot_access_log(snapshot),
                                       .worker_count = gateway->seat_count,
                                       .report = report};
    const struct moon_model *model = moon_snapshot_model(snapshot);
    for (size_t i = 0; i < moon_model_count(model); i++)
        if (strcmp(moon_model_at(model, i)->kind, "settings") == 0)
            args.place = moon_model_at(model, i)->place;
    return args;
}

void moon_gateway_size_budgets(struct moon_gateway *gateway)
{
    enum { BUFFERS_MAX_LEN = 1 << 30, CONNECTIONS_MIN = 8 };
    const struct moon_settings *settings = moon_snapshot_settings(gateway->snapshot);
    size_t quarter = moon_world_memory_len(gateway->args.world) / 4;
    size_t descriptors = moon_world_descriptor_limit(gateway->args.world);
    size_t reserve =
        RESERVED_DESCRIPTORS + (size_t)gateway->seat_count * WORKER_DESCRIPTORS + descriptors / 10;
    // each may need one upstream
    size_t room = descriptors > reserve ? (descriptors - reserve) / 2 : 0;
    size_t connections = room > CONNECTIONS_MIN ? room : CONNECTIONS_MIN;
    if (settings->limits.connections && settings->limits.connections < connections)
        connections = settings->limits.connections;
    atomic_store(&gateway->buffers.max_len, settings->limits.buffer_bytes
                                                ? settings->limits.buffer_bytes
                                            : quarter < BUFFERS_MAX_LEN ? quarter
                                                                        : BUFFERS_MAX_LEN);
    atomic_store(&gateway->connections.max_count, connections);
    atomic_store(&gateway->admin_connections.max_count, CONNECTIONS_MIN);
}

void moon_gateway_log_warnings(const struct moon_log *log, const struct moon_report *report)
{
    char *text = moon_report_warnings(report), *rest = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
        moon_log_warn(log, "%s", line);
    free(text);
}

static int open_key_log(struct moon_gateway *gateway, struct moon_report *report)
{
    const char *path = moon_snapshot_settings(gateway->snapshot)->tls_key_log;
    int err = moon_tls_hub_log_keys(gateway->tls, path);
    if (err)
        moon_report_addf(report, (struct moon_place){NULL, 0}, "settings", "tls.key_log", NULL,
                         "cannot write %s: %s", path, moon_err_text(err));
    else if (path)
        moon_log_warn(gateway->args.log, "secrets of TLS connections are written to %s", path);
    return err;
}

int moon_gateway_new(const struct moon_gateway_args *args, struct moon_report *report,
                     struct moon_gateway **out)
{
    struct moon_gateway *gateway = calloc(1, sizeof *gateway);
    if (!gateway)
        abort();
    gateway->args = *args;
    gateway->args.is_refused = NULL;
    gateway->registry = moon_registry_new();
    gateway->connections.census = moon_census_new();
    gateway->admin_connections.census = gateway->connections.census;
    gateway->tls = moon_tls_hub_new(args->world);
    gateway->renewals = moon_renewals_new();
    gateway->telemetry = moon_telemetry_new(args->world, args->log);
    moon_sections_init(&gateway->sections, args->filters, gateway->registry, gateway->tls, NULL,
                       moon_telemetry_names(gateway->telemetry));
    int err =
        moon_sections_compile(&gateway->sections, args->model, NULL, report, &gateway->snapshot);
    if (args->is_refused)
        *args->is_refused = err != 0;
    if (err)
        goto fail;
    moon_snapshot_set_number(gateway->snapshot, 1);
    const struct moon_settings *settings = moon_snapshot_settings(gateway->snapshot);
    gateway->seat_count = args->workers ? args->workers : settings->workers;
    if (gateway->seat_count == 0)
        gateway->seat_count = moon_world_cpu_count(args->world);
    gateway->seats = calloc(gateway->seat_count, sizeof *gateway->seats);
    moon_tls_hub_set_workers(gateway->tls, gateway->seat_count + 1);
    err = open_key_log(gateway, report);
    gateway->control.loop = moon_loop_new(args->world);
    if (!gateway->seats)
        abort();
    if (!gateway->control.loop) {
        err = -EMFILE;
        goto fail;
    }
    gateway->start_ms = moon_loop_now_ms(gateway->control.loop);
    gateway->mailbox = moon_mailbox_new(gateway->control.loop, on_message, gateway);
    moon_gateway_scripts_init(gateway);
    moon_certificates_init(gateway);
    int link_err = moon_snapshot_link(gateway->snapshot, NULL, &gateway->scripts, report);
    if (args->is_refused)
        *args->is_refused = link_err != 0;
    err = err ? err : link_err;
    gateway->discovery = moon_discovery_new(gateway->control.loop, args->log);
    moon_discovery_use(gateway->discovery, gateway->snapshot);
    gateway->name_desk = moon_name_desk_new(gateway->control.loop, args->log);
    moon_name_desk_use(gateway->name_desk, gateway->snapshot);
    moon_gateway_size_budgets(gateway);
    gateway->health =
        moon_health_monitor_new(&(struct moon_health_monitor_args){.loop = gateway->control.loop,
                                                                   .registry = gateway->registry,
                                                                   .buffers = &gateway->buffers,
                                                                   .log = args->log,
                                                                   .worker = gateway->seat_count});
    moon_reload_init(&gateway->reload, gateway);
    moon_surveys_init(&gateway->surveys, gateway);
    moon_last_good_init(&gateway->last_good, gateway);
    struct moon_telemetry_args telemetry_args =
        moon_gateway_telemetry_args(gateway, gateway->snapshot, report);
    if (!err)
        err = moon_telemetry_open(gateway->telemetry, &telemetry_args);
    if (!err)
        err = open_ports(gateway, report);
    if (!err)
        err = make_workers(gateway);
    if (!err)
        err = moon_admin_open(gateway, report);
    if (err)
        goto fail;
    moon_gateway_log_warnings(args->log, report);
    *out = gateway;
    return 0;
fail:
    if (moon_report_count(report) == 0)
        moon_report_addf(report, (struct moon_place){NULL, 0}, NULL, NULL, NULL, "cannot start: %s",
                         moon_err_text(err));
    moon_gateway_free(gateway);
    return err;
}

int moon_gateway_check(struct moon_world *world, struct moon_model *model,
                       const struct moon_filter_type *const *filters, struct moon_report *report)
{
    struct moon_snapshot *snapshot = NULL;
    struct moon_sections sections = {0};
    struct moon_script_host scripts = {0};
    struct moon_registry *registry = moon_registry_new();
    struct moon_tls_hub *tls = moon_tls_hub_new(world);
    moon_sections_init(&sections, filters, registry, tls, NULL, NULL);
    int err = moon_sections_compile(&sections, model, NULL, report, &snapshot);
    if (!err)
        err = moon_snapshot_link(snapshot, NULL, &scripts, report);
    moon_snapshot_unref(snapshot);
    moon_registry_free(registry);
    moon_tls_hub_free(tls);
    return err;
}

int moon_gateway_explain(const struct moon_explain_args *args, struct moon_report *report,
                         char **out)
{
    struct moon_snapshot *snapshot = NULL;
    struct moon_sections sections = {0};
    struct moon_explain_question question;
    char *text;
    size_t len;
    struct moon_registry *registry = moon_registry_new();
    struct moon_tls_hub *tls = moon_tls_hub_new(args->world);
    moon_sections_init(&sections, args->filters, registry, tls, NULL, NULL);
    int err = moon_sections_compile(&sections, args->model, NULL, report, &snapshot);
    if (err) {
        moon_registry_free(registry);
        moon_tls_hub_free(tls);
        return err;
    }
    FILE *stream = open_memstream(out, &len);
    if (!stream)
        abort();
    moon_explain_read_query(args->query, &question, &text);
    moon_explain_write_json(snapshot, NULL, &question, stream);
    if (fclose(stream) != 0)
        abort();
    free(text);
    moon_snapshot_unref(snapshot);
    moon_registry_free(registry);
    moon_tls_hub_free(tls);
    return 0;
}

static void seat_fini(struct moon_seat *seat)
{
    moon_worker_free(seat->worker);
    moon_loop_free(seat->loop);
}

void moon_gateway_free(struct moon_gateway *gateway)
{
    if (!gateway)
        return;
    moon_certificates_stop(gateway);
    moon_name_desk_free(gateway->name_desk); // it has questions of workers
    for (unsigned i = 0; gateway->seats && i < gateway->seat_count; i++)
        seat_fini(&gateway->seats[i]);
    moon_gateway_end_control(gateway);
    moon_obtain_stop(gateway);
    moon_worker_free(gateway->control.worker);
    moon_reload_fini(&gateway->reload);
    moon_surveys_fini(&gateway->surveys);
    moon_last_good_fini(&gateway->last_good);
    moon_health_monitor_free(gateway->health);
    moon_discovery_free(gateway->discovery);
    moon_gateway_scripts_fini(gateway);
    moon_certificates_fini(gateway);
    moon_mailbox_free(gateway->mailbox);
    moon_loop_free(gateway->control.loop);
    moon_ports_fini(&gateway->ports, NULL, false);
    moon_telemetry_free(gateway->telemetry);
    moon_snapshot_unref(gateway->snapshot);
    moon_snapshot_unref(gateway->admin_snapshot);
    moon_dicts_free(gateway->scripts.dicts); // after the last VM
    moon_registry_free(gateway->registry);
    moon_census_free(gateway->connections.census);
    moon_tls_hub_free(gateway->tls);
    moon_renewals_free(gateway->renewals);
    free(gateway->seats);
    free(gateway);
}

// ---- running

static void on_signal(void *owner, int signal_number)
{
    struct moon_gateway *gateway = owner;
    if (signal_number == SIGHUP)
        moon_gateway_reload(gateway, NULL);
    else if (signal_number == SIGUSR1)
        moon_telemetry_reopen(gateway->telemetry);
    else
        moon_gateway_drain(gateway);
}

static void worker_thread(void *arg)
{
    struct moon_seat *seat = arg;
    moon_loop_run(seat->loop);
}

// Connections that come before wait in the kernel's queues.
static void start_workers(void *owner)
{
    struct moon_gateway *gateway = owner;
    for (unsigned i = 0; i < gateway->seat_count && !gateway->run_err; i++)
        gateway->run_err = moon_thread_start(gateway->args.world, worker_thread, &gateway->seats[i],
                                             &gateway->seats[i].thread);
    if (gateway->run_err) {
        moon_log_error(gateway->args.log, "a worker cannot start: %s",
                       moon_err_text(gateway->run_err));
        everything_drained(gateway);
        return;
    }
    moon_gateway_run_control(gateway);
    moon_health_monitor_use(gateway->health, gateway->snapshot);
    gateway->is_running = true;
    tell_ready(gateway);
    moon_certificates_watch(gateway);
    moon_obtain_use(gateway);
}

int moon_gateway_run(struct moon_gateway *gateway)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1};
    int err = 0;
    for (size_t i = 0; i < sizeof signals / sizeof *signals && !err; i++)
        err = moon_loop_signal(gateway->control.loop, signals[i], on_signal, gateway);
    if (!err)
        err = moon_telemetry_start(gateway->telemetry);
    if (err) {
        moon_log_error(gateway->args.log, "cannot start: %s", moon_err_text(err));
        return err;
    }
    // Host names are given a moment, so that a restart does not begin with 503s.
    moon_discovery_settle(gateway->discovery, SETTLE_MS, start_workers, gateway);
    err = moon_loop_run(gateway->control.loop);
    for (unsigned i = 0; i < gateway->seat_count; i++)
        moon_thread_join(gateway->seats[i].thread);
    moon_telemetry_stop(gateway->telemetry);
    moon_log_info(gateway->args.log, "stopped");
    return gateway->run_err ? gateway->run_err : err;
}

void moon_gateway_address(const struct moon_gateway *gateway, size_t index,
                          struct moon_address *out)
{
    *out = gateway->ports.items[index].bound;
}

const struct moon_counters *moon_gateway_counters(const struct moon_gateway *gateway, size_t index)
{
    return index < gateway->seat_count ? moon_worker_counters(gateway->seats[index].worker) : NULL;
}

size_t moon_gateway_buffer_len(const struct moon_gateway *gateway)
{
    size_t len = 0;
    for (unsigned i = 0; i < gateway->seat_count; i++)
        len += moon_worker_buffer_len(gateway->seats[i].worker);
    return len;
}
