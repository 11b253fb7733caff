// Requests of a script's own (exchange/call.h): what lua/moongate/http.lua stands on.
#pragma once

struct lua_State;
struct moon_vm;

// Adds call_start and call_take to the table on the stack. `vm` NULL: the first evaluation.
void moon_calls_open(struct lua_State *state, struct moon_vm *vm);
