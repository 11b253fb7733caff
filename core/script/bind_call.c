// See bind_call.h. A call hangs on a userdata that the waiting coroutine has on its stack:
//
//   start -> under way --done: the coroutine is woken--> done --take--> freed
//               `--the coroutine will not go on: withdrawn     `--it did not go on after all: freed by the collector
//
// Invariant: a call that is under way is the operation of its coroutine's wait, so nobody forgets it.
#include "script/bind_call.h"

#include "base/err.h"
#include "exchange/call.h"
#include "exchange/exchange.h"
#include "http/headers.h"
#include "io/tls.h"
#include "link/resources.h"
#include "script/vm_priv.h"

#include <errno.h>
#include <lauxlib.h>

struct box {
    struct moon_call *call; // NULL once taken or withdrawn
    struct moon_coroutine *coroutine;
    uint32_t wait;
};

static const char box_type[] = "moongate.call";

static void withdraw(void *operation)
{
    struct box *box = operation;
    moon_call_free(box->call);
    box->call = NULL;
}

static void on_done(void *owner, struct moon_call *call)
{
    const struct box *box = owner;
    (void)call;
    moon_coroutine_wake(box->coroutine, box->wait);
}

static int collect(lua_State *state)
{
    withdraw(lua_touserdata(state, 1));
    return 0;
}

// ---- start

static bool is_fault_of_caller(int err)
{
    return err == MOON_EURL || err == MOON_EMETHOD || err == MOON_EFIELD || err == -EMSGSIZE ||
           err == MOON_ELATER;
}

static struct moon_slice string_at(lua_State *state, int index)
{
    struct moon_slice text;
    text.ptr = luaL_optlstring(state, index, "", &text.len);
    return text;
}

static uint32_t ms_at(lua_State *state, int index)
{
    double ms = luaL_optnumber(state, index, 0) * 1000;
    if (ms <= 0)
        return 0;
    return ms < 1 ? 1 : ms > 1e9 ? 1000000000 : (uint32_t)(ms + 0.5);
}

static size_t len_at(lua_State *state, int index)
{
    double len = luaL_optnumber(state, index, 0);
    return len <= 0 ? 0 : len < 1 ? 1 : len > 1e15 ? (size_t)1e15 : (size_t)len;
}

// The fields of a list { name, value, name, value ... } of strings, in memory that is left on the stack.
static struct moon_call_field *fields_at(lua_State *state, int index, size_t *count)
{
    luaL_checktype(state, index, LUA_TTABLE);
    *count = lua_objlen(state, index) / 2;
    struct moon_call_field *fields = lua_newuserdata(state, (*count + 1) * sizeof *fields);
    for (size_t i = 0; i < *count; i++) {
        lua_rawgeti(state, index, (int)(2 * i + 1));
        lua_rawgeti(state, index, (int)(2 * i + 2));
        fields[i].name.ptr = luaL_checklstring(state, -2, &fields[i].name.len);
        fields[i].value.ptr = luaL_checklstring(state, -1, &fields[i].value.len);
        lua_pop(state, 2); // the list keeps them
    }
    return fields;
}

static int push_reason(lua_State *state, int err)
{
    lua_pushnil(state);
    lua_pushstring(state, moon_err_text(err));
    lua_pushboolean(state, is_fault_of_caller(err));
    return 3;
}

// Who trusts the CAs of a file alone; NULL with the problem: there is none. Reads it, so on control.
static struct moon_tls_client *client_of(const struct moon_vm *vm, const char *ca,
                                         struct moon_tls_problem *problem)
{
    struct moon_tls_client_options options = {.ca = ca};
    struct moon_tls_client *client = NULL;
    moon_tls_client_get(vm->seat.service->res->tls, &options, problem, &client);
    return client;
}

// call_start(method, url, upstream, fields, body, timeout, connect_timeout, max_body, ca): what call_take wants when the running
// coroutine has been woken, or nil, why, and whether the caller is to blame
static int call_start(lua_State *state)
{
    struct moon_vm *vm = lua_touserdata(state, lua_upvalueindex(1));
    lua_settop(state, 9);
    struct moon_call_args args = {.method = string_at(state, 1),
                                  .url = string_at(state, 2),
                                  .upstream = string_at(state, 3),
                                  .body = string_at(state, 5),
                                  .timeout_ms = ms_at(state, 6),
                                  .connect_timeout_ms = ms_at(state, 7),
                                  .body_max_len = len_at(state, 8),
                                  .done = on_done};
    args.fields = fields_at(state, 4, &args.field_count);
    if (!vm || !vm->current || !vm->seat.service)
        return luaL_error(state, "no request can be made here");
    struct box *box = lua_newuserdata(state, sizeof *box);
    *box = (struct box){.coroutine = vm->current};
    luaL_getmetatable(state, box_type);
    lua_setmetatable(state, -2);
    args.owner = box;
    struct moon_slice ca = string_at(state, 9);
    struct moon_tls_problem problem;
    if (ca.len)
        args.tls = client_of(vm, ca.ptr, &problem);
    if (ca.len && !args.tls) {
        lua_pushnil(state);
        lua_pushstring(state, problem.text);
        return 2;
    }
    int err = moon_call_start(vm->seat.service, &args, &box->call);
    moon_tls_client_unref(args.tls);
    if (err)
        return push_reason(state, err);
    box->wait = moon_coroutine_wait(vm->current, withdraw, box);
    return 1;
}

// ---- take

static const char *reason_of(int err)
{
    switch (err) {
    case MOON_EOF:
        return "the connection was closed before the response was whole";
    case MOON_ETIMEOUT:
        return "timeout";
    case -ETIMEDOUT:
        return "timeout of connecting";
    case MOON_EPROTO:
        return "the answer is no HTTP/1.1 response";
    case MOON_EBODY:
        return "the body is longer than max_body";
    case MOON_ELIMIT:
        return "its limits are reached";
    default:
        return moon_err_text(err);
    }
}

static void push_slice(lua_State *state, struct moon_slice text)
{
    lua_pushlstring(state, text.ptr ? text.ptr : "", text.len);
}

static void push_fields(lua_State *state, const struct moon_headers *headers)
{
    lua_createtable(state, (int)headers->count * 2, 0);
    for (uint32_t i = 0; i < headers->count; i++) {
        push_slice(state, headers->fields[i].name);
        lua_rawseti(state, -2, (int)(2 * i + 1));
        push_slice(state, headers->fields[i].value);
        lua_rawseti(state, -2, (int)(2 * i + 2));
    }
}

// call_take(call): status, { name, value, name, value ... }, body; or nil and why there is no response
static int call_take(lua_State *state)
{
    struct box *box = luaL_checkudata(state, 1, box_type);
    if (!box->call)
        return luaL_error(state, "the call is gone");
    int err = moon_call_error(box->call);
    if (err) {
        withdraw(box);
        lua_pushnil(state);
        lua_pushstring(state, reason_of(err));
        return 2;
    }
    lua_pushnumber(state, moon_call_status(box->call));
    push_fields(state, moon_call_headers(box->call));
    push_slice(state, moon_call_body(box->call));
    withdraw(box);
    return 3;
}

void moon_calls_open(lua_State *state, struct moon_vm *vm)
{
    luaL_newmetatable(state, box_type);
    lua_pushcfunction(state, collect);
    lua_setfield(state, -2, "__gc");
    lua_pop(state, 1);
    lua_pushlightuserdata(state, vm);
    lua_pushcclosure(state, call_start, 1);
    lua_setfield(state, -2, "call_start");
    lua_pushcfunction(state, call_take);
    lua_setfield(state, -2, "call_take");
}
