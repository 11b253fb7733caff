// Least request: the endpoint with the fewest exchanges under way for its weight. All are looked at when they are few, else two
// drawn by weight (Mitzenmacher, 2001): enough to keep off the loaded ones, without every worker running to the same idle one.
#pragma once

#include <stdint.h>

struct moon_endpoint;
struct moon_endpoint_set;
struct moon_endpoint_state;

enum { MOON_LEAST_SCAN_COUNT = 4 };

// `random` is new for each choice. `avoid` (may be NULL) is chosen only where there is no other. NULL: no endpoint has a weight.
const struct moon_endpoint *moon_least_request_choose(const struct moon_endpoint_set *set,
                                                      uint64_t random,
                                                      const struct moon_endpoint_state *avoid);
