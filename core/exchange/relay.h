// Relay: two streams joined, bytes passing opaque: tunnels after a protocol switch, TCP routes. Each side's end is passed on
// (half-close kept), and a side that does not take what the other sends stops the other from being read. A relay pins neither
// exchange nor route: it keeps its endpoint's claim and its names.
#pragma once

#include "base/address.h"
#include "base/buffer.h"
#include "base/list.h"
#include "upstream/pool.h"

// How long the peers of a WebSocket have to answer a Close.
enum { MOON_RELAY_CLOSING_MS = 1000 };

struct moon_lane;
struct moon_relay;
struct moon_resources;
struct moon_stream;

// What it keeps for those who ask: texts of its own, NULL where there is none.
struct moon_relay_identity {
    const char *state;         // "tunnel", "websocket", "tcp", "tls"
    uint64_t number, start_ms; // of the client's connection
    uint32_t request_count;
    struct moon_address client, endpoint;
    char *listener, *route, *upstream;
};
void moon_relay_identity_fini(struct moon_relay_identity *identity);

struct moon_relay_result {
    uint64_t client_len, upstream_len;          // bytes that each has sent
    bool is_complete;                           // both sides ended in good order
    const struct moon_relay_identity *identity; // under `ended` alone
};

struct moon_relay_args {
    struct moon_stream *client, *upstream;
    struct moon_buffer to_client, to_upstream; // go first
    struct moon_claim claim;                   // what the upstream connection counts as
    struct moon_relay_identity identity;
    uint32_t idle_ms; // as long as neither side sends a byte; 0: ten minutes
    // Both sides speak WebSocket: the relay knows where frames begin, and ends with a Close 1001 to both where it is the one who
    // ends. client_len, upstream_len: how much of the ends of to_upstream and to_client are frames.
    bool is_websocket;
    size_t client_len, upstream_len;
    // Told once, when both streams are closed; never under moon_relay_new. May be NULL.
    void (*ended)(void *owner, const struct moon_relay_result *result);
    // Told at most once, of the first bytes that pass: whose they are. NULL: nobody wants to know.
    void (*spoke)(void *owner, bool is_upstream);
    void *owner;
};

// Takes everything over. It frees itself.
struct moon_relay *moon_relay_new(struct moon_resources *res, const struct moon_relay_args *args);
// Takes both lanes over as one tunnel, as moon_relay_new.
void moon_relay_start(struct moon_resources *res, struct moon_lane *down, struct moon_lane *up,
                      const struct moon_relay_args *rest);
// Closes both sides; tells `ended`.
void moon_relay_close(struct moon_relay *relay);
// Of a node of res->relays.
const struct moon_relay_identity *moon_relay_identity_at(const struct moon_list *node);
// Those that speak WebSocket begin to close: they end within MOON_RELAY_CLOSING_MS.
void moon_relay_close_websockets(struct moon_resources *res);
// May be told to those that close already.
void moon_relay_stop_all(struct moon_resources *res);
