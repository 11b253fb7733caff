// Log-linear buckets: 128 to each power of two, so that a value is known within 1 %.
#include "load.h"

#include <stdlib.h>
#include <string.h>

enum { SUB_BITS = 7, BUCKET_COUNT = (64 - SUB_BITS + 1) << SUB_BITS };

struct histogram {
    uint64_t count;
    uint64_t buckets[BUCKET_COUNT];
};

struct histogram *histogram_new(void)
{
    struct histogram *histogram = calloc(1, sizeof *histogram);
    if (!histogram)
        fail("calloc");
    return histogram;
}

void histogram_clear(struct histogram *histogram)
{
    memset(histogram, 0, sizeof *histogram);
}

static size_t bucket_of(uint64_t value)
{
    if (value < 1u << SUB_BITS)
        return (size_t)value;
    int shift = 63 - __builtin_clzll(value) - SUB_BITS;
    return ((size_t)(shift + 1) << SUB_BITS) + ((value >> shift) & ((1u << SUB_BITS) - 1));
}

static uint64_t value_of(size_t bucket)
{
    size_t shift = bucket >> SUB_BITS, low = bucket & ((1u << SUB_BITS) - 1);
    return shift == 0 ? low : (uint64_t)((1u << SUB_BITS) + low) << (shift - 1);
}

void histogram_add(struct histogram *histogram, uint64_t value_ns)
{
    histogram->count++;
    histogram->buckets[bucket_of(value_ns)]++;
}

uint64_t histogram_at(const struct histogram *histogram, double share)
{
    uint64_t due = (uint64_t)((double)histogram->count * share), seen = 0;
    for (size_t i = 0; i < BUCKET_COUNT; i++) {
        seen += histogram->buckets[i];
        if (seen > due || (seen && seen == histogram->count))
            return value_of(i);
    }
    return 0;
}
