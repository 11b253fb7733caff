// The upstream connections of one worker: idle links by identity, lent to exchanges one at a time, last in first out; those of
// HTTP/2 to many at a time, a lane for each.
// Identity is everything that makes two connections interchangeable, compared by value (the address; of TLS the settings, the
// files and whom it was asked for; of HTTP/2, where several wait for one, how long connecting may take), and the limit that a
// connection counts for: an upstream with limits has connections of its own.
// A connection that began with a PROXY header is that of one client connection: it serves no other, and is closed when that one is.
#pragma once

#include "base/slice.h"
#include "upstream/limit.h"

#include <stdbool.h>

struct moon_address;
struct moon_backend;
struct moon_endpoint_state;
struct moon_lane;
struct moon_outbound;
struct moon_patron;
struct moon_pool;
struct moon_pooled;
struct moon_resources;
struct moon_split;
struct moon_tls_client;
struct moon_upstream;

struct moon_pool *moon_pool_new(struct moon_resources *res, struct moon_registry *registry);
// Closes every idle link. Links that are lent out must have come back. NULL is fine.
void moon_pool_free(struct moon_pool *pool);
// Shared by all pools of the registry.
struct moon_outbound *moon_pool_outbound(const struct moon_pool *pool);
// Closes every idle link, now and from now on.
void moon_pool_drain(struct moon_pool *pool);

// The backend of the worker's next exchange; NULL when none has a weight.
const struct moon_backend *moon_pool_split(struct moon_pool *pool, const struct moon_split *split);

struct moon_lend_args {
    const struct moon_upstream *upstream;
    // Told in PROXY headers, where the upstream wants them, and says where an upstream of original destinations is; NULL: the
    // gateway itself. Never followed later.
    const struct moon_patron *patron;
    // An endpoint that failed this exchange: chosen only where there is no other. May be NULL; never followed.
    const struct moon_endpoint_state *avoid;
    // The endpoint to choose, if the upstream still has it. May be NULL; never followed.
    const struct moon_endpoint_state *again;
    struct moon_waiter *waiter; // what it was granted is used; may be NULL
    bool fresh;                 // a new connection, no idle link; HTTP/2: only with was_lost
    bool was_lost; // the connection of an attempt before is no more: the others may be dead as well
    bool is_http1; // for what HTTP/2 does not have, where the upstream may speak both
};

struct moon_lease {
    struct moon_lane *lane;     // attach to it; give it back with moon_lane_end
    struct moon_pooled *pooled; // of the same link; lives as long as the lane is attached
    // of the endpoint; lives as long as the lane is attached
    const struct moon_endpoint_state *state;
    uint16_t endpoint_count;
    // the connection has carried a message before: its peer may have closed it meanwhile
    bool is_reused;
};

// Chooses an endpoint and gives a link to it: an idle one, unless `fresh`, else one that is connecting. 0; -ENOENT: no endpoint
// has a weight; -EAGAIN: the upstream is at its limit, wait; -EADDRNOTAVAIL, -EMFILE and the like: no connection could be
// begun, lease->state says to where. -EDESTADDRREQ: the patron meant to go nowhere else.
int moon_pool_lend(struct moon_pool *pool, const struct moon_lend_args *args,
                   struct moon_lease *lease);
struct moon_lend_to_args {
    const struct moon_address *address;
    struct moon_tls_client *tls; // NULL: plain
    struct moon_slice host;      // whom TLS asks for; empty: the address
    bool fresh;
    uint8_t protocol; // enum moon_upstream_protocol
};

// The same for an address that belongs to no upstream: no limit, no choice, nothing to wait for. 0, -EADDRNOTAVAIL, -EMFILE and
// the like. Its idle connections are those of the upstreams without limits (nor, HTTP/2, a time of
// their own to connect) that have this endpoint.
int moon_pool_lend_to(struct moon_pool *pool, const struct moon_lend_to_args *args,
                      struct moon_lease *lease);
// The client connection of that number is no more: links that were for it alone close, lent ones when they come back.
void moon_pool_forget(struct moon_pool *pool, uint64_t number);
// Queues the waiter of an exchange that got -EAGAIN; its fn is called when lend may be tried again. 0, or MOON_ELIMIT when
// as many as may wait do. `is_again`: it has waited and was disappointed.
int moon_pool_wait(struct moon_pool *pool, const struct moon_upstream *upstream,
                   struct moon_waiter *waiter, bool is_again);
// Harmless on one that does not wait.
void moon_pool_leave(struct moon_pool *pool, struct moon_waiter *waiter);
// Notes that the connection could not be made.
void moon_pooled_failed(struct moon_pooled *pooled);
// Its connection takes no more lanes, and is closed when the last one has left. HTTP/1.1: no effect, who ends its lane decides.
void moon_pooled_retire(struct moon_pooled *pooled);
// Counts an attempt by what came of it: a status, or 0 where no response did.
void moon_pooled_count(struct moon_pooled *pooled, uint16_t status);

// What a connection counts as, for one who takes the stream off its link: a tunnel.
struct moon_claim {
    struct moon_pool *pool;
    struct moon_limit *limit;
    struct moon_endpoint_state *state;
    bool is_load; // counts as in flight
};

// Chooses an endpoint for a session that has no connection, and counts as one to it. 0, with the claim to be released; -ENOENT,
// -EAGAIN as moon_pool_lend.
int moon_pool_pick(struct moon_pool *pool, const struct moon_upstream *upstream,
                   struct moon_claim *claim);
// The link is to be closed after this without giving anything back.
void moon_pooled_claim(struct moon_pooled *pooled, struct moon_claim *claim);
// Harmless on one that holds nothing.
void moon_claim_release(struct moon_claim *claim);
