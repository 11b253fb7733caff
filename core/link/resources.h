// What every connection of one worker borrows: its loop, its pools, its shared read buffer and its counters.
// Made by gateway/ for each worker; it outlives all links and exchanges of the worker.
#pragma once

#include "base/list.h"
#include "link/suspects.h"

#include <stddef.h>
#include <stdint.h>

struct moon_arena_pool;
struct moon_buffer_pool;
struct moon_counters;
struct moon_h2_shape;
struct moon_log;
struct moon_loop;
struct moon_ring;
struct moon_series;
struct moon_settings;
struct moon_tls_client;
struct moon_tls_hub;

enum {
    // heads are read with no more, so that a long body stays in the kernel for splice
    MOON_READ_HEAD_LEN = 8192,
    MOON_READ_BODY_LEN = 65536,
    MOON_TURN_LEN = 262144, // bytes a link may read in one turn before others get theirs
};

struct moon_resources {
    struct moon_loop *loop;
    struct moon_arena_pool *arenas;
    struct moon_buffer_pool *buffers;
    struct moon_counters *counters;
    struct moon_series *series;    // requests by route and upstream; NULL: not counted
    struct moon_ring *access_ring; // to the log writer; NULL: there is no access log
    const struct moon_log *log;
    const struct moon_settings *settings; // of the newest snapshot
    char *read_buffer;                    // MOON_READ_BODY_LEN; only loop dispatch reads into it
    struct moon_list exchanges, relays;   // alive, for a forced stop
    unsigned worker;                      // index among the data workers; their count: control's
    uint64_t id_seed[2];                  // random, for exchange ids
    uint64_t id_count;
    struct moon_tls_hub *tls;           // for calls; NULL: none
    struct moon_tls_client *tls_client; // of calls: trusts what the system does; NULL: not made yet
    uint64_t tls_warned_ms;             // when a failure was last told
    uint64_t link_count;                // made so far: the number of the newest
    struct moon_suspects suspects;
    struct moon_h2_shape *h2_shape; // made with the first HTTP/2 connection; NULL: there was none
};
