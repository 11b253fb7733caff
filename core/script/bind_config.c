// Lua tables become plain values here. An error names the key path and is raised at the line of the call.
#include "script/bind_config.h"

#include "conf/conf.h"
#include "script/code.h"
#include "script/evaluation.h"

#include <lauxlib.h>
#include <lua.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { DEPTH_MAX = 32, PATH_LEN = 256, CALLER_LEVEL = 1 }; // 0: this function, 1: the script

#define MODEL_KEY "moongate.model"

struct converting {
    lua_State *vm;
    struct moon_model *model;
    int depth;
    char path[PATH_LEN];
};

static void convert(struct converting *at, int index, struct moon_value *out);

static void refuse(struct converting *at, const char *what)
{
    luaL_where(at->vm, CALLER_LEVEL);
    lua_pushfstring(at->vm, "%s%s", at->path, at->path[0] ? ": " : "");
    lua_pushstring(at->vm, what);
    lua_concat(at->vm, 3);
    lua_error(at->vm);
}

// Extends the key path for as long as one element is looked at.
static size_t enter(struct converting *at, const char *name, int index)
{
    size_t before = strlen(at->path);
    if (name)
        snprintf(at->path + before, sizeof at->path - before, "%s%s", before ? "." : "", name);
    else
        snprintf(at->path + before, sizeof at->path - before, "[%d]", index);
    return before;
}

static int compare_entries(const void *a, const void *b)
{
    struct moon_slice x = ((const struct moon_entry *)a)->key,
                      y = ((const struct moon_entry *)b)->key;
    int order = memcmp(x.ptr, y.ptr, x.len < y.len ? x.len : y.len);
    return order ? order : (x.len > y.len) - (x.len < y.len);
}

// How many string keys the table has; refuses keys that are neither strings nor a dense list.
static uint32_t count_entries(struct converting *at, int index, uint32_t item_count)
{
    uint32_t count = 0, items = 0;
    lua_pushnil(at->vm);
    while (lua_next(at->vm, index)) {
        lua_pop(at->vm, 1);
        int type = lua_type(at->vm, -1);
        lua_Number number = type == LUA_TNUMBER ? lua_tonumber(at->vm, -1) : 0;
        if (type == LUA_TSTRING)
            count++;
        else if (type == LUA_TNUMBER && number == floor(number) && number >= 1 &&
                 number <= item_count)
            items++;
        else
            refuse(at, type == LUA_TNUMBER ? "a list with holes" : "keys must be names or a list");
    }
    if (items != item_count)
        refuse(at, "a list with holes");
    return count;
}

static void convert_items(struct converting *at, int index, struct moon_value *out, uint32_t count)
{
    struct moon_value *items = moon_model_alloc(at->model, (count + 1) * sizeof *items);
    for (uint32_t i = 0; i < count; i++) {
        size_t before = enter(at, NULL, (int)i + 1);
        lua_rawgeti(at->vm, index, (int)i + 1);
        convert(at, lua_gettop(at->vm), &items[i]);
        lua_pop(at->vm, 1);
        at->path[before] = '\0';
    }
    out->table.items = items;
    out->table.item_count = count;
}

static void convert_entries(struct converting *at, int index, struct moon_value *out,
                            uint32_t count)
{
    struct moon_entry *entries = moon_model_alloc(at->model, (count + 1) * sizeof *entries);
    uint32_t done = 0;
    lua_pushnil(at->vm);
    while (lua_next(at->vm, index)) {
        if (lua_type(at->vm, -2) == LUA_TSTRING && done < count) {
            struct moon_slice key;
            key.ptr = lua_tolstring(at->vm, -2, &key.len);
            size_t before = enter(at, key.ptr, 0);
            entries[done].key = moon_model_copy(at->model, key);
            convert(at, lua_gettop(at->vm), &entries[done].value);
            at->path[before] = '\0';
            done++;
        }
        lua_pop(at->vm, 1);
    }
    qsort(entries, done, sizeof *entries, compare_entries);
    out->table.entries = entries;
    out->table.entry_count = done;
}

static void convert_table(struct converting *at, int index, struct moon_value *out)
{
    if (++at->depth > DEPTH_MAX)
        refuse(at, "tables are nested too deep, or one contains itself");
    luaL_checkstack(at->vm, 8, "configuration");
    uint32_t item_count = (uint32_t)lua_objlen(at->vm, index);
    uint32_t entry_count = count_entries(at, index, item_count);
    convert_items(at, index, out, item_count);
    convert_entries(at, index, out, entry_count);
    at->depth--;
}

static void convert(struct converting *at, int index, struct moon_value *out)
{
    *out = (struct moon_value){.kind = MOON_VALUE_NIL};
    switch (lua_type(at->vm, index)) {
    case LUA_TBOOLEAN:
        out->kind = MOON_VALUE_BOOL;
        out->boolean = lua_toboolean(at->vm, index) != 0;
        return;
    case LUA_TNUMBER:
        out->kind = MOON_VALUE_NUMBER;
        out->number = lua_tonumber(at->vm, index);
        return;
    case LUA_TSTRING: {
        struct moon_slice text;
        text.ptr = lua_tolstring(at->vm, index, &text.len);
        out->kind = MOON_VALUE_STRING;
        out->string = moon_model_copy(at->model, text);
        return;
    }
    case LUA_TTABLE:
        out->kind = MOON_VALUE_TABLE;
        convert_table(at, index, out);
        return;
    case LUA_TFUNCTION:
        out->kind = MOON_VALUE_FUNCTION;
        return;
    default:
        refuse(at, "only text, numbers, booleans, tables and functions can be configured");
    }
}

// Functions of the object at 1, by the names they are known by: the registry's table has them by "kind\nname\nphase".
static void keep_functions(lua_State *vm, const struct moon_object *object)
{
    const struct moon_value *table = &object->value;
    char *name = NULL;
    for (uint32_t i = 0; i < table->table.entry_count; i++) {
        const struct moon_entry *entry = &table->table.entries[i];
        if (entry->value.kind != MOON_VALUE_FUNCTION)
            continue;
        name = name ? name : moon_code_object_name(object);
        lua_getfield(vm, LUA_REGISTRYINDEX, MOON_FUNCTIONS_KEY);
        lua_pushfstring(vm, "%s\n%s\n%s", object->kind, name, entry->key.ptr);
        lua_getfield(vm, 1, entry->key.ptr);
        lua_rawset(vm, -3);
        lua_pop(vm, 1);
    }
    free(name);
}

// The model that is written; NULL once the script has come to its end.
static struct moon_model *model_of(lua_State *vm)
{
    lua_getfield(vm, LUA_REGISTRYINDEX, MODEL_KEY);
    struct moon_model *model = lua_touserdata(vm, -1);
    lua_pop(vm, 1);
    return model;
}

// Upvalues: the file's name, the kind of object.
static int add_object(lua_State *vm)
{
    const char *file = lua_tostring(vm, lua_upvalueindex(1)),
               *kind = lua_tostring(vm, lua_upvalueindex(2));
    struct moon_model *model = model_of(vm);
    lua_Debug caller;
    if (!model) {
        luaL_where(vm, CALLER_LEVEL);
        lua_pushfstring(vm,
                        "moongate.%s can be called while the script is evaluated, not by phases, "
                        "timers, init_worker or a plugin",
                        kind);
        lua_concat(vm, 2);
        return lua_error(vm);
    }
    struct converting at = {.vm = vm, .model = model};
    struct moon_object object = {.kind = moon_model_copy(model, moon_slice_from(kind)).ptr};
    if (lua_type(vm, 1) != LUA_TTABLE) {
        luaL_where(vm, CALLER_LEVEL);
        lua_pushfstring(vm, "moongate.%s takes a table, got %s: write moongate.%s { ... }", kind,
                        luaL_typename(vm, 1), kind);
        lua_concat(vm, 2);
        return lua_error(vm);
    }
    object.place.file = moon_model_copy(model, moon_slice_from(file)).ptr;
    if (lua_getstack(vm, CALLER_LEVEL, &caller) && lua_getinfo(vm, "Sl", &caller)) {
        object.place.line = caller.currentline > 0 ? (unsigned)caller.currentline : 0;
        if (caller.source[0] == '@')
            object.place.file = moon_model_copy(model, moon_slice_from(caller.source + 1)).ptr;
    }
    convert(&at, 1, &object.value);
    moon_model_add(model, &object);
    keep_functions(vm, &object);
    return 0;
}

void moon_config_push(lua_State *vm, struct moon_model *model, const char *file)
{
    static const char *const kinds[] = {"settings", "listener", "upstream", "route"};
    lua_pushlightuserdata(vm, model);
    lua_setfield(vm, LUA_REGISTRYINDEX, MODEL_KEY);
    lua_newtable(vm);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        lua_pushstring(vm, file);
        lua_pushstring(vm, kinds[i]);
        lua_pushcclosure(vm, add_object, 2);
        lua_setfield(vm, -2, kinds[i]);
    }
}

void moon_config_close(lua_State *vm)
{
    lua_pushnil(vm);
    lua_setfield(vm, LUA_REGISTRYINDEX, MODEL_KEY);
}
