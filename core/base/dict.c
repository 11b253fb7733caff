// The dictionary's operations: each finds the key's shard, takes its lock, does one thing, and lets go.
// Invariant: nothing of a shard is read or written without its lock but what never changes (its length, its table's length).
#include "base/dict.h"

#include "base/dict_priv.h"
#include "base/siphash.h"

#include <string.h>
#include <sys/mman.h>

enum {
    SHARD_MAX_COUNT = 16,
    SHARD_MIN_LEN = 262144, // fewer shards for short dictionaries, so that long values find room
    STALE_AT_A_WRITE = 2,   // of the oldest, what a write clears away
    BUCKETS_A_LOCK = 64,    // of a walk
};

struct moon_dict {
    uint64_t seed[2];
    size_t len, shard_len;
    uint32_t shard_count;           // a power of two
    struct moon_dict_shard *shards; // shard_len apart
} __attribute__((aligned(64)));

static struct moon_dict_shard *shard_at(const struct moon_dict *dict, uint32_t index)
{
    return (struct moon_dict_shard *)((char *)dict->shards + index * dict->shard_len);
}

struct moon_dict *moon_dict_try_new(size_t len, const uint64_t seed[2])
{
    if (len < MOON_DICT_MIN_LEN || len > MOON_DICT_MAX_LEN)
        return NULL;
    void *memory = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    struct moon_dict *dict = memory;
    dict->seed[0] = seed[0];
    dict->seed[1] = seed[1];
    dict->len = len;
    dict->shard_count = 1;
    while (dict->shard_count < SHARD_MAX_COUNT && len / dict->shard_count / 2 >= SHARD_MIN_LEN)
        dict->shard_count *= 2;
    dict->shard_len = (len - sizeof *dict) / dict->shard_count & ~(size_t)63;
    dict->shards = (struct moon_dict_shard *)(dict + 1);
    for (uint32_t i = 0; i < dict->shard_count; i++)
        moon_dict_shard_init(shard_at(dict, i), dict->shard_len);
    return dict;
}

void moon_dict_free(struct moon_dict *dict)
{
    if (!dict)
        return;
    for (uint32_t i = 0; i < dict->shard_count; i++)
        moon_dict_shard_fini(shard_at(dict, i));
    munmap(dict, dict->len);
}

// Finds the shard and locks it; NULL for a key that cannot be.
static struct moon_dict_shard *enter(struct moon_dict *dict, struct moon_dict_key *key)
{
    if (key->len == 0 || key->len > MOON_DICT_KEY_MAX_LEN)
        return NULL;
    uint64_t hash = moon_siphash(dict->seed, key->ptr, key->len);
    struct moon_dict_shard *shard =
        shard_at(dict, (uint32_t)(hash >> 32) & (dict->shard_count - 1));
    key->hash = (uint32_t)hash;
    pthread_mutex_lock(&shard->lock);
    return shard;
}

static struct moon_dict_item *find_live(const struct moon_dict_shard *shard,
                                        const struct moon_dict_key *key)
{
    struct moon_dict_item *item = moon_dict_shard_find(shard, key);
    return item && moon_dict_shard_is_live(shard, item, key->now_ms) ? item : NULL;
}

static uint64_t deadline(uint64_t now_ms, uint64_t ttl_ms)
{
    if (ttl_ms == 0)
        return 0;
    return ttl_ms < UINT64_MAX - now_ms ? now_ms + ttl_ms : UINT64_MAX;
}

// ---- one key

static int read_item(const struct moon_dict_item *item, struct moon_dict_value *value)
{
    value->type = item->type;
    value->flags = item->flags;
    if (item->type != MOON_DICT_STRING) {
        value->number = item->number;
        value->len = 0;
        return MOON_DICT_OK;
    }
    value->len = item->len;
    if (item->len > value->buffer_len)
        return MOON_DICT_TOO_LONG;
    if (item->len)
        memcpy(value->buffer, item->bytes + item->key_len, item->len);
    return MOON_DICT_OK;
}

int moon_dict_get(struct moon_dict *dict, const char *key, size_t key_len, uint64_t now_ms,
                  struct moon_dict_value *value)
{
    struct moon_dict_key k = {.ptr = key, .len = key_len, .now_ms = now_ms};
    struct moon_dict_shard *shard = enter(dict, &k);
    if (!shard)
        return MOON_DICT_BAD_KEY;
    int result = MOON_DICT_NOT_FOUND;
    struct moon_dict_item *item = find_live(shard, &k);
    if (item) {
        moon_dict_shard_touch(shard, item);
        result = read_item(item, value);
    }
    pthread_mutex_unlock(&shard->lock);
    value->is_stale = 0;
    return result;
}

int moon_dict_get_stale(struct moon_dict *dict, const char *key, size_t key_len, uint64_t now_ms,
                        struct moon_dict_value *value)
{
    struct moon_dict_key k = {.ptr = key, .len = key_len, .now_ms = now_ms};
    struct moon_dict_shard *shard = enter(dict, &k);
    if (!shard)
        return MOON_DICT_BAD_KEY;
    int result = MOON_DICT_NOT_FOUND;
    struct moon_dict_item *item = moon_dict_shard_find(shard, &k);
    if (item) {
        moon_dict_shard_touch(shard, item);
        result = read_item(item, value);
        value->is_stale = !moon_dict_shard_is_live(shard, item, now_ms);
    }
    pthread_mutex_unlock(&shard->lock);
    return result;
}

static void write_item(const struct moon_dict_shard *shard, struct moon_dict_item *item,
                       uint64_t now_ms, const struct moon_dict_set *set)
{
    item->expires_ms = deadline(now_ms, set->ttl_ms);
    item->flags = set->flags;
    item->type = set->type;
    item->era = shard->era;
    if (set->type != MOON_DICT_STRING) {
        item->number = set->number;
        return;
    }
    item->len = set->len;
    if (set->len)
        memcpy(item->bytes + item->key_len, set->string, set->len);
}

static int set_locked(struct moon_dict_shard *shard, struct moon_dict_key *key,
                      struct moon_dict_set *set)
{
    moon_dict_shard_reap(shard, key->now_ms, STALE_AT_A_WRITE, false);
    struct moon_dict_item *item = moon_dict_shard_find(shard, key);
    bool is_live = item && moon_dict_shard_is_live(shard, item, key->now_ms);
    if (is_live && (set->mode & MOON_DICT_ADD))
        return MOON_DICT_EXISTS;
    if (!is_live && (set->mode & MOON_DICT_REPLACE))
        return MOON_DICT_NOT_FOUND;
    key->string_len = set->type == MOON_DICT_STRING ? set->len : 0;
    key->is_safe = set->mode & MOON_DICT_SAFE;
    bool is_forcible = false;
    item = moon_dict_shard_make(shard, key, item, &is_forcible);
    set->is_forcible = is_forcible;
    if (!item)
        return MOON_DICT_NO_MEMORY;
    write_item(shard, item, key->now_ms, set);
    return MOON_DICT_OK;
}

int moon_dict_set(struct moon_dict *dict, const char *key, size_t key_len, uint64_t now_ms,
                  struct moon_dict_set *set)
{
    struct moon_dict_key k = {.ptr = key, .len = key_len, .now_ms = now_ms};
    set->is_forcible = 0;
    struct moon_dict_shard *shard = enter(dict, &k);
    if (!shard)
        return MOON_DICT_BAD_KEY;
    int result = set_locked(shard, &k, set);
    pthread_mutex_unlock(&shard->lock);
    return result;
}

static int incr_missing(struct moon_dict_shard *shard, struct moon_dict_key *key,
                        struct moon_dict_incr *incr)
{
    if (!incr->has_init)
        return MOON_DICT_NOT_FOUND;
    struct moon_dict_set set = {
        .number = incr->init + incr->by, .ttl_ms = incr->init_ttl_ms, .type = MOON_DICT_NUMBER};
    int result = set_locked(shard, key, &set);
    incr->is_forcible = set.is_forcible;
    incr->number = set.number;
    return result;
}

int moon_dict_incr(struct moon_dict *dict, const char *key, size_t key_len, uint64_t now_ms,
                   struct moon_dict_incr *incr)
{
    struct moon_dict_key k = {.ptr = key, .len = key_len, .now_ms = now_ms};
    incr->is_forcible = 0;
    struct moon_dict_shard *shard = enter(dict, &k);
    if (!shard)
        return MOON_DICT_BAD_KEY;
    int result = MOON_DICT_OK;
    struct moon_dict_item *item = find_live(shard, &k);
    if (!item) {
        result = incr_missing(shard, &k, incr);
    } else if (item->type != MOON_DICT_NUMBER) {
        result = MOON_DICT_NOT_NUMBER;
    } else {
        moon_dict_shard_touch(shard, item);
        incr->number = item->number += incr->by;
    }
    pthread_mutex_unlock(&shard->lock);
    return result;
}

int moon_dict_del(struct moon_dict *dict, const char *key, size_t key_len)
{
    struct moon_dict_key k = {.ptr = key, .len = key_len};
    struct moon_dict_shard *shard = enter(dict, &k);
    if (!shard)
        return MOON_DICT_BAD_KEY;
    struct moon_dict_item *item = moon_dict_shard_find(shard, &k);
    if (item)
        moon_dict_shard_drop(shard, item);
    pthread_mutex_unlock(&shard->lock);
    return item ? MOON_DICT_OK : MOON_DICT_NOT_FOUND;
}

int moon_dict_ttl(struct moon_dict *dict, const char *key, size_t key_len, uint64_t now_ms,
                  double *ttl_ms)
{
    struct moon_dict_key k = {.ptr = key, .len = key_len, .now_ms = now_ms};
    struct moon_dict_shard *shard = enter(dict, &k);
    if (!shard)
        return MOON_DICT_BAD_KEY;
    struct moon_dict_item *item = find_live(shard, &k);
    if (item)
        *ttl_ms = item->expires_ms ? (double)(item->expires_ms - now_ms) : 0;
    pthread_mutex_unlock(&shard->lock);
    return item ? MOON_DICT_OK : MOON_DICT_NOT_FOUND;
}

int moon_dict_expire(struct moon_dict *dict, const char *key, size_t key_len, uint64_t now_ms,
                     uint64_t ttl_ms)
{
    struct moon_dict_key k = {.ptr = key, .len = key_len, .now_ms = now_ms};
    struct moon_dict_shard *shard = enter(dict, &k);
    if (!shard)
        return MOON_DICT_BAD_KEY;
    struct moon_dict_item *item = find_live(shard, &k);
    if (item) {
        moon_dict_shard_touch(shard, item);
        item->expires_ms = deadline(now_ms, ttl_ms);
    }
    pthread_mutex_unlock(&shard->lock);
    return item ? MOON_DICT_OK : MOON_DICT_NOT_FOUND;
}

// ---- the whole dictionary

// The live keys of a bucket behind those already in the buffer; the bytes they take, which may be more than there is room for: then
// nothing counts as written.
static size_t list_bucket(const struct moon_dict_shard *shard, uint32_t bucket, uint64_t now_ms,
                          struct moon_dict_keys *keys)
{
    size_t len = 0, count = 0, room_len = keys->buffer_len - keys->len;
    const struct moon_dict_item *item = moon_dict_shard_item(shard, shard->buckets[bucket]);
    for (; item && count < keys->max_count - keys->count;
         item = moon_dict_shard_item(shard, item->next)) {
        if (!moon_dict_shard_is_live(shard, item, now_ms))
            continue;
        size_t key_len = item->key_len, item_len = sizeof(uint16_t) + key_len;
        if (len + item_len <= room_len) {
            char *to = keys->buffer + keys->len + len;
            memcpy(to, &item->key_len, sizeof(uint16_t));
            memcpy(to + sizeof(uint16_t), item->bytes, key_len);
        }
        len += item_len;
        count++;
    }
    if (len <= room_len) {
        keys->len += len;
        keys->count += count;
    }
    return len;
}

// Some buckets on from the cursor. The bytes that the next bucket would have needed where it did not fit, else 0.
static size_t list_some(struct moon_dict_shard *shard, uint64_t now_ms, struct moon_dict_keys *keys)
{
    size_t missing_len = 0;
    pthread_mutex_lock(&shard->lock);
    for (int i = 0;
         i < BUCKETS_A_LOCK && keys->bucket <= shard->bucket_mask && keys->count < keys->max_count;
         i++, keys->bucket++) {
        size_t room_len = keys->buffer_len - keys->len;
        size_t len = list_bucket(shard, keys->bucket, now_ms, keys);
        if (len > room_len) {
            missing_len = len;
            break;
        }
    }
    pthread_mutex_unlock(&shard->lock);
    return missing_len;
}

int moon_dict_keys(struct moon_dict *dict, uint64_t now_ms, struct moon_dict_keys *keys)
{
    keys->count = keys->len = 0;
    while (keys->shard < dict->shard_count && keys->count < keys->max_count) {
        struct moon_dict_shard *shard = shard_at(dict, keys->shard);
        size_t missing_len = list_some(shard, now_ms, keys);
        if (missing_len && keys->count == 0) {
            keys->len = missing_len;
            keys->is_last = 0;
            return MOON_DICT_TOO_LONG;
        }
        if (missing_len)
            break;
        if (keys->bucket <= shard->bucket_mask)
            continue;
        keys->bucket = 0;
        keys->shard++;
    }
    keys->is_last = keys->shard >= dict->shard_count || keys->count >= keys->max_count;
    return MOON_DICT_OK;
}

void moon_dict_flush_all(struct moon_dict *dict)
{
    for (uint32_t i = 0; i < dict->shard_count; i++) {
        struct moon_dict_shard *shard = shard_at(dict, i);
        pthread_mutex_lock(&shard->lock);
        moon_dict_shard_flush(shard);
        pthread_mutex_unlock(&shard->lock);
    }
}

static size_t flush_bucket(struct moon_dict_shard *shard, uint32_t bucket, size_t max_count,
                           uint64_t now_ms)
{
    size_t count = 0;
    struct moon_dict_item *item = moon_dict_shard_item(shard, shard->buckets[bucket]), *next;
    for (; item && count < max_count; item = next) {
        next = moon_dict_shard_item(shard, item->next);
        if (moon_dict_shard_is_live(shard, item, now_ms))
            continue;
        moon_dict_shard_drop(shard, item);
        count++;
    }
    return count;
}

static size_t flush_shard(struct moon_dict_shard *shard, size_t max_count, uint64_t now_ms)
{
    size_t count = 0;
    for (uint32_t bucket = 0; bucket <= shard->bucket_mask && count < max_count;) {
        pthread_mutex_lock(&shard->lock);
        for (int i = 0; i < BUCKETS_A_LOCK && bucket <= shard->bucket_mask; i++, bucket++)
            count += flush_bucket(shard, bucket, max_count - count, now_ms);
        pthread_mutex_unlock(&shard->lock);
    }
    return count;
}

size_t moon_dict_flush_expired(struct moon_dict *dict, size_t max_count, uint64_t now_ms)
{
    size_t count = 0;
    if (max_count == 0)
        max_count = SIZE_MAX;
    for (uint32_t i = 0; i < dict->shard_count && count < max_count; i++)
        count += flush_shard(shard_at(dict, i), max_count - count, now_ms);
    return count;
}

size_t moon_dict_capacity(const struct moon_dict *dict)
{
    return dict->len;
}

size_t moon_dict_free_space(struct moon_dict *dict)
{
    size_t units = 0;
    for (uint32_t i = 0; i < dict->shard_count; i++) {
        struct moon_dict_shard *shard = shard_at(dict, i);
        pthread_mutex_lock(&shard->lock);
        units += shard->region.free_units;
        pthread_mutex_unlock(&shard->lock);
    }
    return units * MOON_REGION_UNIT_LEN;
}

size_t moon_dict_max_len(const struct moon_dict *dict)
{
    return moon_dict_shard_max_len(dict->shards);
}
