// The body of struct moon_registry, for registry.c and limit.c.
#pragma once

#include "base/list.h"
#include "upstream/registry.h"

#include <pthread.h>

struct moon_registry {
    pthread_mutex_t lock; // of all that follows
    struct moon_endpoint_state **buckets;
    uint32_t bucket_count, state_count; // a power of two
    struct moon_list limits;            // of struct moon_limit
    struct moon_list names;             // of struct moon_name
    struct moon_list healths;           // of struct moon_health
    struct moon_list wakes;             // of struct moon_wake: the workers
    uint32_t named_count, named_max;    // endpoints with series of their own
    struct moon_endpoint_figures past;  // of endpoints without, that are gone
    atomic_ullong stamp;
    struct moon_outbound *outbound; // has a lock of its own
};
