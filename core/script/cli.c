// The command line's bridge: moongate.cli (Lua) parses arguments and prints; check and run are asked of the gateway.
#include "base/err.h"
#include "io/world.h"
#include "script/script.h"
#include "script/state.h"

#include <lauxlib.h>
#include <lua.h>
#include <luajit.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void set_field(lua_State *vm, const char *key, const char *value)
{
    if (!value)
        return;
    lua_pushstring(vm, value);
    lua_setfield(vm, -2, key);
}

// A list of { file, line, object, path, message, hint, text }.
static void push_problems(lua_State *vm, const struct moon_report *report)
{
    const struct moon_problem *problem;
    lua_newtable(vm);
    for (size_t i = 0; (problem = moon_report_at(report, i)) != NULL; i++) {
        lua_newtable(vm);
        set_field(vm, "file", problem->place.file);
        set_field(vm, "object", problem->object);
        set_field(vm, "path", problem->path);
        set_field(vm, "message", problem->message);
        set_field(vm, "hint", problem->hint);
        if (problem->place.line) {
            lua_pushnumber(vm, problem->place.line);
            lua_setfield(vm, -2, "line");
        }
        lua_rawseti(vm, -2, (int)i + 1);
    }
}

// A copy, because the text outlives the Lua value only as long as the table that holds it is on the stack.
static struct moon_run_options read_options(lua_State *vm)
{
    struct moon_run_options options = {0};
    luaL_checktype(vm, 1, LUA_TTABLE);
    lua_getfield(vm, 1, "file");
    lua_getfield(vm, 1, "workers");
    lua_getfield(vm, 1, "admin");
    lua_getfield(vm, 1, "control");
    lua_getfield(vm, 1, "state");
    options.file = luaL_checkstring(vm, -5);
    options.workers = (unsigned)lua_tonumber(vm, -4);
    options.admin = lua_tostring(vm, -3);
    options.control = lua_tostring(vm, -2);
    options.state = lua_tostring(vm, -1);
    return options;
}

// ok, problems, the report as text
static int answer(lua_State *vm, int err, struct moon_report *report)
{
    char *text = moon_report_text(report);
    lua_pushboolean(vm, err == 0);
    push_problems(vm, report);
    lua_pushstring(vm, text);
    free(text);
    moon_report_free(report);
    return 3;
}

static const struct moon_cli_ops *ops_of(lua_State *vm)
{
    return lua_touserdata(vm, lua_upvalueindex(1));
}

static int cli_check(lua_State *vm)
{
    const struct moon_cli_ops *ops = ops_of(vm);
    struct moon_run_options options = read_options(vm);
    struct moon_report *report = moon_report_new();
    struct moon_check_counts counts = {0};
    int err = ops->check(ops->owner, &options, report, &counts);
    char *warnings = moon_report_warnings(report);
    answer(vm, err, report);
    lua_newtable(vm);
    lua_pushstring(vm, warnings);
    lua_setfield(vm, -2, "warnings");
    free(warnings);
    lua_pushnumber(vm, (lua_Number)counts.listeners);
    lua_setfield(vm, -2, "listeners");
    lua_pushnumber(vm, (lua_Number)counts.upstreams);
    lua_setfield(vm, -2, "upstreams");
    lua_pushnumber(vm, (lua_Number)counts.routes);
    lua_setfield(vm, -2, "routes");
    return 4;
}

static int cli_run(lua_State *vm)
{
    const struct moon_cli_ops *ops = ops_of(vm);
    struct moon_run_options options = read_options(vm);
    struct moon_report *report = moon_report_new();
    return answer(vm, ops->run(ops->owner, &options, report), report);
}

// gateway.ask(path, question) -> the raw answer, or nil and what went wrong
static int cli_ask(lua_State *vm)
{
    const struct moon_cli_ops *ops = ops_of(vm);
    struct moon_slice question;
    char *text = NULL;
    size_t len = 0;
    question.ptr = luaL_checklstring(vm, 2, &question.len);
    int err = ops->ask(ops->owner, luaL_checkstring(vm, 1), question, &text, &len);
    if (err) {
        lua_pushnil(vm);
        lua_pushstring(vm, moon_err_text(err));
        return 2;
    }
    lua_pushlstring(vm, text, len);
    free(text);
    return 1;
}

// gateway.sleep(seconds)
static int cli_sleep(lua_State *vm)
{
    const struct moon_cli_ops *ops = ops_of(vm);
    lua_Number seconds = luaL_checknumber(vm, 1);
    int err = seconds > 0 ? ops->sleep(ops->owner, (uint64_t)(seconds * 1000)) : 0;
    return err ? luaL_error(vm, "cannot sleep: %s", moon_err_text(err)) : 0;
}

// gateway.is_terminal() -> whether standard output is one
static int cli_is_terminal(lua_State *vm)
{
    lua_pushboolean(vm, isatty(STDOUT_FILENO));
    return 1;
}

// gateway.explain({ file = }, query) -> JSON; or nil, problems, the report as text
static int cli_explain(lua_State *vm)
{
    const struct moon_cli_ops *ops = ops_of(vm);
    struct moon_run_options options = read_options(vm);
    struct moon_report *report = moon_report_new();
    struct moon_slice query;
    char *text = NULL;
    query.ptr = luaL_checklstring(vm, 2, &query.len);
    int err = ops->explain(ops->owner, &options, query, report, &text);
    if (err)
        return answer(vm, err, report);
    lua_pushstring(vm, text);
    free(text);
    moon_report_free(report);
    return 1;
}

// gateway.model { file = } -> JSON; or nil, problems, the report as text
static int cli_model(lua_State *vm)
{
    const struct moon_cli_ops *ops = ops_of(vm);
    struct moon_run_options options = read_options(vm);
    struct moon_report *report = moon_report_new();
    char *text = NULL;
    int err = ops->model(ops->owner, &options, report, &text);
    if (err)
        return answer(vm, err, report);
    lua_pushstring(vm, text);
    free(text);
    moon_report_free(report);
    return 1;
}

// What moongate.cli finds as `require "moongate._core.gateway"`.
static int open_core(lua_State *vm)
{
    static const luaL_Reg functions[] = {{"check", cli_check}, {"run", cli_run},
                                         {"ask", cli_ask},     {"explain", cli_explain},
                                         {"sleep", cli_sleep}, {"is_terminal", cli_is_terminal},
                                         {"model", cli_model}};
    struct moon_cli_ops *ops = lua_touserdata(vm, lua_upvalueindex(1));
    lua_newtable(vm);
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        lua_pushlightuserdata(vm, ops);
        lua_pushcclosure(vm, functions[i].func, 1);
        lua_setfield(vm, -2, functions[i].name);
    }
    set_field(vm, "version", MOON_VERSION);
    set_field(vm, "luajit", LUAJIT_VERSION);
    set_field(vm, "libuv", moon_world_library_version());
    return 1;
}

static void preload_core(lua_State *vm, const struct moon_cli_ops *ops)
{
    lua_getglobal(vm, "package");
    lua_getfield(vm, -1, "preload");
    lua_pushlightuserdata(vm, (void *)ops);
    lua_pushcclosure(vm, open_core, 1);
    lua_setfield(vm, -2, "moongate._core.gateway");
    lua_pop(vm, 2);
}

int moon_cli_main(int argc, char **argv, const struct moon_cli_ops *ops)
{
    lua_State *vm = moon_state_new(NULL);
    if (!vm)
        return 1;
    preload_core(vm, ops);
    lua_pushcfunction(vm, moon_state_traceback);
    lua_getglobal(vm, "require");
    lua_pushstring(vm, "moongate.cli");
    int err = lua_pcall(vm, 1, 1, 1);
    if (!err) {
        lua_newtable(vm);
        for (int i = 1; i < argc; i++) {
            lua_pushstring(vm, argv[i]);
            lua_rawseti(vm, -2, i);
        }
        err = lua_pcall(vm, 1, 1, 1);
    }
    if (err)
        fprintf(stderr, "moongate: %s\n", lua_tostring(vm, -1));
    int code = err ? 1 : (int)lua_tonumber(vm, -1);
    moon_state_free(vm);
    return code;
}
