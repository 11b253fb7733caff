// A stage: a simulated world with one gateway in it, and a loop outside of the gateway's process for the peers of a test.
#pragma once

#include "base/address.h"
#include "io/loop.h"
#include "io/sim.h"
#include "obs/log.h"

#include <stdbool.h>
#include <stdint.h>

struct moon_filter_type;
struct moon_gateway;

struct stage {
    struct moon_world *world;
    struct moon_loop *loop; // the peers'
    struct moon_gateway *gateway;
    const struct moon_filter_type *const
        *filters; // plugins of the gateway, NULL-terminated; NULL: none
    struct moon_log log;
    struct moon_address address; // of the first listener
    bool is_draining;
};

// The world alone, so that backends can listen before the gateway's script names them.
void stage_init(struct stage *stage, uint64_t seed, const struct moon_sim_faults *faults,
                bool is_verbose);
// Evaluates the script as a file of the world and starts the gateway. Prints why not, and ends the program, when it can't.
void stage_start(struct stage *stage, const char *script, unsigned workers);
// The first call begins the drain, further ones do nothing.
void stage_drain(struct stage *stage);
// Ends the gateway: drains and lets it run out. NULL, or what was left behind.
const char *stage_stop(struct stage *stage, uint64_t within_ms);
// Everything of the peers is closed. NULL, or what still lives.
const char *stage_fini(struct stage *stage);
// One socket of a backend.
struct moon_socket *stage_listen(struct stage *stage, uint16_t port);
// MOONGATE_TEST_SCALE: > 1 where programs run slower.
unsigned stage_scale(void);
