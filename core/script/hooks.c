// The hooks of a Lua filter: each runs its function on a pooled coroutine, which may wait; the state of the filter in one
// exchange is the coroutine that waits, if any.
//
// The body: body_filter is one coroutine for the whole response. It pulls pieces and writes pieces; a piece that it was given
// counts as taken when it asks for the next one, so that what it writes meanwhile is passed on first and back-pressure is the
// chain's (filter.h).
//
//   begin -> pulling --bytes--> (runs) --writes--> writing --passed--> (runs) ... --returns--> ended
#include "filter/filter.h"
#include "obs/log.h"
#include "script/code.h"
#include "script/generation.h"
#include "script/instance.h"
#include "script/push.h"
#include "script/vm_priv.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

enum body_state { BODY_BEGIN, BODY_PULLING, BODY_WRITING, BODY_WAITING, BODY_ENDED };

struct state {
    struct moon_coroutine *head;        // of a head phase, while it waits
    struct moon_coroutine *body;        // of body_filter
    struct moon_coroutine *messages[2]; // of websocket_frame, while it waits, by direction
    size_t given_len;                   // of the piece that it works on
    size_t written_len;                 // of what it writes: passed on so far
    enum body_state body_state;
};

// ---- starting

static struct moon_vm *vm_of(const struct moon_instance *instance, const struct moon_flow *flow)
{
    return moon_generation_vm(instance->code->generation, flow->worker);
}

bool moon_instance_push_conf(const struct moon_instance *instance, struct moon_vm *vm,
                             lua_State *at)
{
    if (!instance->plugin) {
        lua_pushnil(at);
        return true;
    }
    lua_rawgeti(at, LUA_REGISTRYINDEX, vm->young_ref);
    lua_rawgeti(at, -1, (int)instance->conf_id);
    bool is_fine = true;
    if (lua_isnil(at, -1)) {
        lua_pop(at, 1);
        is_fine = moon_vm_push_conf(vm, instance, at);
    }
    lua_remove(at, -2);
    return is_fine;
}

static void resume_flow(struct moon_coroutine *coroutine)
{
    struct moon_flow *flow = coroutine->slot->flow;
    flow->ops->resume(flow);
}

// A coroutine ready to run the phase: the function, the exchange and the plugin's table are on its stack. NULL with *verdict:
// the plugin has no such phase in this VM, or its table could not be made.
static struct moon_coroutine *begin(const struct moon_instance *instance, struct moon_flow *flow,
                                    int phase, enum moon_verdict *verdict)
{
    struct moon_vm *vm = vm_of(instance, flow);
    int ref = instance->plugin ? vm->plugins[instance->plugin->index][phase]
                               : vm->functions[instance->functions[phase]];
    *verdict = MOON_NEXT;
    if (ref == LUA_NOREF)
        return NULL;
    struct moon_slot *slot = moon_slot_of(vm, flow);
    struct moon_coroutine *coroutine = moon_coroutine_take(vm, slot, phase);
    lua_State *thread = coroutine->thread;
    slot->phase = (uint8_t)phase;
    coroutine->on_wake = resume_flow;
    lua_rawgeti(thread, LUA_REGISTRYINDEX, ref);
    moon_slot_push(slot, thread);
    if (moon_instance_push_conf(instance, vm, thread))
        return coroutine;
    moon_coroutine_report(coroutine, thread);
    moon_coroutine_drop(coroutine);
    *verdict = MOON_FAIL;
    return NULL;
}

// The exchange has outlived its generation of VMs. What was to judge or to change it cannot be left out: it fails.
static void tell_closed(const struct moon_instance *instance, struct moon_flow *flow)
{
    struct moon_slice id = flow->ops->id(flow);
    moon_log_error(
        vm_of(instance, flow)->seat.log,
        "script: \"%s\" of request %.*s cannot run: this generation of the script has ended",
        instance->type.name, MOON_SLICE_ARG(id));
}

// ---- head phases

static enum moon_verdict run_head(struct moon_flow *flow, struct moon_instance *instance,
                                  struct state *state, int phase)
{
    struct moon_coroutine *coroutine = state->head;
    enum moon_verdict verdict = MOON_FAIL;
    int argument_count = 0;
    if (!vm_of(instance, flow)->state) {
        moon_coroutine_drop(coroutine);
        state->head = NULL;
        tell_closed(instance, flow);
        return MOON_FAIL;
    }
    if (!coroutine) {
        coroutine = begin(instance, flow, phase, &verdict);
        if (!coroutine)
            return verdict;
        argument_count = 2;
    } else if (!coroutine->is_ready) {
        return MOON_WAIT;
    } else {
        lua_settop(coroutine->thread, 0);
    }
    struct moon_slot *slot = coroutine->slot;
    state->head = NULL;
    enum moon_run run = moon_coroutine_resume(coroutine, argument_count);
    run = moon_coroutine_refuse(coroutine, run);
    if (run == MOON_RUN_WAITS) {
        state->head = coroutine;
        return MOON_WAIT;
    }
    verdict = run == MOON_RUN_DONE ? MOON_NEXT : run == MOON_RUN_ANSWERED ? MOON_DONE : MOON_FAIL;
    slot->phase = MOON_ABI_EVALUATE;
    return verdict;
}

static enum moon_verdict on_rewrite(struct moon_flow *flow, void *conf, void *state)
{
    return run_head(flow, conf, state, MOON_ABI_REWRITE);
}

static enum moon_verdict on_access(struct moon_flow *flow, void *conf, void *state)
{
    return run_head(flow, conf, state, MOON_ABI_ACCESS);
}

static enum moon_verdict on_header_filter(struct moon_flow *flow, void *conf, void *state)
{
    return run_head(flow, conf, state, MOON_ABI_HEADER_FILTER);
}

static enum moon_verdict on_log(struct moon_flow *flow, void *conf, void *state)
{
    return run_head(flow, conf, state, MOON_ABI_LOG);
}

// ---- the body

// Runs the coroutine and notes how it came back. False: it failed.
static bool run_body(struct state *state, int argument_count)
{
    struct moon_coroutine *coroutine = state->body;
    switch (moon_coroutine_resume(coroutine, argument_count)) {
    case MOON_RUN_DONE:
        state->body = NULL;
        state->body_state = BODY_ENDED;
        return true;
    case MOON_RUN_WAITS:
        state->body_state = BODY_WAITING;
        return true;
    case MOON_RUN_PULLS:
        state->body_state = BODY_PULLING;
        return true;
    case MOON_RUN_WRITES:
        state->body_state = BODY_WRITING;
        state->written_len = 0;
        return true;
    case MOON_RUN_CLOSES: // likewise
        moon_coroutine_drop(coroutine);
        state->body = NULL;
        return false;
    case MOON_RUN_ANSWERED: // refused by the phase's check
    case MOON_RUN_FAILED:
        state->body = NULL;
        return false;
    }
    return false;
}

// Passes on what it writes; 0 when that is done, else what the hook returns.
static ssize_t pass_written(struct moon_flow *flow, struct state *state)
{
    struct moon_slice text = moon_coroutine_written(state->body);
    while (state->written_len < text.len) {
        ssize_t taken =
            flow->ops->pass(flow, MOON_RESPONSE, moon_slice_skip(text, state->written_len), false);
        if (taken < 0)
            return taken;
        state->written_len += (size_t)taken;
    }
    lua_settop(state->body->thread, 0);
    return run_body(state, 0) ? 0 : MOON_BODY_FAIL;
}

// Gives the next piece, or the end, to a coroutine that pulls.
static bool give(struct state *state, struct moon_slice bytes)
{
    lua_State *thread = state->body->thread;
    lua_settop(thread, 0);
    if (bytes.len)
        moon_coroutine_push(state->body, bytes);
    else
        lua_pushnil(thread);
    state->given_len = bytes.len;
    return run_body(state, 1);
}

static ssize_t on_body(struct moon_flow *flow, void *conf, void *at, struct moon_slice bytes,
                       bool end)
{
    struct state *state = at;
    enum moon_verdict verdict;
    (void)end; // it comes without bytes
    if (!vm_of(conf, flow)->state && state->body_state != BODY_ENDED) {
        moon_coroutine_drop(state->body);
        state->body = NULL;
        tell_closed(conf, flow);
        return MOON_BODY_FAIL;
    }
    for (;;) {
        ssize_t result;
        switch (state->body_state) {
        case BODY_BEGIN:
            state->body = begin(conf, flow, MOON_ABI_BODY_FILTER, &verdict);
            if (!state->body || !run_body(state, 2))
                return MOON_BODY_FAIL;
            break;
        case BODY_PULLING:
            if (state->given_len) {
                result = (ssize_t)state->given_len;
                state->given_len = 0;
                return result;
            }
            if (!give(state, bytes)) // at the end, however often it asks, nil
                return MOON_BODY_FAIL;
            break;
        case BODY_WRITING:
            result = pass_written(flow, state);
            if (result < 0)
                return result;
            break;
        case BODY_WAITING:
            if (!state->body->is_ready)
                return MOON_BODY_WAIT;
            lua_settop(state->body->thread, 0);
            if (!run_body(state, 0))
                return MOON_BODY_FAIL;
            break;
        case BODY_ENDED: // what it has not asked for is dropped
            state->given_len = 0;
            result = flow->ops->pass(flow, MOON_RESPONSE, MOON_SLICE(""), true);
            return result < 0 ? result : (ssize_t)bytes.len;
        }
    }
}

// ---- WebSocket messages

// What a function has made of a message, while it runs.
struct judgement {
    struct moon_websocket_message *message;
    enum moon_verdict verdict;
};

static bool replace(struct moon_websocket_message *message, const char *text, size_t len)
{
    char *copy = malloc(len + 1);
    if (!copy)
        return false;
    memcpy(copy, text, len);
    free(message->owned);
    message->owned = copy;
    message->data = (struct moon_slice){copy, len};
    return true;
}

static void on_return(struct moon_coroutine *coroutine)
{
    struct judgement *judgement = coroutine->owner;
    lua_State *thread = coroutine->thread;
    size_t len;
    lua_settop(thread, 1);
    judgement->verdict = MOON_NEXT;
    if (lua_isnil(thread, 1))
        return;
    if (lua_isboolean(thread, 1) && !lua_toboolean(thread, 1)) {
        judgement->verdict = MOON_DONE;
        return;
    }
    const char *text = lua_type(thread, 1) == LUA_TSTRING ? lua_tolstring(thread, 1, &len) : NULL;
    if (text && replace(judgement->message, text, len))
        return;
    judgement->verdict = MOON_FAIL;
    moon_coroutine_push(coroutine,
                        text ? MOON_SLICE("no memory for a message")
                             : MOON_SLICE("websocket_frame returns nil (the message goes on), a "
                                          "string (it goes on as that) or false (it is dropped)"));
    moon_coroutine_report(coroutine, thread);
}

static void push_message(const struct moon_websocket_message *message, struct moon_vm *vm,
                         lua_State *at)
{
    lua_createtable(at, 0, 3);
    lua_pushstring(at, message->direction == MOON_REQUEST ? "client" : "upstream");
    lua_setfield(at, -2, "from");
    lua_pushstring(at, message->is_text ? "text" : "binary");
    lua_setfield(at, -2, "kind");
    lua_pushlstring(at, message->data.ptr, message->data.len);
    lua_setfield(at, -2, "data");
    lua_rawgeti(at, LUA_REGISTRYINDEX, vm->message_ref);
    lua_setmetatable(at, -2);
}

// What message:close was given; checked there.
static void take_close(struct moon_coroutine *coroutine, struct moon_websocket_message *message)
{
    size_t len = 0;
    const char *reason = lua_tolstring(coroutine->thread, 4, &len);
    message->close_code = (uint16_t)lua_tointeger(coroutine->thread, 3);
    message->close_reason_len =
        (uint8_t)(len < MOON_MESSAGE_REASON_MAX_LEN ? len : (size_t)MOON_MESSAGE_REASON_MAX_LEN);
    memcpy(message->close_reason, reason ? reason : "", message->close_reason_len);
    moon_coroutine_drop(coroutine);
}

// The coroutine that has the message, or a new one. NULL: nothing runs.
static struct moon_coroutine *message_coroutine(const struct moon_instance *instance,
                                                struct moon_flow *flow,
                                                struct moon_websocket_message *message,
                                                enum moon_verdict *verdict)
{
    struct moon_coroutine *coroutine = begin(instance, flow, MOON_ABI_WEBSOCKET_FRAME, verdict);
    if (!coroutine)
        return NULL;
    coroutine->on_return = on_return;
    push_message(message, coroutine->vm, coroutine->thread);
    lua_insert(coroutine->thread, -2); // before the plugin's table
    return coroutine;
}

static enum moon_verdict on_websocket_frame(struct moon_flow *flow, void *conf, void *at,
                                            struct moon_websocket_message *message)
{
    struct moon_coroutine **kept = &((struct state *)at)->messages[message->direction];
    struct moon_coroutine *coroutine = *kept;
    struct judgement judgement = {message, MOON_FAIL};
    int argument_count = 0;
    if (!vm_of(conf, flow)->state) {
        moon_coroutine_drop(coroutine);
        *kept = NULL;
        tell_closed(conf, flow);
        message->close_code = MOON_MESSAGE_RESTART;
        return MOON_FAIL;
    }
    if (!coroutine) {
        coroutine = message_coroutine(conf, flow, message, &judgement.verdict);
        if (!coroutine)
            return judgement.verdict;
        argument_count = 3;
    } else if (!coroutine->is_ready) {
        return MOON_WAIT;
    } else {
        lua_settop(coroutine->thread, 0);
    }
    *kept = NULL;
    coroutine->owner = &judgement;
    enum moon_run run = moon_coroutine_resume(coroutine, argument_count);
    if (run == MOON_RUN_PULLS || run == MOON_RUN_WRITES)
        run = moon_coroutine_refuse(coroutine, run);
    if (run == MOON_RUN_WAITS) {
        coroutine->owner = NULL;
        *kept = coroutine;
        return MOON_WAIT;
    }
    if (run == MOON_RUN_CLOSES) {
        take_close(coroutine, message);
        return MOON_DONE;
    }
    return run == MOON_RUN_DONE ? judgement.verdict : MOON_FAIL;
}

static void on_cancel(struct moon_flow *flow, void *conf, void *at)
{
    struct state *state = at;
    (void)flow;
    (void)conf;
    moon_coroutine_drop(state->head);
    moon_coroutine_drop(state->body);
    moon_coroutine_drop(state->messages[MOON_REQUEST]);
    moon_coroutine_drop(state->messages[MOON_RESPONSE]);
    *state = (struct state){.body_state = BODY_BEGIN}; // another response may come
}

void moon_instance_set_hooks(struct moon_filter_type *type, uint32_t phases)
{
    type->state_len = sizeof(struct state);
    type->cancel = on_cancel;
    if (phases & 1u << MOON_ABI_REWRITE)
        type->rewrite = on_rewrite;
    if (phases & 1u << MOON_ABI_ACCESS)
        type->access = on_access;
    if (phases & 1u << MOON_ABI_HEADER_FILTER)
        type->header_filter = on_header_filter;
    if (phases & 1u << MOON_ABI_BODY_FILTER)
        type->response_body = on_body;
    if (phases & 1u << MOON_ABI_WEBSOCKET_FRAME)
        type->websocket_frame = on_websocket_frame;
    if (phases & 1u << MOON_ABI_LOG)
        type->log = on_log;
    if (phases & 1u << MOON_ABI_PREREAD)
        type->preread = moon_script_preread;
}
