// Reload: a new configuration takes the place of the old one, whole or not at all.
//
//   idle --request--> building (a thread: evaluate, compile) --fine--> switching (ports, every worker) --all--> idle
//                         '--problems: told, the old one serves--> idle
//
// Requests that come meanwhile are answered by one further reload. All of it belongs to the control thread but the building.
#pragma once

#include "base/list.h"
#include "base/wheel.h"
#include "gateway/ports.h"
#include "gateway/worker.h"
#include "io/mailbox.h"

#include <stdbool.h>
#include <stdint.h>

struct moon_gateway;
struct moon_report;
struct moon_snapshot;
struct moon_thread;

struct moon_reload_result {
    bool is_fine;
    uint64_t number; // of the snapshot that serves now
    uint64_t took_ms;
    uint64_t compile_us; // of that, on the builder's thread
    // parts that were not compiled again, of those of moon_reload_parts: a bit each
    unsigned kept;
    const struct moon_report *report; // what was wrong; empty when fine
};

// Somebody who waits for a reload. Embedded; told once, or taken back with moon_reload_forget.
struct moon_reload_waiter {
    struct moon_list node;
    void (*done)(struct moon_reload_waiter *waiter, const struct moon_reload_result *result);
};

// idle -> building -> starting (scripts of a new generation, in every worker) -> switching -> idle; or, when a worker's scripts
// cannot start: starting -> giving up -> idle.
enum moon_reload_state {
    MOON_RELOAD_IDLE,
    MOON_RELOAD_BUILDING,
    MOON_RELOAD_STARTING,
    MOON_RELOAD_GIVING_UP,
    MOON_RELOAD_SWITCHING,
};

// Names of the parts that a reload may keep, NULL behind the last.
extern const char *const moon_reload_parts[];

struct moon_reload {
    struct moon_gateway *gateway;
    struct moon_mailbox *mailbox;
    enum moon_reload_state state;
    struct moon_list waiters, next_waiters; // of the reload under way, of the one after it
    bool is_wanted;                         // once more when this one is over
    struct moon_thread *builder;
    struct moon_message built;
    // of the reload under way
    struct moon_report *report;
    struct moon_snapshot *snapshot;
    struct moon_ports ports;
    struct moon_worker_start *starts; // one a worker
    struct moon_mailbox *started;
    struct moon_worker_switch *changes; // one a worker
    unsigned waiting_count;
    int switch_err;
    unsigned kept;
    uint64_t begin_ms, compile_us;
    // Replaced snapshots, freed here once no worker holds them: off the workers.
    struct moon_snapshot **retired;
    size_t retired_count;
    struct moon_timer sweep;
    // for metrics
    uint64_t fine_count, failed_count;
};

void moon_reload_init(struct moon_reload *reload, struct moon_gateway *gateway);
// Nothing runs any more.
void moon_reload_fini(struct moon_reload *reload);
// `waiter` may be NULL. Never calls back before it returns.
void moon_reload_request(struct moon_reload *reload, struct moon_reload_waiter *waiter);
void moon_reload_forget(struct moon_reload_waiter *waiter);
