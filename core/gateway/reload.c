// See reload.h. A failure at any point leaves the old configuration serving; after the first worker has been told there is none.
#include "gateway/reload.h"

#include "base/err.h"
#include "conf/settings.h"
#include "exchange/access.h"
#include "gateway/gateway_priv.h"
#include "io/loop.h"
#include "io/world.h"
#include "obs/log.h"
#include "route/listener.h"
#include "upstream/discovery.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { SWEEP_MS = 500 };

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
    struct moon_reload_result result = {is_fine, moon_snapshot_number(reload->gateway->snapshot),
                                        now_ms(reload) - reload->begin_ms, reload->report};
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
        reload->fine_count++;
    else
        reload->failed_count++;
    tell(reload, is_fine);
    moon_report_free(reload->report);
    reload->report = NULL;
    if (reload->is_wanted)
        begin(reload);
}

static void fail(struct moon_reload *reload)
{
    char *text = moon_report_text(reload->report), *rest = NULL;
    moon_log_error(log_of(reload), "the new configuration is refused, the old one serves");
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
        moon_log_error(log_of(reload), "%s", line);
    free(text);
    moon_snapshot_unref(reload->snapshot);
    reload->snapshot = NULL;
    finish(reload, false);
}

// ---- switching

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
    gateway->snapshot = reload->snapshot;
    moon_discovery_use(gateway->discovery, gateway->snapshot);
    gateway->ports = reload->ports;
    reload->snapshot = NULL;
    moon_ports_fini(&old, &gateway->ports, false);
    retire(reload, before);
    if (reload->switch_err)
        moon_log_error(log_of(reload), "a worker cannot serve a new listener: %s",
                       moon_err_text(reload->switch_err));
    moon_log_info(log_of(reload), "configuration %llu serves (%llu ms)",
                  (unsigned long long)moon_snapshot_number(gateway->snapshot),
                  (unsigned long long)(now_ms(reload) - reload->begin_ms));
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
        change->on_switched = on_switched;
        change->owner = reload;
        change->added = sockets_of(&reload->ports, i, false, &change->added_count);
        change->kept = sockets_of(&reload->ports, i, true, &change->kept_count);
        change->removed =
            removed_sockets(&gateway->ports, &reload->ports, i, &change->removed_count);
    }
    for (unsigned i = 0; i < gateway->seat_count; i++)
        moon_worker_switch(gateway->seats[i].worker, &reload->changes[i]);
}

// What a reload can't change is said, not ignored.
static void warn_of_fixed(const struct moon_reload *reload)
{
    const struct moon_settings *now = moon_snapshot_settings(reload->gateway->snapshot),
                               *new = moon_snapshot_settings(reload->snapshot);
    if (now->workers != new->workers || now->limits.buffer_bytes != new->limits.buffer_bytes ||
        now->limits.connections != new->limits.connections)
        moon_log_warn(log_of(reload), "settings workers, limits.buffer_bytes and "
                                      "limits.connections take effect at the next start");
    const struct moon_access_log *log = moon_snapshot_access_log(reload->gateway->snapshot),
                                 *new_log = moon_snapshot_access_log(reload->snapshot);
    if (new_log->format &&
        (!moon_slice_equal(log->file, new_log->file) || log->buffer_len != new_log->buffer_len))
        moon_log_warn(log_of(reload), "settings access_log.file and access_log.buffer_bytes take "
                                      "effect at the next start");
}

static void on_built(struct moon_reload *reload)
{
    struct moon_gateway *gateway = reload->gateway;
    moon_thread_join(reload->builder);
    reload->builder = NULL;
    if (!reload->snapshot || atomic_load(&gateway->is_draining)) {
        if (reload->snapshot)
            moon_report_addf(reload->report, (struct moon_place){NULL, 0}, NULL, NULL, NULL,
                             "the gateway drains");
        fail(reload);
        return;
    }
    struct moon_ports_args args = {gateway->args.world, moon_snapshot_listeners(reload->snapshot),
                                   &gateway->ports,     gateway->seat_count,
                                   gateway->args.log,   reload->report};
    if (moon_ports_open(&args, &reload->ports) < 0) {
        fail(reload);
        return;
    }
    warn_of_fixed(reload);
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
    if (!err)
        moon_sections_compile(&gateway->sections, model, reload->report, &reload->snapshot);
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
    if (reload->state == MOON_RELOAD_SWITCHING)
        moon_ports_fini(&reload->ports, &reload->gateway->ports, false);
    for (unsigned i = 0; reload->changes && i < reload->gateway->seat_count; i++) {
        free(reload->changes[i].added);
        free((void *)reload->changes[i].kept);
        free((void *)reload->changes[i].removed);
    }
    free(reload->changes);
    moon_report_free(reload->report);
    moon_mailbox_free(reload->mailbox);
}
