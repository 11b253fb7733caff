// Endpoint sets and the feeds they come from.
#include "upstream/endpoint.h"

#include "upstream/registry.h"

#include <stdlib.h>

struct moon_endpoint_set *moon_endpoint_set_new(struct moon_registry *registry,
                                                const struct moon_endpoint *endpoints,
                                                uint16_t count)
{
    struct moon_endpoint_set *set = calloc(1, sizeof *set + count * sizeof *endpoints);
    uint32_t *weights = calloc((size_t)count + 1, sizeof *weights);
    if (!set || !weights)
        abort();
    atomic_init(&set->ref_count, 1);
    set->count = count;
    for (uint16_t i = 0; i < count; i++) {
        set->endpoints[i] = endpoints[i];
        set->endpoints[i].state = moon_endpoint_state_get(registry, &endpoints[i].address);
        weights[i] = endpoints[i].weight;
    }
    if (moon_cycle_init(&set->cycle, weights, count) < 0)
        abort();
    free(weights);
    return set;
}

struct moon_endpoint_set *moon_endpoint_set_ref(struct moon_endpoint_set *set)
{
    atomic_fetch_add_explicit(&set->ref_count, 1, memory_order_relaxed);
    return set;
}

void moon_endpoint_set_unref(struct moon_endpoint_set *set)
{
    if (!set || atomic_fetch_sub_explicit(&set->ref_count, 1, memory_order_acq_rel) > 1)
        return;
    for (uint16_t i = 0; i < set->count; i++)
        moon_endpoint_state_unref(set->endpoints[i].state);
    moon_cycle_fini(&set->cycle);
    free(set);
}

void moon_feed_publish(struct moon_feed *feed, struct moon_endpoint_set *set)
{
    moon_registry_lock(feed->registry);
    struct moon_endpoint_set *before = feed->set;
    feed->set = set;
    atomic_store_explicit(&feed->stamp, moon_registry_stamp(feed->registry), memory_order_release);
    moon_registry_unlock(feed->registry);
    moon_endpoint_set_unref(before);
}

bool moon_feed_follow(const struct moon_feed *feed, uint64_t *stamp, struct moon_endpoint_set **set)
{
    if (!moon_feed_is_new(feed, *stamp))
        return false;
    struct moon_endpoint_set *before = *set;
    moon_registry_lock(feed->registry);
    *stamp = atomic_load_explicit(&feed->stamp, memory_order_relaxed);
    *set = moon_endpoint_set_ref(feed->set);
    moon_registry_unlock(feed->registry);
    moon_endpoint_set_unref(before);
    return true;
}

void moon_feed_fini(struct moon_feed *feed)
{
    moon_endpoint_set_unref(feed->set);
    feed->set = NULL;
}
