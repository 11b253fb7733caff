// The heartbeat of one loop: since when it is in a turn. Its thread alone writes it, whoever wants to reads it; it has a cache
// line of its own, so that writing it twice a turn costs two plain stores.
#pragma once

#include <stdatomic.h>
#include <stdint.h>

struct moon_heartbeat {
    _Alignas(64) _Atomic uint64_t turn_ns; // monotonic; 0: it waits for something to do
};

static inline void moon_heartbeat_set(struct moon_heartbeat *heartbeat, uint64_t turn_ns)
{
    atomic_store_explicit(&heartbeat->turn_ns, turn_ns, memory_order_relaxed);
}

// How long the turn under way has lasted by now, in milliseconds; 0 while it waits.
static inline uint64_t moon_heartbeat_turn_ms(const struct moon_heartbeat *heartbeat,
                                              uint64_t now_ns)
{
    uint64_t turn_ns =
        atomic_load_explicit((_Atomic uint64_t *)&heartbeat->turn_ns, memory_order_relaxed);
    return turn_ns && now_ns > turn_ns ? (now_ns - turn_ns) / 1000000u : 0;
}
