// Compiling uses of Lua: the first evaluation's VM loads a plugin's files and checks its table (_core/plugins.lua).
#include "script/filters.h"

#include "base/err.h"
#include "filter/compile.h"
#include "script/code.h"
#include "script/evaluation.h"
#include "script/instance.h"
#include "script/push.h"

#include <errno.h>
#include <lauxlib.h>
#include <lua.h>
#include <stdlib.h>
#include <string.h>

static const char *const phase_names[MOON_PHASE_COUNT] = {
    [MOON_ABI_REWRITE] = "rewrite",
    [MOON_ABI_ACCESS] = "access",
    [MOON_ABI_HEADER_FILTER] = "header_filter",
    [MOON_ABI_BODY_FILTER] = "body_filter",
    [MOON_ABI_LOG] = "log",
    [MOON_ABI_WEBSOCKET_FRAME] = "websocket_frame",
    [MOON_ABI_CERTIFICATE] = "certificate",
    [MOON_ABI_PREREAD] = "preread",
};

static void instance_unref(void *conf)
{
    struct moon_instance *instance = conf;
    struct moon_code *code = instance->code;
    if (instance->plugin)
        code->instances[instance->index] = NULL;
    free((void *)instance->type.name);
    free(instance);
    moon_code_unref(code);
}

static struct moon_instance *instance_new(struct moon_code *code, struct moon_slice name,
                                          uint32_t phases)
{
    struct moon_instance *instance = moon_filter_alloc(1, sizeof *instance);
    instance->code = moon_code_ref(code);
    instance->type.name = moon_filter_copy(name).ptr;
    instance->type.unref = instance_unref;
    instance->type.is_code = true;
    instance->type.may_answer =
        phases & (1u << MOON_ABI_REWRITE | 1u << MOON_ABI_ACCESS) ? true : false;
    moon_instance_set_hooks(&instance->type, phases);
    moon_instance_set_opening_hooks(&instance->type, phases);
    return instance;
}

static void put(struct moon_instance *instance, struct moon_filter *out)
{
    out->type = &instance->type;
    out->conf = instance;
}

// ---- functions of an object

static int find_functions(struct moon_code *code, const char *kind, struct moon_slice name,
                          const struct moon_value *object, struct moon_filter *out)
{
    int functions[MOON_PHASE_COUNT];
    uint32_t phases = 0;
    (void)object;
    for (int i = 0; i < MOON_PHASE_COUNT; i++) {
        functions[i] = phase_names[i] ? moon_code_find(code, kind, name, phase_names[i]) : -1;
        phases |= functions[i] >= 0 ? 1u << i : 0;
    }
    if (phases == 0)
        return -ENOENT;
    struct moon_instance *instance = instance_new(code, name, phases);
    memcpy(instance->functions, functions, sizeof functions);
    put(instance, out);
    return 0;
}

// ---- plugins

static int refuse(const struct moon_filter_compile *at, struct moon_slice name, lua_State *state)
{
    const char *message = lua_tostring(state, -1);
    char text[400];
    size_t len = strcspn(message ? message : "", "\n");
    snprintf(text, sizeof text, "%.*s", (int)(len < 380 ? len : 380), message ? message : "?");
    lua_settop(state, 0);
    return moon_filter_problem(at, NULL, NULL, "the plugin \"%.*s\" cannot be used: %s",
                               MOON_SLICE_ARG(name), text);
}

// Calls a function of _core/plugins.lua; its results are on the stack. 0 or an error of lua_pcall.
static int ask(lua_State *state, const char *function, struct moon_slice name,
               const struct moon_value *value)
{
    lua_getglobal(state, "require");
    lua_pushliteral(state, "moongate._core.plugins");
    int err = lua_pcall(state, 1, 1, 0);
    if (err)
        return err;
    lua_getfield(state, -1, function);
    lua_pushlstring(state, name.ptr, name.len);
    if (value)
        moon_push_value(state, value);
    moon_evaluation_bound_begin(state);
    err = lua_pcall(state, value ? 2 : 1, LUA_MULTRET, 0);
    moon_evaluation_bound_end(state);
    return err;
}

// 0 and *out; -ENOENT; MOON_ECONFIG.
static int load(struct moon_code *code, const struct moon_filter_compile *at,
                struct moon_slice name, struct moon_lua_plugin **out)
{
    lua_State *state = code->first;
    *out = NULL;
    if (!state)
        return -ENOENT;
    lua_settop(state, 0);
    if (ask(state, "load", name, NULL) != 0)
        return refuse(at, name, state);
    if (lua_isnil(state, 2)) { // 1: the module
        lua_settop(state, 0);
        return -ENOENT;
    }
    uint32_t phases = 0;
    for (int i = 0; i < MOON_PHASE_COUNT; i++) {
        if (!phase_names[i])
            continue;
        lua_getfield(state, 2, phase_names[i]);
        phases |= lua_isfunction(state, -1) ? 1u << i : 0;
        lua_pop(state, 1);
    }
    lua_getfield(state, 2, "init_worker");
    code->has_tasks |= lua_isfunction(state, -1);
    lua_settop(state, 0);
    const char *text = moon_filter_copy(name).ptr;
    *out = moon_code_add_plugin(code, text, phases);
    free((void *)text);
    return 0;
}

// Tells the problems that the plugin's schema finds: a list of { path, message, hint }.
static int check(struct moon_code *code, const struct moon_filter_compile *at,
                 struct moon_slice name, const struct moon_value *value)
{
    lua_State *state = code->first;
    int err = 0;
    lua_settop(state, 0);
    if (ask(state, "check", name, value) != 0)
        return refuse(at, name, state);
    for (int i = 1; lua_istable(state, 2) && i <= (int)lua_objlen(state, 2); i++) {
        lua_rawgeti(state, 2, i);
        lua_getfield(state, -1, "path");
        lua_getfield(state, -2, "message");
        lua_getfield(state, -3, "hint");
        err = moon_filter_problem(at, lua_tostring(state, -3), lua_tostring(state, -1), "%s",
                                  lua_tostring(state, -2) ? lua_tostring(state, -2) : "?");
        lua_pop(state, 4);
    }
    lua_settop(state, 0);
    return err;
}

static void add_instance(struct moon_code *code, struct moon_instance *instance)
{
    code->instances = realloc((void *)code->instances,
                              (code->instance_count + 1) * sizeof(struct moon_instance *));
    if (!code->instances)
        abort();
    instance->index = (uint32_t)code->instance_count;
    code->instances[code->instance_count++] = instance;
}

// The first function in a table, as a key path; false: plain data.
static bool has_function(const struct moon_value *value)
{
    bool found = value->kind == MOON_VALUE_FUNCTION;
    if (value->kind != MOON_VALUE_TABLE)
        return found;
    for (uint32_t i = 0; i < value->table.item_count && !found; i++)
        found = has_function(&value->table.items[i]);
    for (uint32_t i = 0; i < value->table.entry_count && !found; i++)
        found = has_function(&value->table.entries[i].value);
    return found;
}

static int find_plugin(struct moon_code *code, const struct moon_filter_compile *at,
                       struct moon_slice name, const struct moon_value *value,
                       struct moon_filter *out)
{
    const char *text = moon_filter_copy(name).ptr;
    struct moon_lua_plugin *plugin = moon_code_plugin(code, text);
    free((void *)text);
    int err = plugin ? 0 : load(code, at, name, &plugin);
    if (err || !plugin)
        return err;
    if (has_function(value))
        return moon_filter_problem(at, NULL, "put functions into the route, or into a plugin",
                                   "the table of a plugin holds data, and here a function");
    err = check(code, at, name, value);
    if (err)
        return err;
    struct moon_instance *instance = instance_new(code, name, plugin->phases);
    for (int i = 0; i < MOON_PHASE_COUNT; i++)
        instance->functions[i] = -1;
    instance->plugin = plugin;
    instance->value = *value;
    instance->hash = moon_value_hash(
        value, moon_value_hash(&(struct moon_value){.kind = MOON_VALUE_STRING, .string = name}, 0));
    add_instance(code, instance);
    put(instance, out);
    return 0;
}

const struct moon_filter_source moon_script_filter_source = {find_plugin, find_functions};
