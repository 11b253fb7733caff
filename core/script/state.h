// Virtual machines: a Lua state with the standard libraries and the modules that ship inside the binary.
#pragma once

#include <stdbool.h>

struct lua_State;

// `script_dir` is searched by require, too; NULL: only the binary's modules and the default path. NULL when out of memory.
struct lua_State *moon_state_new(const char *script_dir);
// NULL is fine.
void moon_state_free(struct lua_State *vm);
// Whether what runs now has somebody to catch its error: then it gets none when memory is short. Else a reserve helps the C code
// around it, which has nobody. What it was before; set it back.
bool moon_state_guard(struct lua_State *vm, bool is_guarded);
// A message handler for lua_pcall: keeps a table as it is, adds a traceback to a text.
int moon_state_traceback(struct lua_State *vm);
