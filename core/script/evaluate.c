// Evaluating a configuration script: a fresh VM, the script under a traceback handler, and a bound on its work, so that an endless
// loop is an error and not a hang.
#include "base/err.h"
#include "io/world.h"
#include "script/bind_config.h"
#include "script/script.h"
#include "script/vm.h"

#include <lauxlib.h>
#include <lua.h>
#include <luajit.h>
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
    if (steps > STEPS_MAX)
        luaL_error(vm, "the script does not come to an end: is there an endless loop?");
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
    // The frames help only where the script calls functions of its own.
    const char *stack = strstr(text, "stack traceback:"),
               *first = stack ? strstr(stack, path) : NULL;
    bool is_deep = first && strstr(first + len, path);
    moon_report_addf(report, place, NULL, NULL, is_deep ? stack : NULL, "%.*s",
                     (int)(end - message), message);
}

static void prepare(lua_State *vm, struct moon_model *model, const char *path)
{
    // hooks do not fire in compiled code
    luaJIT_setmode(vm, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_OFF);
    lua_getfield(vm, LUA_REGISTRYINDEX, "_LOADED");
    moon_config_push(vm, model, path);
    lua_setfield(vm, -2, "moongate._core.config");
    lua_pop(vm, 1);
    lua_sethook(vm, on_step, LUA_MASKCOUNT, STEP_COUNT);
}

// Loads and runs; the error text is left on the stack when it fails.
static int run(lua_State *vm, const char *path, const char *source, size_t len)
{
    lua_pushcfunction(vm, moon_vm_traceback);
    lua_pushfstring(vm, "@%s", path);
    if (len > 0 && source[0] == LUA_SIGNATURE[0]) {
        lua_pushfstring(vm, "%s: compiled Lua is not accepted, only its source", path);
        return 1;
    }
    int err = luaL_loadbuffer(vm, source, len, lua_tostring(vm, -1));
    return err ? err : lua_pcall(vm, 0, 0, 1);
}

static char *directory_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *dir = slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
    if (!dir)
        abort();
    return dir;
}

int moon_script_evaluate(struct moon_world *world, const char *path, struct moon_model **out,
                         struct moon_report *report)
{
    char *source = NULL;
    size_t len = 0;
    int err = moon_world_read_file(world, path, SOURCE_MAX_LEN, &source, &len);
    if (err) {
        moon_report_addf(report, (struct moon_place){path, 0}, NULL, NULL, NULL,
                         "cannot be read: %s", moon_err_text(err));
        return MOON_ECONFIG;
    }
    char *dir = directory_of(path);
    struct moon_model *model = moon_model_new();
    lua_State *vm = moon_vm_new(dir);
    free(dir);
    if (!vm)
        abort();
    prepare(vm, model, path);
    // #!/usr/bin/env moongate
    size_t shebang = len > 1 && source[0] == '#' ? strcspn(source, "\n") : 0;
    err = run(vm, path, source + shebang, len - shebang);
    if (err) {
        const char *text = lua_tostring(vm, -1);
        report_lua_error(report, path, text ? text : "an error that is not a text");
        moon_model_free(model);
    } else {
        *out = model;
    }
    moon_vm_free(vm);
    free(source);
    return err ? MOON_ECONFIG : 0;
}
