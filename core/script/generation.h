// Generation: the VMs of one state of the code, one for each worker and one for control. Configurations that differ in data
// alone share it.
#pragma once

#include <stddef.h>

struct moon_code;
struct moon_dicts;
struct moon_generation;
struct moon_log;
struct moon_report;
struct moon_vm;
struct moon_world;

// What all VMs of a gateway share. Made by gateway/, outlives every generation.
struct moon_script_host {
    struct moon_world *world;
    const struct moon_log *log; // NULL: nothing is said
    struct moon_dicts *dicts;   // shared dictionaries; NULL: none, nothing runs here
    unsigned worker_count;
};

// On the builder: gives the code a generation. It is that of `before` (NULL: none) where the code is the same, a new one where
// there is something to run, else none. 0, or MOON_ECONFIG with the report filled.
int moon_code_link(struct moon_code *code, const struct moon_code *before,
                   const struct moon_script_host *host, struct moon_report *report);
// NULL when there is nothing to run.
struct moon_generation *moon_code_generation(const struct moon_code *code);

struct moon_generation *moon_generation_ref(struct moon_generation *generation);
// The last one frees the VMs, on the caller's thread: their workers have stopped them and no exchange stands on them. NULL is fine.
void moon_generation_unref(struct moon_generation *generation);
// Of a worker; the control thread's has the index worker_count.
struct moon_vm *moon_generation_vm(const struct moon_generation *generation, unsigned worker);
