// What the process knows about the upstream side beyond any configuration: endpoint states by address, limits by name of the
// upstream, addresses by host name. One per gateway; snapshots, pools and tunnels hold references, so that what is counted
// survives every edit of the configuration for as long as somebody uses it.
//
// Thread safe. Behind one lock that no request takes but one that waits at a limit; what requests touch is atomic.
#pragma once

#include "base/address.h"
#include "base/slice.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct moon_outbound;
struct moon_registry;

struct moon_registry *moon_registry_new(void);
// Every reference into it was given back. NULL is fine.
void moon_registry_free(struct moon_registry *registry);
// A number never given before: stamps versions of endpoint sets.
uint64_t moon_registry_stamp(struct moon_registry *registry);
void moon_registry_lock(struct moon_registry *registry);
void moon_registry_unlock(struct moon_registry *registry);

// As the registry lives.
struct moon_outbound *moon_registry_outbound(struct moon_registry *registry);

// ---- endpoints, by address

// Attempts by the class of the status that came; 0: without a response.
enum { MOON_TALLY_CLASS_COUNT = 6 };

// What one worker has counted of an endpoint: written by it alone, with relaxed stores.
struct moon_tally {
    _Atomic uint64_t classes[MOON_TALLY_CLASS_COUNT];
    struct moon_tally *next; // of the same endpoint, under the lock
};

// Fills a cache line of its own. Written for each request only where least_request asks for it.
struct moon_endpoint_state {
    // exchanges and tunnels; counted for upstreams that balance by it
    _Alignas(64) atomic_uint in_flight;
    atomic_uint connections; // open or opening
    atomic_ullong connect_failures_total;
    atomic_ullong no_port_total; // EADDRNOTAVAIL: no local port was left
    struct moon_registry *registry;
    struct moon_endpoint_state *next; // in its bucket
    struct moon_address address;
    unsigned ref_count; // under the lock, as are those that follow
    bool is_named;      // has series of its own
    struct moon_tally *tallies;
    uint64_t past[MOON_TALLY_CLASS_COUNT]; // of tallies that were taken back
};

// The state of this address, made when there is none.
struct moon_endpoint_state *moon_endpoint_state_get(struct moon_registry *registry,
                                                    const struct moon_address *address);
struct moon_endpoint_state *moon_endpoint_state_ref(struct moon_endpoint_state *state);
// NULL is fine.
void moon_endpoint_state_unref(struct moon_endpoint_state *state);
// Puts a tally to an endpoint, takes it back; what it counted stays.
void moon_tally_add(struct moon_endpoint_state *state, struct moon_tally *tally);
void moon_tally_del(struct moon_endpoint_state *state, struct moon_tally *tally);

// One endpoint's figures, or those of all that have no series of their own.
struct moon_endpoint_figures {
    struct moon_address address; // MOON_FAMILY_NONE: the others
    uint64_t classes[MOON_TALLY_CLASS_COUNT];
    uint64_t connections, connect_failures;
};

// How many endpoints have series of their own: those that are made from now on. 0: no figures at all.
void moon_registry_set_named_max(struct moon_registry *registry, uint32_t max_count);
// Those of all endpoints, the others last where there are any; malloc'd. Holds the lock for a few endpoints at a time.
struct moon_endpoint_figures *moon_registry_figures(struct moon_registry *registry, size_t *count);

// ---- host names

struct moon_name;

// The name, without addresses when it is new. Case does not matter.
struct moon_name *moon_name_get(struct moon_registry *registry, struct moon_slice host);
struct moon_name *moon_name_ref(struct moon_name *name);
void moon_name_unref(struct moon_name *name);
struct moon_slice moon_name_host(const struct moon_name *name); // NUL-terminated
// Its addresses from now on, copied; their ports do not matter.
void moon_name_set(struct moon_name *name, const struct moon_address *addresses, size_t count);
// Copies the addresses; malloc'd, the count is returned.
size_t moon_name_addresses(struct moon_name *name, struct moon_address **out);
