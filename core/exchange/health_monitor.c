// See health_monitor.h. A watch for each upstream, a target for each of its addresses. The addresses are looked at anew at each
// interval, because those of host names change.
#include "exchange/health_monitor.h"

#include "base/arena.h"
#include "base/buffer.h"
#include "conf/settings.h"
#include "exchange/probe.h"
#include "io/loop.h"
#include "link/resources.h"
#include "obs/counters.h"
#include "obs/log.h"
#include "upstream/health.h"
#include "upstream/pool.h"
#include "upstream/registry.h"
#include "upstream/upstream.h"

#include <stdlib.h>
#include <string.h>

enum { ARENA_KEEP_COUNT = 16, AT_ONCE_COUNT = 16 };

struct watch;

struct target {
    struct watch *watch;
    struct moon_address address;
    struct moon_timer timer;  // the next probe
    struct moon_probe *probe; // NULL: none is under way
    unsigned streak;          // probes in a row that speak against the verdict
    bool is_known, is_down;
};

struct watch {
    struct moon_list node; // in monitor->watches
    struct moon_health_monitor *monitor;
    const struct moon_upstream *upstream; // of monitor->snapshot
    struct moon_health *health;           // a reference
    struct target **targets;              // in order of their addresses
    size_t count;
    struct moon_timer timer; // the next look at the addresses
    bool is_used;
};

struct moon_health_monitor {
    struct moon_counters counters; // of its connections; nobody reads them
    struct moon_health_monitor_args args;
    struct moon_resources res;
    struct moon_pool *pool; // NULL: nothing was ever to be checked
    struct moon_snapshot *snapshot;
    struct moon_list watches;
};

// ---- verdicts

static void turn(struct target *target, bool is_down, const char *why)
{
    struct watch *watch = target->watch;
    const struct moon_log *log = watch->monitor->args.log;
    struct moon_slice name = watch->upstream->name;
    char text[MOON_ADDRESS_TEXT_LEN];
    moon_address_format(&target->address, text);
    target->is_down = is_down;
    moon_health_set(watch->health, &target->address, is_down);
    moon_upstream_refresh((struct moon_upstream *)watch->upstream); // before it is told
    if (is_down)
        moon_log_warn(log, "upstream \"%.*s\": %s is down: %s", MOON_SLICE_ARG(name), text, why);
    else
        moon_log_info(log, "upstream \"%.*s\": %s is up again", MOON_SLICE_ARG(name), text);
}

static void on_probed(void *owner, const char *why)
{
    struct target *target = owner;
    const struct moon_health_check *check = target->watch->upstream->check;
    bool is_failure = why != NULL;
    moon_health_count(target->watch->health, is_failure);
    unsigned needed = !target->is_known ? 1
                      : target->is_down ? check->healthy_count
                                        : check->unhealthy_count;
    target->is_known = true;
    target->streak = is_failure == target->is_down ? 0 : target->streak + 1;
    if (target->streak >= needed) {
        target->streak = 0;
        turn(target, is_failure, why);
    }
    moon_probe_free(target->probe);
    target->probe = NULL;
}

static void on_due(struct moon_timer *timer)
{
    struct target *target = MOON_CONTAINER(timer, struct target, timer);
    struct watch *watch = target->watch;
    struct moon_health_monitor *monitor = watch->monitor;
    moon_loop_timer_add(monitor->args.loop, timer, watch->upstream->check->interval_ms);
    if (target->probe) // its timeout falls together with the interval
        return;
    target->probe = moon_probe_start(&(struct moon_probe_args){.res = &monitor->res,
                                                               .pool = monitor->pool,
                                                               .upstream = watch->upstream,
                                                               .address = target->address,
                                                               .done = on_probed,
                                                               .owner = target});
}

// ---- targets

static struct target *target_new(struct watch *watch, const struct moon_address *address,
                                 uint64_t delay_ms)
{
    struct target *target = calloc(1, sizeof *target);
    if (!target)
        abort();
    target->watch = watch;
    target->address = *address;
    target->timer.fn = on_due;
    moon_loop_timer_add(watch->monitor->args.loop, &target->timer, delay_ms);
    return target;
}

static void target_free(struct target *target)
{
    moon_loop_timer_del(target->watch->monitor->args.loop, &target->timer);
    moon_probe_free(target->probe);
    if (target->is_down)
        moon_health_set(target->watch->health, &target->address, false);
    free(target);
}

static size_t add_origin(const struct moon_origin *origin, struct moon_address **all, size_t count)
{
    struct moon_address *found = NULL;
    size_t more = origin->name ? moon_name_addresses(origin->name, &found) : 1;
    *all = realloc(*all, (count + more + 1) * sizeof **all);
    if (!*all)
        abort();
    for (size_t i = 0; i < more; i++) {
        (*all)[count] = found ? found[i] : origin->address;
        (*all)[count++].port = origin->address.port;
    }
    free(found);
    return count;
}

// Those that may get traffic, in order, each once.
static struct moon_address *addresses_of(const struct moon_upstream *upstream, size_t *out)
{
    struct moon_address *all = NULL;
    size_t count = 0, kept = 0;
    for (uint32_t i = 0; i < upstream->origin_count; i++)
        if (upstream->origins[i].weight)
            count = add_origin(&upstream->origins[i], &all, count);
    if (count)
        qsort(all, count, sizeof *all, moon_address_compare);
    for (size_t i = 0; i < count; i++)
        if (kept == 0 || moon_address_compare(&all[kept - 1], &all[i]) != 0)
            all[kept++] = all[i];
    *out = kept;
    return all;
}

// Where many are new, their first probes are spread over an interval, and with them all that follow.
static uint64_t delay_of(const struct watch *watch, size_t at, size_t count)
{
    return at < AT_ONCE_COUNT ? 0 : watch->upstream->check->interval_ms * (uint64_t)at / count;
}

static void look(struct watch *watch)
{
    size_t count, at = 0;
    struct moon_address *addresses = addresses_of(watch->upstream, &count);
    struct target **targets = calloc(count + 1, sizeof(struct target *));
    if (!targets)
        abort();
    for (size_t i = 0; i < count; i++) {
        while (at < watch->count &&
               moon_address_compare(&watch->targets[at]->address, &addresses[i]) < 0)
            target_free(watch->targets[at++]);
        bool is_there = at < watch->count &&
                        moon_address_compare(&watch->targets[at]->address, &addresses[i]) == 0;
        targets[i] = is_there ? watch->targets[at++]
                              : target_new(watch, &addresses[i], delay_of(watch, i, count));
    }
    while (at < watch->count)
        target_free(watch->targets[at++]);
    free(watch->targets);
    free(addresses);
    watch->targets = targets;
    watch->count = count;
    moon_loop_timer_add(watch->monitor->args.loop, &watch->timer,
                        watch->upstream->check->interval_ms);
}

static void on_look(struct moon_timer *timer)
{
    look(MOON_CONTAINER(timer, struct watch, timer));
}

// ---- watches

static void watch_free(struct watch *watch)
{
    moon_list_del(&watch->node);
    moon_loop_timer_del(watch->monitor->args.loop, &watch->timer);
    for (size_t i = 0; i < watch->count; i++)
        target_free(watch->targets[i]);
    free(watch->targets);
    moon_health_unref(watch->health);
    free(watch);
}

static struct watch *watch_of(struct moon_health_monitor *monitor, struct moon_health *health)
{
    struct moon_list *all = &monitor->watches;
    for (struct moon_list *at = all->next; at != all; at = at->next) {
        struct watch *watch = MOON_CONTAINER(at, struct watch, node);
        if (watch->health == health)
            return watch;
    }
    struct watch *watch = calloc(1, sizeof *watch);
    if (!watch)
        abort();
    watch->monitor = monitor;
    watch->health = moon_health_ref(health);
    watch->timer.fn = on_look;
    moon_list_add_before(all, &watch->node);
    return watch;
}

// A probe that is under way asks what the snapshot before said, and is withdrawn with it.
static void withdraw(struct watch *watch)
{
    for (size_t i = 0; i < watch->count; i++) {
        struct target *target = watch->targets[i];
        if (!target->probe)
            continue;
        moon_probe_free(target->probe);
        target->probe = NULL;
        moon_loop_timer_add(watch->monitor->args.loop, &target->timer, 0);
    }
}

// What probes need is made with the first.
static void make_ready(struct moon_health_monitor *monitor)
{
    struct moon_resources *res = &monitor->res;
    if (monitor->pool)
        return;
    res->loop = monitor->args.loop;
    res->arenas = moon_arena_pool_new(ARENA_KEEP_COUNT);
    res->buffers = moon_buffer_pool_new(monitor->args.buffers);
    res->counters = &monitor->counters;
    res->log = monitor->args.log;
    res->worker = monitor->args.worker;
    res->read_buffer = malloc(MOON_READ_BODY_LEN);
    if (!res->read_buffer)
        abort();
    moon_list_init(&res->exchanges);
    moon_list_init(&res->relays);
    moon_loop_random(res->loop, res->id_seed, sizeof res->id_seed);
    monitor->pool = moon_pool_new(res, monitor->args.registry);
}

// ---- public

struct moon_health_monitor *moon_health_monitor_new(const struct moon_health_monitor_args *args)
{
    size_t len = (sizeof(struct moon_health_monitor) + 63) / 64 * 64;
    struct moon_health_monitor *monitor = aligned_alloc(64, len);
    if (!monitor)
        abort();
    memset(monitor, 0, len);
    monitor->args = *args;
    moon_list_init(&monitor->watches);
    return monitor;
}

static void follow(struct moon_health_monitor *monitor, struct moon_upstream *upstream)
{
    make_ready(monitor);
    struct watch *watch = watch_of(monitor, upstream->health);
    if (watch->upstream != upstream)
        withdraw(watch);
    watch->upstream = upstream;
    watch->is_used = true;
    moon_upstream_refresh(upstream); // a verdict may have turned since it was compiled
    look(watch);
}

void moon_health_monitor_use(struct moon_health_monitor *monitor, struct moon_snapshot *snapshot)
{
    struct moon_snapshot *before = monitor->snapshot;
    const struct moon_upstreams *upstreams = moon_snapshot_upstreams(snapshot);
    struct moon_list *all = &monitor->watches;
    monitor->snapshot = moon_snapshot_ref(snapshot);
    monitor->res.settings = moon_snapshot_settings(snapshot);
    for (struct moon_list *at = all->next; at != all; at = at->next)
        MOON_CONTAINER(at, struct watch, node)->is_used = false;
    for (size_t i = 0; i < moon_upstreams_count(upstreams); i++)
        if (moon_upstreams_at(upstreams, i)->check)
            follow(monitor, moon_upstreams_at(upstreams, i));
    for (struct moon_list *at = all->next, *next; at != all; at = next) {
        struct watch *watch = MOON_CONTAINER(at, struct watch, node);
        next = at->next;
        if (!watch->is_used)
            watch_free(watch);
    }
    moon_snapshot_unref(before);
}

void moon_health_monitor_free(struct moon_health_monitor *monitor)
{
    if (!monitor)
        return;
    while (!moon_list_is_empty(&monitor->watches))
        watch_free(MOON_CONTAINER(monitor->watches.next, struct watch, node));
    if (monitor->pool) {
        moon_pool_free(monitor->pool);
        moon_loop_run_tasks(monitor->args.loop); // links free themselves in one
        moon_buffer_pool_free(monitor->res.buffers);
        moon_arena_pool_free(monitor->res.arenas);
        free(monitor->res.read_buffer);
    }
    moon_snapshot_unref(monitor->snapshot);
    free(monitor);
}
