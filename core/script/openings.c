// Functions of connections (filter/opening.h): `certificate`, in the handshake. The connection is a plain table for Lua: what is known
// of it does not change any more.
//
//   ClientHello -> taken, run --returns--> the certificate is given under its return, while the texts stand on its stack
//                             --waits--> the handshake rests --woken--> asked again, run
#include "filter/opening.h"
#include "obs/log.h"
#include "script/code.h"
#include "script/generation.h"
#include "script/instance.h"
#include "script/push.h"
#include "script/vm_priv.h"

#include <lauxlib.h>

// What a function has made of an opening, while it runs.
struct judgement {
    struct moon_opening *opening;
    const struct moon_instance *instance;
    enum moon_verdict verdict;
};

static int function_of(const struct moon_instance *instance, const struct moon_vm *vm)
{
    return instance->plugin ? vm->plugins[instance->plugin->index][MOON_ABI_CERTIFICATE]
                            : vm->functions[instance->functions[MOON_ABI_CERTIFICATE]];
}

// ---- what it is told

static void push_opening(lua_State *state, const struct moon_opening *opening)
{
    lua_createtable(state, 0, 4);
    moon_set_text(state, "listener", opening->listener);
    moon_set_text(state, "sni", opening->sni);
    moon_set_alpn(state, opening->alpn);
    moon_set_client(state, &opening->client);
}

// ---- what it returns

static struct moon_slice field(lua_State *state, const char *key)
{
    struct moon_slice text = {NULL, 0};
    lua_pushstring(state, key);
    lua_rawget(state,
               1); // stays on the stack; raw: nobody here would catch what a metamethod raises
    if (lua_type(state, -1) == LUA_TSTRING)
        text.ptr = lua_tolstring(state, -1, &text.len);
    return text;
}

static void refuse(struct moon_coroutine *coroutine, const char *what, const char *why)
{
    const struct judgement *judgement = coroutine->owner;
    lua_State *thread = coroutine->thread;
    lua_Debug at = {.short_src = "?"};
    lua_rawgeti(thread, LUA_REGISTRYINDEX, function_of(judgement->instance, coroutine->vm));
    lua_getinfo(thread, ">S", &at);
    lua_pushfstring(thread, "%s:%d: what the function here returned, %s, %s", at.short_src,
                    at.linedefined, what, why);
    moon_coroutine_report(coroutine, thread);
}

static enum moon_verdict give(struct moon_coroutine *coroutine)
{
    const struct judgement *judgement = coroutine->owner;
    lua_State *thread = coroutine->thread;
    struct moon_opening_gift gift = {.name = {NULL, 0}};
    const char *what = "a table";
    if (lua_type(thread, 1) == LUA_TSTRING) {
        gift.name.ptr = lua_tolstring(thread, 1, &gift.name.len);
        what = gift.name.ptr;
    } else if (lua_istable(thread, 1)) {
        gift.cert = field(thread, "cert");
        gift.key = field(thread, "key");
    }
    if (!gift.name.len && (!gift.cert.len || !gift.key.len)) {
        refuse(coroutine, luaL_typename(thread, 1),
               "is no certificate: return nil, the name of one of the listener's, "
               "{ cert = pem, key = pem }, or false for no connection");
        return MOON_FAIL;
    }
    const char *why = judgement->opening->ops->give(judgement->opening, &gift);
    if (!why)
        return MOON_DONE;
    refuse(coroutine, what, why);
    return MOON_FAIL;
}

static void on_return(struct moon_coroutine *coroutine)
{
    struct judgement *judgement = coroutine->owner;
    lua_settop(coroutine->thread, 1);
    if (lua_isnil(coroutine->thread, 1)) {
        judgement->verdict = MOON_NEXT;
    } else if (lua_isboolean(coroutine->thread, 1) && !lua_toboolean(coroutine->thread, 1)) {
        judgement->opening->is_declined = true;
        judgement->verdict = MOON_FAIL;
    } else {
        judgement->verdict = give(coroutine);
    }
}

// ---- running

static void on_wake(struct moon_coroutine *coroutine)
{
    struct moon_opening *opening = coroutine->owner;
    opening->ops->resume(opening);
}

static struct moon_coroutine *begin(struct moon_vm *vm, const struct moon_instance *instance,
                                    const struct moon_opening *opening)
{
    struct moon_coroutine *coroutine = moon_coroutine_take(vm, NULL, MOON_ABI_CERTIFICATE);
    lua_State *thread = coroutine->thread;
    coroutine->on_wake = on_wake;
    coroutine->on_return = on_return;
    lua_rawgeti(thread, LUA_REGISTRYINDEX, function_of(instance, vm));
    push_opening(thread, opening);
    if (moon_instance_push_conf(instance, vm, thread)) {
        vm->opening_count++;
        return coroutine;
    }
    moon_coroutine_report(coroutine, thread);
    moon_coroutine_drop(coroutine);
    return NULL;
}

static void end(struct moon_vm *vm, struct moon_coroutine *coroutine)
{
    if (!coroutine)
        return;
    vm->opening_count--;
    moon_coroutine_drop(coroutine);
}

static enum moon_verdict run(struct judgement *judgement, struct moon_coroutine *coroutine,
                             int argument_count, void **state)
{
    struct moon_vm *vm = coroutine->vm;
    coroutine->owner = judgement;
    enum moon_run run = moon_coroutine_resume(coroutine, argument_count);
    run = moon_coroutine_refuse(coroutine, run);
    if (run == MOON_RUN_WAITS) {
        coroutine->owner = judgement->opening;
        *state = coroutine;
        return MOON_WAIT;
    }
    vm->opening_count--;
    return run == MOON_RUN_DONE ? judgement->verdict : MOON_FAIL;
}

static enum moon_verdict on_certificate(struct moon_opening *opening, void *conf, void **state)
{
    const struct moon_instance *instance = conf;
    struct moon_vm *vm = moon_generation_vm(instance->code->generation, opening->worker);
    struct moon_coroutine *coroutine = *state;
    struct judgement judgement = {opening, instance, MOON_FAIL};
    if (!vm->state) {
        end(vm, coroutine);
        *state = NULL;
        moon_log_error(vm->seat.log,
                       "script: certificate of \"%s\" cannot run: this generation of the script "
                       "has ended",
                       instance->type.name);
        return MOON_FAIL;
    }
    if (coroutine && !coroutine->is_ready)
        return MOON_WAIT;
    *state = NULL;
    if (coroutine) {
        lua_settop(coroutine->thread, 0);
        return run(&judgement, coroutine, 0, state);
    }
    if (function_of(instance, vm) == LUA_NOREF)
        return MOON_NEXT;
    coroutine = begin(vm, instance, opening);
    return coroutine ? run(&judgement, coroutine, 2, state) : MOON_FAIL;
}

static void on_cancel(struct moon_opening *opening, void *conf, void *state)
{
    const struct moon_instance *instance = conf;
    end(moon_generation_vm(instance->code->generation, opening->worker), state);
}

void moon_instance_set_opening_hooks(struct moon_filter_type *type, uint32_t phases)
{
    if (!(phases & 1u << MOON_ABI_CERTIFICATE))
        return;
    type->certificate = on_certificate;
    type->cancel_opening = on_cancel;
}
