// Giving certificates from Lua: certificate_set in the table of native functions.
#pragma once

#include <lua.h>

struct moon_vm;

// Adds them to the table on the stack.
void moon_certificates_open(lua_State *state, struct moon_vm *vm);
