// The upstream connections of one worker: idle links by identity, lent to exchanges one at a time, last in first out.
// Identity is everything that makes two connections interchangeable, compared by value (now: the address).
#pragma once

#include <stdbool.h>

struct moon_endpoint;
struct moon_backend;
struct moon_lane;
struct moon_pool;
struct moon_resources;
struct moon_split;
struct moon_upstream;

struct moon_pool *moon_pool_new(struct moon_resources *res);
// Closes every idle link. Links that are lent out must have come back. NULL is fine.
void moon_pool_free(struct moon_pool *pool);
// Closes every idle link, now and from now on.
void moon_pool_drain(struct moon_pool *pool);

// The backend of the worker's next exchange; NULL when none has a weight.
const struct moon_backend *moon_pool_split(struct moon_pool *pool, const struct moon_split *split);

struct moon_lease {
    struct moon_lane *lane; // attach to it; give it back with moon_lane_end
    const struct moon_endpoint *endpoint;
    // the connection has carried a message before: its peer may have closed it meanwhile
    bool is_reused;
};

// Chooses an endpoint and gives a link to it: an idle one, unless `fresh`, else one that is connecting. 0; -ENOENT: no endpoint
// has a weight; -EADDRNOTAVAIL, -EMFILE and the like: no connection could be begun, lease->endpoint says to where.
int moon_pool_lend(struct moon_pool *pool, const struct moon_upstream *upstream, bool fresh,
                   struct moon_lease *lease);
