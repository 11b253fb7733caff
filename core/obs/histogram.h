// Latency histogram of one worker: log-linear buckets of microseconds, eight to each power of two from 32 us to 67 s. Written by
// its worker alone (a relaxed load and store, no locked instruction); a reader adds those of all workers up.
// A quantile is off by at most half a bucket: 1/16 of the value, 4 us below 32 us.
#pragma once

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum {
    MOON_HISTOGRAM_LINEAR_COUNT = 4,   // of 8 us each, below 32 us
    MOON_HISTOGRAM_BUCKET_COUNT = 173, // 4, 21 times 8, and one for all that is longer
};

struct moon_histogram {
    _Atomic uint64_t sum_us;
    _Atomic uint64_t buckets[MOON_HISTOGRAM_BUCKET_COUNT];
};

static inline unsigned moon_histogram_bucket(uint64_t us)
{
    if (us < 32)
        return (unsigned)(us / 8);
    unsigned exponent = 63u - (unsigned)__builtin_clzll(us); // 5 and up
    if (exponent > 25)
        return MOON_HISTOGRAM_BUCKET_COUNT - 1;
    return MOON_HISTOGRAM_LINEAR_COUNT + (exponent - 5) * 8 +
           ((unsigned)(us >> (exponent - 3)) & 7);
}

static inline void moon_histogram_add(struct moon_histogram *histogram, uint64_t us)
{
    _Atomic uint64_t *bucket = &histogram->buckets[moon_histogram_bucket(us)];
    atomic_store_explicit(bucket, atomic_load_explicit(bucket, memory_order_relaxed) + 1,
                          memory_order_relaxed);
    atomic_store_explicit(&histogram->sum_us,
                          atomic_load_explicit(&histogram->sum_us, memory_order_relaxed) + us,
                          memory_order_relaxed);
}

// ---- the reader's side

struct moon_histogram_sum {
    uint64_t count, sum_us;
    uint64_t buckets[MOON_HISTOGRAM_BUCKET_COUNT];
};

// The least value of a bucket; of the one behind the last: where the last would end.
uint64_t moon_histogram_floor_us(unsigned bucket);
// Adds one worker's histogram; NULL is fine. Thread safe.
void moon_histogram_sum_add(struct moon_histogram_sum *sum, const struct moon_histogram *histogram);
// How many values were at most `us`. In the one bucket that `us` cuts, values count as spread evenly: the answer is off by a
// part of that bucket's values. Never shrinks as values are added, nor when `us` grows.
uint64_t moon_histogram_sum_below(const struct moon_histogram_sum *sum, uint64_t us);
// The same for many values, which rise, in one pass.
void moon_histogram_sum_below_each(const struct moon_histogram_sum *sum, const uint64_t *us,
                                   size_t count, uint64_t *below);
// The value below which `quantile` (0 to 1) of all lie; 0 when there is none.
uint64_t moon_histogram_sum_quantile_us(const struct moon_histogram_sum *sum, double quantile);
