// See bind_native.h. Upvalue 1 is the VM (or NULL), upvalue 2 the inputs of the evaluation.
#include "script/bind_native.h"

#include "base/err.h"
#include "conf/report.h"
#include "obs/log.h"
#include "script/bind_call.h"
#include "script/bind_certificate.h"
#include "script/generation.h"
#include "script/inputs.h"
#include "script/vm_priv.h"

#include <errno.h>
#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_MAX_COUNT = 64 };

static struct moon_vm *vm_of(lua_State *state)
{
    return lua_touserdata(state, lua_upvalueindex(1));
}

// Those of the evaluation. They end with the code that it was made for, which other code of the same generation outlives.
static struct moon_inputs *inputs_of(lua_State *state)
{
    const struct moon_vm *vm = vm_of(state);
    if (vm && vm->is_settled)
        luaL_error(state, "the evaluation of the script is over");
    return lua_touserdata(state, lua_upvalueindex(2));
}

static int push_input(lua_State *state, const char *name, int err, struct moon_slice text)
{
    if (err == -ESTALE)
        return luaL_error(state,
                          "\"%s\" is asked for here, and was not when the script ran first: the "
                          "script must do the same every time it runs",
                          name);
    if (!err) {
        lua_pushlstring(state, text.ptr ? text.ptr : "", text.len);
        return 1;
    }
    lua_pushnil(state);
    lua_pushstring(state, moon_err_text(err));
    return 2;
}

// file(path, is_search): content, or nil and why. What was not asked for before is an error, or for who searches just not there.
static int native_file(lua_State *state)
{
    struct moon_slice text = {NULL, 0};
    const char *path = luaL_checkstring(state, 1);
    int err = moon_inputs_file(inputs_of(state), path, &text);
    if (err == -ESTALE && lua_toboolean(state, 2))
        err = -ENOENT;
    return push_input(state, path, err, text);
}

static int native_env(lua_State *state)
{
    struct moon_slice text = {NULL, 0};
    const char *name = luaL_checkstring(state, 1);
    int err = moon_inputs_env(inputs_of(state), name, &text);
    return push_input(state, name, err, text);
}

// time(): the evaluation's, in seconds; once a worker has the VM, that of its loop
static int native_time(lua_State *state)
{
    const struct moon_vm *vm = vm_of(state);
    uint64_t ms = vm && vm->seat.loop ? moon_loop_wall_ms(vm->seat.loop)
                                      : moon_inputs_wall_ms(inputs_of(state));
    lua_pushnumber(state, (lua_Number)ms / 1000);
    return 1;
}

// seed(): the evaluation's; once a worker has the VM, one of its own
static int native_seed(lua_State *state)
{
    struct moon_vm *vm = vm_of(state);
    uint64_t seed = 0;
    if (vm && vm->seat.loop)
        moon_loop_random(vm->seat.loop, &seed, sizeof seed);
    else
        seed = moon_inputs_seed(inputs_of(state));
    lua_pushnumber(state, (lua_Number)(seed >> 11));
    return 1;
}

// log(level, message)
static int native_log(lua_State *state)
{
    const struct moon_vm *vm = vm_of(state);
    size_t len;
    int level = (int)luaL_checknumber(state, 1);
    const char *text = luaL_checklstring(state, 2, &len);
    const struct moon_log *log = !vm ? NULL : vm->seat.log ? vm->seat.log : vm->host->log;
    if (log && moon_log_is_on(log, (enum moon_log_level)level))
        moon_log_write(log, (enum moon_log_level)level, "%.*s", (int)len, text);
    return 0;
}

// nearest(found, names): the name most like it, or nil
static int native_nearest(lua_State *state)
{
    const char *names[NAME_MAX_COUNT + 1] = {NULL};
    struct moon_slice found;
    found.ptr = luaL_checklstring(state, 1, &found.len);
    luaL_checktype(state, 2, LUA_TTABLE);
    luaL_checkstack(state, NAME_MAX_COUNT, "too many names");
    for (int i = 1; i <= (int)lua_objlen(state, 2) && i <= NAME_MAX_COUNT; i++) {
        lua_rawgeti(state, 2, i);
        names[i - 1] = luaL_checkstring(state, -1);
    }
    const char *nearest = moon_nearest_name(found, names);
    lua_pushstring(state, nearest); // nil for NULL
    return 1;
}

// start(function): to be run when a worker starts
static int native_start(lua_State *state)
{
    struct moon_vm *vm = vm_of(state);
    luaL_checktype(state, 1, LUA_TFUNCTION);
    lua_settop(state, 1);
    lua_pushboolean(state, true); // so the code needs VMs
    lua_setfield(state, LUA_REGISTRYINDEX, "moongate.has_tasks");
    if (vm && vm->is_settled)
        return luaL_error(state,
                          "moongate.init_worker can be called while the script is evaluated");
    if (vm)
        moon_vm_add_start(vm, state);
    return 0;
}

void moon_native_push(lua_State *state, struct moon_vm *vm, struct moon_inputs *inputs)
{
    static const luaL_Reg functions[] = {{"file", native_file},   {"env", native_env},
                                         {"time", native_time},   {"seed", native_seed},
                                         {"log", native_log},     {"nearest", native_nearest},
                                         {"start", native_start}, {NULL, NULL}};
    lua_newtable(state);
    for (const luaL_Reg *function = functions; function->name; function++) {
        lua_pushlightuserdata(state, vm);
        lua_pushlightuserdata(state, inputs);
        lua_pushcclosure(state, function->func, 2);
        lua_setfield(state, -2, function->name);
    }
    if (vm)
        lua_pushlightuserdata(state, vm);
    else
        lua_pushnil(state);
    lua_setfield(state, -2, "vm");
    lua_pushboolean(state, vm && vm->seat.is_control);
    lua_setfield(state, -2, "is_control");
    moon_tasks_open(state, vm);
    moon_calls_open(state, vm);
    moon_certificates_open(state, vm);
}
