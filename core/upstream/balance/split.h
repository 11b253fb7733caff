// Weighted split: which of several upstreams gets an exchange. A low-discrepancy sequence (Weyl's, by the golden ratio) instead
// of dice: after n choices each upstream has had its share of n within a few choices, for any weights and from any start, so
// short runs are right as well; and no regular pattern of requests can stay in step with it, as with a cycle. Pure.
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { MOON_BACKEND_MISSING = -1 };

struct moon_backend {
    // Index of the upstream, not a pointer: so that an action outlives changes of its upstreams. MOON_BACKEND_MISSING: the
    // reference is invalid and its producer allows that; its share is answered 500.
    int32_t upstream;
    uint32_t weight;
};

struct moon_split {
    struct moon_backend *backends; // in order of their names; malloc'd by the owner
    uint64_t weight_sum;
    uint32_t index; // names its phase in each worker, among the splits that have one
    uint16_t count;
    bool has_phase; // more than one backend has a weight
};

// Sums the weights. True when the split needs a phase: then the caller sets its index.
bool moon_split_init(struct moon_split *split, struct moon_backend *backends, uint16_t count);
// The backend of this phase, which moves on; NULL when no backend has a weight. `phase` may be NULL without has_phase.
const struct moon_backend *moon_split_choose(const struct moon_split *split, uint64_t *phase);
