// Upstreams: named groups of endpoints that a route forwards to, as the configuration defines them.
#pragma once

#include "base/address.h"
#include "conf/conf.h"
#include "upstream/balance/round_robin.h"

#include <stdint.h>

struct moon_builtin;

struct moon_endpoint {
    struct moon_address address;
    uint32_t weight;
};

struct moon_upstream {
    struct moon_slice name;
    uint32_t series;                    // the id of its name among counters
    uint32_t index;                     // in its part: names its turn in each worker's pool
    const struct moon_builtin *builtin; // answers inside the binary; then there are no endpoints
    struct moon_endpoint *endpoints;
    uint16_t endpoint_count;
    struct moon_cycle cycle;
};

struct moon_upstreams;

// Part: struct moon_upstreams *. Its registry is a NULL-terminated array of const struct moon_builtin *; gateway/ hands it over
// in a copy of this section.
extern const struct moon_section moon_upstream_section;

const struct moon_upstreams *moon_snapshot_upstreams(const struct moon_snapshot *snapshot);
const struct moon_upstream *moon_upstreams_find(const struct moon_upstreams *upstreams,
                                                struct moon_slice name);
// The names, NULL-terminated, for suggestions.
const char *const *moon_upstreams_names(const struct moon_upstreams *upstreams);
