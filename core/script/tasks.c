// What runs beside exchanges: timers, and coroutines that a script spawns.
//
//   timer: waiting --due--> running (a coroutine of its own) --ends--> waiting again, or over
#include "script/abi.h"
#include "script/vm_priv.h"

#include <lauxlib.h>
#include <stdlib.h>

enum { ARGUMENTS_MAX = 200 };

struct timer {
    struct moon_list node;
    struct moon_timer timer;
    struct moon_vm *vm;
    int function_ref;
    uint64_t delay_ms;
    bool repeats, is_running;
};

static void arm(struct timer *timer)
{
    moon_loop_timer_add(timer->vm->seat.loop, &timer->timer, timer->delay_ms);
}

static void timer_free(struct timer *timer)
{
    if (timer->vm->seat.loop)
        moon_loop_timer_del(timer->vm->seat.loop, &timer->timer);
    luaL_unref(timer->vm->state, LUA_REGISTRYINDEX, timer->function_ref);
    moon_list_del(&timer->node);
    free(timer);
}

static void on_end(void *owner, enum moon_run how)
{
    struct timer *timer = owner;
    (void)how; // it is tried again, whatever became of it
    timer->is_running = false;
    if (timer->repeats && !timer->vm->is_stopped)
        arm(timer);
    else
        timer_free(timer);
}

static void on_due(struct moon_timer *at)
{
    struct timer *timer = MOON_CONTAINER(at, struct timer, timer);
    struct moon_coroutine *coroutine = moon_coroutine_take(timer->vm, NULL, MOON_ABI_TIMER);
    lua_rawgeti(coroutine->thread, LUA_REGISTRYINDEX, timer->function_ref);
    timer->is_running = true;
    moon_coroutine_start(coroutine, on_end, timer);
}

// native.timer(function, seconds, repeats, on_control)
static int start_timer(lua_State *state)
{
    struct moon_vm *vm = lua_touserdata(state, lua_upvalueindex(1));
    double seconds = luaL_checknumber(state, 2);
    bool on_control = lua_toboolean(state, 4);
    lua_pushboolean(state, true); // so the code needs VMs
    lua_setfield(state, LUA_REGISTRYINDEX, "moongate.has_tasks");
    if (vm && vm->is_settled && on_control != vm->seat.is_control)
        return luaL_error(state,
                          "a timer of %s can be started at the top of the script, or by "
                          "what runs there",
                          on_control ? "control" : "workers");
    if (!vm || vm->is_stopped || on_control != vm->seat.is_control)
        return 0;
    struct timer *timer = calloc(1, sizeof *timer);
    if (!timer)
        abort();
    timer->vm = vm;
    timer->timer.fn = on_due;
    timer->delay_ms = !(seconds > 0)  ? 0
                      : seconds > 1e9 ? UINT64_C(1000000000000)
                                      : (uint64_t)(seconds * 1000 + 0.5);
    timer->repeats = lua_toboolean(state, 3);
    lua_pushvalue(state, 1);
    timer->function_ref = luaL_ref(state, LUA_REGISTRYINDEX);
    moon_list_add_before(&vm->timers, &timer->node);
    if (vm->has_timers)
        arm(timer);
    return 0;
}

// native.spawn(function, ...): starts it soon, on behalf of what runs now.
static int spawn(lua_State *state)
{
    struct moon_vm *vm = lua_touserdata(state, lua_upvalueindex(1));
    luaL_checktype(state, 1, LUA_TFUNCTION);
    if (!vm || !vm->current)
        return luaL_error(state, "nothing can be spawned while the script is evaluated");
    const struct moon_coroutine *parent = vm->current;
    int count = lua_gettop(state);
    if (count > ARGUMENTS_MAX)
        return luaL_error(state, "too many arguments");
    struct moon_coroutine *coroutine = moon_coroutine_take(vm, parent->slot, parent->phase);
    lua_checkstack(coroutine->thread, count + 1);
    lua_xmove(state, coroutine->thread, count);
    moon_coroutine_start(coroutine, NULL, NULL);
    return 0;
}

void moon_tasks_open(lua_State *state, struct moon_vm *vm)
{
    lua_pushlightuserdata(state, vm);
    lua_pushcclosure(state, start_timer, 1);
    lua_setfield(state, -2, "timer");
    lua_pushlightuserdata(state, vm);
    lua_pushcclosure(state, spawn, 1);
    lua_setfield(state, -2, "spawn");
}

void moon_tasks_start(struct moon_vm *vm)
{
    vm->has_timers = true;
    for (struct moon_list *at = vm->timers.next; at != &vm->timers; at = at->next)
        arm(MOON_CONTAINER(at, struct timer, node));
}

void moon_tasks_stop(struct moon_vm *vm)
{
    struct moon_list *at = vm->live_coroutines.next, *next;
    for (; at != &vm->live_coroutines; at = next) {
        struct moon_coroutine *coroutine = MOON_CONTAINER(at, struct moon_coroutine, node);
        next = at->next;
        if (coroutine->is_task && !coroutine->slot && coroutine != vm->current)
            moon_coroutine_drop(coroutine);
    }
    while (!moon_list_is_empty(&vm->timers))
        timer_free(MOON_CONTAINER(vm->timers.next, struct timer, node));
}
