// Slots: a hash of them by endpoint state and whatever else makes links interchangeable, each with a ring of idle links. When
// an upstream loses an endpoint its idle links are closed, its others when they come back, and the slot goes with the last.
// Slots that just have no link are swept now and then, when endpoints change. Links that began with a PROXY header have slots by
// client connection, which go with that one.
#include "io/tls.h"
#include "upstream/pool_priv.h"
#include "upstream/upstream.h"

#include <stdlib.h>
#include <string.h>

struct slot **slot_bucket(struct moon_pool *pool, const struct moon_endpoint_state *state,
                          uint64_t patron)
{
    uint32_t hash = patron ? (uint32_t)pool_mix(patron) : moon_address_hash(&state->address);
    return &pool->buckets[hash & (pool->bucket_count - 1)];
}

static struct slot **bucket_of_slot(struct moon_pool *pool, const struct slot *slot)
{
    return slot_bucket(pool, slot->state, slot->patron);
}

void slots_grow(struct moon_pool *pool)
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

bool slot_is_of(const struct slot *slot, const struct identity *identity)
{
    if (slot->limit != identity->limit || slot->tls != identity->tls ||
        slot->protocol != identity->protocol || slot->connect_ms != identity->connect_ms)
        return false;
    return !slot->tls ||
           moon_slice_equal(moon_slice_from(slot->host ? slot->host : ""), identity->host);
}

struct slot *slot_find(struct moon_pool *pool, const struct identity *identity)
{
    struct slot *slot = *slot_bucket(pool, identity->state, identity->patron);
    while (slot && (slot->state != identity->state || !slot_is_of(slot, identity) ||
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

void slot_free_gone(struct moon_pool *pool, struct slot *slot)
{
    if (!slot->is_gone || slot->link_count > 0)
        return;
    struct slot **at = bucket_of_slot(pool, slot);
    while (*at != slot)
        at = &(*at)->next;
    *at = slot->next;
    slot_free(pool, slot);
}

void slots_sweep(struct moon_pool *pool)
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
    slots_sweep(pool);
    if (pool->slot_count >= pool->bucket_count / 2)
        slots_grow(pool);
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

struct slot *slot_get(struct moon_pool *pool, const struct identity *identity)
{
    struct slot *slot = slot_find(pool, identity);
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
    slot->protocol = identity->protocol;
    slot->connect_ms = identity->connect_ms;
    slot->speaks_h2 = identity->protocol != MOON_UPSTREAM_HTTP1; // of AUTO a guess
    moon_list_init(&slot->idle);
    moon_list_init(&slot->shared);
    moon_tally_add(slot->state, &slot->tally);
    struct slot **bucket = bucket_of_slot(pool, slot);
    slot->next = *bucket;
    *bucket = slot;
    pool->slot_count++;
    pool->patron_count += slot->patron != 0;
    return slot;
}

struct moon_pooled *slot_oldest_idle(const struct slot *slot)
{
    if (!moon_list_is_empty(&slot->idle))
        return MOON_CONTAINER(slot->idle.prev, struct moon_pooled, node);
    if (slot->idle_count == 0)
        return NULL;
    for (struct moon_list *at = slot->shared.prev; at != &slot->shared; at = at->prev)
        if (MOON_CONTAINER(at, struct moon_pooled, node)->is_idle)
            return MOON_CONTAINER(at, struct moon_pooled, node);
    return NULL;
}

void slot_leave(struct moon_pool *pool, struct slot *slot)
{
    slot->is_gone = true;
    slot->link_count++; // it stays until its last idle link is closed
    for (struct moon_pooled *pooled; (pooled = slot_oldest_idle(slot)) != NULL;)
        pooled_close(pooled);
    slot->link_count--;
    slot_free_gone(pool, slot);
}
