// Series: what is counted by route and by upstream. Names are process-wide and outlive reloads; each worker counts for itself.
//
//   builder:  name --moon_series_names_add--> id        (a lock; ids are small, dense, never taken back)
//   worker:   moon_series_count(ids ...)                (no lock; memory is taken at the first request of an id, once)
//   reader:   moon_series_route(worker, id) ...         (atomics only; walks while workers count and grow)
//
// Cardinality is bounded: names beyond the bound share id 0, which is called "other".
#pragma once

#include "base/slice.h"
#include "obs/histogram.h"

#include <stdint.h>

enum moon_series_kind { MOON_SERIES_ROUTE, MOON_SERIES_UPSTREAM, MOON_SERIES_KIND_COUNT };

enum {
    MOON_SERIES_OTHER = 0,      // the overflow
    MOON_SERIES_NONE = 1,       // no route matched, no upstream was asked: the empty name
    MOON_SERIES_MAX = 65536,    // ids of each kind
    MOON_SERIES_CLASS_COUNT = 5 // 1xx to 5xx
};

// ---- names

struct moon_series_names;

// `max_count` names of each kind beside the two above.
struct moon_series_names *moon_series_names_new(uint32_t max_count);
void moon_series_names_free(struct moon_series_names *names);
// Another bound, for names to come. Thread safe.
void moon_series_names_set_max(struct moon_series_names *names, uint32_t max_count);
// The id of a name, a new one if need be; MOON_SERIES_OTHER over the bound and where `names` is NULL. Not on a worker: takes
// a lock and memory. Thread safe.
uint32_t moon_series_names_add(struct moon_series_names *names, enum moon_series_kind kind,
                               struct moon_slice name);
// Ids given out so far are below this. Thread safe.
uint32_t moon_series_names_count(struct moon_series_names *names, enum moon_series_kind kind);
// The name of an id; it lives as long as `names`. Thread safe.
struct moon_slice moon_series_names_get(struct moon_series_names *names, enum moon_series_kind kind,
                                        uint32_t id);

// ---- one worker's counts

struct moon_series;

struct moon_series *moon_series_new(void);
// Nobody reads it any more. NULL is fine.
void moon_series_free(struct moon_series *series);

// One request that has ended.
struct moon_series_sample {
    uint32_t route, upstream; // ids
    uint16_t status;          // 100 to 599
    bool has_upstream_us;     // a response head came from the upstream
    uint64_t us, upstream_us;
};

// On the worker.
void moon_series_count(struct moon_series *series, const struct moon_series_sample *sample);

// ---- the reader's side; thread safe. NULL: nothing was counted.

const struct moon_histogram *moon_series_route(const struct moon_series *series, uint32_t id);
const struct moon_histogram *moon_series_upstream(const struct moon_series *series, uint32_t id);

struct moon_series_pair;

// Requests of a route by upstream: walks the list, NULL behind the last.
const struct moon_series_pair *moon_series_pairs(const struct moon_series *series, uint32_t route);
const struct moon_series_pair *moon_series_pair_next(const struct moon_series_pair *pair);
uint32_t moon_series_pair_upstream(const struct moon_series_pair *pair);
// class: 0 is 1xx.
uint64_t moon_series_pair_count(const struct moon_series_pair *pair, unsigned class);
