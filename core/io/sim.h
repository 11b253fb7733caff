// The simulated world: memory instead of a kernel, virtual time, seeded randomness, scripted faults (DESIGN 2). All loops run on
// the caller's thread, one at a time, in seeded order; the same seed gives the same event trace and the same hash.
#pragma once

#include "io/world.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Chances are per mille of the operation they name; all zero is a perfect network.
struct moon_sim_faults {
    uint32_t latency_min_ms, latency_max_ms; // of each segment and of connecting
    uint32_t short_read_permille;            // a read or write gets a random part of what it could
    uint32_t reset_permille;                 // a segment resets the connection instead of arriving
    uint32_t refuse_permille;                // a connect is refused
    uint32_t hang_permille;                  // a connect never answers
    // bytes in flight one way before a writer would block; 0: 64 KiB
    size_t socket_buffer_len;
};

struct moon_world *moon_world_new_sim(uint64_t seed, const struct moon_sim_faults *faults);
// May be changed between turns.
void moon_sim_set_faults(struct moon_world *world, const struct moon_sim_faults *faults);
// Connects to that port are refused or never answered from now on, whoever listens there.
enum moon_sim_port { MOON_SIM_PORT_OPEN, MOON_SIM_PORT_REFUSES, MOON_SIM_PORT_HANGS };
void moon_sim_set_port(struct moon_world *world, uint16_t port, enum moon_sim_port how);
// A file that moon_world_read_file finds; copied. The same path once more replaces it.
void moon_sim_add_file(struct moon_world *world, const char *path, const char *text, size_t len);
// Streams, sockets and pipes that loops may hold in all (two for a pipe); over it: -EMFILE. Default 65536.
void moon_sim_set_descriptor_limit(struct moon_world *world, size_t count);
// The loop belongs to another process: what it opens does not count against the limit.
void moon_sim_set_outside(struct moon_loop *loop);

// Runs turns, moving time to the next event when nothing else is ready, until `done(arg)` or until `max_ms` of virtual time
// have passed, or until nothing is left that could happen. True when done. `done` may be NULL.
bool moon_sim_run(struct moon_world *world, bool (*done)(void *arg), void *arg, uint64_t max_ms);
uint64_t moon_sim_now_ms(const struct moon_world *world);
// Jumps the wall clock; the monotonic one does not move.
void moon_sim_jump_wall(struct moon_world *world, int64_t delta_ms);
// FNV-1a over every event so far.
uint64_t moon_sim_trace_hash(const struct moon_world *world);
// Streams, sockets, pipes and mailboxes alive: zero when nothing leaks.
size_t moon_sim_live_count(const struct moon_world *world);
// The world's random source, for test scripts that want to share the seed.
uint64_t moon_sim_random_u64(struct moon_world *world);
