// See bind_certificate.h. An order hangs on a userdata that the waiting coroutine has on its stack, as a call does (bind_call.c).
#include "script/bind_certificate.h"

#include "script/vm_priv.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

struct box {
    struct moon_certificate_order *order; // NULL: done, or withdrawn
    struct moon_coroutine *coroutine;
    uint32_t wait;
    char *problem; // malloc'd; NULL: it is done
};

static const char box_type[] = "moongate.certificate";

static void withdraw(void *operation)
{
    struct box *box = operation;
    if (box->order)
        box->coroutine->vm->seat.certificates->forget(box->order);
    box->order = NULL;
}

static void on_done(void *asker, const char *problem)
{
    struct box *box = asker;
    box->order = NULL;
    box->problem = problem ? strdup(problem) : NULL;
    moon_coroutine_wake(box->coroutine, box->wait);
}

static int collect(lua_State *state)
{
    struct box *box = lua_touserdata(state, 1);
    withdraw(box);
    free(box->problem);
    return 0;
}

// certificate_set(name, cert, key): what certificate_take wants when the running coroutine has been woken
static int certificate_set(lua_State *state)
{
    struct moon_vm *vm = lua_touserdata(state, lua_upvalueindex(1));
    struct moon_slice texts[3];
    for (int i = 0; i < 3; i++)
        texts[i].ptr = luaL_checklstring(state, i + 1, &texts[i].len);
    if (!vm || !vm->current || !vm->seat.certificates)
        return luaL_error(state, "no certificate can be given here");
    const struct moon_certificate_ops *ops = vm->seat.certificates;
    struct box *box = lua_newuserdata(state, sizeof *box);
    *box = (struct box){.coroutine = vm->current};
    luaL_getmetatable(state, box_type);
    lua_setmetatable(state, -2);
    box->order = ops->set(ops->owner, texts, on_done, box);
    box->wait = moon_coroutine_wait(vm->current, withdraw, box);
    return 1;
}

// certificate_take(order): true, or nil and why not
static int certificate_take(lua_State *state)
{
    const struct box *box = luaL_checkudata(state, 1, box_type);
    if (!box->problem) {
        lua_pushboolean(state, true);
        return 1;
    }
    lua_pushnil(state);
    lua_pushstring(state, box->problem);
    return 2;
}

void moon_certificates_open(lua_State *state, struct moon_vm *vm)
{
    luaL_newmetatable(state, box_type);
    lua_pushcfunction(state, collect);
    lua_setfield(state, -2, "__gc");
    lua_pop(state, 1);
    lua_pushlightuserdata(state, vm);
    lua_pushcclosure(state, certificate_set, 1);
    lua_setfield(state, -2, "certificate_set");
    lua_pushcfunction(state, certificate_take);
    lua_setfield(state, -2, "certificate_take");
}
