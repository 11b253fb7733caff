// See push.h.
#include "script/push.h"

#include "conf/value.h"

#include <lauxlib.h>
#include <lua.h>

static void push_table(lua_State *state, const struct moon_value *value)
{
    luaL_checkstack(state, 4, "a value nested too deep");
    lua_createtable(state, (int)value->table.item_count, (int)value->table.entry_count);
    for (uint32_t i = 0; i < value->table.item_count; i++) {
        moon_push_value(state, &value->table.items[i]);
        lua_rawseti(state, -2, (int)i + 1);
    }
    for (uint32_t i = 0; i < value->table.entry_count; i++) {
        const struct moon_entry *entry = &value->table.entries[i];
        lua_pushlstring(state, entry->key.ptr, entry->key.len);
        moon_push_value(state, &entry->value);
        lua_rawset(state, -3);
    }
}

void moon_push_value(lua_State *state, const struct moon_value *value)
{
    switch (value->kind) {
    case MOON_VALUE_NIL:
    case MOON_VALUE_FUNCTION:
        lua_pushnil(state);
        return;
    case MOON_VALUE_BOOL:
        lua_pushboolean(state, value->boolean);
        return;
    case MOON_VALUE_NUMBER:
        lua_pushnumber(state, value->number);
        return;
    case MOON_VALUE_STRING:
        lua_pushlstring(state, value->string.ptr, value->string.len);
        return;
    case MOON_VALUE_TABLE:
        push_table(state, value);
        return;
    }
}
