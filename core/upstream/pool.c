// The pool: endpoints and whose turn it is, lending, waiting at a limit. Slots are pool_slot.c's, links pool_link.c's.
#include "upstream/pool.h"

#include "base/list.h"
#include "io/loop.h"
#include "io/tls.h"
#include "link/link.h"
#include "link/resources.h"
#include "upstream/balance/least_request.h"
#include "upstream/balance/split.h"
#include "upstream/outbound.h"
#include "upstream/patron.h"
#include "upstream/pool_priv.h"
#include "upstream/registry.h"
#include "upstream/upstream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t GATEWAY_NUMBER = UINT64_MAX; // a patron: ourselves

enum { SWEEP_MS = 10000 }; // at most so often: a sweep looks at every slot

// ---- waiters

// Closes an idle link that counts for the limit, whose permit goes to the caller.
static bool steal_permit(struct moon_pool *pool, const struct moon_limit *limit)
{
    for (uint32_t i = 0; i < pool->bucket_count; i++) {
        for (struct slot *slot = pool->buckets[i]; slot; slot = slot->next) {
            struct moon_pooled *pooled = slot->limit == limit ? slot_oldest_idle(slot) : NULL;
            if (!pooled)
                continue;
            moon_link_close(pooled->link);
            pooled_forget(pooled);
            return true;
        }
    }
    return false;
}

// Others wait while links idle here: closes as many as are waited for.
static void share_idle(struct moon_pool *pool)
{
    for (uint32_t i = 0; i < pool->bucket_count; i++) {
        for (struct slot *slot = pool->buckets[i]; slot; slot = slot->next) {
            struct moon_pooled *pooled;
            while (slot->limit && (pooled = slot_oldest_idle(slot)) != NULL &&
                   moon_limit_is_waited_for(slot->limit))
                pooled_close(pooled);
        }
    }
}

static void on_wake(struct moon_wake *wake)
{
    struct moon_pool *pool = MOON_CONTAINER(wake, struct moon_pool, wake);
    struct moon_waiter *waiter;
    while ((waiter = moon_limit_next_granted(wake)) != NULL)
        waiter->fn(waiter);
    share_idle(pool);
}

// ---- the pool

struct moon_pool *moon_pool_new(struct moon_resources *res, struct moon_registry *registry)
{
    struct moon_pool *pool = calloc(1, sizeof *pool);
    if (!pool)
        abort();
    pool->res = res;
    pool->random = res->id_seed[1];
    moon_list_init(&pool->kept);
    moon_wake_init(&pool->wake, registry, res->loop, on_wake);
    slots_grow(pool);
    return pool;
}

struct moon_outbound *moon_pool_outbound(const struct moon_pool *pool)
{
    return moon_registry_outbound(pool->wake.registry);
}

void moon_pool_drain(struct moon_pool *pool)
{
    pool->is_draining = true;
    for (uint32_t i = 0; i < pool->bucket_count; i++)
        for (struct slot *slot = pool->buckets[i]; slot; slot = slot->next)
            for (struct moon_pooled *pooled; (pooled = slot_oldest_idle(slot)) != NULL;)
                pooled_close(pooled);
}

void moon_pool_free(struct moon_pool *pool)
{
    if (!pool)
        return;
    moon_pool_drain(pool);
    slots_sweep(pool);
    for (uint32_t i = 0; i < pool->seat_count; i++)
        moon_endpoint_set_unref(pool->seats[i].set);
    moon_wake_fini(&pool->wake);
    free(pool->buckets);
    free(pool->seats);
    free(pool->turns.at);
    free(pool->splits.at);
    free(pool);
}

static struct identity identity_of(const struct moon_upstream *upstream,
                                   enum moon_upstream_protocol protocol)
{
    bool is_shared = protocol != MOON_UPSTREAM_HTTP1;
    return (struct identity){.limit = upstream->limit,
                             .tls = upstream->tls,
                             .host = upstream->tls_host,
                             .protocol = (uint8_t)protocol,
                             .connect_ms = is_shared ? upstream->timeouts.connect_ms : 0};
}

// ---- choosing

static uint64_t *phase_at(struct moon_pool *pool, struct phases *phases, uint32_t index)
{
    if (index >= phases->count) {
        uint32_t count = index + 16;
        phases->at = realloc(phases->at, count * sizeof *phases->at);
        if (!phases->at)
            abort();
        for (uint32_t i = phases->count; i < count; i++)
            phases->at[i] = pool_mix(pool->res->id_seed[0] + (i + 1) * 0x9e3779b97f4a7c15u);
        phases->count = count;
    }
    return &phases->at[index];
}

const struct moon_backend *moon_pool_split(struct moon_pool *pool, const struct moon_split *split)
{
    return moon_split_choose(split,
                             split->has_phase ? phase_at(pool, &pool->splits, split->index) : NULL);
}

// Endpoints that are in `before` but not in `now`.
static void leave_endpoints(struct moon_pool *pool, struct identity identity,
                            const struct moon_endpoint_set *before,
                            const struct moon_endpoint_set *now)
{
    uint32_t from = 0, before_end = before->count, now_end = now->count;
    while (from < before_end && from < now_end &&
           before->endpoints[from].state == now->endpoints[from].state)
        from++;
    while (before_end > from && now_end > from &&
           before->endpoints[before_end - 1].state == now->endpoints[now_end - 1].state)
        before_end--, now_end--;
    pool->mark++;
    for (uint32_t i = from; i < now_end; i++) {
        identity.state = now->endpoints[i].state;
        struct slot *slot = slot_find(pool, &identity);
        if (slot)
            slot->mark = pool->mark;
    }
    for (uint32_t i = from; i < before_end; i++) {
        identity.state = before->endpoints[i].state;
        struct slot *slot = slot_find(pool, &identity);
        if (slot && slot->mark != pool->mark)
            slot_leave(pool, slot);
    }
}

void moon_pool_forget(struct moon_pool *pool, uint64_t number)
{
    if (pool->patron_count == 0)
        return;
    for (struct slot *slot = *slot_bucket(pool, NULL, number), *next; slot; slot = next) {
        next = slot->next;
        if (slot->patron == number)
            slot_leave(pool, slot);
    }
}

static void follow(struct moon_pool *pool, const struct moon_upstream *upstream, struct seat *seat)
{
    uint64_t now_ms = moon_loop_now_ms(pool->res->loop);
    struct moon_endpoint_set *before = seat->set ? moon_endpoint_set_ref(seat->set) : NULL;
    moon_feed_follow(&upstream->feed, &seat->stamp, &seat->set);
    if (before)
        leave_endpoints(pool, identity_of(upstream, upstream->protocol), before, seat->set);
    if (before && upstream->protocol != MOON_UPSTREAM_HTTP1) // those of is_http1
        leave_endpoints(pool, identity_of(upstream, MOON_UPSTREAM_HTTP1), before, seat->set);
    if (before && now_ms - pool->swept_ms >= SWEEP_MS) {
        pool->swept_ms = now_ms;
        slots_sweep(pool);
    }
    moon_endpoint_set_unref(before);
}

// The upstream's endpoints now; the set stays for as long as the seat holds it, which is until the next call.
static const struct moon_endpoint_set *endpoints_of(struct moon_pool *pool,
                                                    const struct moon_upstream *upstream)
{
    if (upstream->index >= pool->seat_count) {
        uint32_t count = upstream->index + 16;
        pool->seats = realloc(pool->seats, count * sizeof *pool->seats);
        if (!pool->seats)
            abort();
        memset(pool->seats + pool->seat_count, 0, (count - pool->seat_count) * sizeof *pool->seats);
        pool->seat_count = count;
    }
    struct seat *seat = &pool->seats[upstream->index];
    if (moon_feed_is_new(&upstream->feed, seat->stamp))
        follow(pool, upstream, seat);
    return seat->set;
}

static const struct moon_endpoint *in_turn(struct moon_pool *pool, uint32_t index,
                                           const struct moon_endpoint_set *set)
{
    if (set->cycle.len == 0)
        return NULL;
    uint64_t turn = (*phase_at(pool, &pool->turns, index))++;
    return &set->endpoints[set->cycle.turns[turn % set->cycle.len]];
}

// NULL: it is not among them, or is to get nothing.
static const struct moon_endpoint *find_endpoint(const struct moon_endpoint_set *set,
                                                 const struct moon_endpoint_state *state)
{
    for (uint32_t i = 0; i < set->count; i++)
        if (set->endpoints[i].state == state && set->endpoints[i].weight)
            return &set->endpoints[i];
    return NULL;
}

static const struct moon_endpoint *choose(struct moon_pool *pool, const struct moon_lend_args *args,
                                          const struct moon_endpoint_set *set)
{
    const struct moon_endpoint *chosen = args->again ? find_endpoint(set, args->again) : NULL;
    if (chosen)
        return chosen;
    switch (args->upstream->balance) {
    case MOON_BALANCE_ROUND_ROBIN:
        chosen = in_turn(pool, args->upstream->index, set);
        for (uint32_t i = 1; chosen && chosen->state == args->avoid && i < set->cycle.len; i++)
            chosen = in_turn(pool, args->upstream->index, set);
        return chosen;
    case MOON_BALANCE_LEAST_REQUEST:
        pool->random += 0x9e3779b97f4a7c15u;
        return moon_least_request_choose(set, pool_mix(pool->random), args->avoid);
    }
    return chosen;
}

// ---- lending

// `is_load`: those who balance want to know. 0 or -ENOMEM.
static int fill_lease(struct moon_pooled *pooled, bool is_load, bool is_reused,
                      struct moon_lease *lease)
{
    struct moon_lane *lane = moon_link_open_lane(pooled->link);
    if (!lane) {
        pooled_reoffer(pooled);
        return -ENOMEM;
    }
    pooled_leave_idle(pooled);
    pooled->lane_count += pooled->is_h2;
    if (is_load) {
        pooled->is_load = !pooled->is_h2;
        lane->is_load = pooled->is_h2;
        atomic_fetch_add_explicit(&pooled->slot->state->in_flight, 1, memory_order_relaxed);
    }
    lease->pooled = pooled;
    lease->state = pooled->slot->state;
    lease->lane = lane;
    lease->is_reused = is_reused && !moon_link_is_connecting(pooled->link);
    return 0;
}

static struct identity identity_for(const struct moon_lend_args *args)
{
    struct identity identity = identity_of(
        args->upstream, args->is_http1 ? MOON_UPSTREAM_HTTP1 : args->upstream->protocol);
    if (args->upstream->proxy) {
        identity.proxy = args->upstream->proxy;
        identity.patron = args->patron ? args->patron->number : GATEWAY_NUMBER;
    }
    return identity;
}

static bool counts_load(const struct moon_lend_args *args)
{
    return args->upstream->balance == MOON_BALANCE_LEAST_REQUEST;
}

// The first link kept for a waiter of that limit.
static struct moon_pooled *take_kept(struct moon_pool *pool, const struct moon_limit *limit)
{
    for (struct moon_list *at = pool->kept.next; at != &pool->kept; at = at->next) {
        struct moon_pooled *pooled = MOON_CONTAINER(at, struct moon_pooled, kept);
        if (pooled->slot->limit != limit)
            continue;
        pooled_take_kept(pooled);
        return pooled;
    }
    return NULL;
}

// Any endpoint will do, but where the client says which.
static bool leads_there(const struct moon_pooled *pooled, const struct moon_lend_args *args)
{
    const struct moon_address *to = args->patron ? moon_patron_destination(args->patron) : NULL;
    return !args->upstream->is_original ||
           (to && moon_address_equal(&pooled->slot->state->address, to));
}

// Its settings may have changed while it was waited for.
static bool is_fit(struct moon_pooled *pooled, const struct moon_lend_args *args)
{
    struct identity identity = identity_for(args);
    return slot_is_of(pooled->slot, &identity) && pooled->slot->proxy == args->upstream->proxy &&
           pooled_is_current(pooled) && leads_there(pooled, args) &&
           (pooled->is_h2 ? pooled_has_room(pooled, args->upstream->stream_max_count)
                          : !args->fresh);
}

// What the waiter was granted: a link to be lent as it stands, or a permit. The link serves whatever its endpoint: that one has
// just become free.
static bool take_grant(struct moon_pool *pool, const struct moon_lend_args *args,
                       struct moon_pooled **link)
{
    struct moon_limit *limit = args->waiter ? args->waiter->limit : NULL;
    *link = NULL;
    switch (args->waiter ? moon_limit_leave(args->waiter) : MOON_GRANT_NONE) {
    case MOON_GRANT_NONE:
        return false;
    case MOON_GRANT_PERMIT:
        return true;
    case MOON_GRANT_LINK:
        *link = take_kept(pool, limit); // NULL: it has died meanwhile
        break;
    }
    if (!*link || is_fit(*link, args))
        return false;
    if ((*link)->lane_count || (*link)->reserved_count) { // others use it
        (*link)->is_retiring = true;
        *link = NULL;
        return false;
    }
    struct slot *slot = (*link)->slot;
    moon_link_close((*link)->link);
    pooled_forget(*link);
    slot_free_gone(pool, slot);
    *link = NULL;
    return true;
}

// A permit to open a connection where the limit wants one: granted, free, or of an idle link to another endpoint.
static bool get_permit(struct moon_pool *pool, const struct moon_upstream *upstream)
{
    return !upstream->limit || moon_limit_acquire(upstream->limit, upstream->bounds.connections) ||
           steal_permit(pool, upstream->limit);
}

// So that it is known where the kernel sends it back to us.
static void note_outbound(struct moon_pool *pool, const struct moon_pooled *pooled)
{
    struct moon_address local;
    moon_link_address(pooled->link, false, &local);
    moon_outbound_note(moon_pool_outbound(pool), &local, &pooled->slot->state->address,
                       moon_loop_now_ms(pool->res->loop));
}

static int lend_new(struct moon_pool *pool, const struct moon_lend_args *args, struct slot *slot,
                    bool has_permit, struct moon_lease *lease)
{
    struct moon_pooled *pooled;
    if (!has_permit && !get_permit(pool, args->upstream))
        return -EAGAIN;
    int err = pooled_connect(pool, slot, args->patron, &pooled);
    if (!err && args->upstream->is_original)
        note_outbound(pool, pooled);
    if (!err)
        return fill_lease(pooled, counts_load(args), false, lease);
    if (slot->limit)
        moon_limit_release(slot->limit, &pool->wake);
    return err;
}

// The slot of that identity at an address; found without the registry's lock where it can be.
static struct slot *slot_at(struct moon_pool *pool, struct identity identity,
                            const struct moon_address *address)
{
    struct slot *slot = pool->buckets[moon_address_hash(address) & (pool->bucket_count - 1)];
    for (; slot && !identity.patron; slot = slot->next)
        if (slot_is_of(slot, &identity) && !slot->patron &&
            moon_address_equal(&slot->state->address, address)) {
            slot->is_gone = false;
            return slot;
        }
    identity.state = moon_endpoint_state_get(pool->wake.registry, address);
    slot = slot_get(pool, &identity);
    moon_endpoint_state_unref(identity.state); // the slot has one of its own
    return slot;
}

int moon_pool_lend_to(struct moon_pool *pool, const struct moon_lend_to_args *args,
                      struct moon_lease *lease)
{
    struct identity identity = {.tls = args->tls,
                                .host = args->tls ? args->host : MOON_SLICE(""),
                                .protocol = args->protocol};
    struct slot *slot = slot_at(pool, identity, args->address);
    struct moon_pooled *pooled = NULL;
    *lease = (struct moon_lease){.endpoint_count = 1, .state = slot->state};
    if (!args->fresh)
        pooled = pooled_shared(slot, UINT32_MAX, false);
    if (!args->fresh && !pooled)
        pooled = pooled_newest_idle(slot);
    bool is_reused = pooled != NULL;
    if (!pooled) {
        int err = pooled_connect(pool, slot, NULL, &pooled);
        if (err)
            return err;
    }
    return fill_lease(pooled, false, is_reused, lease);
}

// Of an upstream of original destinations; NULL: there is none.
static struct slot *slot_of_patron(struct moon_pool *pool, const struct moon_lend_args *args)
{
    const struct moon_address *to = args->patron ? moon_patron_destination(args->patron) : NULL;
    return to ? slot_at(pool, identity_for(args), to) : NULL;
}

// The slot of an endpoint whose turn it is; NULL: there is none.
static struct slot *slot_in_turn(struct moon_pool *pool, const struct moon_lend_args *args,
                                 const struct moon_endpoint_set *set)
{
    struct identity identity = identity_for(args);
    const struct moon_endpoint *endpoint = choose(pool, args, set);
    if (!endpoint)
        return NULL;
    identity.state = endpoint->state;
    return slot_get(pool, &identity);
}

// NULL: a new one is needed.
static struct moon_pooled *find_link(const struct moon_lend_args *args, struct slot *slot)
{
    slot->lane_cap = args->upstream->stream_max_count;
    if (slot->speaks_h2)
        return pooled_shared(slot, args->upstream->stream_max_count, args->was_lost);
    return args->fresh ? NULL : pooled_newest_idle(slot);
}

int moon_pool_lend(struct moon_pool *pool, const struct moon_lend_args *args,
                   struct moon_lease *lease)
{
    const struct moon_endpoint_set *set = endpoints_of(pool, args->upstream);
    struct moon_limit *limit = args->upstream->limit;
    struct moon_pooled *pooled;
    bool has_permit = take_grant(pool, args, &pooled);
    *lease = (struct moon_lease){.endpoint_count = set->count};
    struct slot *slot = NULL;
    if (!pooled) {
        slot = args->upstream->is_original ? slot_of_patron(pool, args)
                                           : slot_in_turn(pool, args, set);
        lease->state = slot ? slot->state : NULL;
    }
    if (slot)
        pooled = find_link(args, slot);
    if (slot && !pooled)
        return lend_new(pool, args, slot, has_permit, lease);
    int err = args->upstream->is_original ? -EDESTADDRREQ : -ENOENT;
    if (pooled)
        err = fill_lease(pooled, counts_load(args), true, lease);
    if (has_permit)
        moon_limit_release(limit, &pool->wake);
    return err;
}

int moon_pool_wait(struct moon_pool *pool, const struct moon_upstream *upstream,
                   struct moon_waiter *waiter, bool is_again)
{
    return moon_limit_wait(upstream->limit, &upstream->bounds, waiter, &pool->wake, is_again);
}

void moon_pool_leave(struct moon_pool *pool, struct moon_waiter *waiter)
{
    struct moon_limit *limit = waiter->limit;
    struct moon_pooled *pooled;
    switch (moon_limit_leave(waiter)) {
    case MOON_GRANT_NONE:
        return;
    case MOON_GRANT_PERMIT:
        moon_limit_release(limit, &pool->wake);
        return;
    case MOON_GRANT_LINK:
        pooled = take_kept(pool, limit);
        if (pooled)
            pooled_reoffer(pooled);
        return;
    }
}

// ---- tunnels

int moon_pool_pick(struct moon_pool *pool, const struct moon_upstream *upstream,
                   struct moon_claim *claim)
{
    struct moon_lend_args args = {.upstream = upstream};
    const struct moon_endpoint *endpoint = choose(pool, &args, endpoints_of(pool, upstream));
    if (!endpoint)
        return -ENOENT;
    if (!get_permit(pool, upstream))
        return -EAGAIN;
    *claim = (struct moon_claim){.pool = pool,
                                 .limit = upstream->limit ? moon_limit_ref(upstream->limit) : NULL,
                                 .state = moon_endpoint_state_ref(endpoint->state),
                                 .is_load = counts_load(&args)};
    atomic_fetch_add_explicit(&claim->state->connections, 1, memory_order_relaxed);
    if (claim->is_load)
        atomic_fetch_add_explicit(&claim->state->in_flight, 1, memory_order_relaxed);
    return 0;
}

void moon_claim_release(struct moon_claim *claim)
{
    if (!claim->state)
        return;
    atomic_fetch_sub_explicit(&claim->state->connections, 1, memory_order_relaxed);
    if (claim->is_load)
        atomic_fetch_sub_explicit(&claim->state->in_flight, 1, memory_order_relaxed);
    if (claim->limit)
        moon_limit_release(claim->limit, &claim->pool->wake);
    moon_endpoint_state_unref(claim->state);
    moon_limit_unref(claim->limit);
    *claim = (struct moon_claim){0};
}
