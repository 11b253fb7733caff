// Making a VM: libraries, the searcher for embedded modules, the search path of the script's own directory; and its memory.
//
// A script that gets no memory has an error. The C code around it has nobody to catch one: what it allocates while memory is short
// (a traceback, a coroutine) comes out of a reserve, which guarded code cannot use.
#include "script/state.h"

#include "script/embedded.h"

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdlib.h>
#include <string.h>

// ---- memory

enum { RESERVE_LEN = 64 * 1024, RESERVE_MIN_LEN = 4096 };

struct heap {
    lua_Alloc alloc; // LuaJIT's own, with its argument
    void *owner;
    void *reserve; // never written to; NULL: it has been spent
    size_t reserve_len;
    bool is_guarded;
};

static void *allocate(void *owner, void *ptr, size_t len, size_t new_len)
{
    struct heap *heap = owner;
    void *to = heap->alloc(heap->owner, ptr, len, new_len);
    if (to || new_len == 0 || heap->is_guarded || !heap->reserve)
        return to;
    heap->alloc(heap->owner, heap->reserve, heap->reserve_len, 0);
    heap->reserve = NULL;
    return heap->alloc(heap->owner, ptr, len, new_len);
}

// As much of it as there is.
static void fill_reserve(struct heap *heap)
{
    for (size_t len = RESERVE_LEN; len >= RESERVE_MIN_LEN && !heap->reserve; len /= 2) {
        heap->reserve = heap->alloc(heap->owner, NULL, 0, len);
        heap->reserve_len = len;
    }
}

static struct heap *heap_of(lua_State *vm)
{
    void *owner;
    lua_getallocf(vm, &owner);
    return owner;
}

static void heap_init(lua_State *vm)
{
    struct heap *heap = calloc(1, sizeof *heap);
    if (!heap)
        abort();
    heap->alloc = lua_getallocf(vm, &heap->owner);
    fill_reserve(heap);
    lua_setallocf(vm, allocate, heap);
}

bool moon_state_guard(lua_State *vm, bool is_guarded)
{
    struct heap *heap = heap_of(vm);
    bool before = heap->is_guarded;
    if (!heap->reserve)
        fill_reserve(heap);
    heap->is_guarded = is_guarded;
    return before;
}

// ---- making

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

static int furnish(lua_State *vm)
{
    const char *script_dir = lua_touserdata(vm, 1);
    luaL_openlibs(vm);
    add_searcher(vm);
    if (script_dir)
        add_path(vm, script_dir);
    return 0;
}

lua_State *moon_state_new(const char *script_dir)
{
    lua_State *vm = luaL_newstate();
    if (!vm)
        return NULL;
    heap_init(vm);
    moon_state_guard(vm, true);
    int err = lua_cpcall(vm, furnish, (void *)script_dir);
    moon_state_guard(vm, false);
    if (!err)
        return vm;
    moon_state_free(vm);
    return NULL;
}

void moon_state_free(lua_State *vm)
{
    if (!vm)
        return;
    struct heap *heap = heap_of(vm);
    if (heap->reserve)
        heap->alloc(heap->owner, heap->reserve, heap->reserve_len, 0);
    lua_setallocf(vm, heap->alloc, heap->owner); // LuaJIT frees its own allocator, if it knows it
    lua_close(vm);
    free(heap);
}

int moon_state_traceback(lua_State *vm)
{
    if (lua_type(vm, 1) != LUA_TSTRING)
        return 1;
    luaL_traceback(vm, vm, lua_tostring(vm, 1), 1);
    return 1;
}
