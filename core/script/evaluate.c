// Evaluating a configuration script: its inputs recorded or replayed, the script under a traceback handler, and a bound on its
// work, so that an endless loop is an error and not a hang.
#include "base/err.h"
#include "io/world.h"
#include "script/bind_config.h"
#include "script/bind_native.h"
#include "script/code.h"
#include "script/evaluation.h"
#include "script/inputs.h"
#include "script/script.h"
#include "script/state.h"

#include <errno.h>
#include <lauxlib.h>
#include <lua.h>
#include <luajit.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// 2e9 VM instructions, some seconds
enum { SOURCE_MAX_LEN = 16 << 20, STEP_COUNT = 1000000, STEPS_MAX = 2000 };

// Counts the hook's calls in the registry: the hook function has no argument of its own.
static void on_step(lua_State *vm, lua_Debug *at)
{
    (void)at;
    lua_getfield(vm, LUA_REGISTRYINDEX, "moongate.steps");
    lua_Number steps = lua_tonumber(vm, -1) + 1;
    lua_pop(vm, 1);
    lua_pushnumber(vm, steps);
    lua_setfield(vm, LUA_REGISTRYINDEX, "moongate.steps");
    if (steps <= STEPS_MAX)
        return;
    lua_sethook(vm, on_step, LUA_MASKCOUNT, 1); // from now on everything fails, below pcall too
    luaL_error(vm, "the script does not come to an end: is there an endless loop?");
}

void moon_evaluation_bound_begin(lua_State *state)
{
    lua_pushnil(state);
    lua_setfield(state, LUA_REGISTRYINDEX, "moongate.steps");
    lua_sethook(state, on_step, LUA_MASKCOUNT, STEP_COUNT);
}

void moon_evaluation_bound_end(lua_State *state)
{
    lua_sethook(state, NULL, 0, 0);
}

// Where Lua files were looked for: "looked for a.lua, b.lua", malloc'd; NULL: the text tells of none.
static char *list_tried(const char *text)
{
    static const char line[] = "\n\tno file '", suffix[] = ".lua'";
    char *out = NULL;
    size_t len = 0;
    bool has_any = false;
    FILE *to = open_memstream(&out, &len);
    if (!to)
        abort();
    for (const char *at = strstr(text, line); at; at = strstr(at, line)) {
        at += sizeof line - 1;
        const char *end = at + strcspn(at, "'\n");
        if (end - at < (ptrdiff_t)sizeof suffix ||
            strncmp(end + 2 - sizeof suffix, suffix, sizeof suffix - 1) != 0)
            continue;
        fprintf(to, "%s%.*s", has_any ? ", " : "looked for ", (int)(end - at), at);
        has_any = true;
    }
    if (fclose(to) != 0)
        abort();
    if (has_any)
        return out;
    free(out);
    return NULL;
}

// What a user may have missed; malloc'd, NULL: nothing that is known here.
static char *advise(const char *message, const char *text)
{
    if (strstr(text, "index global 'moongate' (a nil value)"))
        return strdup("write local moongate = require \"moongate\" first");
    if (strncmp(message, "module '", 8) == 0)
        return list_tried(text);
    return NULL;
}

// Splits "file:line: message" of Lua into a place and a message.
static void report_lua_error(struct moon_report *report, const char *path, const char *text)
{
    struct moon_place place = {path, 0};
    size_t len = strlen(path);
    const char *message = text, *end = text;
    if (strncmp(text, path, len) == 0 && text[len] == ':') {
        char *after;
        unsigned long line = strtoul(text + len + 1, &after, 10);
        if (after > text + len + 1 && *after == ':') {
            place.line = (unsigned)line;
            message = after + 1 + strspn(after + 1, " ");
        }
    }
    end = message + strcspn(message, "\n");
    char *advice = advise(message, text);
    if (advice && end > message && end[-1] == ':') // what follows it in Lua's text is the advice
        end--;
    // The frames help only where the script calls functions of its own.
    const char *stack = strstr(text, "stack traceback:"),
               *first = stack ? strstr(stack, path) : NULL;
    bool is_deep = first && strstr(first + len, path);
    moon_report_addf(report, place, NULL, NULL,
                     advice    ? advice
                     : is_deep ? stack
                               : NULL,
                     "%.*s", (int)(end - message), message);
    free(advice);
}

// package.loaded[name] = the value at the top, which is popped.
static void set_module(lua_State *state, const char *name)
{
    lua_getfield(state, LUA_REGISTRYINDEX, "_LOADED");
    lua_insert(state, -2);
    lua_setfield(state, -2, name);
    lua_pop(state, 1);
}

// Calls a function of _core/inputs.lua, which puts the recorded world around the script, and takes it away.
static int call_inputs(lua_State *state, const char *function)
{
    lua_getglobal(state, "require");
    lua_pushliteral(state, "moongate._core.inputs");
    int err = lua_pcall(state, 1, 1, 0);
    if (err)
        return err;
    lua_getfield(state, -1, function);
    lua_remove(state, -2);
    return lua_pcall(state, 0, 0, 0);
}

static int prepare(lua_State *state, const struct moon_evaluation *evaluation)
{
    // hooks do not fire in compiled code
    luaJIT_setmode(state, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_OFF);
    lua_newtable(state);
    lua_setfield(state, LUA_REGISTRYINDEX, MOON_FUNCTIONS_KEY);
    moon_native_push(state, evaluation->vm, evaluation->inputs);
    set_module(state, "moongate._core.native");
    moon_config_push(state, evaluation->model, evaluation->path);
    set_module(state, "moongate._core.config");
    moon_evaluation_bound_begin(state);
    return call_inputs(state, "begin");
}

// Loads and runs; the error text is left on the stack when it fails.
static int run(lua_State *state, const char *path, const char *source, size_t len)
{
    lua_pushcfunction(state, moon_state_traceback);
    lua_pushfstring(state, "@%s", path);
    if (len > 0 && source[0] == LUA_SIGNATURE[0]) {
        lua_pushfstring(state, "%s: compiled Lua is not accepted, only its source", path);
        return 1;
    }
    int err = luaL_loadbuffer(state, source, len, lua_tostring(state, -1));
    if (err)
        return err;
    bool was_guarded = moon_state_guard(state, true);
    err = lua_pcall(state, 0, 0, 1);
    moon_state_guard(state, was_guarded);
    return err;
}

int moon_evaluation_run(lua_State *state, const struct moon_evaluation *evaluation,
                        struct moon_report *report)
{
    const char *path = evaluation->path;
    struct moon_slice source = {NULL, 0};
    int err = moon_inputs_file(evaluation->inputs, path, &source);
    if (!err && source.len > SOURCE_MAX_LEN)
        err = -EFBIG;
    if (err) {
        moon_report_addf(report, (struct moon_place){path, 0}, NULL, NULL, NULL,
                         "cannot be read: %s", moon_err_text(err));
        return MOON_ECONFIG;
    }
    // #!/usr/bin/env moongate
    size_t shebang = source.len > 1 && source.ptr[0] == '#' ? strcspn(source.ptr, "\n") : 0;
    lua_settop(state, 0);
    err = prepare(state, evaluation);
    lua_settop(state, err ? -1 : 0);
    if (!err)
        err = run(state, path, source.ptr + shebang, source.len - shebang);
    moon_evaluation_bound_end(state);
    moon_config_close(state);
    if (err) {
        const char *text = lua_tostring(state, -1);
        report_lua_error(report, path, text ? text : "an error that is not a text");
    }
    lua_settop(state, 0);
    return err ? MOON_ECONFIG : 0;
}

static void unref_code(struct moon_code *code)
{
    moon_code_unref(code);
}

// Takes the inputs.
static int evaluate(const char *path, struct moon_inputs *inputs, struct moon_model **out,
                    struct moon_report *report)
{
    struct moon_code *code = moon_code_new(path, inputs, NULL);
    struct moon_model *model = moon_model_new();
    moon_model_set_code(model, code, unref_code);
    code->first = moon_state_new(code->dir);
    if (!code->first) {
        moon_report_addf(report, (struct moon_place){path, 0}, NULL, NULL, NULL,
                         "not enough memory for a script");
        moon_model_free(model);
        return MOON_ECONFIG;
    }
    struct moon_evaluation evaluation = {path, inputs, model, NULL};
    int err = moon_evaluation_run(code->first, &evaluation, report);
    if (err) {
        moon_model_free(model);
        return err;
    }
    moon_code_add_functions(code, model);
    lua_getfield(code->first, LUA_REGISTRYINDEX, "moongate.has_tasks");
    code->has_tasks = lua_toboolean(code->first, -1);
    lua_pop(code->first, 1);
    *out = model;
    return 0;
}

int moon_script_evaluate(struct moon_world *world, const char *path, struct moon_model **out,
                         struct moon_report *report)
{
    return evaluate(path, moon_inputs_new(world), out, report);
}

// ---- what was evaluated, to be evaluated again

bool moon_script_runs(const struct moon_model *model)
{
    const struct moon_code *code = moon_model_code(model);
    return code && code->generation;
}

void moon_script_keep(const struct moon_model *model, FILE *out)
{
    const struct moon_code *code = moon_model_code(model);
    fprintf(out, "%s\n", code->path);
    moon_inputs_write(code->inputs, out);
}

int moon_script_restore(const char *path, struct moon_slice text, struct moon_model **out,
                        struct moon_report *report)
{
    const char *end = text.len ? memchr(text.ptr, '\n', text.len) : NULL;
    struct moon_inputs *inputs = NULL;
    if (end)
        inputs = moon_inputs_read(moon_slice_skip(text, (size_t)(end - text.ptr) + 1));
    if (!inputs) {
        moon_report_addf(report, (struct moon_place){path, 0}, NULL, NULL, NULL,
                         "it is not whole, or not what this gateway writes");
        return MOON_ECONFIG;
    }
    char *script = strndup(text.ptr, (size_t)(end - text.ptr));
    if (!script)
        abort();
    int err = evaluate(script, inputs, out, report);
    free(script);
    return err;
}
