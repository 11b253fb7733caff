// A shard: a table of buckets that never changes its size, a list by use, and a region in which every item is one block.
//
//   bucket -> item -> item        newest <-> item <-> ... <-> oldest        all by place in the region
//
// Invariant: an item is in one bucket and in the list; a block of the region is an item or free. Room is made in two steps: first the
// oldest items go, until what is free is long enough in one piece, or as much as the need has gone; then the neighbours of the piece
// that the last of them left, whatever their age, until it is long enough. The second step always gets there, because a region
// without items is one block. Of mixed lengths that hits about 2 of 100 requests less than a strict order of age would if memory
// could be moved; dropping four times the need by age first hits fewer still (measured), for what it frees lies about in pieces.
#include "base/dict_priv.h"

#include <assert.h>
#include <string.h>

enum {
    BUCKET_EVERY_LEN = 128, // one bucket for so much memory: one to two short items
    SAFE_REAP_COUNT = 64,   // of the oldest, before MOON_DICT_SAFE gives up
};

static_assert(sizeof(struct moon_dict_item) == 48, "three units and the bytes");

static uint32_t place(const struct moon_dict_shard *shard, const struct moon_dict_item *item)
{
    return moon_region_place(&shard->region, item);
}

static size_t bucket_count(size_t len)
{
    size_t count = 16;
    while (count < len / BUCKET_EVERY_LEN)
        count *= 2;
    return count;
}

static void empty(struct moon_dict_shard *shard, void *memory, size_t len)
{
    moon_region_init(&shard->region, memory, len);
    shard->newest = shard->oldest = 0;
}

void moon_dict_shard_init(struct moon_dict_shard *shard, size_t len)
{
    pthread_mutexattr_t
        attributes; // adaptive: spins before it sleeps, for the lock is never held for long
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ADAPTIVE_NP);
    pthread_mutex_init(&shard->lock, &attributes);
    pthread_mutexattr_destroy(&attributes);
    size_t count = bucket_count(len);
    size_t table_len = count * sizeof(uint32_t);
    shard->buckets = (uint32_t *)(shard + 1);
    shard->bucket_mask = (uint32_t)count - 1;
    shard->era = 0;
    empty(shard, (char *)(shard + 1) + table_len, len - sizeof *shard - table_len);
}

void moon_dict_shard_fini(struct moon_dict_shard *shard)
{
    pthread_mutex_destroy(&shard->lock);
}

size_t moon_dict_shard_max_len(const struct moon_dict_shard *shard)
{
    return (size_t)moon_region_max_units(&shard->region) * MOON_REGION_UNIT_LEN -
           sizeof(struct moon_dict_item);
}

static uint32_t *bucket_of(const struct moon_dict_shard *shard, uint32_t hash)
{
    return &shard->buckets[hash & shard->bucket_mask];
}

struct moon_dict_item *moon_dict_shard_find(const struct moon_dict_shard *shard,
                                            const struct moon_dict_key *key)
{
    struct moon_dict_item *item = moon_dict_shard_item(shard, *bucket_of(shard, key->hash));
    while (item && (item->hash != key->hash || item->key_len != key->len ||
                    memcmp(item->bytes, key->ptr, key->len) != 0))
        item = moon_dict_shard_item(shard, item->next);
    return item;
}

// ---- the list by use

static void list_add(struct moon_dict_shard *shard, struct moon_dict_item *item, uint32_t at)
{
    item->newer = 0;
    item->older = shard->newest;
    if (shard->newest)
        moon_dict_shard_item(shard, shard->newest)->newer = at;
    else
        shard->oldest = at;
    shard->newest = at;
}

static void list_del(struct moon_dict_shard *shard, struct moon_dict_item *item)
{
    if (item->newer)
        moon_dict_shard_item(shard, item->newer)->older = item->older;
    else
        shard->newest = item->older;
    if (item->older)
        moon_dict_shard_item(shard, item->older)->newer = item->newer;
    else
        shard->oldest = item->newer;
}

void moon_dict_shard_touch(struct moon_dict_shard *shard, struct moon_dict_item *item)
{
    if (!item->newer)
        return;
    list_del(shard, item);
    list_add(shard, item, place(shard, item));
}

uint32_t moon_dict_shard_drop(struct moon_dict_shard *shard, struct moon_dict_item *item)
{
    uint32_t at = place(shard, item);
    uint32_t *link = bucket_of(shard, item->hash);
    while (*link != at)
        link = &moon_dict_shard_item(shard, *link)->next;
    *link = item->next;
    list_del(shard, item);
    return moon_region_give(&shard->region, at);
}

void moon_dict_shard_reap(struct moon_dict_shard *shard, uint64_t now_ms, int count,
                          bool is_thorough)
{
    struct moon_dict_item *item = moon_dict_shard_item(shard, shard->oldest), *newer;
    for (; count > 0 && item; count--, item = newer) {
        newer = moon_dict_shard_item(shard, item->newer);
        if (!moon_dict_shard_is_live(shard, item, now_ms))
            moon_dict_shard_drop(shard, item);
        else if (!is_thorough)
            return;
    }
}

void moon_dict_shard_flush(struct moon_dict_shard *shard)
{
    if (++shard->era != 0)
        return;
    // Once around: items of 256 flushes ago would look new again.
    memset(shard->buckets, 0, ((size_t)shard->bucket_mask + 1) * sizeof(uint32_t));
    size_t unit_count = (size_t)shard->region.end + 1;
    empty(shard, shard->region.base, unit_count * MOON_REGION_UNIT_LEN);
}

// ---- room

static uint32_t evict(struct moon_dict_shard *shard, uint32_t at, uint64_t now_ms,
                      bool *is_forcible)
{
    struct moon_dict_item *item = moon_dict_shard_item(shard, at);
    *is_forcible = *is_forcible || moon_dict_shard_is_live(shard, item, now_ms);
    return moon_dict_shard_drop(shard, item);
}

static uint32_t make_room(struct moon_dict_shard *shard, uint32_t units, uint64_t now_ms,
                          bool *is_forcible)
{
    struct moon_region *region = &shard->region;
    uint32_t at = 0;
    uint32_t left_units = units;
    while (left_units > 0) {
        uint32_t oldest_units = moon_region_units(region, shard->oldest);
        left_units -= oldest_units < left_units ? oldest_units : left_units;
        at = evict(shard, shard->oldest, now_ms, is_forcible);
        if (moon_region_units(region, at) >= units)
            break;
    }
    while (moon_region_units(region, at) < units)
        at = evict(shard, moon_region_neighbour(region, at), now_ms, is_forcible);
    return moon_region_take_at(region, at, units);
}

// Room of which no live item knows. A stale `old` is gone by now.
static uint32_t find_room(struct moon_dict_shard *shard, uint32_t units, uint64_t now_ms,
                          struct moon_dict_item *old)
{
    struct moon_region *region = &shard->region;
    uint32_t at = moon_region_take(region, units);
    if (!at) {
        moon_dict_shard_reap(shard, now_ms, SAFE_REAP_COUNT, true);
        at = moon_region_take(region, units);
    }
    if (old && at)
        moon_dict_shard_drop(shard, old);
    else if (old && moon_region_units_if_given(region, place(shard, old)) >= units)
        at = moon_region_take_at(region, moon_dict_shard_drop(shard, old), units);
    return at;
}

static uint32_t take(struct moon_dict_shard *shard, uint32_t units, uint64_t now_ms,
                     struct moon_dict_item *old, bool *is_forcible)
{
    if (old)
        moon_dict_shard_drop(shard, old);
    uint32_t at = moon_region_take(&shard->region, units);
    return at ? at : make_room(shard, units, now_ms, is_forcible);
}

struct moon_dict_item *moon_dict_shard_make(struct moon_dict_shard *shard,
                                            const struct moon_dict_key *key,
                                            struct moon_dict_item *old, bool *is_forcible)
{
    size_t max_len = moon_dict_shard_max_len(shard);
    if (key->len > max_len || key->string_len > max_len - key->len)
        return NULL;
    size_t whole_len = sizeof(struct moon_dict_item) + key->len + key->string_len;
    uint32_t units = (uint32_t)((whole_len + MOON_REGION_UNIT_LEN - 1) / MOON_REGION_UNIT_LEN);
    if (old && moon_region_resize(&shard->region, place(shard, old), units)) {
        moon_dict_shard_touch(shard, old);
        return old;
    }
    if (old && !moon_dict_shard_is_live(shard, old, key->now_ms)) {
        moon_dict_shard_drop(shard, old);
        old = NULL;
    }
    uint32_t at = key->is_safe ? find_room(shard, units, key->now_ms, old)
                               : take(shard, units, key->now_ms, old, is_forcible);
    if (!at)
        return NULL;
    struct moon_dict_item *item = moon_dict_shard_item(shard, at);
    uint32_t *bucket = bucket_of(shard, key->hash);
    item->hash = key->hash;
    item->key_len = (uint16_t)key->len;
    memcpy(item->bytes, key->ptr, key->len);
    item->next = *bucket;
    *bucket = at;
    list_add(shard, item, at);
    return item;
}
