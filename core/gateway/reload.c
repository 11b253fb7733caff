// See reload.h. A failure at any point leaves the old configuration serving; after the first worker has been told there is none.
#include "gateway/reload.h"

#include "base/err.h"
#include "conf/settings.h"
#include "exchange/access.h"
#include "exchange/health_monitor.h"
#include "gateway/certificates.h"
#include "gateway/gateway_priv.h"
#include "gateway/obtain.h"
#include "io/loop.h"
#include "io/world.h"
#include "obs/log.h"
#include "route/listener.h"
#include "script/generation.h"
#include "script/vm.h"
#include "upstream/discovery.h"
#include "upstream/name_desk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SWEEP_MS = 500, KEPT_TEXT_LEN = 64 };

const char *const moon_reload_parts[] = {"upstreams", "routes", "actions", NULL};

static void begin(struct moon_reload *reload);

static const struct moon_log *log_of(const struct moon_reload *reload)
{
    return reload->gateway->args.log;
}

static uint64_t now_ms(const struct moon_reload *reload)
{
    return moon_loop_now_ms(reload->gateway->control.loop);
}

// ---- replaced snapshots

// Snapshots are built on a thread of their own and freed here: without a trim the heaps of builders keep what two or three of
// them took, which with 10,000 routes is three times the process.
static void sweep(struct moon_reload *reload)
{
    size_t kept = 0, count = reload->retired_count;
    for (size_t i = 0; i < reload->retired_count; i++) {
        if (moon_snapshot_is_last(reload->retired[i]))
            moon_snapshot_unref(reload->retired[i]);
        else
            reload->retired[kept++] = reload->retired[i];
    }
    reload->retired_count = kept;
    if (kept < count)
        moon_world_trim_memory(reload->gateway->args.world);
    if (kept)
        moon_loop_timer_add(reload->gateway->control.loop, &reload->sweep, SWEEP_MS);
}

static void on_sweep(struct moon_timer *timer)
{
    sweep(MOON_CONTAINER(timer, struct moon_reload, sweep));
}

static void retire(struct moon_reload *reload, struct moon_snapshot *snapshot)
{
    size_t count = reload->retired_count + 1;
    reload->retired = realloc(reload->retired, count * sizeof *reload->retired);
    if (!reload->retired)
        abort();
    reload->retired[reload->retired_count++] = snapshot;
    sweep(reload);
}

// ---- the end of a reload

static void tell(struct moon_reload *reload, bool is_fine)
{
    struct moon_reload_result result = {.is_fine = is_fine,
                                        .number = moon_snapshot_number(reload->gateway->snapshot),
                                        .took_ms = now_ms(reload) - reload->begin_ms,
                                        .compile_us = reload->compile_us,
                                        .kept = is_fine ? reload->kept : 0,
                                        .report = reload->report};
    while (!moon_list_is_empty(&reload->waiters)) {
        struct moon_reload_waiter *waiter =
            MOON_CONTAINER(reload->waiters.next, struct moon_reload_waiter, node);
        moon_list_del(&waiter->node);
        waiter->done(waiter, &result);
    }
}

static void finish(struct moon_reload *reload, bool is_fine)
{
    reload->state = MOON_RELOAD_IDLE;
    if (is_fine)
        moon_gateway_log_warnings(log_of(reload), reload->report);
    if (is_fine)
        reload->fine_count++;
    else
        reload->failed_count++;
    tell(reload, is_fine);
    moon_report_free(reload->report);
    reload->report = NULL;
    if (reload->is_wanted)
        begin(reload);
}

// The old configuration goes on.
static void drop(struct moon_reload *reload)
{
    moon_snapshot_unref(reload->snapshot);
    reload->snapshot = NULL;
    moon_telemetry_end(reload->gateway->telemetry, false);
    finish(reload, false);
}

static void fail(struct moon_reload *reload)
{
    char *text = moon_report_text(reload->report), *rest = NULL;
    moon_log_error(log_of(reload), "the new configuration is refused, the old one serves");
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
        moon_log_error(log_of(reload), "%s", line);
    free(text);
    drop(reload);
}

// The gateway drains: nobody would see the new configuration.
static void withdraw(struct moon_reload *reload)
{
    moon_report_addf(reload->report, (struct moon_place){NULL, 0}, NULL, NULL, NULL,
                     "the gateway drains");
    moon_log_info(log_of(reload), "the new configuration is not taken: the gateway drains");
    drop(reload);
}

// ---- switching

// Where the configuration says another one than before: what an order has set stays otherwise.
static void take_log_level(const struct moon_reload *reload)
{
    const struct moon_gateway *gateway = reload->gateway;
    struct moon_slice before = moon_snapshot_settings(gateway->snapshot)->log_level,
                      now = moon_snapshot_settings(reload->snapshot)->log_level;
    if (!moon_slice_equal(before, now))
        atomic_store(&gateway->args.log->level, (int)moon_log_level_from(now.ptr, now.len));
}

static void all_switched(struct moon_reload *reload)
{
    struct moon_gateway *gateway = reload->gateway;
    struct moon_snapshot *before = gateway->snapshot;
    struct moon_ports old = gateway->ports;
    for (unsigned i = 0; i < gateway->seat_count; i++) {
        free(reload->changes[i].added);
        free((void *)reload->changes[i].kept);
        free((void *)reload->changes[i].removed);
    }
    free(reload->changes);
    reload->changes = NULL;
    take_log_level(reload);
    gateway->snapshot = reload->snapshot;
    moon_discovery_use(gateway->discovery, gateway->snapshot);
    moon_health_monitor_use(gateway->health, gateway->snapshot);
    moon_name_desk_use(gateway->name_desk, gateway->snapshot);
    gateway->ports = reload->ports;
    if (!atomic_load(&gateway->is_draining))
        moon_ports_settle(&gateway->ports, moon_snapshot_listeners(gateway->snapshot),
                          log_of(reload));
    reload->snapshot = NULL;
    moon_ports_fini(&old, &gateway->ports, false);
    moon_telemetry_end(gateway->telemetry, true);
    moon_gateway_size_budgets(gateway);
    retire(reload, before);
    if (reload->switch_err)
        moon_log_error(log_of(reload), "a worker cannot serve a new listener: %s",
                       moon_err_text(reload->switch_err));
    char kept[KEPT_TEXT_LEN] = "";
    size_t kept_len = 0;
    for (size_t i = 0; moon_reload_parts[i]; i++)
        if (reload->kept & 1u << i && kept_len < sizeof kept)
            kept_len += (size_t)snprintf(kept + kept_len, sizeof kept - kept_len, " %s",
                                         moon_reload_parts[i]);
    moon_log_info(log_of(reload), "configuration %llu serves (%llu ms; kept:%s)",
                  (unsigned long long)moon_snapshot_number(gateway->snapshot),
                  (unsigned long long)(now_ms(reload) - reload->begin_ms),
                  kept_len ? kept : " nothing");
    moon_gateway_run_control(gateway);
    moon_certificates_watch(gateway);
    moon_obtain_use(gateway);
    gateway->args.is_last_good = false;
    moon_last_good_keep(&gateway->last_good);
    finish(reload, true);
}

// On the worker's thread.
static void on_switched(void *owner, struct moon_worker_switch *change)
{
    struct moon_reload *reload = owner;
    moon_mailbox_post(reload->mailbox, &change->message);
}

// The sockets of one worker that are gone.
static struct moon_socket **removed_sockets(const struct moon_ports *before,
                                            const struct moon_ports *now, unsigned worker,
                                            size_t *count)
{
    struct moon_socket **list = calloc(before->count + 1, sizeof *list);
    if (!list)
        abort();
    *count = 0;
    for (size_t i = 0; i < before->count; i++)
        if (moon_port_is_gone(&before->items[i], now))
            list[(*count)++] = before->items[i].sockets[worker];
    return list;
}

// Those that were kept, or were not.
static struct moon_worker_socket *sockets_of(const struct moon_ports *ports, unsigned worker,
                                             bool is_kept, size_t *count)
{
    struct moon_worker_socket *list = calloc(ports->count + 1, sizeof *list);
    if (!list)
        abort();
    *count = 0;
    for (size_t i = 0; i < ports->count; i++)
        if (ports->items[i].is_kept == is_kept)
            list[(*count)++] =
                (struct moon_worker_socket){ports->items[i].sockets[worker], (uint32_t)i};
    return list;
}

static void switch_workers(struct moon_reload *reload)
{
    struct moon_gateway *gateway = reload->gateway;
    reload->state = MOON_RELOAD_SWITCHING;
    reload->waiting_count = gateway->seat_count;
    reload->switch_err = 0;
    reload->changes = calloc(gateway->seat_count, sizeof *reload->changes);
    if (!reload->changes)
        abort();
    moon_snapshot_set_number(reload->snapshot, moon_snapshot_number(gateway->snapshot) + 1);
    for (unsigned i = 0; i < gateway->seat_count; i++) {
        struct moon_worker_switch *change = &reload->changes[i];
        change->snapshot = reload->snapshot;
        change->generation = moon_snapshot_generation(reload->snapshot);
        change->on_switched = on_switched;
        change->owner = reload;
        change->access_ring = moon_telemetry_ring(gateway->telemetry, i);
        change->added = sockets_of(&reload->ports, i, false, &change->added_count);
        change->kept = sockets_of(&reload->ports, i, true, &change->kept_count);
        change->removed =
            removed_sockets(&gateway->ports, &reload->ports, i, &change->removed_count);
    }
    for (unsigned i = 0; i < gateway->seat_count; i++)
        moon_worker_switch(gateway->seats[i].worker, &reload->changes[i]);
}

// ---- scripts of a new generation

static bool has_new_generation(const struct moon_reload *reload)
{
    const struct moon_generation *new = moon_snapshot_generation(reload->snapshot);
    return new &&new != moon_snapshot_generation(reload->gateway->snapshot);
}

// On the worker's thread.
static void on_start_done(void *owner, struct moon_worker_start *start)
{
    struct moon_reload *reload = owner;
    moon_mailbox_post(reload->started, &start->message);
}

static void post_starts(struct moon_reload *reload, bool is_given_up)
{
    struct moon_gateway *gateway = reload->gateway;
    reload->waiting_count = gateway->seat_count;
    for (unsigned i = 0; i < gateway->seat_count; i++) {
        reload->starts[i].generation = moon_snapshot_generation(reload->snapshot);
        reload->starts[i].is_given_up = is_given_up;
        reload->starts[i].on_done = on_start_done;
        reload->starts[i].owner = reload;
        moon_worker_start(gateway->seats[i].worker, &reload->starts[i]);
    }
}

static void start_scripts(struct moon_reload *reload)
{
    reload->state = MOON_RELOAD_STARTING;
    reload->starts = calloc(reload->gateway->seat_count, sizeof *reload->starts);
    if (!reload->starts)
        abort();
    post_starts(reload, false);
}

static void give_up(struct moon_reload *reload)
{
    moon_report_addf(reload->report, (struct moon_place){NULL, 0}, NULL, NULL, "the log says why",
                     "what the script does at the start of a worker failed");
    reload->state = MOON_RELOAD_GIVING_UP;
    post_starts(reload, true);
}

static void on_started(void *owner, struct moon_message *message)
{
    struct moon_reload *reload = owner;
    (void)message;
    if (--reload->waiting_count > 0)
        return;
    bool is_given_up = reload->state == MOON_RELOAD_GIVING_UP, is_fine = true;
    for (unsigned i = 0; i < reload->gateway->seat_count; i++)
        is_fine = is_fine && reload->starts[i].err == 0;
    if (!is_given_up && (!is_fine || atomic_load(&reload->gateway->is_draining))) {
        give_up(reload);
        return;
    }
    free(reload->starts);
    reload->starts = NULL;
    if (!is_given_up) {
        switch_workers(reload);
        return;
    }
    moon_ports_fini(&reload->ports, &reload->gateway->ports, true);
    reload->ports = (struct moon_ports){0};
    fail(reload);
}

// What a reload can't change is said, not ignored.
static void warn_of_fixed(const struct moon_reload *reload)
{
    const struct moon_settings *now = moon_snapshot_settings(reload->gateway->snapshot),
                               *new = moon_snapshot_settings(reload->snapshot);
    if (now->workers != new->workers)
        moon_log_warn(log_of(reload), "the setting workers takes effect at the next start");
    const char *key_log = now->tls_key_log ? now->tls_key_log : "",
               *other = new->tls_key_log ? new->tls_key_log : "";
    if (strcmp(key_log, other) != 0)
        moon_log_warn(log_of(reload), "the setting tls.key_log takes effect at the next start");
}

static void on_built(struct moon_reload *reload)
{
    struct moon_gateway *gateway = reload->gateway;
    moon_thread_join(reload->builder);
    reload->builder = NULL;
    if (!reload->snapshot) {
        fail(reload);
        return;
    }
    if (atomic_load(&gateway->is_draining)) {
        withdraw(reload);
        return;
    }
    struct moon_ports_args args = {gateway->args.world, moon_snapshot_listeners(reload->snapshot),
                                   &gateway->ports,     gateway->seat_count,
                                   gateway->args.log,   reload->report};
    int err = moon_telemetry_begin(gateway->telemetry);
    if (err)
        moon_report_addf(reload->report, (struct moon_place){NULL, 0}, NULL, NULL, NULL,
                         "the access log's thread cannot be started: %s", moon_err_text(err));
    if (err || moon_ports_open(&args, &reload->ports) < 0) {
        fail(reload);
        return;
    }
    warn_of_fixed(reload);
    if (has_new_generation(reload))
        start_scripts(reload);
    else
        switch_workers(reload);
}

static void on_message(void *owner, struct moon_message *message)
{
    struct moon_reload *reload = owner;
    if (message == &reload->built) {
        on_built(reload);
        return;
    }
    struct moon_worker_switch *change = MOON_CONTAINER(message, struct moon_worker_switch, message);
    reload->switch_err = reload->switch_err ? reload->switch_err : change->err;
    if (--reload->waiting_count == 0)
        all_switched(reload);
}

// ---- building, on the builder's thread (in a world without threads: at once)

// A file that cannot be opened refuses the whole.
static int prepare_log(struct moon_reload *reload)
{
    struct moon_gateway *gateway = reload->gateway;
    struct moon_telemetry_args args =
        moon_gateway_telemetry_args(gateway, reload->snapshot, reload->report);
    int err = moon_telemetry_prepare(gateway->telemetry,
                                     moon_snapshot_access_log(gateway->snapshot), &args);
    if (!err)
        return 0;
    moon_snapshot_unref(reload->snapshot);
    reload->snapshot = NULL;
    return err;
}

// The generation of the snapshot's code; without it there is no snapshot.
static int link_or_drop(struct moon_reload *reload)
{
    int err = moon_snapshot_link(reload->snapshot, reload->gateway->snapshot,
                                 &reload->gateway->scripts, reload->report);
    if (err) {
        moon_snapshot_unref(reload->snapshot);
        reload->snapshot = NULL;
    }
    return err;
}

static void build(void *arg)
{
    struct moon_reload *reload = arg;
    struct moon_gateway *gateway = reload->gateway;
    struct moon_model *model = NULL;
    int err = MOON_ECONFIG;
    if (gateway->args.load)
        err = gateway->args.load(gateway->args.load_owner, reload->report, &model);
    else
        moon_report_addf(reload->report, (struct moon_place){NULL, 0}, NULL, NULL, NULL,
                         "this gateway has no source to load from");
    uint64_t begin_ns = moon_loop_now_ns(gateway->control.loop);
    if (!err)
        err = moon_sections_compile(&gateway->sections, model, gateway->snapshot, reload->report,
                                    &reload->snapshot);
    if (!err)
        err = link_or_drop(reload);
    if (!err)
        err = prepare_log(reload);
    reload->compile_us = (moon_loop_now_ns(gateway->control.loop) - begin_ns) / 1000;
    reload->kept = 0;
    for (unsigned i = 0; !err && moon_reload_parts[i]; i++)
        if (moon_snapshot_shares(gateway->snapshot, reload->snapshot, moon_reload_parts[i]))
            reload->kept |= 1u << i;
    moon_mailbox_post(reload->mailbox, &reload->built);
}

static void begin(struct moon_reload *reload)
{
    reload->is_wanted = false;
    reload->state = MOON_RELOAD_BUILDING;
    reload->begin_ms = now_ms(reload);
    reload->report = moon_report_new();
    while (!moon_list_is_empty(&reload->next_waiters)) {
        struct moon_list *node = reload->next_waiters.next;
        moon_list_del(node);
        moon_list_add_before(&reload->waiters, node);
    }
    int err = moon_thread_start(reload->gateway->args.world, build, reload, &reload->builder);
    if (err)
        build(reload);
}

// ---- public

void moon_reload_request(struct moon_reload *reload, struct moon_reload_waiter *waiter)
{
    if (waiter)
        moon_list_add_before(&reload->next_waiters, &waiter->node);
    reload->is_wanted = true;
    if (reload->state == MOON_RELOAD_IDLE)
        begin(reload);
}

void moon_reload_forget(struct moon_reload_waiter *waiter)
{
    moon_list_del(&waiter->node);
}

void moon_reload_init(struct moon_reload *reload, struct moon_gateway *gateway)
{
    reload->gateway = gateway;
    reload->mailbox = moon_mailbox_new(gateway->control.loop, on_message, reload);
    reload->started = moon_mailbox_new(gateway->control.loop, on_started, reload);
    reload->sweep.fn = on_sweep;
    moon_list_init(&reload->waiters);
    moon_list_init(&reload->next_waiters);
}

void moon_reload_fini(struct moon_reload *reload)
{
    if (!reload->mailbox)
        return;
    moon_thread_join(reload->builder);
    moon_loop_timer_del(reload->gateway->control.loop, &reload->sweep);
    moon_snapshot_unref(reload->snapshot);
    for (size_t i = 0; i < reload->retired_count; i++)
        moon_snapshot_unref(reload->retired[i]);
    free((void *)reload->retired);
    if (reload->state > MOON_RELOAD_BUILDING)
        moon_ports_fini(&reload->ports, &reload->gateway->ports, false);
    for (unsigned i = 0; reload->changes && i < reload->gateway->seat_count; i++) {
        free(reload->changes[i].added);
        free((void *)reload->changes[i].kept);
        free((void *)reload->changes[i].removed);
    }
    free(reload->changes);
    free(reload->starts);
    moon_report_free(reload->report);
    moon_mailbox_free(reload->started);
    moon_mailbox_free(reload->mailbox);
}
