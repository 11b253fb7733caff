// Instance: one use of Lua in a chain of filters: a plugin with its table, or the functions of an object. It is the filter's
// conf; all workers share it, and each finds the functions in its own VM.
#pragma once

#include "conf/value.h"
#include "filter/filter.h"
#include "script/abi.h"

#include <stdint.h>

struct moon_code;
struct moon_lua_plugin;
struct moon_preread;
struct moon_vm;

enum { MOON_PHASE_COUNT = MOON_ABI_PREREAD + 1 };

struct moon_instance {
    struct moon_filter_type type; // with the hooks that it has
    struct moon_code *code;
    int functions[MOON_PHASE_COUNT];      // of an object: index of the code's functions, -1: none
    const struct moon_lua_plugin *plugin; // NULL: functions of an object
    struct moon_value value;              // the plugin's table; the model's
    uint64_t hash;                        // of name and table
    uint32_t index;                       // among the code's instances
    uint32_t conf_id;                     // of the table in every VM of the generation
};

// Both equal: one table in Lua stands for both.
bool moon_instance_equal(const struct moon_instance *a, const struct moon_instance *b);
uint64_t moon_value_hash(const struct moon_value *value, uint64_t seed);
// Gives the code's instances their ids: those of equal ones of `before`, new ones from *next on.
void moon_instances_number(struct moon_code *code, const struct moon_code *before, uint32_t *next);
// hooks.c: the hooks for these phases (bits 1 << MOON_ABI_).
void moon_instance_set_hooks(struct moon_filter_type *type, uint32_t phases);
// openings.c: those before there is an exchange.
void moon_instance_set_opening_hooks(struct moon_filter_type *type, uint32_t phases);
// preread.c: the hook of that name.
enum moon_verdict moon_script_preread(struct moon_preread *preread, void *conf);
