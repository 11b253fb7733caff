// Model values as Lua values.
#pragma once

struct lua_State;
struct moon_value;

void moon_push_value(struct lua_State *state, const struct moon_value *value);
