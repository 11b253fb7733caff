// The pool: a hash of slots by address, each with a ring of idle links. Slots stay for the life of the worker (they are as
// many as there are endpoints); a link's wrapper lives from its connect to its close.
#include "upstream/pool.h"

#include "base/err.h"
#include "base/list.h"
#include "io/loop.h"
#include "link/link.h"
#include "link/resources.h"
#include "obs/counters.h"
#include "upstream/balance/split.h"
#include "upstream/upstream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    SLOT_IDLE_COUNT = 512, // idle links kept to one endpoint
    // an older link is closed instead of pooled, so that traffic follows changes of the network
    LINK_MAX_AGE_MS = 3600000,
};

struct slot {
    struct slot *next; // in its bucket
    struct moon_address key;
    struct moon_list idle; // of struct pooled, the newest first
    uint32_t idle_count;
};

struct pooled {
    struct moon_list node; // in slot->idle while it idles
    struct moon_link *link;
    struct slot *slot;
    struct moon_pool *pool;
};

// Where this worker stands in sequences that are compiled once. Each starts anywhere, so that the workers together do not all
// begin with the same choice.
struct phases {
    uint64_t *at;
    uint32_t count;
};

struct moon_pool {
    struct moon_resources *res;
    struct slot **buckets;
    uint32_t bucket_count, slot_count; // a power of two
    struct phases turns;               // of each upstream's cycle, by its index
    struct phases splits;              // of each split, by its index
    bool is_draining;
};

static uint32_t hash_address(const struct moon_address *address)
{
    uint64_t parts[2], hash = address->port * 0x9e3779b97f4a7c15u;
    memcpy(parts, address->ip, sizeof parts);
    hash = (hash ^ parts[0]) * 0xbf58476d1ce4e5b9u;
    hash = (hash ^ (hash >> 29) ^ parts[1]) * 0x94d049bb133111ebu;
    return (uint32_t)(hash >> 32);
}

static void grow(struct moon_pool *pool)
{
    uint32_t count = pool->bucket_count ? pool->bucket_count * 2 : 16;
    struct slot **buckets = calloc(count, sizeof *buckets);
    if (!buckets)
        abort();
    for (uint32_t i = 0; i < pool->bucket_count; i++) {
        for (struct slot *slot = pool->buckets[i], *next; slot; slot = next) {
            next = slot->next;
            struct slot **bucket = &buckets[hash_address(&slot->key) & (count - 1)];
            slot->next = *bucket;
            *bucket = slot;
        }
    }
    free(pool->buckets);
    pool->buckets = buckets;
    pool->bucket_count = count;
}

static struct slot *slot_of(struct moon_pool *pool, const struct moon_address *address)
{
    uint32_t hash = hash_address(address);
    struct slot *slot = pool->buckets[hash & (pool->bucket_count - 1)];
    for (; slot; slot = slot->next)
        if (moon_address_equal(&slot->key, address))
            return slot;
    if (pool->slot_count >= pool->bucket_count)
        grow(pool);
    slot = calloc(1, sizeof *slot);
    if (!slot)
        abort();
    slot->key = *address;
    moon_list_init(&slot->idle);
    struct slot **bucket = &pool->buckets[hash & (pool->bucket_count - 1)];
    slot->next = *bucket;
    *bucket = slot;
    pool->slot_count++;
    return slot;
}

static void leave_idle(struct pooled *pooled)
{
    if (moon_list_is_empty(&pooled->node))
        return;
    moon_list_del(&pooled->node);
    pooled->slot->idle_count--;
    moon_count_down(&pooled->pool->res->counters->upstream_idle);
}

static void on_closed(void *owner)
{
    struct pooled *pooled = owner;
    leave_idle(pooled);
    free(pooled);
}

static void on_idle(void *owner)
{
    struct pooled *pooled = owner;
    struct moon_pool *pool = pooled->pool;
    uint64_t age_ms = moon_loop_now_ms(pool->res->loop) - moon_link_start_ms(pooled->link);
    if (pool->is_draining || pooled->slot->idle_count >= SLOT_IDLE_COUNT ||
        age_ms > LINK_MAX_AGE_MS) {
        moon_link_close(pooled->link);
        free(pooled);
        return;
    }
    moon_list_add_after(&pooled->slot->idle, &pooled->node);
    pooled->slot->idle_count++;
    moon_count_up(&pool->res->counters->upstream_idle);
}

static const struct moon_link_events pool_events = {.idle = on_idle, .closed = on_closed};

struct moon_pool *moon_pool_new(struct moon_resources *res)
{
    struct moon_pool *pool = calloc(1, sizeof *pool);
    if (!pool)
        abort();
    pool->res = res;
    grow(pool);
    return pool;
}

void moon_pool_drain(struct moon_pool *pool)
{
    pool->is_draining = true;
    for (uint32_t i = 0; i < pool->bucket_count; i++) {
        for (struct slot *slot = pool->buckets[i]; slot; slot = slot->next) {
            while (!moon_list_is_empty(&slot->idle)) {
                struct pooled *pooled = MOON_CONTAINER(slot->idle.next, struct pooled, node);
                leave_idle(pooled);
                moon_link_close(pooled->link);
                free(pooled);
            }
        }
    }
}

void moon_pool_free(struct moon_pool *pool)
{
    if (!pool)
        return;
    moon_pool_drain(pool);
    for (uint32_t i = 0; i < pool->bucket_count; i++) {
        for (struct slot *slot = pool->buckets[i], *next; slot; slot = next) {
            next = slot->next;
            free(slot);
        }
    }
    free(pool->buckets);
    free(pool->turns.at);
    free(pool->splits.at);
    free(pool);
}

// SplitMix64 (Steele, Lea, Flood, 2014).
static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

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

static const struct moon_endpoint *choose(struct moon_pool *pool,
                                          const struct moon_upstream *upstream)
{
    if (upstream->cycle.len == 0)
        return NULL;
    uint64_t turn = (*phase_at(pool, &pool->turns, upstream->index))++;
    return &upstream->endpoints[upstream->cycle.turns[turn % upstream->cycle.len]];
}

int moon_pool_lend(struct moon_pool *pool, const struct moon_upstream *upstream, bool fresh,
                   struct moon_lease *lease)
{
    *lease = (struct moon_lease){.endpoint = choose(pool, upstream)};
    if (!lease->endpoint)
        return -ENOENT;
    struct slot *slot = slot_of(pool, &lease->endpoint->address);
    if (!fresh && !moon_list_is_empty(&slot->idle)) {
        struct pooled *pooled = MOON_CONTAINER(slot->idle.next, struct pooled, node);
        leave_idle(pooled);
        lease->lane = moon_link_lane(pooled->link);
        lease->is_reused = true;
        return 0;
    }
    struct moon_stream *stream;
    moon_count_up(&pool->res->counters->upstream_connects_total);
    int err = moon_loop_connect(pool->res->loop, &lease->endpoint->address, &stream);
    if (err)
        return err;
    struct pooled *pooled = calloc(1, sizeof *pooled);
    if (!pooled)
        abort();
    pooled->slot = slot;
    pooled->pool = pool;
    pooled->link = moon_link_new(pool->res, MOON_LINK_CLIENT, stream, &pool_events, pooled);
    lease->lane = moon_link_lane(pooled->link);
    return 0;
}
