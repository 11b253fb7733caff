// Making a VM: libraries, the searcher for embedded modules, the search path of the script's own directory.
#include "script/state.h"

#include "script/embedded.h"

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <string.h>

// Stands behind package.preload in package.loaders: `require "moongate"` finds what is compiled into the binary.
static int find_embedded(lua_State *vm)
{
    const char *name = luaL_checkstring(vm, 1);
    for (const struct moon_embedded_module *module = moon_embedded_modules; module->name;
         module++) {
        if (strcmp(module->name, name) != 0)
            continue;
        lua_pushfstring(vm, "=%s", name);
        if (luaL_loadbuffer(vm, (const char *)module->bytes, module->len, lua_tostring(vm, -1)) !=
            0)
            return lua_error(vm);
        return 1;
    }
    lua_pushfstring(vm, "\n\tno module '%s' in the binary", name);
    return 1;
}

static void add_searcher(lua_State *vm)
{
    lua_getglobal(vm, "package");
    lua_getfield(vm, -1, "loaders");
    for (int i = (int)lua_objlen(vm, -1); i >= 2; i--) {
        lua_rawgeti(vm, -1, i);
        lua_rawseti(vm, -2, i + 1);
    }
    lua_pushcfunction(vm, find_embedded);
    lua_rawseti(vm, -2, 2);
    lua_pop(vm, 2);
}

static void add_path(lua_State *vm, const char *script_dir)
{
    lua_getglobal(vm, "package");
    lua_getfield(vm, -1, "path");
    lua_pushfstring(vm, "%s/?.lua;%s/?/init.lua;%s", script_dir, script_dir, lua_tostring(vm, -1));
    lua_setfield(vm, -3, "path");
    lua_pop(vm, 2);
}

lua_State *moon_state_new(const char *script_dir)
{
    lua_State *vm = luaL_newstate();
    if (!vm)
        return NULL;
    luaL_openlibs(vm);
    add_searcher(vm);
    if (script_dir)
        add_path(vm, script_dir);
    return vm;
}

void moon_state_free(lua_State *vm)
{
    if (vm)
        lua_close(vm);
}

int moon_state_traceback(lua_State *vm)
{
    if (lua_type(vm, 1) != LUA_TSTRING)
        return 1;
    luaL_traceback(vm, vm, lua_tostring(vm, 1), 1);
    return 1;
}
