// The cycle of a smooth weighted round robin. Pure.
#include "upstream/balance/round_robin.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

enum { CYCLE_MAX_LEN = 4096 };

static uint32_t common_divisor(uint32_t a, uint32_t b)
{
    while (b) {
        uint32_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

// Writes the reduced weights and returns their sum.
static uint32_t reduce(const uint32_t *weights, uint16_t count, uint32_t *reduced)
{
    uint32_t divisor = 0;
    uint64_t sum = 0;
    for (uint16_t i = 0; i < count; i++)
        divisor = common_divisor(weights[i], divisor);
    for (uint16_t i = 0; i < count && divisor; i++)
        sum += weights[i] / divisor;
    uint32_t total = 0;
    for (uint16_t i = 0; i < count; i++) {
        uint64_t weight = divisor ? weights[i] / divisor : 0;
        if (sum > CYCLE_MAX_LEN && weight)
            weight = weight * CYCLE_MAX_LEN / sum ? weight * CYCLE_MAX_LEN / sum : 1;
        reduced[i] = (uint32_t)weight;
        total += reduced[i];
    }
    return total;
}

static bool is_flat(const uint32_t *reduced, uint16_t count)
{
    for (uint16_t i = 0; i < count; i++)
        if (reduced[i] != 1)
            return false;
    return true;
}

int moon_cycle_init(struct moon_cycle *cycle, const uint32_t *weights, uint16_t count)
{
    *cycle = (struct moon_cycle){NULL, 0};
    uint32_t *reduced = calloc((size_t)count + 1, sizeof *reduced);
    int64_t *credit = calloc((size_t)count + 1, sizeof *credit);
    uint32_t sum = reduced ? reduce(weights, count, reduced) : 0;
    cycle->turns = calloc((size_t)sum + 1, sizeof *cycle->turns);
    if (!reduced || !credit || !cycle->turns)
        goto fail;
    cycle->len = sum;
    if (is_flat(reduced,
                count)) { // as the loop below would have it, which takes a square of the count
        for (uint32_t turn = 0; turn < sum; turn++)
            cycle->turns[turn] = (uint16_t)turn;
        sum = 0;
    }
    for (uint32_t turn = 0; turn < sum; turn++) {
        uint16_t best = 0;
        for (uint16_t i = 0; i < count; i++) {
            credit[i] += reduced[i];
            if (credit[i] > credit[best])
                best = i;
        }
        credit[best] -= sum;
        cycle->turns[turn] = best;
    }
    free(reduced);
    free(credit);
    return 0;
fail:
    free(reduced);
    free(credit);
    moon_cycle_fini(cycle);
    return -ENOMEM;
}

void moon_cycle_fini(struct moon_cycle *cycle)
{
    free(cycle->turns);
    *cycle = (struct moon_cycle){NULL, 0};
}
