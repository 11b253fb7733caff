// The choice of a weighted split: the phase in [0, 1), scaled to the sum of the weights, lies in the share of one backend.
#include "upstream/balance/split.h"

#include <stddef.h>

static const uint64_t golden = 0x9e3779b97f4a7c15u; // 2^64 / 1.618...

bool moon_split_init(struct moon_split *split, struct moon_backend *backends, uint16_t count)
{
    unsigned weighted_count = 0;
    *split = (struct moon_split){.backends = backends, .count = count};
    for (uint16_t i = 0; i < count; i++) {
        split->weight_sum += backends[i].weight;
        weighted_count += backends[i].weight > 0;
    }
    split->has_phase = weighted_count > 1;
    return split->has_phase;
}

// floor(phase * sum / 2^64); sum is below 2^36 (65,535 weights of at most 1,000,000).
static uint64_t scale(uint64_t phase, uint64_t sum)
{
    uint64_t high = (phase >> 32) * sum, low = (phase & UINT32_MAX) * sum;
    return (high + (low >> 32)) >> 32;
}

const struct moon_backend *moon_split_choose(const struct moon_split *split, uint64_t *phase)
{
    uint64_t at = 0;
    if (split->weight_sum == 0)
        return NULL;
    if (split->has_phase) {
        at = scale(*phase, split->weight_sum);
        *phase += golden;
    }
    for (uint16_t i = 0; i < split->count; i++) {
        if (at < split->backends[i].weight)
            return &split->backends[i];
        at -= split->backends[i].weight;
    }
    return NULL; // not reached: at < weight_sum
}
