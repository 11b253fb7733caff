// The reading side of histograms: summing workers up, cumulative counts, quantiles.
#include "obs/histogram.h"

uint64_t moon_histogram_floor_us(unsigned bucket)
{
    if (bucket < MOON_HISTOGRAM_LINEAR_COUNT)
        return UINT64_C(8) * bucket;
    unsigned at = bucket - MOON_HISTOGRAM_LINEAR_COUNT;
    return (uint64_t)(8 + at % 8) << (at / 8 + 2);
}

void moon_histogram_sum_add(struct moon_histogram_sum *sum, const struct moon_histogram *histogram)
{
    if (!histogram)
        return;
    for (unsigned i = 0; i < MOON_HISTOGRAM_BUCKET_COUNT; i++) {
        uint64_t count = atomic_load_explicit(&histogram->buckets[i], memory_order_relaxed);
        sum->buckets[i] += count;
        sum->count += count;
    }
    sum->sum_us += atomic_load_explicit(&histogram->sum_us, memory_order_relaxed);
}

void moon_histogram_sum_below_each(const struct moon_histogram_sum *sum, const uint64_t *us,
                                   size_t count, uint64_t *below)
{
    uint64_t before = 0; // in buckets below `bucket`
    unsigned bucket = 0;
    for (size_t i = 0; i < count; i++) {
        unsigned cut = moon_histogram_bucket(us[i]);
        for (; bucket < cut; bucket++)
            before += sum->buckets[bucket];
        below[i] = before;
        if (cut == MOON_HISTOGRAM_BUCKET_COUNT - 1)
            continue; // how far the last one reaches is not known
        uint64_t floor = moon_histogram_floor_us(cut),
                 width = moon_histogram_floor_us(cut + 1) - floor; // a power of two
        below[i] += sum->buckets[cut] * (us[i] - floor + 1) >> __builtin_ctzll(width);
    }
}

uint64_t moon_histogram_sum_below(const struct moon_histogram_sum *sum, uint64_t us)
{
    uint64_t below;
    moon_histogram_sum_below_each(sum, &us, 1, &below);
    return below;
}

uint64_t moon_histogram_sum_quantile_us(const struct moon_histogram_sum *sum, double quantile)
{
    uint64_t rank = (uint64_t)(quantile * (double)sum->count + 0.5), seen = 0;
    if (sum->count == 0)
        return 0;
    if (rank < 1)
        rank = 1;
    for (unsigned i = 0; i < MOON_HISTOGRAM_BUCKET_COUNT; i++) {
        seen += sum->buckets[i];
        if (seen >= rank)
            return (moon_histogram_floor_us(i) + moon_histogram_floor_us(i + 1)) / 2;
    }
    return moon_histogram_floor_us(MOON_HISTOGRAM_BUCKET_COUNT - 1);
}
