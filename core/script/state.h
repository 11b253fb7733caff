// Virtual machines: a Lua state with the standard libraries and the modules that ship inside the binary.
#pragma once

struct lua_State;

// `script_dir` is searched by require, too; NULL: only the binary's modules and the default path. NULL when out of memory.
struct lua_State *moon_state_new(const char *script_dir);
// NULL is fine.
void moon_state_free(struct lua_State *vm);
// A message handler for lua_pcall: keeps a table as it is, adds a traceback to a text.
int moon_state_traceback(struct lua_State *vm);
