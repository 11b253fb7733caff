// The choice of least_request. Counts are process-wide and change under our eyes: each is read once.
#include "upstream/balance/least_request.h"

#include "upstream/endpoint.h"
#include "upstream/registry.h"

#include <stdbool.h>
#include <stddef.h>

struct candidate {
    const struct moon_endpoint *endpoint;
    uint64_t load;
    bool is_avoided;
};

static struct candidate look_at(const struct moon_endpoint *endpoint,
                                const struct moon_endpoint_state *avoid)
{
    // one more than now: what the load would be, so that weights count among idle ones too
    uint64_t load = atomic_load_explicit(&endpoint->state->in_flight, memory_order_relaxed) + 1u;
    return (struct candidate){endpoint, load, endpoint->state == avoid};
}

static bool is_better(const struct candidate *a, const struct candidate *b)
{
    if (a->is_avoided != b->is_avoided)
        return b->is_avoided;
    return a->load * b->endpoint->weight < b->load * a->endpoint->weight;
}

// Ties go to the first that is looked at: the start is drawn.
static const struct moon_endpoint *scan(const struct moon_endpoint_set *set, uint64_t random,
                                        const struct moon_endpoint_state *avoid)
{
    struct candidate best = {0};
    for (uint16_t i = 0; i < set->count; i++) {
        const struct moon_endpoint *endpoint = &set->endpoints[(random + i) % set->count];
        if (endpoint->weight == 0)
            continue;
        struct candidate next = look_at(endpoint, avoid);
        if (!best.endpoint || is_better(&next, &best))
            best = next;
    }
    return best.endpoint;
}

const struct moon_endpoint *moon_least_request_choose(const struct moon_endpoint_set *set,
                                                      uint64_t random,
                                                      const struct moon_endpoint_state *avoid)
{
    const struct moon_cycle *cycle = &set->cycle;
    if (cycle->len == 0)
        return NULL;
    if (set->count <= MOON_LEAST_SCAN_COUNT)
        return scan(set, random, avoid);
    // The cycle holds each endpoint as often as its weight says.
    uint32_t at = (uint32_t)(random & UINT32_MAX) % cycle->len,
             step = (uint32_t)(random >> 32) % cycle->len;
    struct candidate first = look_at(&set->endpoints[cycle->turns[at]], avoid), second = first;
    for (uint32_t i = 0; i < cycle->len && second.endpoint == first.endpoint; i++)
        second = look_at(&set->endpoints[cycle->turns[(at + step + i) % cycle->len]], avoid);
    return is_better(&second, &first) ? second.endpoint : first.endpoint;
}
