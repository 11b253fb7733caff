// See push.h.
#include "script/push.h"

#include "base/address.h"
#include "conf/value.h"
#include "http/client_hello.h"

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

// ---- fields of the table on top

void moon_set_text(lua_State *at, const char *key, struct moon_slice text)
{
    if (text.len == 0)
        return;
    lua_pushlstring(at, text.ptr, text.len);
    lua_setfield(at, -2, key);
}

static void push_address(lua_State *at, const struct moon_address *address)
{
    char text[MOON_ADDRESS_TEXT_LEN];
    lua_createtable(at, 0, 2);
    if (address->family == MOON_FAMILY_NONE)
        return;
    moon_address_format_ip(address, text);
    lua_pushstring(at, text);
    lua_setfield(at, -2, "address");
    lua_pushinteger(at, address->port);
    lua_setfield(at, -2, "port");
}

void moon_set_client(lua_State *at, const struct moon_address *client)
{
    push_address(at, client);
    lua_setfield(at, -2, "client");
}

void moon_set_destination(lua_State *at, const struct moon_address *destination)
{
    if (destination->family == MOON_FAMILY_NONE)
        return;
    push_address(at, destination);
    lua_setfield(at, -2, "destination");
}

void moon_set_alpn(lua_State *at, struct moon_slice alpn)
{
    struct moon_slice protocol;
    lua_newtable(at);
    for (int i = 1; moon_alpn_next(&alpn, &protocol); i++) {
        lua_pushlstring(at, protocol.ptr, protocol.len);
        lua_rawseti(at, -2, i);
    }
    lua_setfield(at, -2, "alpn");
}
