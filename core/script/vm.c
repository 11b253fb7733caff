// See vm.h: making a VM, its start and its end.
#include "base/err.h"
#include "obs/log.h"
#include "script/abi.h"
#include "script/code.h"
#include "script/evaluation.h"
#include "script/generation.h"
#include "script/inputs.h"
#include "script/instance.h"
#include "script/push.h"
#include "script/state.h"
#include "script/vm_priv.h"

#include <lauxlib.h>
#include <luajit.h>
#include <stdlib.h>
#include <string.h>

enum { START_MAX_MS = 10000, SMALL_HEAP_KIB = 1024, SMALL_HEAP_PAUSE = 400 };

static const char *const phase_names[MOON_PHASE_COUNT] = {
    NULL,          "rewrite", "access",          "header_filter", "body_filter", "log",
    "init_worker", NULL,      "websocket_frame", "certificate",   "preread"};

// ---- making

static int problem(const struct moon_vm_args *args, struct moon_report *report, const char *text)
{
    text = text ? text : "an error that is not a text";
    size_t len = strcspn(text, "\n");
    moon_report_addf(report, (struct moon_place){args->code->path, 0}, NULL, NULL, NULL, "%.*s",
                     (int)len, text);
    return MOON_ECONFIG;
}

// A function that the first evaluation had and this one has not, or the other way round.
static int difference(const struct moon_vm_args *args, struct moon_report *report, const char *kind,
                      const char *name, const char *phase, const char *what)
{
    moon_report_addf(report, (struct moon_place){args->code->path, 0}, NULL, NULL,
                     "the script runs once for the configuration and once in each worker: it must "
                     "define the same functions every time",
                     "%s of %s \"%s\" %s", phase, kind, name, what);
    return MOON_ECONFIG;
}

static int find_extra(struct moon_vm *vm, const struct moon_vm_args *args,
                      struct moon_report *report)
{
    lua_State *state = vm->state;
    int err = 0;
    lua_pushnil(state);
    while (!err && lua_next(state, -2)) {
        char *kind = strdup(lua_tostring(state, -2));
        if (!kind)
            abort();
        char *name = strchr(kind, '\n'), *phase = strrchr(kind, '\n'); // a name may hold some
        *name++ = *phase++ = '\0';
        if (moon_code_find(args->code, kind, moon_slice_from(name), phase) < 0)
            err = difference(args, report, kind, name, phase,
                             "is there when a worker runs the script, but was not before");
        free(kind);
        lua_pop(state, 1);
    }
    lua_pop(state, err ? 1 : 0);
    return err;
}

static int find_functions(struct moon_vm *vm, const struct moon_vm_args *args,
                          struct moon_report *report)
{
    lua_State *state = vm->state;
    const struct moon_code *code = args->code;
    vm->functions = calloc(code->function_count + 1, sizeof *vm->functions);
    if (!vm->functions)
        abort();
    lua_getfield(state, LUA_REGISTRYINDEX, MOON_FUNCTIONS_KEY);
    for (size_t i = 0; i < code->function_count; i++) {
        const struct moon_function *function = &code->functions[i];
        lua_pushfstring(state, "%s\n%s\n%s", function->kind, function->name, function->phase);
        lua_rawget(state, -2);
        if (!lua_isfunction(state, -1)) {
            lua_settop(state, 0);
            return difference(args, report, function->kind, function->name, function->phase,
                              "is missing when a worker runs the script");
        }
        vm->functions[vm->function_count++] = luaL_ref(state, LUA_REGISTRYINDEX);
    }
    int err = find_extra(vm, args, report);
    lua_settop(state, 0);
    return err;
}

static void keep_phases(struct moon_vm *vm, int *refs)
{
    lua_State *state = vm->state;
    for (int phase = 0; phase < MOON_PHASE_COUNT; phase++) {
        refs[phase] = LUA_NOREF;
        if (!phase_names[phase])
            continue;
        lua_getfield(state, -1, phase_names[phase]);
        if (lua_isfunction(state, -1) && phase == MOON_ABI_INIT_WORKER)
            moon_vm_add_start(vm, state);
        else if (lua_isfunction(state, -1))
            refs[phase] = luaL_ref(state, LUA_REGISTRYINDEX);
        else
            lua_pop(state, 1);
    }
}

// Calls a function of a module of the product with `argument`, or none. The error's text is left on the stack, or one result.
static int call_module(lua_State *state, const char *module, const char *function,
                       const char *argument)
{
    lua_getglobal(state, "require");
    lua_pushstring(state, module);
    int err = lua_pcall(state, 1, 1, 0);
    if (err)
        return err;
    lua_getfield(state, -1, function);
    lua_remove(state, -2);
    if (argument)
        lua_pushstring(state, argument);
    return lua_pcall(state, argument ? 1 : 0, 1, 0);
}

static int load_plugins(struct moon_vm *vm, const struct moon_vm_args *args,
                        struct moon_report *report)
{
    lua_State *state = vm->state;
    vm->plugins = calloc(args->code->plugin_count + 1, sizeof *vm->plugins);
    if (!vm->plugins)
        abort();
    for (size_t i = 0; i < args->code->plugin_count; i++) {
        lua_settop(state, 0);
        moon_evaluation_bound_begin(state);
        int err =
            call_module(state, "moongate._core.plugins", "load", args->code->plugins[i]->name);
        moon_evaluation_bound_end(state);
        if (err)
            return problem(args, report, lua_tostring(state, -1));
        if (!lua_istable(state, -1))
            return problem(args, report, "a plugin is not found any more");
        keep_phases(vm, vm->plugins[i]);
        vm->plugin_count++;
    }
    lua_settop(state, 0);
    return 0;
}

static int new_table_ref(lua_State *state)
{
    lua_newtable(state);
    return luaL_ref(state, LUA_REGISTRYINDEX);
}

// A cycle of the collector costs what lives, not what is dead: a small heap may grow to four times what lived before the next
// begins, a large one to twice that (LuaJIT's default).
static void pace_collector(lua_State *state)
{
    lua_gc(state, LUA_GCCOLLECT, 0);
    if (lua_gc(state, LUA_GCCOUNT, 0) < SMALL_HEAP_KIB)
        lua_gc(state, LUA_GCSETPAUSE, SMALL_HEAP_PAUSE);
}

// What is needed once requests come: `require` and the like change to what a worker may do.
static int settle(struct moon_vm *vm, const struct moon_vm_args *args, struct moon_report *report)
{
    lua_State *state = vm->state;
    vm->young_ref = new_table_ref(state);
    vm->old_ref = new_table_ref(state);
    if (call_module(state, "moongate._core.run", "settle", NULL) != 0)
        return problem(args, report, lua_tostring(state, -1));
    lua_getfield(state, -1, "exchange");
    vm->exchange_ref = luaL_ref(state, LUA_REGISTRYINDEX);
    lua_getfield(state, -1, "configure");
    vm->configure_ref = luaL_ref(state, LUA_REGISTRYINDEX);
    lua_getfield(state, -1, "message");
    vm->message_ref = luaL_ref(state, LUA_REGISTRYINDEX);
    lua_getfield(state, -1, "connection");
    vm->connection_ref = luaL_ref(state, LUA_REGISTRYINDEX);
    lua_getfield(state, -1, "vars");
    vm->vars_ref = luaL_ref(state, LUA_REGISTRYINDEX);
    lua_getfield(state, -1, "globals");
    vm->globals_ref = luaL_ref(state, LUA_REGISTRYINDEX);
    lua_settop(state, 0);
    luaJIT_setmode(state, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_ON);
    pace_collector(state);
    vm->is_settled = true;
    return 0;
}

int moon_vm_new(const struct moon_vm_args *args, struct moon_report *report, struct moon_vm **out)
{
    struct moon_vm *vm = calloc(1, sizeof *vm);
    struct moon_model *model = moon_model_new();
    if (!vm)
        abort();
    vm->host = args->host;
    vm->seat.worker = args->worker;
    vm->seat.is_control = args->is_control;
    moon_list_init(&vm->free_coroutines);
    moon_list_init(&vm->live_coroutines);
    moon_list_init(&vm->timers);
    vm->state = moon_state_new(args->code->dir);
    struct moon_evaluation evaluation = {args->code->path, args->code->inputs, model, vm};
    int err = vm->state ? moon_evaluation_run(vm->state, &evaluation, report)
                        : problem(args, report, "not enough memory for the VM of a worker");
    if (!err)
        err = find_functions(vm, args, report);
    if (!err)
        err = load_plugins(vm, args, report);
    if (!err)
        err = settle(vm, args, report);
    moon_model_free(model);
    if (err)
        moon_vm_free(vm);
    else
        *out = vm;
    return err;
}

// ---- its life

static void finish_start(struct moon_vm *vm)
{
    void (*started)(void *, int) = vm->started;
    vm->started = NULL;
    if (moon_timer_is_armed(&vm->start_limit))
        moon_loop_timer_del(vm->seat.loop, &vm->start_limit);
    if (started && !vm->start_err && !vm->is_stopped)
        moon_tasks_start(vm);
    if (started)
        started(vm->started_owner, vm->start_err);
}

static void on_start_end(void *owner, enum moon_run how)
{
    struct moon_vm *vm = owner;
    if (how == MOON_RUN_FAILED)
        vm->start_err = MOON_ECONFIG;
    if (--vm->starting_count == 0)
        finish_start(vm);
}

static void on_start_limit(struct moon_timer *timer)
{
    struct moon_vm *vm = MOON_CONTAINER(timer, struct moon_vm, start_limit);
    moon_log_error(vm->seat.log, "script: init_worker has not come to its end in %d s",
                   START_MAX_MS / 1000);
    vm->start_err = MOON_ETIMEOUT;
    finish_start(vm);
}

void moon_vm_start(struct moon_vm *vm, const struct moon_vm_seat *seat,
                   void (*done)(void *owner, int err), void *owner)
{
    vm->seat = *seat;
    vm->is_started = true;
    vm->started = done;
    vm->started_owner = owner;
    vm->start_limit.fn = on_start_limit;
    moon_loop_timer_add(seat->loop, &vm->start_limit, vm->start_count ? START_MAX_MS : 0);
    if (call_module(vm->state, "moongate._core.run", "start", NULL) != 0)
        moon_log_error(seat->log, "script: %s", lua_tostring(vm->state, -1));
    lua_settop(vm->state, 0);
    vm->starting_count = seat->is_control ? 0 : vm->start_count;
    for (size_t i = 0; i < vm->starting_count; i++) {
        struct moon_coroutine *coroutine = moon_coroutine_take(vm, NULL, MOON_ABI_INIT_WORKER);
        lua_rawgeti(coroutine->thread, LUA_REGISTRYINDEX, vm->starts[i]);
        moon_coroutine_start(coroutine, on_start_end, vm);
    }
    if (vm->starting_count == 0)
        finish_start(vm);
}

void moon_vm_stop(struct moon_vm *vm)
{
    if (vm->is_stopped)
        return;
    vm->is_stopped = true;
    if (!vm->is_started)
        return;
    if (moon_timer_is_armed(&vm->start_limit))
        moon_loop_timer_del(vm->seat.loop, &vm->start_limit);
    moon_tasks_stop(vm);
}

void moon_vm_fail(struct moon_vm *vm)
{
    struct moon_list *at = vm->live_coroutines.next, *next;
    for (; at != &vm->live_coroutines; at = next) {
        struct moon_coroutine *coroutine = MOON_CONTAINER(at, struct moon_coroutine, node);
        next = at->next;
        if (!coroutine->is_waiting || coroutine->is_ready)
            continue;
        if (coroutine->withdraw)
            coroutine->withdraw(coroutine->operation);
        coroutine->failure = "this generation of the script has ended";
        moon_coroutine_wake(coroutine, coroutine->wait);
    }
}

void moon_vm_close(struct moon_vm *vm)
{
    if (!vm->state)
        return;
    moon_vm_stop(vm);
    moon_tasks_stop(vm);
    moon_coroutines_close(vm);
    moon_state_free(vm->state);
    vm->state = NULL;
}

size_t moon_vm_exchange_count(const struct moon_vm *vm)
{
    return vm->slots_used_count + vm->opening_count + vm->preread_count;
}

// ---- tables of plugins

bool moon_vm_push_conf(struct moon_vm *vm, const struct moon_instance *instance, lua_State *at)
{
    int id = (int)instance->conf_id;
    lua_rawgeti(at, LUA_REGISTRYINDEX, vm->old_ref);
    lua_rawgeti(at, -1, id);
    lua_remove(at, -2);
    if (lua_isnil(at, -1)) {
        lua_pop(at, 1);
        lua_rawgeti(at, LUA_REGISTRYINDEX, vm->configure_ref);
        lua_pushstring(at, instance->plugin->name);
        moon_push_value(at, &instance->value);
        if (lua_pcall(at, 2, 1, 0) != 0)
            return false;
    }
    lua_rawgeti(at, LUA_REGISTRYINDEX, vm->young_ref);
    lua_pushvalue(at, -2);
    lua_rawseti(at, -2, id);
    lua_pop(at, 1);
    return true;
}

void moon_vm_age(struct moon_vm *vm)
{
    lua_rawgeti(vm->state, LUA_REGISTRYINDEX, vm->young_ref);
    lua_rawseti(vm->state, LUA_REGISTRYINDEX, vm->old_ref);
    lua_newtable(vm->state);
    lua_rawseti(vm->state, LUA_REGISTRYINDEX, vm->young_ref);
}

void moon_vm_add_start(struct moon_vm *vm, lua_State *at)
{
    vm->starts = realloc(vm->starts, (vm->start_count + 1) * sizeof *vm->starts);
    if (!vm->starts)
        abort();
    vm->starts[vm->start_count++] = luaL_ref(at, LUA_REGISTRYINDEX);
}

bool moon_vm_scratch(struct moon_vm *vm, size_t len)
{
    if (len <= vm->scratch_cap)
        return true;
    char *more = realloc(vm->scratch, len * 2);
    if (!more)
        return false;
    vm->scratch = more;
    vm->scratch_cap = len * 2;
    return true;
}

void moon_vm_free(struct moon_vm *vm)
{
    if (!vm)
        return;
    moon_vm_close(vm);
    moon_coroutines_free(vm);
    moon_slots_free(vm);
    free(vm->scratch);
    free(vm->functions);
    free(vm->plugins);
    free(vm->starts);
    free(vm);
}
