// Evaluation: running a configuration script in a Lua state: the first time for the model it describes, and once more in each
// VM for the functions in it.
#pragma once

struct lua_State;
struct moon_inputs;
struct moon_model;
struct moon_report;
struct moon_vm;

struct moon_evaluation {
    const char *path; // as the user named the script
    struct moon_inputs *inputs;
    struct moon_model *model; // the objects of the script are added to it
    struct moon_vm *vm;       // NULL: the first evaluation
};

// In the registry of an evaluated state: a table of functions by "kind\nname\nphase".
#define MOON_FUNCTIONS_KEY "moongate.functions"

// Bounded: an endless loop is an error. 0, or MOON_ECONFIG with the problem in the report.
int moon_evaluation_run(struct lua_State *state, const struct moon_evaluation *evaluation,
                        struct moon_report *report);
// The same bound on what else is run before traffic: files of plugins. Begins anew at each call of begin.
void moon_evaluation_bound_begin(struct lua_State *state);
void moon_evaluation_bound_end(struct lua_State *state);
