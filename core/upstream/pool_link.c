// A link in the pool. Its wrapper lives from its connect to its close.
//
//   connect -> lent -> idle -> lent ... -> closed        at a limit: idle -> kept for a waiter -> lent to it
#include "base/err.h"
#include "io/loop.h"
#include "io/stream.h"
#include "io/tls.h"
#include "link/link.h"
#include "link/resources.h"
#include "obs/counters.h"
#include "upstream/patron.h"
#include "upstream/pool_priv.h"
#include "upstream/upstream.h"

#include <errno.h>
#include <stdlib.h>

enum {
    SLOT_IDLE_COUNT = 512, // idle links kept to one endpoint
    // An older link is closed instead of pooled, so that traffic follows changes of the network. One of HTTP/2 takes no more
    // lanes, but where a limit counts it: its permit would serve nobody while its lanes live.
    LINK_MAX_AGE_MS = 3600000,
};

void pooled_leave_idle(struct moon_pooled *pooled)
{
    if (!pooled->is_idle)
        return;
    pooled->is_idle = false;
    if (!pooled->is_h2)
        moon_list_del(&pooled->node);
    pooled->slot->idle_count--;
    if (pooled->slot->limit)
        moon_limit_count_idle(pooled->slot->limit, -1);
    moon_count_down(&pooled->pool->res->counters->upstream_idle);
}

static void enter_idle(struct moon_pooled *pooled)
{
    pooled->is_idle = true;
    if (!pooled->is_h2)
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

void pooled_forget(struct moon_pooled *pooled)
{
    pooled_leave_idle(pooled);
    moon_list_del(&pooled->node);
    moon_list_del(&pooled->kept);
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
    pooled_forget(pooled);
    if (limit)
        moon_limit_release(limit, &pool->wake);
    slot_free_gone(pool, slot);
}

void pooled_close(struct moon_pooled *pooled)
{
    moon_link_close(pooled->link);
    on_closed(pooled);
}

static bool is_old(const struct moon_pooled *pooled)
{
    return moon_loop_now_ms(pooled->pool->res->loop) - moon_link_start_ms(pooled->link) >
           LINK_MAX_AGE_MS;
}

bool pooled_is_current(const struct moon_pooled *pooled)
{
    return !pooled->slot->tls || moon_tls_is_current(moon_link_stream(pooled->link));
}

struct moon_pooled *pooled_newest_idle(struct slot *slot)
{
    while (!moon_list_is_empty(&slot->idle)) {
        struct moon_pooled *pooled = MOON_CONTAINER(slot->idle.next, struct moon_pooled, node);
        if (pooled_is_current(pooled))
            return pooled;
        pooled_close(pooled);
    }
    return NULL;
}

static void keep(struct moon_pooled *pooled)
{
    pooled_leave_idle(pooled);
    pooled->reserved_count++;
    if (moon_list_is_empty(&pooled->kept))
        moon_list_add_before(&pooled->pool->kept, &pooled->kept);
}

void pooled_take_kept(struct moon_pooled *pooled)
{
    if (--pooled->reserved_count == 0)
        moon_list_del(&pooled->kept);
}

void pooled_offer(struct moon_pooled *pooled)
{
    struct moon_pool *pool = pooled->pool;
    struct slot *slot = pooled->slot;
    end_load(pooled);
    if (pool->is_draining || slot->is_gone || slot->idle_count >= SLOT_IDLE_COUNT ||
        is_old(pooled) || !pooled_is_current(pooled)) {
        pooled_close(pooled);
        return;
    }
    enter_idle(pooled); // first, so that one who begins to wait sees it
    if (!slot->limit)
        return;
    if (slot->patron) { // of no use to others but for its permit
        if (moon_limit_is_waited_for(slot->limit))
            pooled_close(pooled);
        return;
    }
    switch (moon_limit_offer(slot->limit, &pool->wake)) {
    case MOON_OFFER_KEEP:
        return;
    case MOON_OFFER_GRANTED:
        keep(pooled);
        return;
    case MOON_OFFER_CLOSE:
        pooled_close(pooled);
        return;
    }
}

// ---- links that are shared: HTTP/2

// What its peer allows is what the next link is taken to be allowed.
static uint32_t note_cap(struct moon_pooled *pooled)
{
    uint32_t cap = moon_link_lane_cap(pooled->link);
    if (cap && !moon_link_is_connecting(pooled->link))
        pooled->slot->peer_stream_count = cap;
    return cap;
}

bool pooled_has_room(struct moon_pooled *pooled, uint32_t cap)
{
    uint32_t peer_cap = note_cap(pooled);
    return !pooled->is_retiring && (pooled->slot->limit || !is_old(pooled)) &&
           pooled->lane_count + pooled->reserved_count < (cap < peer_cap ? cap : peer_cap) &&
           pooled_is_current(pooled);
}

struct moon_pooled *pooled_shared(struct slot *slot, uint32_t cap, bool was_lost)
{
    struct moon_list *last = slot->shared.prev;
    for (struct moon_list *at = slot->shared.next, *next; at != &slot->shared; at = next) {
        struct moon_pooled *pooled = MOON_CONTAINER(at, struct moon_pooled, node);
        bool is_last = at == last;
        next = at->next;
        if ((!was_lost || moon_link_is_connecting(pooled->link)) && pooled_has_room(pooled, cap))
            return pooled;
        if (pooled->is_idle && !pooled_is_current(pooled)) {
            pooled_close(pooled);
        } else {
            moon_list_del(at);
            moon_list_add_before(&slot->shared, at);
        }
        if (is_last)
            break;
    }
    return NULL;
}

// A lane has become free while others are open: for one who waits on this worker, or for nobody more if others wait elsewhere.
static void offer_lane(struct moon_pooled *pooled)
{
    struct slot *slot = pooled->slot;
    if (!slot->limit || slot->patron || pooled->is_retiring || !pooled_is_current(pooled))
        return;
    switch (moon_limit_offer(slot->limit, &pooled->pool->wake)) {
    case MOON_OFFER_KEEP:
        return;
    case MOON_OFFER_GRANTED:
        keep(pooled);
        return;
    case MOON_OFFER_CLOSE:
        pooled->is_retiring = true;
        return;
    }
}

static void on_left(void *owner, struct moon_lane *lane)
{
    struct moon_pooled *pooled = owner;
    struct slot *slot = pooled->slot;
    if (lane->is_load)
        atomic_fetch_sub_explicit(&slot->state->in_flight, 1, memory_order_relaxed);
    lane->is_load = false;
    pooled->lane_count--;
    moon_list_del(&pooled->node); // where it is found first
    moon_list_add_after(&slot->shared, &pooled->node);
    bool is_over = note_cap(pooled) == 0 || pooled->is_retiring;
    bool is_free = pooled->lane_count == 0 && pooled->reserved_count == 0;
    if (is_free && is_over)
        pooled_close(pooled);
    else
        pooled_reoffer(pooled);
}

void pooled_reoffer(struct moon_pooled *pooled)
{
    if (pooled->is_idle)
        return;
    if (pooled->lane_count == 0 && pooled->reserved_count == 0)
        pooled_offer(pooled);
    else if (moon_link_lane_cap(pooled->link))
        offer_lane(pooled);
}

// ALPN has told what a guess could not.
static int on_mismatch(void *owner, bool is_h2)
{
    struct slot *slot = ((struct moon_pooled *)owner)->slot;
    if (slot->protocol != MOON_UPSTREAM_AUTO)
        return MOON_EALPN;
    slot->speaks_h2 = is_h2;
    return MOON_EGUESS;
}

// Those who wait on this worker get what lanes are free now; others are not asked for, for none has left here.
static void on_recapped(void *owner)
{
    struct moon_pooled *pooled = owner;
    struct slot *slot = pooled->slot;
    if (!slot->limit || slot->patron)
        return;
    while (moon_limit_is_waited_for(slot->limit) && pooled_has_room(pooled, slot->lane_cap) &&
           moon_limit_offer(slot->limit, &pooled->pool->wake) == MOON_OFFER_GRANTED)
        keep(pooled);
}

static void on_idle(void *owner)
{
    pooled_offer(owner);
}

static const struct moon_link_events pool_events = {
    .idle = on_idle,
    .closed = on_closed,
    .left = on_left,
    .mismatch = on_mismatch,
    .recapped = on_recapped,
};

// TLS over it, for the name that is asked for, or for the address.
static struct moon_stream *secure(struct moon_pool *pool, const struct slot *slot,
                                  struct moon_stream *stream)
{
    static const struct moon_slice offers[] = {
        [MOON_UPSTREAM_HTTP1] = {"\x08http/1.1", 9},
        [MOON_UPSTREAM_HTTP2] = {"\x02h2", 3},
        [MOON_UPSTREAM_AUTO] = {"\x02h2\x08http/1.1", 12},
    };
    char text[MOON_ADDRESS_TEXT_LEN];
    if (!slot->host)
        moon_address_format_ip(&slot->state->address, text);
    return moon_tls_connect(slot->tls, pool->res->worker, pool->res->loop, stream,
                            slot->host ? slot->host : text, offers[slot->protocol]);
}

int pooled_connect(struct moon_pool *pool, struct slot *slot, const struct moon_patron *patron,
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
    pooled->is_h2 = slot->speaks_h2;
    if (slot->speaks_h2 && moon_link_speak_h2(pooled->link, slot->peer_stream_count) < 0) {
        moon_link_close(pooled->link);
        free(pooled);
        return -ENOMEM;
    }
    if (pooled->is_h2)
        moon_list_add_after(&slot->shared, &pooled->node);
    slot->link_count++;
    atomic_fetch_add_explicit(&slot->state->connections, 1, memory_order_relaxed);
    *out = pooled;
    return 0;
}

void moon_pooled_failed(struct moon_pooled *pooled)
{
    atomic_fetch_add_explicit(&pooled->slot->state->connect_failures_total, 1,
                              memory_order_relaxed);
    moon_count_up(&pooled->pool->res->counters->upstream_connect_failures_total);
}

void moon_pooled_retire(struct moon_pooled *pooled)
{
    pooled->is_retiring = true;
}

void moon_pooled_count(struct moon_pooled *pooled, uint16_t status)
{
    moon_count_up(
        &pooled->slot->tally.classes[status / 100 < MOON_TALLY_CLASS_COUNT ? status / 100 : 0]);
}

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
