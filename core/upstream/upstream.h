// Upstreams: named groups of endpoints that a route forwards to, as the configuration defines them.
#pragma once

#include "base/address.h"
#include "conf/conf.h"
#include "upstream/endpoint.h"
#include "upstream/limit.h"

#include <stdint.h>

struct moon_builtin;
struct moon_health;
struct moon_health_check;
struct moon_name;
struct moon_registry;
struct moon_tls_client;
struct moon_tls_hub;

// How an upstream is spoken to. AUTO: by what TLS agrees on, HTTP/2 where the upstream takes it.
enum moon_upstream_protocol { MOON_UPSTREAM_HTTP1, MOON_UPSTREAM_HTTP2, MOON_UPSTREAM_AUTO };

enum moon_balance { MOON_BALANCE_ROUND_ROBIN, MOON_BALANCE_LEAST_REQUEST };

// An entry of `endpoints`: an address, or a host name that stands for any number of them.
struct moon_origin {
    struct moon_address address; // with a name, its port alone
    struct moon_name *name;      // NULL: an address; else a reference
    uint32_t weight;             // of each address
};

struct moon_upstream {
    struct moon_slice name;
    uint32_t series;                    // the id of its name among counters
    uint32_t index;                     // in its part: names its turn in each worker's pool
    const struct moon_builtin *builtin; // answers inside the binary; then there are no endpoints
    struct moon_origin *origins;
    uint32_t origin_count;
    bool is_original; // "original:dst": where each client connection meant to go; no endpoints
    enum moon_balance balance;
    enum moon_upstream_protocol protocol;
    uint32_t stream_max_count;   // open at once on a connection of HTTP/2
    struct moon_tls_client *tls; // NULL: plain
    struct moon_slice tls_host;  // whom it asks for; empty: the endpoint's address
    uint8_t
        proxy; // the introduction that connections begin with, in clear (upstream/patron.h); 0: none
    struct {
        uint32_t connect_ms, response_ms; // 0: as the settings say
    } timeouts;
    struct moon_limit *limit;        // NULL: none
    struct moon_health_check *check; // NULL: its endpoints are not checked
    struct moon_health *health;      // a reference; NULL as it
    struct moon_limit_bounds bounds;
    struct moon_feed feed; // of endpoint sets, the first as of compiling
};

struct moon_upstreams;

// What gateway/ hands to the compiler, in a copy of the section below.
struct moon_upstream_parts {
    const struct moon_builtin *const *builtins; // NULL-terminated
    struct moon_registry *registry;             // outlives every snapshot
    struct moon_tls_hub *tls;                   // as it
};

// Part: struct moon_upstreams *. Its registry is a const struct moon_upstream_parts *. gateway/ sets is_same: the bound of names
// that are counted belongs to a room above.
extern const struct moon_section moon_upstream_section;

const struct moon_upstreams *moon_snapshot_upstreams(const struct moon_snapshot *snapshot);
const struct moon_upstream *moon_upstreams_find(const struct moon_upstreams *upstreams,
                                                struct moon_slice name);
// The names, NULL-terminated, for suggestions.
const char *const *moon_upstreams_names(const struct moon_upstreams *upstreams);
// Whether both have the same names in the same order: then an index means the same in both.
bool moon_upstreams_same_names(const struct moon_upstreams *a, const struct moon_upstreams *b);
size_t moon_upstreams_count(const struct moon_upstreams *upstreams);
struct moon_upstream *moon_upstreams_at(const struct moon_upstreams *upstreams, size_t index);
// Whether their certificate files are still those that were read. Blocks.
bool moon_upstreams_are_fresh(const struct moon_upstreams *upstreams);
struct moon_registry *moon_upstreams_registry(const struct moon_upstreams *upstreams);
// Publishes the endpoints as the addresses of the names in it and the health of all now stand. Thread safe.
void moon_upstream_refresh(struct moon_upstream *upstream);
