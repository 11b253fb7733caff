// Precedence of the Gateway API: which of the matches that a request meets is asked first (HTTPRouteMatch, GRPCRouteMatch).
#pragma once

#include "base/slice.h"

#include <stdbool.h>

struct moon_match;

// A match under one of its hosts.
struct moon_sorted {
    struct moon_slice host; // empty: every host
    const struct moon_match *match;
};

// Those of gRPC, or the others, host by host and in each the one that precedes first; malloc'd. *out: how many there are.
struct moon_sorted *moon_precedence_sort(const struct moon_match *matches, size_t count,
                                         bool is_grpc, size_t *out);
