// The registry: a hash of endpoint states, lists of limits and names. What falls to no reference goes at once.
#include "upstream/registry.h"

#include "upstream/outbound.h"
#include "upstream/registry_priv.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct moon_name {
    struct moon_list node;
    struct moon_registry *registry;
    unsigned ref_count;
    size_t address_count;
    struct moon_address *addresses;
    size_t host_len;
    char host[]; // NUL-terminated
};

static void grow(struct moon_registry *registry)
{
    uint32_t count = registry->bucket_count ? registry->bucket_count * 2 : 64;
    struct moon_endpoint_state **buckets = calloc(count, sizeof(struct moon_endpoint_state *));
    if (!buckets)
        abort();
    for (uint32_t i = 0; i < registry->bucket_count; i++) {
        for (struct moon_endpoint_state *state = registry->buckets[i], *next; state; state = next) {
            next = state->next;
            struct moon_endpoint_state **bucket =
                &buckets[moon_address_hash(&state->address) & (count - 1)];
            state->next = *bucket;
            *bucket = state;
        }
    }
    free(registry->buckets);
    registry->buckets = buckets;
    registry->bucket_count = count;
}

struct moon_registry *moon_registry_new(void)
{
    struct moon_registry *registry = calloc(1, sizeof *registry);
    if (!registry)
        abort();
    pthread_mutex_init(&registry->lock, NULL);
    moon_list_init(&registry->limits);
    moon_list_init(&registry->names);
    moon_list_init(&registry->healths);
    moon_list_init(&registry->wakes);
    registry->outbound = moon_outbound_new();
    grow(registry);
    return registry;
}

void moon_registry_free(struct moon_registry *registry)
{
    if (!registry)
        return;
    assert(registry->state_count == 0 && moon_list_is_empty(&registry->limits));
    assert(moon_list_is_empty(&registry->names) && moon_list_is_empty(&registry->wakes));
    assert(moon_list_is_empty(&registry->healths));
    pthread_mutex_destroy(&registry->lock);
    free(registry->buckets);
    moon_outbound_free(registry->outbound);
    free(registry);
}

struct moon_outbound *moon_registry_outbound(struct moon_registry *registry)
{
    return registry->outbound;
}

uint64_t moon_registry_stamp(struct moon_registry *registry)
{
    return atomic_fetch_add_explicit(&registry->stamp, 1, memory_order_relaxed) + 1;
}

void moon_registry_lock(struct moon_registry *registry)
{
    pthread_mutex_lock(&registry->lock);
}

void moon_registry_unlock(struct moon_registry *registry)
{
    pthread_mutex_unlock(&registry->lock);
}

// ---- endpoints

static void add_figures(struct moon_endpoint_figures *figures,
                        const struct moon_endpoint_state *state)
{
    for (int i = 0; i < MOON_TALLY_CLASS_COUNT; i++)
        figures->classes[i] += state->past[i];
    for (const struct moon_tally *tally = state->tallies; tally; tally = tally->next)
        for (int i = 0; i < MOON_TALLY_CLASS_COUNT; i++)
            figures->classes[i] +=
                atomic_load_explicit((_Atomic uint64_t *)&tally->classes[i], memory_order_relaxed);
    figures->connections +=
        atomic_load_explicit((atomic_uint *)&state->connections, memory_order_relaxed);
    figures->connect_failures +=
        atomic_load_explicit((atomic_ullong *)&state->connect_failures_total, memory_order_relaxed);
}

static struct moon_endpoint_state *state_new(struct moon_registry *registry,
                                             const struct moon_address *address)
{
    struct moon_endpoint_state *state = aligned_alloc(64, sizeof *state);
    if (!state)
        abort();
    memset(state, 0, sizeof *state);
    if (registry->state_count >= registry->bucket_count)
        grow(registry);
    state->registry = registry;
    state->address = *address;
    state->is_named = registry->named_count < registry->named_max;
    registry->named_count += state->is_named;
    struct moon_endpoint_state **bucket =
        &registry->buckets[moon_address_hash(address) & (registry->bucket_count - 1)];
    state->next = *bucket;
    *bucket = state;
    registry->state_count++;
    return state;
}

struct moon_endpoint_state *moon_endpoint_state_get(struct moon_registry *registry,
                                                    const struct moon_address *address)
{
    pthread_mutex_lock(&registry->lock);
    struct moon_endpoint_state *state =
        registry->buckets[moon_address_hash(address) & (registry->bucket_count - 1)];
    while (state && !moon_address_equal(&state->address, address))
        state = state->next;
    if (!state)
        state = state_new(registry, address);
    state->ref_count++;
    pthread_mutex_unlock(&registry->lock);
    return state;
}

struct moon_endpoint_state *moon_endpoint_state_ref(struct moon_endpoint_state *state)
{
    pthread_mutex_lock(&state->registry->lock);
    state->ref_count++;
    pthread_mutex_unlock(&state->registry->lock);
    return state;
}

void moon_endpoint_state_unref(struct moon_endpoint_state *state)
{
    if (!state)
        return;
    struct moon_registry *registry = state->registry;
    pthread_mutex_lock(&registry->lock);
    if (--state->ref_count == 0) {
        struct moon_endpoint_state **at =
            &registry->buckets[moon_address_hash(&state->address) & (registry->bucket_count - 1)];
        while (*at != state)
            at = &(*at)->next;
        *at = state->next;
        registry->state_count--;
        registry->named_count -= state->is_named;
        if (!state->is_named)
            add_figures(&registry->past, state);
        free(state);
    }
    pthread_mutex_unlock(&registry->lock);
}

// ---- figures

void moon_tally_add(struct moon_endpoint_state *state, struct moon_tally *tally)
{
    pthread_mutex_lock(&state->registry->lock);
    tally->next = state->tallies;
    state->tallies = tally;
    pthread_mutex_unlock(&state->registry->lock);
}

void moon_tally_del(struct moon_endpoint_state *state, struct moon_tally *tally)
{
    pthread_mutex_lock(&state->registry->lock);
    struct moon_tally **at = &state->tallies;
    while (*at != tally)
        at = &(*at)->next;
    *at = tally->next;
    for (int i = 0; i < MOON_TALLY_CLASS_COUNT; i++)
        state->past[i] += atomic_load_explicit(&tally->classes[i], memory_order_relaxed);
    pthread_mutex_unlock(&state->registry->lock);
}

void moon_registry_set_named_max(struct moon_registry *registry, uint32_t max_count)
{
    pthread_mutex_lock(&registry->lock);
    registry->named_max = max_count;
    pthread_mutex_unlock(&registry->lock);
}

struct figures {
    struct moon_endpoint_figures *items;
    size_t count, cap;
    struct moon_endpoint_figures others;
    bool has_others;
};

// With the lock.
static void read_bucket(const struct moon_endpoint_state *state, struct figures *out)
{
    for (; state; state = state->next) {
        if (!state->is_named) {
            out->has_others = true;
            add_figures(&out->others, state);
            continue;
        }
        if (out->count + 1 >= out->cap) {
            out->cap = out->cap ? out->cap * 2 : 64;
            out->items = realloc(out->items, out->cap * sizeof *out->items);
            if (!out->items)
                abort();
        }
        struct moon_endpoint_figures *figures = &out->items[out->count++];
        *figures = (struct moon_endpoint_figures){.address = state->address};
        add_figures(figures, state);
    }
}

// False: the table has grown meanwhile, and what was read may come twice.
static bool read_table(struct moon_registry *registry, struct figures *out)
{
    enum { STRIDE = 64 };
    uint32_t bucket_count = 0;
    for (uint32_t at = 0; at == 0 || at < bucket_count; at += STRIDE) {
        pthread_mutex_lock(&registry->lock);
        if (at == 0) {
            bucket_count = registry->bucket_count;
            out->others = registry->past;
        }
        bool is_same = bucket_count == registry->bucket_count;
        for (uint32_t i = at; is_same && i < at + STRIDE && i < bucket_count; i++)
            read_bucket(registry->buckets[i], out);
        pthread_mutex_unlock(&registry->lock);
        if (!is_same)
            return false;
    }
    return true;
}

struct moon_endpoint_figures *moon_registry_figures(struct moon_registry *registry, size_t *count)
{
    struct figures out = {0};
    *count = 0;
    pthread_mutex_lock(&registry->lock);
    bool is_wanted = registry->named_max > 0;
    pthread_mutex_unlock(&registry->lock);
    if (!is_wanted)
        return NULL;
    while (!read_table(registry, &out))
        out.count = out.has_others = 0;
    if (out.has_others)
        out.items = out.items ? out.items : calloc(1, sizeof *out.items);
    if (out.has_others && !out.items)
        abort();
    if (out.has_others)
        out.items[out.count++] = out.others;
    *count = out.count;
    return out.items;
}

// ---- host names

struct moon_name *moon_name_get(struct moon_registry *registry, struct moon_slice host)
{
    struct moon_name *name = NULL;
    pthread_mutex_lock(&registry->lock);
    for (struct moon_list *at = registry->names.next; at != &registry->names; at = at->next) {
        struct moon_name *known = MOON_CONTAINER(at, struct moon_name, node);
        if (moon_slice_equal_fold(moon_name_host(known), host)) {
            name = known;
            break;
        }
    }
    if (!name) {
        name = calloc(1, sizeof *name + host.len + 1);
        if (!name)
            abort();
        name->registry = registry;
        name->host_len = host.len;
        memcpy(name->host, host.ptr, host.len);
        moon_list_add_before(&registry->names, &name->node);
    }
    name->ref_count++;
    pthread_mutex_unlock(&registry->lock);
    return name;
}

struct moon_name *moon_name_ref(struct moon_name *name)
{
    pthread_mutex_lock(&name->registry->lock);
    name->ref_count++;
    pthread_mutex_unlock(&name->registry->lock);
    return name;
}

void moon_name_unref(struct moon_name *name)
{
    if (!name)
        return;
    struct moon_registry *registry = name->registry;
    pthread_mutex_lock(&registry->lock);
    if (--name->ref_count == 0) {
        moon_list_del(&name->node);
        free(name->addresses);
        free(name);
    }
    pthread_mutex_unlock(&registry->lock);
}

struct moon_slice moon_name_host(const struct moon_name *name)
{
    return (struct moon_slice){name->host, name->host_len};
}

static struct moon_address *copy(const struct moon_address *addresses, size_t count)
{
    struct moon_address *own = calloc(count + 1, sizeof *own);
    if (!own)
        abort();
    if (count)
        memcpy(own, addresses, count * sizeof *own);
    return own;
}

void moon_name_set(struct moon_name *name, const struct moon_address *addresses, size_t count)
{
    struct moon_address *own = copy(addresses, count);
    pthread_mutex_lock(&name->registry->lock);
    free(name->addresses);
    name->addresses = own;
    name->address_count = count;
    pthread_mutex_unlock(&name->registry->lock);
}

size_t moon_name_addresses(struct moon_name *name, struct moon_address **out)
{
    pthread_mutex_lock(&name->registry->lock);
    size_t count = name->address_count;
    *out = copy(name->addresses, count);
    pthread_mutex_unlock(&name->registry->lock);
    return count;
}
