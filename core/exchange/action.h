// Action: what a matched route does. Compiled from the same objects, in the same order, as the routes: index equals index.
#pragma once

#include "conf/conf.h"
#include "filter/chain.h"
#include "upstream/balance/split.h"

#include <stdbool.h>
#include <stdint.h>

// attempts: after the first one. Which failures: retry.c.
struct moon_retry {
    uint32_t backoff_ms;
    uint64_t statuses[4]; // bit n: status 400 + n
    uint8_t attempts;     // 0: the route does not retry
    bool on_connect, on_reset, on_timeout;
};

struct moon_action {
    const char *name; // of the route, for logs and counters
    uint32_t series;  // the id of its name there
    struct moon_chain chain;
    uint32_t prefix_len;     // of the path prefix that the route matches; 0 for "/"
    bool answers;            // no request gets beyond the access phase
    bool is_grpc;            // some match of it is gRPC's
    struct moon_split split; // over its backends
    struct {
        uint32_t request_ms; // from the request's head to the whole response; 0: unbounded
        // from the request sent to the response's head, each attempt; 0: as the settings say
        uint32_t response_ms;
        // of tunnels and TCP connections: as long as neither side sends a byte; of UDP sessions. 0: the default
        uint32_t idle_ms;
    } timeouts;
    uint32_t max_message_len; // of WebSocket, where filters read them
    struct moon_retry retry;
};

struct moon_actions;

// Part: struct moon_actions *. Its registry is a const struct moon_filter_registry *.
extern const struct moon_section moon_action_section;

const struct moon_actions *moon_snapshot_actions(const struct moon_snapshot *snapshot);
// The length of the longest of their chains.
uint32_t moon_actions_most_plugins(const struct moon_actions *actions);
const struct moon_action *moon_actions_at(const struct moon_actions *actions, int index);
