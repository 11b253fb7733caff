// `moongate._core.native`: what the product's Lua needs of the core beside the abi: functions that take or give Lua values.
#pragma once

struct lua_State;
struct moon_inputs;
struct moon_vm;

// Leaves the table on the stack. `vm` NULL: the first evaluation.
void moon_native_push(struct lua_State *state, struct moon_vm *vm, struct moon_inputs *inputs);
