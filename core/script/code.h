// Code: what came with a model besides data: the script with its inputs, the functions that stand in its objects, the plugins
// in Lua that it uses. Made by evaluating (evaluate.c), completed while the model is compiled (filters.c finds its plugins),
// then linked: a generation of VMs that runs it is made, or shared with code that is the same. Models, filters and generations
// share it by reference.
#pragma once

#include "base/slice.h"
#include "conf/conf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lua_State;
struct moon_generation;
struct moon_inputs;
struct moon_instance;

// A function in place: `access` of route "hello".
struct moon_function {
    const char *kind;  // of the object
    const char *name;  // of the object
    const char *phase; // the key it stands under
};

struct moon_lua_plugin {
    char *name;
    uint32_t phases; // bit 1 << MOON_ABI_ phase
    uint32_t index;  // in the generation that runs it
};

struct moon_code {
    _Atomic unsigned ref_count;
    char *path, *dir;
    struct moon_inputs *inputs;
    struct moon_function *functions; // in order of kind, name, phase
    size_t function_count;
    struct moon_lua_plugin **plugins; // in order of first use
    size_t plugin_count;
    // uses of plugins in the configuration, which belong to its filters; none after they are gone
    struct moon_instance **instances;
    size_t instance_count;
    bool has_tasks;          // it starts timers or has something to do when a worker starts
    struct lua_State *first; // the VM of the first evaluation, until it is linked
    struct moon_generation *generation; // after linking; NULL: there is nothing to run
};

struct moon_code *moon_code_new(const char *path, struct moon_inputs *inputs,
                                struct lua_State *first);
struct moon_code *moon_code_ref(struct moon_code *code);
// NULL is fine.
void moon_code_unref(struct moon_code *code);
// Notes the functions of every object of the model.
void moon_code_add_functions(struct moon_code *code, struct moon_model *model);
// The index of a function, -1: there is none.
int moon_code_find(const struct moon_code *code, const char *kind, struct moon_slice name,
                   const char *phase);
// The name by which functions of an object are known; malloc'd.
char *moon_code_object_name(const struct moon_object *object);
// The plugin of that name, NULL: it has not been used yet.
struct moon_lua_plugin *moon_code_plugin(const struct moon_code *code, const char *name);
struct moon_lua_plugin *moon_code_add_plugin(struct moon_code *code, const char *name,
                                             uint32_t phases);
// Whether a generation made for `a` can run `b`: the same script, which saw the same, and no further plugin.
bool moon_code_equal(const struct moon_code *a, const struct moon_code *b);
