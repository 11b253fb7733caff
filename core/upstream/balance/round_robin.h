// Smooth weighted round robin (as nginx's, 2012): over each full cycle every endpoint is chosen exactly as often as its weight
// says, and never in a burst. The cycle is computed once, so that choosing is an index into it.
#pragma once

#include <stdint.h>

struct moon_cycle {
    uint16_t *turns; // endpoint of each turn; malloc'd
    uint32_t len;    // sum of the reduced weights; 0: no endpoint has a weight
};

// Weights are reduced by their greatest common divisor, and scaled down where the cycle would be longer than 4096 turns
// (a positive weight stays at least 1). 0 or -ENOMEM.
int moon_cycle_init(struct moon_cycle *cycle, const uint32_t *weights, uint16_t count);
void moon_cycle_fini(struct moon_cycle *cycle);
