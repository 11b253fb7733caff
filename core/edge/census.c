// See census.h. A table of counts in shards, each with its lock; a count of zero is no entry.
#include "edge/census.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { SHARD_COUNT = 64, BUCKET_COUNT = 256, IPV6_PREFIX_LEN = 8 };

struct count {
    struct count *next;               // in its bucket
    struct moon_address port, client; // MOON_FAMILY_NONE: of the port as a whole
    uint32_t n;
    uint8_t kind;
};

struct shard {
    pthread_mutex_t lock;
    struct count *buckets[BUCKET_COUNT];
};

struct moon_census {
    struct shard shards[SHARD_COUNT];
};

struct moon_census *moon_census_new(void)
{
    struct moon_census *census = calloc(1, sizeof *census);
    if (!census)
        abort();
    for (int i = 0; i < SHARD_COUNT; i++)
        pthread_mutex_init(&census->shards[i].lock, NULL);
    return census;
}

void moon_census_free(struct moon_census *census)
{
    if (!census)
        return;
    for (int i = 0; i < SHARD_COUNT; i++) {
        for (int k = 0; k < BUCKET_COUNT; k++) {
            for (struct count *at = census->shards[i].buckets[k], *next; at; at = next) {
                next = at->next;
                free(at);
            }
        }
        pthread_mutex_destroy(&census->shards[i].lock);
    }
    free(census);
}

static uint64_t hash_of(const struct moon_address *port, const struct moon_address *client,
                        uint8_t kind)
{
    uint64_t hash = 0xcbf29ce484222325u ^ port->port ^ (uint64_t)kind << 16; // FNV-1a, and a finish
    for (int i = 0; i < 16; i++)
        hash = ((hash ^ port->ip[i]) * 0x100000001b3u ^ client->ip[i]) * 0x100000001b3u;
    hash = (hash ^ client->family) * 0x9e3779b97f4a7c15u;
    return hash ^ (hash >> 32);
}

// The place of a count, or where it would be put. The shard is locked.
static struct count **find(struct shard *shard, uint64_t hash, const struct moon_address *port,
                           const struct moon_address *client, uint8_t kind)
{
    struct count **at = &shard->buckets[(hash / SHARD_COUNT) % BUCKET_COUNT];
    while (*at && !((*at)->kind == kind && moon_address_equal(&(*at)->port, port) &&
                    moon_address_equal(&(*at)->client, client)))
        at = &(*at)->next;
    return at;
}

static bool add(struct moon_census *census, const struct moon_census_entry *entry,
                const struct moon_address *client, uint32_t bound)
{
    const struct moon_address *port = &entry->port;
    uint64_t hash = hash_of(port, client, entry->kind);
    struct shard *shard = &census->shards[hash % SHARD_COUNT];
    pthread_mutex_lock(&shard->lock);
    struct count **at = find(shard, hash, port, client, entry->kind);
    if (!*at) {
        *at = calloc(1, sizeof **at);
        if (!*at)
            abort();
        (*at)->port = *port;
        (*at)->client = *client;
        (*at)->kind = entry->kind;
    }
    bool is_fine = (*at)->n < bound;
    (*at)->n += is_fine;
    pthread_mutex_unlock(&shard->lock);
    return is_fine;
}

static void del(struct moon_census *census, const struct moon_census_entry *entry,
                const struct moon_address *client)
{
    const struct moon_address *port = &entry->port;
    uint64_t hash = hash_of(port, client, entry->kind);
    struct shard *shard = &census->shards[hash % SHARD_COUNT];
    pthread_mutex_lock(&shard->lock);
    struct count **at = find(shard, hash, port, client, entry->kind), *count = *at;
    assert(count); // it was entered
    if (--count->n == 0) {
        *at = count->next;
        free(count);
    }
    pthread_mutex_unlock(&shard->lock);
}

bool moon_census_enter(struct moon_census *census, struct moon_census_entry *entry,
                       const struct moon_address *port, uint32_t bound)
{
    static const struct moon_address all = {0};
    if (!bound)
        return true;
    entry->port = *port;
    entry->is_counted = add(census, entry, &all, bound);
    return entry->is_counted;
}

bool moon_census_enter_client(struct moon_census *census, struct moon_census_entry *entry,
                              const struct moon_address *port, const struct moon_address *client,
                              uint32_t bound)
{
    struct moon_address own = *client;
    moon_address_unmap(&own);
    own.port = 0;
    if (own.family == MOON_FAMILY_IPV6)
        memset(own.ip + IPV6_PREFIX_LEN, 0, sizeof own.ip - IPV6_PREFIX_LEN);
    if (!bound || own.family == MOON_FAMILY_NONE) // a unix socket's clients are one and all
        return true;
    entry->port = *port;
    entry->client = own;
    entry->is_client_counted = add(census, entry, &own, bound);
    return entry->is_client_counted;
}

void moon_census_leave(struct moon_census *census, struct moon_census_entry *entry)
{
    static const struct moon_address all = {0};
    if (entry->is_counted)
        del(census, entry, &all);
    if (entry->is_client_counted)
        del(census, entry, &entry->client);
    entry->is_counted = entry->is_client_counted = false;
}
