// Endpoint sets: the endpoints an upstream has at one time, immutable and refcounted. A feed is where an upstream's newest set
// is taken from: control publishes into it, a worker compares its stamp (a line that nobody writes in between) at each
// exchange and takes the new set when it differs. An old set goes with the last worker that has moved on.
#pragma once

#include "base/address.h"
#include "upstream/balance/round_robin.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct moon_endpoint_state;
struct moon_registry;

struct moon_endpoint {
    struct moon_address address;
    uint32_t weight;
    struct moon_endpoint_state *state; // the set holds a reference
};

struct moon_endpoint_set {
    atomic_uint ref_count;
    uint16_t count;
    struct moon_cycle cycle; // over their weights
    struct moon_endpoint endpoints[];
};

// A set with one reference; of each endpoint address and weight are read.
struct moon_endpoint_set *moon_endpoint_set_new(struct moon_registry *registry,
                                                const struct moon_endpoint *endpoints,
                                                uint16_t count);
struct moon_endpoint_set *moon_endpoint_set_ref(struct moon_endpoint_set *set);
// NULL is fine.
void moon_endpoint_set_unref(struct moon_endpoint_set *set);

struct moon_feed {
    struct moon_registry *registry; // NULL: not in use (a built-in)
    atomic_ullong stamp;            // of the newest set, unique in the registry
    struct moon_endpoint_set *set;  // under the registry's lock
};

// Thread safe. Takes the caller's reference.
void moon_feed_publish(struct moon_feed *feed, struct moon_endpoint_set *set);
// Whether moon_feed_follow would change anything.
static inline bool moon_feed_is_new(const struct moon_feed *feed, uint64_t stamp)
{
    return atomic_load_explicit((atomic_ullong *)&feed->stamp, memory_order_relaxed) != stamp;
}

// Brings *set (with a reference, or NULL) and *stamp up to date. True when they have changed. Thread safe.
bool moon_feed_follow(const struct moon_feed *feed, uint64_t *stamp,
                      struct moon_endpoint_set **set);
void moon_feed_fini(struct moon_feed *feed);
