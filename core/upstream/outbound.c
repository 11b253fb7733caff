// See outbound.h. A table of four entries a bucket; the memory comes with the first entry.
#include "upstream/outbound.h"

#include "upstream/registry.h"

#include <pthread.h>
#include <stdlib.h>

enum { BUCKET_COUNT = 2048, WAYS = 4, GOOD_MS = 2000 };

struct entry {
    struct moon_address local, destination;
    uint64_t ends_ms;
};

struct moon_outbound {
    pthread_mutex_t lock;
    struct entry *entries;
};

struct moon_outbound *moon_outbound_new(void)
{
    struct moon_outbound *outbound = calloc(1, sizeof *outbound);
    if (!outbound)
        abort();
    pthread_mutex_init(&outbound->lock, NULL);
    return outbound;
}

void moon_outbound_free(struct moon_outbound *outbound)
{
    if (!outbound)
        return;
    pthread_mutex_destroy(&outbound->lock);
    free(outbound->entries);
    free(outbound);
}

static struct entry *bucket_of(const struct moon_outbound *outbound,
                               const struct moon_address *local)
{
    return &outbound->entries[(size_t)(moon_address_hash(local) % BUCKET_COUNT) * WAYS];
}

void moon_outbound_note(struct moon_outbound *outbound, const struct moon_address *local,
                        const struct moon_address *destination, uint64_t now_ms)
{
    pthread_mutex_lock(&outbound->lock);
    if (!outbound->entries)
        outbound->entries = calloc((size_t)BUCKET_COUNT * WAYS, sizeof *outbound->entries);
    if (!outbound->entries)
        abort();
    struct entry *bucket = bucket_of(outbound, local), *oldest = bucket;
    for (int i = 1; i < WAYS; i++)
        if (bucket[i].ends_ms < oldest->ends_ms)
            oldest = &bucket[i];
    *oldest = (struct entry){*local, *destination, now_ms + GOOD_MS};
    pthread_mutex_unlock(&outbound->lock);
}

bool moon_outbound_has(struct moon_outbound *outbound, const struct moon_address *local,
                       const struct moon_address *destination, uint64_t now_ms)
{
    bool has = false;
    pthread_mutex_lock(&outbound->lock);
    const struct entry *bucket = outbound->entries ? bucket_of(outbound, local) : NULL;
    for (int i = 0; bucket && i < WAYS && !has; i++)
        has = bucket[i].ends_ms > now_ms && moon_address_equal(&bucket[i].local, local) &&
              moon_address_equal(&bucket[i].destination, destination);
    pthread_mutex_unlock(&outbound->lock);
    return has;
}
