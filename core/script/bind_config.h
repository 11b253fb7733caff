// The configuration calls of scripts: moongate.listener, upstream, route, settings. They add objects to a model.
#pragma once

struct lua_State;
struct moon_model;

// Leaves a table of the four functions on the stack; they write into `model` until moon_config_close, and are errors from then
// on. `file` is how the user named the script.
void moon_config_push(struct lua_State *vm, struct moon_model *model, const char *file);
void moon_config_close(struct lua_State *vm);
