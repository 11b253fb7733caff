// The pool: a hash of slots by endpoint state, each with a ring of idle links. When an upstream loses an endpoint its idle links
// are closed, its others when they come back, and the slot goes with the last. Slots that just have no link are swept now and
// then, when endpoints change. A link's wrapper lives from its connect to its close. Links that began with a PROXY header have
// slots by client connection, which go with that one.
//
//   connect -> lent -> idle -> lent ... -> closed        at a limit: idle -> kept for a waiter -> lent to it
#include "upstream/pool.h"

#include "base/err.h"
#include "base/list.h"
#include "io/loop.h"
#include "io/stream.h"
#include "io/tls.h"
#include "link/link.h"
#include "link/resources.h"
#include "obs/counters.h"
#include "upstream/balance/least_request.h"
#include "upstream/balance/split.h"
#include "upstream/outbound.h"
#include "upstream/patron.h"
#include "upstream/registry.h"
#include "upstream/upstream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t GATEWAY_NUMBER = UINT64_MAX; // a patron: ourselves

enum {
    SLOT_IDLE_COUNT = 512, // idle links kept to one endpoint
    SWEEP_MS = 10000,      // at most so often: a sweep looks at every slot
    // an older link is closed instead of pooled, so that traffic follows changes of the network
    LINK_MAX_AGE_MS = 3600000,
};

// What makes links interchangeable.
struct identity {
    struct moon_endpoint_state *state; // unique by address, so it stands for it
    struct moon_limit *limit;          // NULL: none
    // NULL: plain; clients are one where their settings and files are equal
    struct moon_tls_client *tls;
    struct moon_slice host; // whom TLS asks for; empty: the address itself
    uint64_t patron;        // the number of the client connection that they are for; 0: any
    uint8_t proxy;          // a kind of introduction (upstream/patron.h)
};

struct slot {
    struct slot *next; // in its bucket
    struct moon_endpoint_state *state;
    struct moon_limit *limit;    // NULL: none
    struct moon_tls_client *tls; // NULL: plain
    char *host;                  // whom TLS asks for; NULL: the address itself
    uint64_t patron;
    uint8_t proxy;
    struct moon_list idle;           // of struct moon_pooled, the newest first
    uint32_t idle_count, link_count; // links: idle, kept for a waiter and lent
    uint32_t mark;                   // of the last change whose new endpoints it is among
    struct moon_tally tally;         // of the state
    bool is_gone; // its upstream has lost the endpoint: no idle links, freed with the last link
};

struct moon_pooled {
    // in slot->idle while it idles, in pool->kept while it waits for a waiter
    struct moon_list node;
    struct moon_link *link;
    struct slot *slot;
    struct moon_pool *pool;
    bool is_idle; // in slot->idle
    bool is_load; // counts in state->in_flight
    bool is_claimed;
};

// The newest endpoints of an upstream as this worker knows them.
struct seat {
    uint64_t stamp;
    struct moon_endpoint_set *set;
};

// Where this worker stands in sequences that are compiled once. Each starts anywhere, so that the workers together do not all
// begin with the same choice.
struct phases {
    uint64_t *at;
    uint32_t count;
};

struct moon_pool {
    struct moon_resources *res;
    struct moon_wake wake;
    struct slot **buckets;
    uint32_t bucket_count, slot_count; // a power of two
    uint32_t patron_count;             // slots with a patron
    struct moon_list kept;             // links for waiters that were granted one
    struct seat *seats;                // of each upstream, by its index
    uint32_t seat_count;
    struct phases turns;  // of each upstream's cycle, by its index
    struct phases splits; // of each split, by its index
    uint64_t random, swept_ms;
    uint32_t mark; // of the newest change of endpoints
    bool is_draining;
};

// ---- slots

// SplitMix64 (Steele, Lea, Flood, 2014).
static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

// Slots with a patron lie together, so that they are found when it goes.
static struct slot **bucket_of(struct moon_pool *pool, const struct moon_endpoint_state *state,
                               uint64_t patron)
{
    uint32_t hash = patron ? (uint32_t)mix(patron) : moon_address_hash(&state->address);
    return &pool->buckets[hash & (pool->bucket_count - 1)];
}

static struct slot **bucket_of_slot(struct moon_pool *pool, const struct slot *slot)
{
    return bucket_of(pool, slot->state, slot->patron);
}

static void grow(struct moon_pool *pool)
{
    uint32_t before = pool->bucket_count;
    struct slot **old = pool->buckets;
    pool->bucket_count = before ? before * 2 : 16;
    pool->buckets = calloc(pool->bucket_count, sizeof(struct slot *));
    if (!pool->buckets)
        abort();
    for (uint32_t i = 0; i < before; i++) {
        for (struct slot *slot = old[i], *next; slot; slot = next) {
            next = slot->next;
            struct slot **bucket = bucket_of_slot(pool, slot);
            slot->next = *bucket;
            *bucket = slot;
        }
    }
    free(old);
}

static struct identity identity_of(const struct moon_upstream *upstream)
{
    return (struct identity){
        .limit = upstream->limit, .tls = upstream->tls, .host = upstream->tls_host};
}

// Whether the slot is for such links, whatever the address and the client.
static bool is_of(const struct slot *slot, const struct identity *identity)
{
    if (slot->limit != identity->limit || slot->tls != identity->tls)
        return false;
    return !slot->tls ||
           moon_slice_equal(moon_slice_from(slot->host ? slot->host : ""), identity->host);
}

// NULL: there is none.
static struct slot *find_slot(struct moon_pool *pool, const struct identity *identity)
{
    struct slot *slot = *bucket_of(pool, identity->state, identity->patron);
    while (slot && (slot->state != identity->state || !is_of(slot, identity) ||
                    slot->patron != identity->patron || slot->proxy != identity->proxy))
        slot = slot->next;
    return slot;
}

// Off its bucket already.
static void slot_free(struct moon_pool *pool, struct slot *slot)
{
    pool->slot_count--;
    pool->patron_count -= slot->patron != 0;
    moon_tally_del(slot->state, &slot->tally);
    moon_endpoint_state_unref(slot->state);
    moon_limit_unref(slot->limit);
    moon_tls_client_unref(slot->tls);
    free(slot->host);
    free(slot);
}

static void slot_free_gone(struct moon_pool *pool, struct slot *slot)
{
    if (!slot->is_gone || slot->link_count > 0)
        return;
    struct slot **at = bucket_of_slot(pool, slot);
    while (*at != slot)
        at = &(*at)->next;
    *at = slot->next;
    slot_free(pool, slot);
}

// Frees the slots that hold no link.
static void sweep(struct moon_pool *pool)
{
    for (uint32_t i = 0; i < pool->bucket_count; i++) {
        for (struct slot **at = &pool->buckets[i], *slot; (slot = *at) != NULL;) {
            if (slot->link_count > 0) {
                at = &slot->next;
                continue;
            }
            *at = slot->next;
            slot_free(pool, slot);
        }
    }
}

// Addresses that are called once leave slots behind: those go before the table grows.
static void make_room(struct moon_pool *pool)
{
    sweep(pool);
    if (pool->slot_count >= pool->bucket_count / 2)
        grow(pool);
}

// NUL-terminated, unlike what it comes from; NULL where it is empty.
static char *copy_host(struct moon_slice host)
{
    if (host.len == 0)
        return NULL;
    char *copy = malloc(host.len + 1);
    if (!copy)
        abort();
    memcpy(copy, host.ptr, host.len);
    copy[host.len] = '\0';
    return copy;
}

static struct slot *slot_of(struct moon_pool *pool, const struct identity *identity)
{
    struct slot *slot = find_slot(pool, identity);
    if (slot) {
        slot->is_gone = false;
        return slot;
    }
    if (pool->slot_count >= pool->bucket_count)
        make_room(pool);
    slot = calloc(1, sizeof *slot);
    if (!slot)
        abort();
    slot->state = moon_endpoint_state_ref(identity->state);
    slot->limit = identity->limit ? moon_limit_ref(identity->limit) : NULL;
    slot->tls = identity->tls ? moon_tls_client_ref(identity->tls) : NULL;
    slot->host = copy_host(identity->host);
    slot->patron = identity->patron;
    slot->proxy = identity->proxy;
    moon_list_init(&slot->idle);
    moon_tally_add(slot->state, &slot->tally);
    struct slot **bucket = bucket_of_slot(pool, slot);
    slot->next = *bucket;
    *bucket = slot;
    pool->slot_count++;
    pool->patron_count += slot->patron != 0;
    return slot;
}

// ---- links

static void leave_idle(struct moon_pooled *pooled)
{
    if (!pooled->is_idle)
        return;
    pooled->is_idle = false;
    moon_list_del(&pooled->node);
    pooled->slot->idle_count--;
    if (pooled->slot->limit)
        moon_limit_count_idle(pooled->slot->limit, -1);
    moon_count_down(&pooled->pool->res->counters->upstream_idle);
}

static void enter_idle(struct moon_pooled *pooled)
{
    pooled->is_idle = true;
    moon_list_add_after(&pooled->slot->idle, &pooled->node);
    pooled->slot->idle_count++;
    if (pooled->slot->limit)
        moon_limit_count_idle(pooled->slot->limit, 1);
    moon_count_up(&pooled->pool->res->counters->upstream_idle);
}

static void end_load(struct moon_pooled *pooled)
{
    if (pooled->is_load)
        atomic_fetch_sub_explicit(&pooled->slot->state->in_flight, 1, memory_order_relaxed);
    pooled->is_load = false;
}

// The link is closed or will be; its permit, if any, stays with the caller.
static void forget(struct moon_pooled *pooled)
{
    leave_idle(pooled);
    moon_list_del(&pooled->node);
    end_load(pooled);
    pooled->slot->link_count--;
    if (!pooled->is_claimed)
        atomic_fetch_sub_explicit(&pooled->slot->state->connections, 1, memory_order_relaxed);
    free(pooled);
}

static void on_closed(void *owner)
{
    struct moon_pooled *pooled = owner;
    struct moon_limit *limit = pooled->is_claimed ? NULL : pooled->slot->limit;
    struct moon_pool *pool = pooled->pool;
    struct slot *slot = pooled->slot;
    forget(pooled);
    if (limit)
        moon_limit_release(limit, &pool->wake);
    slot_free_gone(pool, slot);
}

static void close_pooled(struct moon_pooled *pooled)
{
    moon_link_close(pooled->link);
    on_closed(pooled);
}

static void on_idle(void *owner)
{
    struct moon_pooled *pooled = owner;
    struct moon_pool *pool = pooled->pool;
    struct slot *slot = pooled->slot;
    uint64_t age_ms = moon_loop_now_ms(pool->res->loop) - moon_link_start_ms(pooled->link);
    end_load(pooled);
    if (pool->is_draining || slot->is_gone || slot->idle_count >= SLOT_IDLE_COUNT ||
        age_ms > LINK_MAX_AGE_MS) {
        close_pooled(pooled);
        return;
    }
    enter_idle(pooled); // first, so that one who begins to wait sees it
    if (!slot->limit)
        return;
    if (slot->patron) { // of no use to others but for its permit
        if (moon_limit_is_waited_for(slot->limit))
            close_pooled(pooled);
        return;
    }
    switch (moon_limit_offer(slot->limit, &pool->wake)) {
    case MOON_OFFER_KEEP:
        return;
    case MOON_OFFER_GRANTED:
        leave_idle(pooled);
        moon_list_add_before(&pool->kept, &pooled->node);
        return;
    case MOON_OFFER_CLOSE:
        close_pooled(pooled);
        return;
    }
}

static const struct moon_link_events pool_events = {.idle = on_idle, .closed = on_closed};

static struct moon_pooled *oldest_idle(const struct slot *slot)
{
    return moon_list_is_empty(&slot->idle)
               ? NULL
               : MOON_CONTAINER(slot->idle.prev, struct moon_pooled, node);
}

// Files of TLS may have changed under it.
static bool is_current(const struct moon_pooled *pooled)
{
    return !pooled->slot->tls || moon_tls_is_current(moon_link_stream(pooled->link));
}

// The newest idle link that may serve, off the slot; NULL: there is none.
static struct moon_pooled *take_idle(struct slot *slot)
{
    while (!moon_list_is_empty(&slot->idle)) {
        struct moon_pooled *pooled = MOON_CONTAINER(slot->idle.next, struct moon_pooled, node);
        if (is_current(pooled)) {
            leave_idle(pooled);
            return pooled;
        }
        close_pooled(pooled);
    }
    return NULL;
}

// Closes an idle link that counts for the limit, whose permit goes to the caller.
static bool steal_permit(struct moon_pool *pool, const struct moon_limit *limit)
{
    for (uint32_t i = 0; i < pool->bucket_count; i++) {
        for (struct slot *slot = pool->buckets[i]; slot; slot = slot->next) {
            struct moon_pooled *pooled = slot->limit == limit ? oldest_idle(slot) : NULL;
            if (!pooled)
                continue;
            moon_link_close(pooled->link);
            forget(pooled);
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
            while (slot->limit && (pooled = oldest_idle(slot)) != NULL &&
                   moon_limit_is_waited_for(slot->limit))
                close_pooled(pooled);
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
    grow(pool);
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
            for (struct moon_pooled *pooled; (pooled = oldest_idle(slot)) != NULL;)
                close_pooled(pooled);
}

void moon_pool_free(struct moon_pool *pool)
{
    if (!pool)
        return;
    moon_pool_drain(pool);
    sweep(pool);
    for (uint32_t i = 0; i < pool->seat_count; i++)
        moon_endpoint_set_unref(pool->seats[i].set);
    moon_wake_fini(&pool->wake);
    free(pool->buckets);
    free(pool->seats);
    free(pool->turns.at);
    free(pool->splits.at);
    free(pool);
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
            phases->at[i] = mix(pool->res->id_seed[0] + (i + 1) * 0x9e3779b97f4a7c15u);
        phases->count = count;
    }
    return &phases->at[index];
}

const struct moon_backend *moon_pool_split(struct moon_pool *pool, const struct moon_split *split)
{
    return moon_split_choose(split,
                             split->has_phase ? phase_at(pool, &pool->splits, split->index) : NULL);
}

// No new request goes there.
static void slot_leave(struct moon_pool *pool, struct slot *slot)
{
    slot->is_gone = true;
    slot->link_count++; // it stays until its last idle link is closed
    for (struct moon_pooled *pooled; (pooled = oldest_idle(slot)) != NULL;)
        close_pooled(pooled);
    slot->link_count--;
    slot_free_gone(pool, slot);
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
        struct slot *slot = find_slot(pool, &identity);
        if (slot)
            slot->mark = pool->mark;
    }
    for (uint32_t i = from; i < before_end; i++) {
        identity.state = before->endpoints[i].state;
        struct slot *slot = find_slot(pool, &identity);
        if (slot && slot->mark != pool->mark)
            slot_leave(pool, slot);
    }
}

void moon_pool_forget(struct moon_pool *pool, uint64_t number)
{
    if (pool->patron_count == 0)
        return;
    for (struct slot *slot = *bucket_of(pool, NULL, number), *next; slot; slot = next) {
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
    struct identity identity = identity_of(upstream);
    if (before)
        leave_endpoints(pool, identity, before, seat->set);
    if (before && now_ms - pool->swept_ms >= SWEEP_MS) {
        pool->swept_ms = now_ms;
        sweep(pool);
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

static const struct moon_endpoint *choose(struct moon_pool *pool, const struct moon_lend_args *args,
                                          const struct moon_endpoint_set *set)
{
    const struct moon_endpoint *chosen = NULL;
    switch (args->upstream->balance) {
    case MOON_BALANCE_ROUND_ROBIN:
        chosen = in_turn(pool, args->upstream->index, set);
        for (uint32_t i = 1; chosen && chosen->state == args->avoid && i < set->cycle.len; i++)
            chosen = in_turn(pool, args->upstream->index, set);
        return chosen;
    case MOON_BALANCE_LEAST_REQUEST:
        pool->random += 0x9e3779b97f4a7c15u;
        return moon_least_request_choose(set, mix(pool->random), args->avoid);
    }
    return chosen;
}

// ---- lending

// `is_load`: those who balance want to know.
static void fill_lease(struct moon_pooled *pooled, bool is_load, bool is_reused,
                       struct moon_lease *lease)
{
    if (is_load) {
        pooled->is_load = true;
        atomic_fetch_add_explicit(&pooled->slot->state->in_flight, 1, memory_order_relaxed);
    }
    lease->pooled = pooled;
    lease->state = pooled->slot->state;
    lease->lane = moon_link_lane(pooled->link);
    lease->is_reused = is_reused;
}

static bool counts_load(const struct moon_lend_args *args)
{
    return args->upstream->balance == MOON_BALANCE_LEAST_REQUEST;
}

// TLS over it, for the name that is asked for, or for the address.
static struct moon_stream *secure(struct moon_pool *pool, const struct slot *slot,
                                  struct moon_stream *stream)
{
    char text[MOON_ADDRESS_TEXT_LEN];
    if (!slot->host)
        moon_address_format_ip(&slot->state->address, text);
    return moon_tls_connect(slot->tls, pool->res->worker, pool->res->loop, stream,
                            slot->host ? slot->host : text);
}

static int connect(struct moon_pool *pool, struct slot *slot, const struct moon_patron *patron,
                   struct moon_pooled **out)
{
    struct moon_stream *stream;
    struct moon_counters *counters = pool->res->counters;
    moon_count_up(&counters->upstream_connects_total);
    int err = moon_loop_connect(pool->res->loop, &slot->state->address, &stream);
    if (err) {
        bool is_port = err == -EADDRNOTAVAIL;
        atomic_fetch_add_explicit(is_port ? &slot->state->no_port_total
                                          : &slot->state->connect_failures_total,
                                  1, memory_order_relaxed);
        moon_count_up(is_port ? &counters->upstream_no_port_total
                              : &counters->upstream_connect_failures_total);
        return err;
    }
    char intro[MOON_PATRON_INTRO_LEN];
    struct moon_slice first = {intro,
                               slot->proxy ? moon_patron_introduce(patron, slot->proxy, intro) : 0};
    if (slot->tls)
        stream = secure(pool, slot, stream);
    if (slot->tls && first.len) // in clear, in front of the handshake
        moon_tls_send_first(stream, first);
    struct moon_pooled *pooled = calloc(1, sizeof *pooled);
    if (!pooled)
        abort();
    pooled->slot = slot;
    pooled->pool = pool;
    pooled->link = moon_link_new(pool->res, MOON_LINK_CLIENT, stream, &pool_events, pooled);
    if (!slot->tls && first.len)
        moon_link_send_first(pooled->link, first);
    slot->link_count++;
    atomic_fetch_add_explicit(&slot->state->connections, 1, memory_order_relaxed);
    *out = pooled;
    return 0;
}

// The first link kept for a waiter of that limit.
static struct moon_pooled *take_kept(struct moon_pool *pool, const struct moon_limit *limit)
{
    for (struct moon_list *at = pool->kept.next; at != &pool->kept; at = at->next) {
        struct moon_pooled *pooled = MOON_CONTAINER(at, struct moon_pooled, node);
        if (pooled->slot->limit != limit)
            continue;
        moon_list_del(&pooled->node);
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
    struct identity identity = identity_of(args->upstream); // its TLS may have changed meanwhile
    bool is_fit = *link && is_of((*link)->slot, &identity) && is_current(*link) &&
                  (*link)->slot->proxy == args->upstream->proxy && leads_there(*link, args);
    if (!*link || (!args->fresh && is_fit))
        return false;
    struct slot *slot = (*link)->slot;
    moon_link_close((*link)->link);
    forget(*link);
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
    int err = connect(pool, slot, args->patron, &pooled);
    if (!err && args->upstream->is_original)
        note_outbound(pool, pooled);
    if (!err)
        fill_lease(pooled, counts_load(args), false, lease);
    else if (slot->limit)
        moon_limit_release(slot->limit, &pool->wake);
    return err;
}

// The slot of that identity at an address; found without the registry's lock where it can be.
static struct slot *slot_at(struct moon_pool *pool, struct identity identity,
                            const struct moon_address *address)
{
    struct slot *slot = pool->buckets[moon_address_hash(address) & (pool->bucket_count - 1)];
    for (; slot && !identity.patron; slot = slot->next)
        if (is_of(slot, &identity) && !slot->patron &&
            moon_address_equal(&slot->state->address, address)) {
            slot->is_gone = false;
            return slot;
        }
    identity.state = moon_endpoint_state_get(pool->wake.registry, address);
    slot = slot_of(pool, &identity);
    moon_endpoint_state_unref(identity.state); // the slot has one of its own
    return slot;
}

int moon_pool_lend_to(struct moon_pool *pool, const struct moon_lend_to_args *args,
                      struct moon_lease *lease)
{
    struct identity identity = {.tls = args->tls, .host = args->tls ? args->host : MOON_SLICE("")};
    struct slot *slot = slot_at(pool, identity, args->address);
    struct moon_pooled *pooled = args->fresh ? NULL : take_idle(slot);
    bool is_reused = pooled != NULL;
    *lease = (struct moon_lease){.endpoint_count = 1, .state = slot->state};
    if (!is_reused) {
        int err = connect(pool, slot, NULL, &pooled);
        if (err)
            return err;
    }
    fill_lease(pooled, false, is_reused, lease);
    return 0;
}

static struct identity identity_for(const struct moon_lend_args *args)
{
    struct identity identity = identity_of(args->upstream);
    if (args->upstream->proxy) {
        identity.proxy = args->upstream->proxy;
        identity.patron = args->patron ? args->patron->number : GATEWAY_NUMBER;
    }
    return identity;
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
    return slot_of(pool, &identity);
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
    if (slot && !args->fresh)
        pooled = take_idle(slot);
    if (slot && !pooled)
        return lend_new(pool, args, slot, has_permit, lease);
    if (pooled)
        fill_lease(pooled, counts_load(args), true, lease);
    if (has_permit)
        moon_limit_release(limit, &pool->wake);
    return pooled ? 0 : args->upstream->is_original ? -EDESTADDRREQ : -ENOENT;
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
            on_idle(pooled);
        return;
    }
}

void moon_pooled_failed(struct moon_pooled *pooled)
{
    atomic_fetch_add_explicit(&pooled->slot->state->connect_failures_total, 1,
                              memory_order_relaxed);
    moon_count_up(&pooled->pool->res->counters->upstream_connect_failures_total);
}

void moon_pooled_count(struct moon_pooled *pooled, uint16_t status)
{
    moon_count_up(
        &pooled->slot->tally.classes[status / 100 < MOON_TALLY_CLASS_COUNT ? status / 100 : 0]);
}

// ---- tunnels

void moon_pooled_claim(struct moon_pooled *pooled, struct moon_claim *claim)
{
    struct slot *slot = pooled->slot;
    *claim = (struct moon_claim){.pool = pooled->pool,
                                 .limit = slot->limit ? moon_limit_ref(slot->limit) : NULL,
                                 .state = moon_endpoint_state_ref(slot->state),
                                 .is_load = pooled->is_load};
    pooled->is_claimed = true;
    pooled->is_load = false;
}

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
