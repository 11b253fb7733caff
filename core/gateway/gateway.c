// The process as a whole: configuration in, sockets open, workers running, and the way out.
//
//   new (compile, open sockets, make workers) -> run (threads) -> drain -> every worker drained -> loops stop -> free
//
// The control thread owns this struct; workers reach it only through its mailbox.
#include "gateway/gateway.h"

#include "admin/admin.h"
#include "base/address.h"
#include "base/buffer.h"
#include "base/err.h"
#include "conf/settings.h"
#include "edge/listener.h"
#include "exchange/action.h"
#include "gateway/worker.h"
#include "io/loop.h"
#include "io/mailbox.h"
#include "io/world.h"
#include "obs/log.h"
#include "route/route.h"
#include "upstream/discovery.h"
#include "upstream/registry.h"
#include "upstream/upstream.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SECTION_COUNT = 5, RESERVED_DESCRIPTORS = 16, WORKER_DESCRIPTORS = 6, SETTLE_MS = 1000 };

// Sections with their registries filled in; they outlive the snapshot compiled from them.
struct sections {
    struct moon_section upstreams, actions;
    const struct moon_section *order[SECTION_COUNT];
    const struct moon_builtin *builtins[3];
    struct moon_upstream_parts upstream_parts;
};

struct seat {
    struct moon_gateway *gateway;
    struct moon_loop *loop;
    struct moon_worker *worker;
    struct moon_thread *thread;
    struct moon_message drained; // posted once, by the worker
};

struct moon_gateway {
    struct moon_gateway_args args;
    struct sections sections, admin_sections;
    struct moon_registry *registry; // what is known of upstreams beyond any snapshot
    struct moon_snapshot *snapshot, *admin_snapshot;
    struct moon_model *admin_model;
    struct moon_admin_ops admin_ops;
    struct moon_builtin admin_builtin;
    struct moon_buffer_budget buffers;
    struct moon_connection_budget connections, admin_connections;
    struct seat *seats; // of the data workers
    unsigned seat_count, drained_count;
    // listener by listener, worker by worker; NULL once a worker has it
    struct moon_socket **sockets;
    struct moon_address *addresses; // of the listeners, with their real ports
    size_t socket_count;
    struct moon_socket *admin_socket; // the same
    struct seat control;              // its worker only with an admin listener
    struct moon_discovery *discovery; // on the control loop
    struct moon_mailbox *mailbox;
    atomic_bool is_draining;
    bool is_over;
    int run_err; // of starting the threads
};

static void sections_init(struct sections *sections, const struct moon_gateway_args *args,
                          struct moon_registry *registry, const struct moon_builtin *extra)
{
    sections->builtins[0] = &moon_builtin_echo;
    sections->builtins[1] = extra;
    sections->upstreams = moon_upstream_section;
    sections->upstream_parts = (struct moon_upstream_parts){sections->builtins, registry};
    sections->upstreams.registry = &sections->upstream_parts;
    sections->actions = moon_action_section;
    sections->actions.registry = args->filters;
    const struct moon_section *order[SECTION_COUNT] = {&moon_settings_section, &sections->upstreams,
                                                       &moon_route_section, &sections->actions,
                                                       &moon_listener_section};
    memcpy(sections->order, order, sizeof order);
}

// ---- the way out

static void everything_drained(struct moon_gateway *gateway)
{
    gateway->is_over = true;
    for (unsigned i = 0; i < gateway->seat_count; i++)
        moon_loop_stop(gateway->seats[i].loop);
    moon_loop_stop(gateway->control.loop);
}

static void on_message(void *owner, struct moon_message *message)
{
    struct moon_gateway *gateway = owner;
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

static void on_drained(void *owner, struct moon_worker *worker)
{
    (void)worker;
    struct seat *seat = owner;
    moon_mailbox_post(seat->gateway->mailbox, &seat->drained);
}

void moon_gateway_drain(struct moon_gateway *gateway)
{
    bool was_draining = atomic_exchange(&gateway->is_draining, true);
    moon_log_info(gateway->args.log, was_draining ? "stopping at once" : "draining");
    for (unsigned i = 0; i < gateway->seat_count; i++) {
        if (was_draining)
            moon_worker_stop(gateway->seats[i].worker);
        else
            moon_worker_drain(gateway->seats[i].worker);
    }
}

bool moon_gateway_is_over(const struct moon_gateway *gateway)
{
    return gateway->is_over;
}

// ---- what admin may ask

static bool admin_is_ready(void *owner)
{
    struct moon_gateway *gateway = owner;
    return !atomic_load(&gateway->is_draining);
}

static const struct moon_counters *admin_counters(void *owner, size_t index)
{
    return moon_gateway_counters(owner, index);
}

static size_t admin_buffer_len(void *owner)
{
    struct moon_gateway *gateway = owner;
    size_t len = 0;
    for (unsigned i = 0; i < gateway->seat_count; i++)
        len += moon_worker_buffer_len(gateway->seats[i].worker);
    return len;
}

// ---- opening

static int listen_on(struct moon_gateway *gateway, const struct moon_listener *listener,
                     struct moon_report *report, struct moon_address *at)
{
    struct moon_socket **out = gateway->sockets + gateway->socket_count;
    char text[MOON_ADDRESS_TEXT_LEN];
    int err = moon_world_listen(gateway->args.world, &listener->address, gateway->seat_count, out);
    if (err) {
        moon_address_format(&listener->address, text);
        moon_report_addf(report, listener->place, "listener", NULL,
                         err == -EADDRINUSE
                             ? "another process has this port; stop it or take another port"
                             : NULL,
                         "cannot listen on %s: %s", text, moon_err_text(err));
        return err;
    }
    gateway->socket_count += gateway->seat_count;
    moon_socket_address(out[0], at);
    moon_address_format(at, text);
    moon_log_info(gateway->args.log, "listening on %s (%s)", text, listener->name);
    return 0;
}

static int open_sockets(struct moon_gateway *gateway, struct moon_report *report)
{
    const struct moon_listeners *listeners = moon_snapshot_listeners(gateway->snapshot);
    gateway->sockets = calloc(listeners->count * gateway->seat_count, sizeof *gateway->sockets);
    gateway->addresses = calloc(listeners->count, sizeof *gateway->addresses);
    if (!gateway->sockets || !gateway->addresses)
        abort();
    for (size_t i = 0; i < listeners->count; i++) {
        int err = listen_on(gateway, &listeners->listeners[i], report, &gateway->addresses[i]);
        if (err)
            return err;
    }
    return 0;
}

static int make_worker(struct moon_gateway *gateway, struct seat *seat,
                       struct moon_snapshot *snapshot, struct moon_connection_budget *connections)
{
    struct moon_worker_args args = {.loop = seat->loop,
                                    .snapshot = snapshot,
                                    .buffers = &gateway->buffers,
                                    .connections = connections,
                                    .log = gateway->args.log,
                                    .on_drained = on_drained,
                                    .owner = seat};
    seat->gateway = gateway;
    seat->worker = moon_worker_new(&args);
    return seat->worker ? 0 : -ENOMEM;
}

static int give_socket(struct moon_worker *worker, struct moon_socket **socket)
{
    int err = moon_worker_listen(worker, *socket);
    if (!err)
        *socket = NULL;
    return err;
}

static int make_workers(struct moon_gateway *gateway)
{
    for (unsigned i = 0; i < gateway->seat_count; i++) {
        struct seat *seat = &gateway->seats[i];
        seat->loop = moon_loop_new(gateway->args.world);
        int err = seat->loop ? make_worker(gateway, seat, gateway->snapshot, &gateway->connections)
                             : -EMFILE;
        for (size_t k = i; !err && k < gateway->socket_count; k += gateway->seat_count)
            err = give_socket(seat->worker, &gateway->sockets[k]);
        if (err)
            return err;
    }
    return 0;
}

// ---- the admin listener: a small model of its own on the control loop

static void add_entry(struct moon_model *model, const char *kind, struct moon_entry *entries,
                      uint32_t count)
{
    struct moon_object object = {
        .kind = kind, .place = {"--admin", 0}, .value = {.kind = MOON_VALUE_TABLE}};
    object.value.table.entries = entries;
    object.value.table.entry_count = count;
    moon_model_add(model, &object);
}

static struct moon_value text_value(struct moon_slice text)
{
    return (struct moon_value){.kind = MOON_VALUE_STRING, .string = text};
}

static struct moon_model *admin_model(void)
{
    struct moon_model *model = moon_model_new();
    struct moon_value *item = moon_model_alloc(model, sizeof *item);
    struct moon_entry *upstream = moon_model_alloc(model, 2 * sizeof *upstream);
    struct moon_entry *route = moon_model_alloc(model, sizeof *route);
    struct moon_entry *listener = moon_model_alloc(model, sizeof *listener);
    *item = text_value(MOON_SLICE("builtin:admin"));
    upstream[0] = (struct moon_entry){MOON_SLICE("endpoints"), {.kind = MOON_VALUE_TABLE}};
    upstream[0].value.table.items = item;
    upstream[0].value.table.item_count = 1;
    upstream[0].value.table.entries = NULL;
    upstream[0].value.table.entry_count = 0;
    upstream[1] = (struct moon_entry){MOON_SLICE("name"), text_value(MOON_SLICE("admin"))};
    route[0] = (struct moon_entry){MOON_SLICE("backends"), text_value(MOON_SLICE("admin"))};
    listener[0] = (struct moon_entry){MOON_SLICE("port"), {.kind = MOON_VALUE_NUMBER, .number = 0}};
    add_entry(model, "upstream", upstream, 2);
    add_entry(model, "route", route, 1);
    add_entry(model, "listener", listener, 1);
    return model;
}

static int open_admin(struct moon_gateway *gateway, struct moon_report *report)
{
    struct moon_address at;
    char text[MOON_ADDRESS_TEXT_LEN];
    struct moon_place nowhere = {NULL, 0};
    if (!gateway->args.admin)
        return 0;
    if (!moon_address_parse(moon_slice_from(gateway->args.admin), &at)) {
        moon_report_addf(report, nowhere, NULL, NULL,
                         "an IP address with a port, \"127.0.0.1:9080\"",
                         "--admin: not an address: \"%s\"", gateway->args.admin);
        return MOON_ECONFIG;
    }
    gateway->admin_builtin = moon_admin_builtin(&gateway->admin_ops);
    sections_init(&gateway->admin_sections, &gateway->args, gateway->registry,
                  &gateway->admin_builtin);
    gateway->admin_model = admin_model();
    int err = moon_conf_compile(gateway->admin_model, gateway->admin_sections.order, SECTION_COUNT,
                                report, &gateway->admin_snapshot);
    if (!err)
        err = make_worker(gateway, &gateway->control, gateway->admin_snapshot,
                          &gateway->admin_connections);
    if (!err)
        err = moon_world_listen(gateway->args.world, &at, 1, &gateway->admin_socket);
    if (!err)
        moon_socket_address(gateway->admin_socket, &at);
    if (!err)
        err = give_socket(gateway->control.worker, &gateway->admin_socket);
    if (err) {
        moon_report_addf(report, nowhere, NULL, NULL, NULL, "--admin %s: %s", gateway->args.admin,
                         moon_err_text(err));
        return err;
    }
    moon_address_format(&at, text);
    moon_log_info(gateway->args.log, "admin on %s", text);
    return 0;
}

static void size_budgets(struct moon_gateway *gateway)
{
    enum { BUFFERS_MAX_LEN = 1 << 30, CONNECTIONS_MIN = 8 };
    const struct moon_settings *settings = moon_snapshot_settings(gateway->snapshot);
    size_t quarter = moon_world_memory_len(gateway->args.world) / 4;
    size_t descriptors = moon_world_descriptor_limit(gateway->args.world);
    size_t reserve =
        RESERVED_DESCRIPTORS + (size_t)gateway->seat_count * WORKER_DESCRIPTORS + descriptors / 10;
    // each may need one upstream
    size_t room = descriptors > reserve ? (descriptors - reserve) / 2 : 0;
    gateway->buffers.max_len = settings->limits.buffer_bytes ? settings->limits.buffer_bytes
                               : quarter < BUFFERS_MAX_LEN   ? quarter
                                                             : BUFFERS_MAX_LEN;
    gateway->connections.max_count = room > CONNECTIONS_MIN ? room : CONNECTIONS_MIN;
    if (settings->limits.connections &&
        settings->limits.connections < gateway->connections.max_count)
        gateway->connections.max_count = settings->limits.connections;
    gateway->admin_connections.max_count = CONNECTIONS_MIN;
}

int moon_gateway_new(const struct moon_gateway_args *args, struct moon_report *report,
                     struct moon_gateway **out)
{
    struct moon_gateway *gateway = calloc(1, sizeof *gateway);
    if (!gateway)
        abort();
    gateway->args = *args;
    gateway->admin_ops =
        (struct moon_admin_ops){admin_is_ready, admin_counters, admin_buffer_len, gateway};
    gateway->registry = moon_registry_new();
    sections_init(&gateway->sections, args, gateway->registry, NULL);
    int err = moon_conf_compile(args->model, gateway->sections.order, SECTION_COUNT, report,
                                &gateway->snapshot);
    if (err)
        goto fail;
    const struct moon_settings *settings = moon_snapshot_settings(gateway->snapshot);
    gateway->seat_count = args->workers ? args->workers : settings->workers;
    if (gateway->seat_count == 0)
        gateway->seat_count = moon_world_cpu_count(args->world);
    gateway->seats = calloc(gateway->seat_count, sizeof *gateway->seats);
    gateway->control.loop = moon_loop_new(args->world);
    if (!gateway->seats || !gateway->control.loop)
        abort();
    gateway->mailbox = moon_mailbox_new(gateway->control.loop, on_message, gateway);
    gateway->discovery = moon_discovery_new(gateway->control.loop, args->log);
    moon_discovery_use(gateway->discovery, gateway->snapshot);
    size_budgets(gateway);
    err = open_sockets(gateway, report);
    if (!err)
        err = make_workers(gateway);
    if (!err)
        err = open_admin(gateway, report);
    if (err)
        goto fail;
    *out = gateway;
    return 0;
fail:
    if (moon_report_count(report) == 0)
        moon_report_addf(report, (struct moon_place){NULL, 0}, NULL, NULL, NULL, "cannot start: %s",
                         moon_err_text(err));
    moon_gateway_free(gateway);
    return err;
}

int moon_gateway_check(struct moon_model *model, const struct moon_filter_type *const *filters,
                       struct moon_report *report)
{
    struct moon_gateway_args args = {.filters = filters};
    struct moon_snapshot *snapshot = NULL;
    struct sections sections = {0};
    struct moon_registry *registry = moon_registry_new();
    sections_init(&sections, &args, registry, NULL);
    int err = moon_conf_compile(model, sections.order, SECTION_COUNT, report, &snapshot);
    moon_snapshot_unref(snapshot);
    moon_registry_free(registry);
    return err;
}

static void seat_fini(struct seat *seat)
{
    moon_worker_free(seat->worker);
    moon_loop_free(seat->loop);
}

void moon_gateway_free(struct moon_gateway *gateway)
{
    if (!gateway)
        return;
    for (unsigned i = 0; gateway->seats && i < gateway->seat_count; i++)
        seat_fini(&gateway->seats[i]);
    moon_worker_free(gateway->control.worker);
    moon_discovery_free(gateway->discovery);
    moon_mailbox_free(gateway->mailbox);
    moon_loop_free(gateway->control.loop);
    for (size_t i = 0; i < gateway->socket_count; i++)
        moon_socket_free(gateway->sockets[i]);
    moon_socket_free(gateway->admin_socket);
    moon_snapshot_unref(gateway->snapshot);
    moon_snapshot_unref(gateway->admin_snapshot);
    moon_registry_free(gateway->registry);
    moon_model_free(gateway->args.model);
    moon_model_free(gateway->admin_model);
    free(gateway->sockets);
    free(gateway->addresses);
    free(gateway->seats);
    free(gateway);
}

// ---- running

static void on_signal(void *owner, int signal_number)
{
    struct moon_gateway *gateway = owner;
    if (signal_number == SIGHUP)
        moon_log_warn(gateway->args.log,
                      "SIGHUP: reloading is not supported yet; the old configuration serves");
    else
        moon_gateway_drain(gateway);
}

static void worker_thread(void *arg)
{
    struct seat *seat = arg;
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
        everything_drained(gateway);
        return;
    }
    moon_log_info(gateway->args.log, "ready (%u worker%s)", gateway->seat_count,
                  gateway->seat_count == 1 ? "" : "s");
}

int moon_gateway_run(struct moon_gateway *gateway)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP};
    int err = 0;
    for (size_t i = 0; i < sizeof signals / sizeof *signals && !err; i++)
        err = moon_loop_signal(gateway->control.loop, signals[i], on_signal, gateway);
    if (err)
        return err;
    // Host names are given a moment, so that a restart does not begin with 503s.
    moon_discovery_settle(gateway->discovery, SETTLE_MS, start_workers, gateway);
    err = moon_loop_run(gateway->control.loop);
    for (unsigned i = 0; i < gateway->seat_count; i++)
        moon_thread_join(gateway->seats[i].thread);
    moon_log_info(gateway->args.log, "stopped");
    return gateway->run_err ? gateway->run_err : err;
}

void moon_gateway_address(const struct moon_gateway *gateway, size_t index,
                          struct moon_address *out)
{
    *out = gateway->addresses[index];
}

const struct moon_counters *moon_gateway_counters(const struct moon_gateway *gateway, size_t index)
{
    return index < gateway->seat_count ? moon_worker_counters(gateway->seats[index].worker) : NULL;
}
