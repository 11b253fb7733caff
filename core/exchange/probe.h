// Probe: one active check of one endpoint, over a connection that carries checks alone.
//
//   start -> link lent -> request -> response judged -> done
//
// HTTP/1.1 is asked over a new connection each time. One of HTTP/2 is kept, whatever the answers are, until none comes
// in time, or what is none.
// It belongs to whoever started it, on the thread of its pool.
#pragma once

#include "base/address.h"

#include <stdbool.h>

struct moon_health_check;
struct moon_pool;
struct moon_probe;
struct moon_resources;
struct moon_upstream;

struct moon_probe_args {
    struct moon_resources *res;
    struct moon_pool *pool;
    const struct moon_upstream *upstream; // with a check; as long as the probe
    struct moon_address address;
    // Told once, from the loop, never under moon_probe_start. `why` it failed, which goes with the probe; NULL: it passed. May
    // free the probe.
    void (*done)(void *owner, const char *why);
    void *owner;
};

struct moon_probe *moon_probe_start(const struct moon_probe_args *args);
// Withdraws it, or frees one that is done. NULL is fine.
void moon_probe_free(struct moon_probe *probe);
