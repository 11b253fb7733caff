// One shard of a dictionary: its items, found through a table, kept in order of use. The caller holds the lock.
#pragma once

#include "base/dict.h"
#include "base/region.h"

#include <pthread.h>
#include <stdbool.h>

// A block of the region. Other items are named by their places.
struct moon_dict_item {
    struct moon_region_block block;
    uint32_t next; // in its bucket
    uint32_t hash;
    uint32_t newer, older;
    uint64_t expires_ms; // 0: never
    uint32_t flags;
    uint16_t key_len;
    uint8_t type;
    uint8_t era; // older than its shard's: it was flushed
    union {
        double number;
        uint64_t len; // of the string
    };
    char bytes[]; // key, string
};

struct moon_dict_shard {
    pthread_mutex_t lock;
    uint32_t *buckets;
    uint32_t bucket_mask;
    uint32_t newest, oldest;
    uint8_t era;
    struct moon_region region;
} __attribute__((aligned(64)));

// A key that is asked for, and what a new item of it wants.
struct moon_dict_key {
    const char *ptr;
    size_t len;
    size_t string_len;
    uint64_t now_ms;
    uint32_t hash;
    bool is_safe; // no live item makes room
};

// Takes `len` zeroed bytes behind the struct as well. `len` counts both and is a multiple of 64.
void moon_dict_shard_init(struct moon_dict_shard *shard, size_t len);
void moon_dict_shard_fini(struct moon_dict_shard *shard);
size_t moon_dict_shard_max_len(const struct moon_dict_shard *shard);

// NULL where there is none.
struct moon_dict_item *moon_dict_shard_find(const struct moon_dict_shard *shard,
                                            const struct moon_dict_key *key);
// Becomes the newest.
void moon_dict_shard_touch(struct moon_dict_shard *shard, struct moon_dict_item *item);
// An item for the key and its string, the newest of its shard; only the key is filled in. `old` is the key's item so far or NULL;
// its room is used. NULL where there is no room: then `old` is as it was if it is live.
struct moon_dict_item *moon_dict_shard_make(struct moon_dict_shard *shard,
                                            const struct moon_dict_key *key,
                                            struct moon_dict_item *old, bool *is_forcible);
// Frees the item; the free block it became part of.
uint32_t moon_dict_shard_drop(struct moon_dict_shard *shard, struct moon_dict_item *item);
// Drops what is stale among the `count` oldest, up to the first live one unless is_thorough.
void moon_dict_shard_reap(struct moon_dict_shard *shard, uint64_t now_ms, int count,
                          bool is_thorough);
// Makes every item stale.
void moon_dict_shard_flush(struct moon_dict_shard *shard);

static inline struct moon_dict_item *moon_dict_shard_item(const struct moon_dict_shard *shard,
                                                          uint32_t at)
{
    return at ? moon_region_block(&shard->region, at) : NULL;
}

static inline bool moon_dict_shard_is_live(const struct moon_dict_shard *shard,
                                           const struct moon_dict_item *item, uint64_t now_ms)
{
    return item->era == shard->era && (item->expires_ms == 0 || item->expires_ms > now_ms);
}
