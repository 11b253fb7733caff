// The hook preread: a function runs on a pooled coroutine with what is known of a connection (lua/moongate/_core/connection.lua), may
// wait, and returns where the connection goes: nil as its route says, a string to that upstream, false nowhere.
//
//   begin -> (runs) --waits--> waiting --woken: bytes, time, whatever it waits for--> (runs) --returns--> verdict
#include "filter/preread.h"

#include "filter/filter.h"
#include "io/loop.h"
#include "io/tls.h"
#include "obs/log.h"
#include "script/abi.h"
#include "script/code.h"
#include "script/generation.h"
#include "script/instance.h"
#include "script/push.h"
#include "script/vm_priv.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

enum { BYTES_MAX_LEN = 16384 };

// One function's look at one connection, while it runs or waits.
struct look {
    struct moon_preread *preread;
    struct moon_vm *vm;
    struct moon_coroutine *coroutine;
    uint32_t wait; // for bytes: which wait that is; 0: for something else
    size_t wanted_len;
    enum moon_verdict verdict;
};

static void look_free(struct look *look)
{
    look->preread->guest = NULL;
    look->preread->cancel = NULL;
    look->vm->preread_count--;
    free(look);
}

static void on_cancel(struct moon_preread *preread)
{
    struct look *look = preread->guest;
    moon_coroutine_drop(look->coroutine);
    look_free(look);
}

static void on_wake(struct moon_coroutine *coroutine)
{
    const struct look *look = coroutine->owner;
    look->preread->ops->resume(look->preread);
}

static void on_return(struct moon_coroutine *coroutine)
{
    struct look *look = coroutine->owner;
    lua_State *thread = coroutine->thread;
    lua_settop(thread, 1);
    look->verdict = MOON_NEXT;
    if (lua_isnil(thread, 1))
        return;
    if (lua_isboolean(thread, 1) && !lua_toboolean(thread, 1)) {
        look->verdict = MOON_DONE;
        return;
    }
    if (lua_type(thread, 1) == LUA_TSTRING) {
        free(look->preread->upstream);
        look->preread->upstream = strdup(lua_tostring(thread, 1));
        if (!look->preread->upstream)
            abort();
        return;
    }
    look->verdict = MOON_FAIL;
    moon_coroutine_push(
        coroutine, MOON_SLICE("preread returns nil (the route's backends have the connection), "
                              "the name of an upstream, or false (it is closed)"));
    moon_coroutine_report(coroutine, thread);
}

// ---- the connection in Lua

static void set_sans(lua_State *at, struct moon_slice sans)
{
    struct moon_slice name;
    lua_newtable(at);
    for (int i = 1; sans.len && moon_slice_next_item(&sans, &name); i++) {
        lua_pushlstring(at, name.ptr, name.len);
        lua_rawseti(at, -2, i);
    }
    lua_setfield(at, -2, "sans");
}

// connection.client.certificate; the connection is on top of the stack.
static void set_certificate(lua_State *at, const struct moon_tls_facts *facts)
{
    if (!facts || !facts->fingerprint.len)
        return;
    lua_getfield(at, -1, "client");
    lua_createtable(at, 0, 4);
    moon_set_text(at, "subject", facts->subject);
    moon_set_text(at, "serial", facts->serial);
    moon_set_text(at, "fingerprint", facts->fingerprint);
    set_sans(at, facts->sans);
    lua_setfield(at, -2, "certificate");
    lua_pop(at, 1);
}

static void push_connection(const struct moon_preread *preread, const struct moon_vm *vm,
                            lua_State *at)
{
    lua_createtable(at, 0, 8);
    lua_pushnumber(at, (double)preread->number);
    lua_setfield(at, -2, "number");
    moon_set_client(at, &preread->client);
    set_certificate(at, preread->facts);
    moon_set_destination(at, &preread->destination);
    moon_set_text(at, "listener", preread->listener);
    moon_set_text(at, "route", preread->route);
    moon_set_text(at, "sni", preread->sni);
    moon_set_alpn(at, preread->alpn);
    lua_pushboolean(at, preread->is_tls);
    lua_setfield(at, -2, "tls");
    lua_rawgeti(at, LUA_REGISTRYINDEX, vm->connection_ref);
    lua_setmetatable(at, -2);
}

// ---- the hook

// NULL: there is no such function here, or (`*verdict` MOON_FAIL) the plugin's table could not be made.
static struct look *begin(const struct moon_instance *instance, struct moon_vm *vm,
                          struct moon_preread *preread, enum moon_verdict *verdict)
{
    int ref = instance->plugin ? vm->plugins[instance->plugin->index][MOON_ABI_PREREAD]
                               : vm->functions[instance->functions[MOON_ABI_PREREAD]];
    *verdict = MOON_NEXT;
    if (ref == LUA_NOREF)
        return NULL;
    struct look *look = calloc(1, sizeof *look);
    if (!look)
        abort();
    *look = (struct look){.preread = preread, .vm = vm, .verdict = MOON_FAIL};
    look->coroutine = moon_coroutine_take(vm, NULL, MOON_ABI_PREREAD);
    look->coroutine->owner = look;
    look->coroutine->on_wake = on_wake;
    look->coroutine->on_return = on_return;
    preread->guest = look;
    preread->cancel = on_cancel;
    vm->preread_count++;
    lua_State *thread = look->coroutine->thread;
    lua_rawgeti(thread, LUA_REGISTRYINDEX, ref);
    push_connection(preread, vm, thread);
    if (moon_instance_push_conf(instance, vm, thread))
        return look;
    moon_coroutine_report(look->coroutine, thread);
    on_cancel(preread);
    *verdict = MOON_FAIL;
    return NULL;
}

// Whether as many bytes are there as it waits for, or will never be.
static bool has_bytes(const struct look *look)
{
    if (!moon_vm_scratch(look->vm, BYTES_MAX_LEN))
        return true;
    ssize_t n = look->preread->ops->peek(look->preread, look->vm->scratch, look->wanted_len);
    return n < 0 || (size_t)n >= look->wanted_len || look->preread->has_ended;
}

// False: it waits on.
static bool may_go_on(const struct look *look)
{
    struct moon_coroutine *coroutine = look->coroutine;
    if (!coroutine->is_ready && look->wait && coroutine->wait == look->wait && has_bytes(look))
        moon_coroutine_wake(coroutine, look->wait);
    return coroutine->is_ready;
}

enum moon_verdict moon_script_preread(struct moon_preread *preread, void *conf)
{
    const struct moon_instance *instance = conf;
    struct moon_vm *vm = moon_generation_vm(instance->code->generation, preread->worker);
    struct look *look = preread->guest;
    enum moon_verdict verdict;
    int argument_count = 0;
    if (!vm->state) {
        moon_log_error(vm->seat.log, "script: preread of a connection cannot run: this generation "
                                     "of the script has ended");
        if (look)
            on_cancel(preread);
        return MOON_FAIL;
    }
    if (!look) {
        look = begin(instance, vm, preread, &verdict);
        if (!look)
            return verdict;
        argument_count = 2;
    } else if (!may_go_on(look)) {
        return MOON_WAIT;
    } else {
        lua_settop(look->coroutine->thread, 0);
    }
    look->wait = 0;
    enum moon_run run = moon_coroutine_resume(look->coroutine, argument_count);
    run = moon_coroutine_refuse(look->coroutine, run);
    if (run == MOON_RUN_WAITS)
        return MOON_WAIT;
    verdict = run == MOON_RUN_DONE ? look->verdict : MOON_FAIL;
    look_free(look);
    return verdict;
}

// ---- the abi

// The look that the running function is for, where it is the connection of that number.
static struct look *look_of(void *vm, double number, int *code)
{
    const struct moon_coroutine *current = ((struct moon_vm *)vm)->current;
    *code = MOON_ABI_PHASE;
    if (!current || current->is_task || current->on_return != on_return)
        return NULL;
    struct look *look = current->owner;
    *code = (double)look->preread->number == number ? MOON_ABI_OK : MOON_ABI_FOREIGN;
    return *code ? NULL : look;
}

int moon_abi_peek(void *vm, double number, size_t max, struct moon_abi_text *out)
{
    int code;
    struct look *look = look_of(vm, number, &code);
    if (!look)
        return code;
    if (max > BYTES_MAX_LEN || !moon_vm_scratch(look->vm, BYTES_MAX_LEN))
        return MOON_ABI_MEMORY;
    ssize_t n = look->preread->ops->peek(look->preread, look->vm->scratch, max);
    *out = (struct moon_abi_text){look->vm->scratch, n > 0 ? (size_t)n : 0};
    return MOON_ABI_OK; // what went wrong is told to who takes it
}

int moon_abi_peek_wait(void *vm, double number, size_t count, double seconds)
{
    int code;
    struct look *look = look_of(vm, number, &code);
    if (!look)
        return code;
    if (look->preread->has_ended)
        return MOON_ABI_NONE;
    code = moon_abi_sleep(vm, seconds);
    look->wanted_len = count;
    look->wait = look->coroutine->wait;
    return code;
}
