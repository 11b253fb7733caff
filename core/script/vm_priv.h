// The body of struct moon_vm, and the seams between the files that make it work:
//   vm.c  making and ending    coroutine.c  running Lua    slot.c  exchanges that Lua may hold    tasks.c  timers, spawn
#pragma once

#include "base/address.h"
#include "base/list.h"
#include "base/slice.h"
#include "io/loop.h"
#include "script/vm.h"

#include <lua.h>
#include <stdbool.h>
#include <stdint.h>

struct moon_flow;
struct moon_instance;

// How a coroutine came back.
enum moon_run {
    MOON_RUN_DONE,     // its function has returned; it is in the pool again
    MOON_RUN_WAITS,    // until somebody wakes it
    MOON_RUN_ANSWERED, // the phase has ended with an answer; it is gone
    MOON_RUN_PULLS,    // wants the next piece of the response's body
    MOON_RUN_WRITES,   // has a piece of it: moon_coroutine_written
    MOON_RUN_CLOSES,   // ends the tunnel: code and reason are 3 and 4 on its stack
    MOON_RUN_FAILED,   // logged; it is gone
};

// A thread of Lua with what it waits for. Its memory stays with the VM until that is freed, so that a late wake finds it.
struct moon_coroutine {
    struct moon_vm *vm;
    lua_State *thread;
    int thread_ref;
    uint32_t wait;          // which wait this is, over its whole life
    struct moon_list node;  // among the VM's free or running ones
    struct moon_list mate;  // among those of the slot
    struct moon_slot *slot; // the exchange it works for; NULL: none
    uint8_t phase;          // MOON_ABI_
    bool is_task;           // nobody resumes it but its own wake
    bool is_waiting, is_ready;
    const char *failure; // it is to fail at the next resume
    // Told when it is woken (never by whom it is resumed).
    void (*on_wake)(struct moon_coroutine *coroutine);
    // Told when its function has returned, with what it returned on its stack (never by whom it is resumed). NULL: dropped.
    void (*on_return)(struct moon_coroutine *coroutine);
    // Of a task: told when it has ended, in whatever way.
    void (*on_end)(void *owner, enum moon_run how);
    void *owner;
    // Takes back what it waits for, when it will not go on. NULL: nothing needs that.
    void (*withdraw)(void *operation);
    void *operation;
    struct moon_timer timer; // of sleep
    struct moon_task task;   // resumes a task
};

// An exchange as Lua knows it. Slots never move; `generation` counts their uses.
struct moon_slot {
    struct moon_vm *vm;
    struct moon_flow *flow; // NULL: free
    uint32_t index, generation;
    int handle_ref;  // where the registry has its handle; 0: it had none yet
    bool has_handle; // of this use
    bool has_tables; // Lua has vars or globals of it
    bool is_answered;
    struct moon_list coroutines;
    struct moon_collect *collect; // the request's body, when Lua reads it
    uint8_t phase; // the last that began for it, MOON_ABI_EVALUATE when none is under way
    char client[MOON_ADDRESS_TEXT_LEN]; // its address, where Lua has asked
    struct moon_slot *next_free;
};

struct moon_vm {
    lua_State *state;
    const struct moon_script_host *host;
    struct moon_vm_seat seat;
    struct moon_coroutine *current; // NULL: no coroutine runs
    struct moon_list free_coroutines, live_coroutines;
    unsigned pooled_count; // free ones that have a thread
    struct moon_list timers;
    struct moon_slot **slots;
    struct moon_slot *free_slot;
    uint32_t slot_count, slots_used_count;
    uint32_t opening_count; // functions of connections that are under way
    int exchange_ref;       // metatable of handles of exchanges
    int connection_ref;     // metatable of connections of preread
    size_t preread_count;   // connections that preread runs for
    int message_ref;        // metatable of WebSocket messages
    int vars_ref;           // slot index -> exchange.vars
    int globals_ref;        // slot index -> globals of the exchange
    int configure_ref;      // function(plugin, table): its table as phases get it
    int young_ref, old_ref; // id -> table of a plugin's use
    char *scratch;          // what an abi function gives Lua to copy
    size_t scratch_cap;
    int *functions; // by index of the code's
    size_t function_count;
    int (*plugins)[16]; // by index, then phase: LUA_NOREF where it has none
    size_t plugin_count;
    int *starts; // what a worker does at its start
    size_t start_count, starting_count;
    void (*started)(void *owner, int err);
    void *started_owner;
    int start_err;
    struct moon_timer start_limit;
    bool is_settled; // what its evaluation took from outside is no longer there
    bool is_started, has_timers, is_stopped; // has_timers: they run
};

// coroutine.c
// One that is free, or a new one. Its thread is empty: push the function and its arguments there.
struct moon_coroutine *moon_coroutine_take(struct moon_vm *vm, struct moon_slot *slot, int phase);
// Runs it, or goes on where it waited. When it comes back DONE, ANSWERED or FAILED it is not the caller's any more.
enum moon_run moon_coroutine_resume(struct moon_coroutine *coroutine, int argument_count);
// It came back `run`; where that is PULLS, WRITES or CLOSES, which has no place here, that fails in it, and it goes on. As
// moon_coroutine_resume, and none of the three.
enum moon_run moon_coroutine_refuse(struct moon_coroutine *coroutine, enum moon_run run);
// A text onto the stack of one that waits. Nothing else that allocates may touch that stack: a finalizer would run on it, and
// end what waits there.
void moon_coroutine_push(struct moon_coroutine *coroutine, struct moon_slice text);
// What it writes, on its own stack until it is resumed.
struct moon_slice moon_coroutine_written(const struct moon_coroutine *coroutine);
// It will not go on: what it waits for is taken back. Not while it runs. NULL is fine.
void moon_coroutine_drop(struct moon_coroutine *coroutine);
// Begins a wait of the running coroutine; its number.
uint32_t moon_coroutine_wait(struct moon_coroutine *coroutine, void (*withdraw)(void *operation),
                             void *operation);
// Ends the wait of that number; a wait of another number is left alone. It goes on later.
void moon_coroutine_wake(struct moon_coroutine *coroutine, uint32_t wait);
// Starts one that nobody else resumes, soon; its function and arguments are on its stack. `on_end` may be NULL; it is not
// told of one that is dropped.
void moon_coroutine_start(struct moon_coroutine *coroutine,
                          void (*on_end)(void *owner, enum moon_run how), void *owner);
// The VM closes: tasks are dropped, the others lose their threads; what waits for them is called, and finds a closed VM.
void moon_coroutines_close(struct moon_vm *vm);
// Their memory.
void moon_coroutines_free(struct moon_vm *vm);
// Logs the error at the top of the state's stack, with where it comes from, and takes it off.
void moon_coroutine_report(struct moon_coroutine *coroutine, lua_State *at);

// slot.c
// The slot of a flow; the first time it is taken, and let go with the flow's arena.
struct moon_slot *moon_slot_of(struct moon_vm *vm, struct moon_flow *flow);
// Whether what runs may change the exchange: it works for it, in one of these phases (bits 1 << MOON_ABI_), which is under way.
// MOON_ABI_OK, or why not.
int moon_slot_check(const struct moon_slot *slot, uint32_t phases);
// Pushes the exchange's handle onto the coroutine's stack.
void moon_slot_push(struct moon_slot *slot, lua_State *at);
void moon_slots_free(struct moon_vm *vm);

// tasks.c
// Adds spawn and timer to the table on the stack.
void moon_tasks_open(lua_State *state, struct moon_vm *vm);
// Every timer of the VM begins / ends.
void moon_tasks_start(struct moon_vm *vm);
void moon_tasks_stop(struct moon_vm *vm);

// hooks.c
// The plugin's table of a use, nil for a function of an object, onto the stack of `at`. False: it could not be made; the error is
// there instead.
bool moon_instance_push_conf(const struct moon_instance *instance, struct moon_vm *vm,
                             lua_State *at);

// collect.c
// Lets go of what was read of the request's body. NULL is fine.
void moon_collect_free(struct moon_collect *collect);

// vm.c
// The table of a plugin's use in this VM, made when it is not there; onto the stack of `at`. False: an error is there instead.
bool moon_vm_push_conf(struct moon_vm *vm, const struct moon_instance *instance, lua_State *at);
// Makes vm->scratch at least that long; false: there is no memory.
bool moon_vm_scratch(struct moon_vm *vm, size_t len);
// Keeps the function at the top of the stack for the start of the worker; pops it.
void moon_vm_add_start(struct moon_vm *vm, lua_State *at);
