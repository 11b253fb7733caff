// Running Lua: pooled threads, what they yield, how they are woken.
//
//   free --take--> (function and arguments pushed) --resume--> running --yield--> waiting --wake--> ready --resume--> running
//                                                     running --returns--> free        running --fails, answers--> gone
//
// What a thread yields to the core begins with the VM's pointer, which no script can make, and a letter; coroutines of the
// script's own hand it on to the one that the core resumes (_core/coroutines.lua), so that a wait inside of them waits on the loop.
#include "base/slice.h"
#include "filter/filter.h"
#include "obs/counters.h"
#include "obs/log.h"
#include "script/abi.h"
#include "script/state.h"
#include "script/vm_priv.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

enum { POOL_MAX_COUNT = 256 };

static void go_on(struct moon_coroutine *coroutine);

// ---- life

static void on_task(struct moon_task *task)
{
    go_on(MOON_CONTAINER(task, struct moon_coroutine, task));
}

static void on_timer(struct moon_timer *timer)
{
    struct moon_coroutine *coroutine = MOON_CONTAINER(timer, struct moon_coroutine, timer);
    moon_coroutine_wake(coroutine, coroutine->wait);
}

static void make_thread(struct moon_coroutine *coroutine)
{
    lua_State *state = coroutine->vm->state;
    coroutine->thread = lua_newthread(state);
    coroutine->thread_ref = luaL_ref(state, LUA_REGISTRYINDEX);
}

struct moon_coroutine *moon_coroutine_take(struct moon_vm *vm, struct moon_slot *slot, int phase)
{
    struct moon_coroutine *coroutine;
    if (moon_list_is_empty(&vm->free_coroutines)) {
        coroutine = calloc(1, sizeof *coroutine);
        if (!coroutine)
            abort();
        coroutine->vm = vm;
        coroutine->task.fn = on_task;
        coroutine->timer.fn = on_timer;
    } else {
        coroutine = MOON_CONTAINER(vm->free_coroutines.next, struct moon_coroutine, node);
        moon_list_del(&coroutine->node);
    }
    if (coroutine->thread)
        vm->pooled_count--;
    else
        make_thread(coroutine);
    coroutine->slot = slot;
    coroutine->phase = (uint8_t)phase;
    moon_list_add_before(&vm->live_coroutines, &coroutine->node);
    if (slot)
        moon_list_add_before(&slot->coroutines, &coroutine->mate);
    if (vm->seat.counters)
        moon_count_up(&vm->seat.counters->coroutines_live);
    return coroutine;
}

static void forget_thread(struct moon_coroutine *coroutine)
{
    if (coroutine->thread)
        luaL_unref(coroutine->vm->state, LUA_REGISTRYINDEX, coroutine->thread_ref);
    coroutine->thread = NULL;
}

// What it waits for is nobody's any more.
static void end_wait(struct moon_coroutine *coroutine)
{
    if (!coroutine->is_waiting && !coroutine->is_task) // nobody would wake it
        return;
    void (*withdraw)(void *) = coroutine->withdraw;
    coroutine->withdraw = NULL;
    coroutine->is_waiting = coroutine->is_ready = false;
    if (moon_timer_is_armed(&coroutine->timer))
        moon_loop_timer_del(coroutine->vm->seat.loop, &coroutine->timer);
    moon_task_cancel(&coroutine->task);
    if (withdraw)
        withdraw(coroutine->operation);
}

// As end_wait, for a wait that was begun and could not be waited for (a yield across a C call): its operation is left to the
// collector, and may be gone already.
static void forget_wait(struct moon_coroutine *coroutine)
{
    coroutine->withdraw = NULL;
    end_wait(coroutine);
}

// Into the pool; its thread only where that has returned, and there are few.
static void release(struct moon_coroutine *coroutine)
{
    struct moon_vm *vm = coroutine->vm;
    end_wait(coroutine);
    if (coroutine->thread && vm->pooled_count >= POOL_MAX_COUNT)
        forget_thread(coroutine);
    coroutine->is_task = false;
    coroutine->failure = NULL;
    coroutine->on_wake = NULL;
    coroutine->on_return = NULL;
    coroutine->on_end = NULL;
    coroutine->owner = NULL;
    coroutine->slot = NULL;
    coroutine->wait++;
    moon_list_del(&coroutine->node);
    moon_list_del(&coroutine->mate);
    if (coroutine->thread) {
        vm->pooled_count++;
        moon_list_add_after(&vm->free_coroutines, &coroutine->node);
    } else {
        moon_list_add_before(&vm->free_coroutines, &coroutine->node);
    }
    if (vm->seat.counters)
        moon_count_down(&vm->seat.counters->coroutines_live);
}

void moon_coroutine_drop(struct moon_coroutine *coroutine)
{
    if (!coroutine)
        return;
    forget_thread(coroutine);
    release(coroutine);
}

void moon_coroutines_close(struct moon_vm *vm)
{
    struct moon_list *at = vm->live_coroutines.next, *next;
    for (; at != &vm->live_coroutines; at = next) {
        struct moon_coroutine *coroutine = MOON_CONTAINER(at, struct moon_coroutine, node);
        next = at->next;
        if (coroutine->is_task) {
            moon_coroutine_drop(coroutine);
            continue;
        }
        end_wait(coroutine);
        forget_thread(coroutine);
        if (coroutine->on_wake)
            coroutine->on_wake(coroutine);
    }
    for (at = vm->free_coroutines.next; at != &vm->free_coroutines; at = at->next)
        MOON_CONTAINER(at, struct moon_coroutine, node)->thread = NULL;
}

static void free_list(struct moon_list *list)
{
    while (!moon_list_is_empty(list)) {
        struct moon_coroutine *coroutine = MOON_CONTAINER(list->next, struct moon_coroutine, node);
        moon_list_del(&coroutine->node);
        free(coroutine);
    }
}

void moon_coroutines_free(struct moon_vm *vm)
{
    free_list(&vm->live_coroutines);
    free_list(&vm->free_coroutines);
}

// ---- errors

// A traceback of Lua in one line.
static void flatten(char *text)
{
    char *to = text;
    for (const char *at = text; *at; at++) {
        bool is_break = *at == '\n';
        if (is_break || *at == '\t')
            *to++ = is_break && at[1] == '\t' ? '<' : ' ';
        else
            *to++ = *at;
    }
    *to = '\0';
}

static int describe_error(lua_State *state)
{
    if (lua_isstring(state, 1))
        return 1;
    if (luaL_callmeta(state, 1, "__tostring"))
        return 1;
    lua_pushfstring(state, "an error that is not a text but %s", luaL_typename(state, 1));
    return 1;
}

void moon_coroutine_report(struct moon_coroutine *coroutine, lua_State *at)
{
    static const char *const phases[] = {
        "evaluation",  "rewrite", "access",          "header_filter", "body_filter", "log",
        "init_worker", "timer",   "websocket_frame", "certificate",   "preread"};
    const struct moon_vm *vm = coroutine->vm;
    if (vm->seat.counters)
        moon_count_up(&vm->seat.counters->script_errors_total);
    lua_pushcfunction(vm->state, describe_error); // __tostring is the script's
    lua_pushvalue(at, -1);
    lua_xmove(at, vm->state, 1);
    if (lua_pcall(vm->state, 1, 1, 0) != 0 || !lua_isstring(vm->state, -1)) {
        lua_pop(vm->state, 1);
        lua_pushliteral(vm->state, "an error that is not a text");
    }
    luaL_traceback(vm->state, at, lua_tostring(vm->state, -1), 0);
    lua_remove(vm->state, -2);
    char *text = strdup(lua_tostring(vm->state, -1));
    if (!text)
        abort();
    flatten(text);
    lua_pop(vm->state, 1);
    lua_pop(at, 1);
    struct moon_flow *flow = coroutine->slot ? coroutine->slot->flow : NULL;
    if (flow) {
        struct moon_slice id = flow->ops->id(flow);
        moon_log_error(vm->seat.log, "script: %s of request %.*s failed: %s",
                       phases[coroutine->phase], MOON_SLICE_ARG(id), text);
    } else {
        moon_log_error(vm->seat.log, "script: %s failed: %s", phases[coroutine->phase], text);
    }
    free(text);
}

static enum moon_run failed(struct moon_coroutine *coroutine)
{
    moon_coroutine_report(coroutine, coroutine->thread);
    moon_coroutine_drop(coroutine);
    return MOON_RUN_FAILED;
}

// What it had is garbage now, and the next one needs room.
static enum moon_run failed_for_memory(struct moon_coroutine *coroutine)
{
    lua_State *state = coroutine->vm->state;
    enum moon_run run = failed(coroutine);
    if (!coroutine->vm->current) // a finalizer may not run in the middle of another coroutine
        lua_gc(state, LUA_GCCOLLECT, 0);
    return run;
}

// ---- running

void moon_coroutine_push(struct moon_coroutine *coroutine, struct moon_slice text)
{
    lua_State *state = coroutine->vm->state;
    lua_pushlstring(state, text.ptr, text.len);
    lua_xmove(state, coroutine->thread, 1);
}

// What it yielded. A yield of the script's own has nobody to go to.
static enum moon_run yielded(struct moon_coroutine *coroutine)
{
    lua_State *thread = coroutine->thread;
    bool is_ours = lua_gettop(thread) >= 2 && lua_touserdata(thread, 1) == coroutine->vm;
    const char *what = is_ours ? lua_tostring(thread, 2) : "";
    if (!what || *what != 'w')
        forget_wait(coroutine);
    switch (what ? *what : '\0') {
    case 'w':
        return MOON_RUN_WAITS;
    case 'p':
        return MOON_RUN_PULLS;
    case 's':
        return MOON_RUN_WRITES;
    case 'c':
        return MOON_RUN_CLOSES;
    case 'a':
        moon_coroutine_drop(coroutine);
        return MOON_RUN_ANSWERED;
    default:
        moon_coroutine_push(
            coroutine,
            MOON_SLICE("coroutine.yield outside of a coroutine of your own: to wait, call "
                       "what waits (moongate.sleep, moongate.http.request ...)"));
        return failed(coroutine);
    }
}

enum moon_run moon_coroutine_resume(struct moon_coroutine *coroutine, int argument_count)
{
    struct moon_vm *vm = coroutine->vm;
    struct moon_coroutine *outer = vm->current;
    forget_wait(coroutine); // what woke it is done
    if (coroutine->failure) {
        lua_settop(coroutine->thread, 0);
        moon_coroutine_push(coroutine, moon_slice_from(coroutine->failure));
        argument_count = 1;
        coroutine->failure = NULL;
    }
    // Neither begun nor waiting: another coroutine has resumed it, and it came to its end there.
    if (lua_status(coroutine->thread) == 0 && lua_gettop(coroutine->thread) <= argument_count) {
        moon_coroutine_push(coroutine, MOON_SLICE("another coroutine has resumed this one"));
        return failed(coroutine);
    }
    vm->current = coroutine;
    bool was_guarded = moon_state_guard(vm->state, true);
    int status = lua_resume(coroutine->thread, argument_count);
    moon_state_guard(vm->state, was_guarded);
    vm->current = outer;
    if (status == LUA_YIELD)
        return yielded(coroutine);
    forget_wait(coroutine);
    if (status == LUA_ERRMEM)
        return failed_for_memory(coroutine);
    if (status != 0)
        return failed(coroutine);
    if (coroutine->on_return)
        coroutine->on_return(coroutine);
    lua_settop(coroutine->thread, 0);
    release(coroutine);
    return MOON_RUN_DONE;
}

static bool is_of_one_phase(enum moon_run run)
{
    return run == MOON_RUN_PULLS || run == MOON_RUN_WRITES || run == MOON_RUN_CLOSES;
}

enum moon_run moon_coroutine_refuse(struct moon_coroutine *coroutine, enum moon_run run)
{
    while (is_of_one_phase(run)) {
        lua_settop(coroutine->thread, 0);
        lua_pushnil(coroutine->thread);
        moon_coroutine_push(
            coroutine, run == MOON_RUN_CLOSES
                           ? MOON_SLICE("a message can be closed by the function of "
                                        "websocket_frame, not by a task or another phase")
                           : MOON_SLICE("a response's body can be read and written by the function "
                                        "of body_filter, not by a task or another phase"));
        run = moon_coroutine_resume(coroutine, 2);
    }
    return run;
}

struct moon_slice moon_coroutine_written(const struct moon_coroutine *coroutine)
{
    struct moon_slice text;
    text.ptr = lua_tolstring(coroutine->thread, 3, &text.len);
    return text.ptr ? text : MOON_SLICE("");
}

// ---- waiting

uint32_t moon_coroutine_wait(struct moon_coroutine *coroutine, void (*withdraw)(void *operation),
                             void *operation)
{
    forget_wait(coroutine);
    coroutine->is_waiting = true;
    coroutine->withdraw = withdraw;
    coroutine->operation = operation;
    return ++coroutine->wait;
}

void moon_coroutine_wake(struct moon_coroutine *coroutine, uint32_t wait)
{
    if (!coroutine->is_waiting || coroutine->wait != wait || coroutine->is_ready)
        return;
    coroutine->is_ready = true;
    coroutine->withdraw = NULL;
    if (coroutine->is_task)
        moon_loop_defer(coroutine->vm->seat.loop, &coroutine->task);
    else if (coroutine->on_wake)
        coroutine->on_wake(coroutine);
}

// ---- tasks

static void go_on(struct moon_coroutine *coroutine)
{
    void (*on_end)(void *, enum moon_run) = coroutine->on_end;
    void *owner = coroutine->owner;
    bool is_first = !coroutine->is_ready;
    if (!is_first)
        lua_settop(coroutine->thread, 0);
    int argument_count = is_first ? lua_gettop(coroutine->thread) - 1 : 0;
    enum moon_run run = moon_coroutine_resume(coroutine, argument_count);
    run = moon_coroutine_refuse(coroutine, run);
    if (run == MOON_RUN_WAITS)
        return;
    if (on_end)
        on_end(owner, run);
}

void moon_coroutine_start(struct moon_coroutine *coroutine,
                          void (*on_end)(void *owner, enum moon_run how), void *owner)
{
    coroutine->is_task = true;
    coroutine->on_end = on_end;
    coroutine->owner = owner;
    moon_loop_defer(coroutine->vm->seat.loop, &coroutine->task);
}
