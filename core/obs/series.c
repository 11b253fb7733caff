// Series: names under a lock, counts without.
//
//   worker:  chunks[kind][id / 256] -> cells[id % 256] -> cell: histogram, and of a route a list of pairs, one an upstream
//
// Invariant: a pointer that a reader can reach is published with a release store after what it points to was zeroed, and
// nothing is taken back before the worker is gone.
#include "obs/series.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { CHUNK_CELL_COUNT = 256, CHUNK_COUNT = MOON_SERIES_MAX / CHUNK_CELL_COUNT };

// ---- names

struct name {
    struct moon_slice text;
    uint32_t next; // in its bucket; 0: none (id 0 is found by its text first)
};

struct table {
    struct name *names;
    uint32_t *buckets; // of ids; 0: empty
    uint32_t count, cap;
};

struct moon_series_names {
    pthread_mutex_t lock;
    struct table tables[MOON_SERIES_KIND_COUNT];
    uint32_t max_count;
};

static const struct moon_slice other = {"other", 5};

static uint32_t hash_of(struct moon_slice text)
{
    uint32_t hash = 2166136261u; // FNV-1a
    for (size_t i = 0; i < text.len; i++)
        hash = (hash ^ (uint8_t)text.ptr[i]) * 16777619u;
    return hash;
}

static void chain(struct table *table, uint32_t id)
{
    uint32_t *bucket = &table->buckets[hash_of(table->names[id].text) & (table->cap - 1)];
    table->names[id].next = *bucket;
    *bucket = id;
}

static void grow(struct table *table)
{
    table->cap = table->cap ? table->cap * 2 : 64;
    table->names = realloc(table->names, table->cap * sizeof *table->names);
    free(table->buckets);
    table->buckets = calloc(table->cap, sizeof *table->buckets);
    if (!table->names || !table->buckets)
        abort();
    for (uint32_t id = 1; id < table->count; id++)
        chain(table, id);
}

static uint32_t insert(struct table *table, struct moon_slice text)
{
    if (table->count == table->cap)
        grow(table);
    char *copy = malloc(text.len + 1);
    if (!copy)
        abort();
    if (text.len)
        memcpy(copy, text.ptr, text.len);
    table->names[table->count].text = (struct moon_slice){copy, text.len};
    if (table->count)
        chain(table, table->count);
    return table->count++;
}

struct moon_series_names *moon_series_names_new(uint32_t max_count)
{
    struct moon_series_names *names = calloc(1, sizeof *names);
    if (!names)
        abort();
    pthread_mutex_init(&names->lock, NULL);
    for (int kind = 0; kind < MOON_SERIES_KIND_COUNT; kind++) {
        insert(&names->tables[kind], other);
        insert(&names->tables[kind], MOON_SLICE(""));
    }
    moon_series_names_set_max(names, max_count);
    return names;
}

void moon_series_names_free(struct moon_series_names *names)
{
    if (!names)
        return;
    for (int kind = 0; kind < MOON_SERIES_KIND_COUNT; kind++) {
        struct table *table = &names->tables[kind];
        for (uint32_t id = 0; id < table->count; id++)
            free((void *)table->names[id].text.ptr);
        free(table->names);
        free(table->buckets);
    }
    pthread_mutex_destroy(&names->lock);
    free(names);
}

void moon_series_names_set_max(struct moon_series_names *names, uint32_t max_count)
{
    pthread_mutex_lock(&names->lock);
    names->max_count = max_count < MOON_SERIES_MAX - 2 ? max_count : MOON_SERIES_MAX - 2;
    pthread_mutex_unlock(&names->lock);
}

static uint32_t find_or_insert(struct moon_series_names *names, struct table *table,
                               struct moon_slice text)
{
    uint32_t id = table->buckets[hash_of(text) & (table->cap - 1)];
    while (id && !moon_slice_equal(table->names[id].text, text))
        id = table->names[id].next;
    if (id)
        return id;
    return table->count < names->max_count + 2 ? insert(table, text) : MOON_SERIES_OTHER;
}

uint32_t moon_series_names_add(struct moon_series_names *names, enum moon_series_kind kind,
                               struct moon_slice name)
{
    if (!names || moon_slice_equal(name, other))
        return MOON_SERIES_OTHER;
    pthread_mutex_lock(&names->lock);
    uint32_t id = find_or_insert(names, &names->tables[kind], name);
    pthread_mutex_unlock(&names->lock);
    return id;
}

uint32_t moon_series_names_count(struct moon_series_names *names, enum moon_series_kind kind)
{
    pthread_mutex_lock(&names->lock);
    uint32_t count = names->tables[kind].count;
    pthread_mutex_unlock(&names->lock);
    return count;
}

struct moon_slice moon_series_names_get(struct moon_series_names *names, enum moon_series_kind kind,
                                        uint32_t id)
{
    pthread_mutex_lock(&names->lock);
    struct moon_slice text = names->tables[kind].names[id].text;
    pthread_mutex_unlock(&names->lock);
    return text;
}

// ---- counts

struct moon_series_pair {
    _Atomic uint64_t counts[MOON_SERIES_CLASS_COUNT];
    uint32_t upstream;
    struct moon_series_pair *_Atomic next;
};

struct cell {
    struct moon_histogram histogram;
    struct moon_series_pair *_Atomic pairs; // of routes
};

struct chunk {
    struct cell *_Atomic cells[CHUNK_CELL_COUNT];
};

struct moon_series {
    struct chunk *_Atomic chunks[MOON_SERIES_KIND_COUNT][CHUNK_COUNT];
};

static void *zeroed(size_t len)
{
    void *memory = calloc(1, len);
    if (!memory)
        abort();
    return memory;
}

struct moon_series *moon_series_new(void)
{
    return zeroed(sizeof(struct moon_series));
}

static void cell_free(struct cell *cell)
{
    struct moon_series_pair *pair = cell ? atomic_load(&cell->pairs) : NULL;
    while (pair) {
        struct moon_series_pair *next = atomic_load(&pair->next);
        free(pair);
        pair = next;
    }
    free(cell);
}

static void chunk_free(struct chunk *chunk)
{
    for (size_t i = 0; chunk && i < CHUNK_CELL_COUNT; i++)
        cell_free(atomic_load(&chunk->cells[i]));
    free(chunk);
}

void moon_series_free(struct moon_series *series)
{
    for (size_t i = 0; series && i < CHUNK_COUNT; i++) {
        chunk_free(atomic_load(&series->chunks[MOON_SERIES_ROUTE][i]));
        chunk_free(atomic_load(&series->chunks[MOON_SERIES_UPSTREAM][i]));
    }
    free(series);
}

// On the worker: its own stores need no acquire.
static struct cell *cell_of(struct moon_series *series, enum moon_series_kind kind, uint32_t id)
{
    struct chunk *_Atomic *chunk_at = &series->chunks[kind][id / CHUNK_CELL_COUNT];
    struct chunk *chunk = atomic_load_explicit(chunk_at, memory_order_relaxed);
    if (!chunk) {
        chunk = zeroed(sizeof *chunk);
        atomic_store_explicit(chunk_at, chunk, memory_order_release);
    }
    struct cell *_Atomic *cell_at = &chunk->cells[id % CHUNK_CELL_COUNT];
    struct cell *cell = atomic_load_explicit(cell_at, memory_order_relaxed);
    if (!cell) {
        cell = zeroed(sizeof *cell);
        atomic_store_explicit(cell_at, cell, memory_order_release);
    }
    return cell;
}

// A route has few upstreams, so a list does.
static struct moon_series_pair *pair_of(struct cell *cell, uint32_t upstream)
{
    struct moon_series_pair *_Atomic *at = &cell->pairs, *pair;
    while ((pair = atomic_load_explicit(at, memory_order_relaxed)) != NULL) {
        if (pair->upstream == upstream)
            return pair;
        at = &pair->next;
    }
    pair = zeroed(sizeof *pair);
    pair->upstream = upstream;
    atomic_store_explicit(at, pair, memory_order_release);
    return pair;
}

void moon_series_count(struct moon_series *series, const struct moon_series_sample *sample)
{
    struct cell *route = cell_of(series, MOON_SERIES_ROUTE, sample->route);
    struct moon_series_pair *pair = pair_of(route, sample->upstream);
    unsigned class = sample->status / 100u - 1;
    _Atomic uint64_t *count = &pair->counts[class < MOON_SERIES_CLASS_COUNT ? class : 4];
    atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + 1,
                          memory_order_relaxed);
    moon_histogram_add(&route->histogram, sample->us);
    if (sample->has_upstream_us)
        moon_histogram_add(&cell_of(series, MOON_SERIES_UPSTREAM, sample->upstream)->histogram,
                           sample->upstream_us);
}

// ---- reading

static const struct cell *find(const struct moon_series *series, enum moon_series_kind kind,
                               uint32_t id)
{
    const struct chunk *chunk =
        atomic_load_explicit(&series->chunks[kind][id / CHUNK_CELL_COUNT], memory_order_acquire);
    return chunk ? atomic_load_explicit(&chunk->cells[id % CHUNK_CELL_COUNT], memory_order_acquire)
                 : NULL;
}

const struct moon_histogram *moon_series_route(const struct moon_series *series, uint32_t id)
{
    const struct cell *cell = find(series, MOON_SERIES_ROUTE, id);
    return cell ? &cell->histogram : NULL;
}

const struct moon_histogram *moon_series_upstream(const struct moon_series *series, uint32_t id)
{
    const struct cell *cell = find(series, MOON_SERIES_UPSTREAM, id);
    return cell ? &cell->histogram : NULL;
}

const struct moon_series_pair *moon_series_pairs(const struct moon_series *series, uint32_t route)
{
    const struct cell *cell = find(series, MOON_SERIES_ROUTE, route);
    return cell ? atomic_load_explicit(&cell->pairs, memory_order_acquire) : NULL;
}

const struct moon_series_pair *moon_series_pair_next(const struct moon_series_pair *pair)
{
    return atomic_load_explicit(&pair->next, memory_order_acquire);
}

uint32_t moon_series_pair_upstream(const struct moon_series_pair *pair)
{
    return pair->upstream;
}

uint64_t moon_series_pair_count(const struct moon_series_pair *pair, unsigned class)
{
    return atomic_load_explicit(&pair->counts[class], memory_order_relaxed);
}
