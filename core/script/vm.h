// VM: the Lua of one worker in one generation. The builder makes it and runs the script in it; then it belongs to its worker,
// or to control, which starts it, runs coroutines in it, and stops it at the switch to the next generation.
//
//   new (builder) -> start (its thread: timers, init_worker) -> serves exchanges -> stop (timers and tasks end)
//                 -> exchanges that stand on it end, or are failed -> free (any thread)
#pragma once

#include "base/slice.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct moon_code;
struct moon_counters;
struct moon_generation;
struct moon_log;
struct moon_loop;
struct moon_report;
struct moon_script_host;
struct moon_service;
struct moon_vm;

// Giving the gateway certificates while it runs. Filled in by gateway/; for the VM's thread.
struct moon_certificate_order;
struct moon_certificate_ops {
    // Certificates of that name are to be this (PEM); all is copied. `done` is told once, later, with NULL, or why not.
    struct moon_certificate_order *(*set)(void *owner, const struct moon_slice texts[3],
                                          void (*done)(void *asker, const char *problem),
                                          void *asker);
    // `done` is not told any more.
    void (*forget)(struct moon_certificate_order *order);
    void *owner;
};
enum { MOON_CERTIFICATE_NAME, MOON_CERTIFICATE_CERT, MOON_CERTIFICATE_KEY }; // of the texts

// Where a VM runs.
struct moon_vm_seat {
    struct moon_loop *loop;
    struct moon_service *service;                    // for requests of its own; NULL: it makes none
    struct moon_counters *counters;                  // NULL: nothing is counted
    const struct moon_certificate_ops *certificates; // NULL: none can be given
    const struct moon_log *log;
    unsigned worker;
    bool is_control; // timers of control run here, those of workers do not
};

struct moon_vm_args {
    const struct moon_script_host *host;
    struct moon_code *code; // evaluated first, compiled; borrowed
    unsigned worker;
    bool is_control;
};

// Evaluates the script again with the recorded inputs, loads the plugins, and finds every function of the first evaluation. 0,
// or MOON_ECONFIG with the report filled: the first difference is named.
int moon_vm_new(const struct moon_vm_args *args, struct moon_report *report, struct moon_vm **out);
// NULL is fine.
void moon_vm_free(struct moon_vm *vm);

// Starts timers and runs what a worker does at its start; `done` is called once, later, on the VM's thread, with 0 or an error
// that was logged.
void moon_vm_start(struct moon_vm *vm, const struct moon_vm_seat *seat,
                   void (*done)(void *owner, int err), void *owner);
// Timers and tasks end; exchanges go on. Harmless twice.
void moon_vm_stop(struct moon_vm *vm);
// Another configuration of the same generation serves: tables of plugins that nobody has used since the last but one are let go.
void moon_vm_age(struct moon_vm *vm);
// Everything that still waits fails, soon.
void moon_vm_fail(struct moon_vm *vm);
// On its thread: what still runs is dropped and the Lua state freed. Exchanges that stand on it go on, but a phase that waits
// in it or begins later fails (but for log, which is left out): what judges or changes an exchange is never skipped.
// Harmless twice.
void moon_vm_close(struct moon_vm *vm);
// Exchanges that have a slot in it, connections whose handshake waits for it, and connections that preread runs for.
size_t moon_vm_exchange_count(const struct moon_vm *vm);
