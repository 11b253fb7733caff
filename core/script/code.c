// See code.h.
#include "script/code.h"

#include "route/route.h"
#include "script/generation.h"
#include "script/inputs.h"
#include "script/state.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static char *copy(struct moon_slice text)
{
    char *out = moon_slice_dup(text);
    if (!out)
        abort();
    return out;
}

static char *directory_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        return copy(MOON_SLICE("."));
    return copy((struct moon_slice){path, slash == path ? 1 : (size_t)(slash - path)});
}

struct moon_code *moon_code_new(const char *path, struct moon_inputs *inputs,
                                struct lua_State *first)
{
    struct moon_code *code = calloc(1, sizeof *code);
    if (!code)
        abort();
    atomic_init(&code->ref_count, 1);
    code->path = copy(moon_slice_from(path));
    code->dir = directory_of(path);
    code->inputs = inputs;
    code->first = first;
    return code;
}

struct moon_code *moon_code_ref(struct moon_code *code)
{
    atomic_fetch_add_explicit(&code->ref_count, 1, memory_order_relaxed);
    return code;
}

void moon_code_unref(struct moon_code *code)
{
    if (!code || atomic_fetch_sub_explicit(&code->ref_count, 1, memory_order_acq_rel) > 1)
        return;
    moon_generation_unref(code->generation);
    moon_state_free(code->first);
    moon_inputs_free(code->inputs);
    for (size_t i = 0; i < code->function_count; i++) {
        free((void *)code->functions[i].kind);
        free((void *)code->functions[i].name);
        free((void *)code->functions[i].phase);
    }
    for (size_t i = 0; i < code->plugin_count; i++) {
        free(code->plugins[i]->name);
        free(code->plugins[i]);
    }
    free(code->functions);
    free((void *)code->plugins);
    free((void *)code->instances);
    free(code->path);
    free(code->dir);
    free(code);
}

// ---- functions

char *moon_code_object_name(const struct moon_object *object)
{
    if (strcmp(object->kind, "route") == 0)
        return moon_route_name(&object->value);
    return copy(moon_value_string(&object->value, "name", MOON_SLICE("")));
}

static void add_function(struct moon_code *code, size_t *cap, const struct moon_object *object,
                         struct moon_slice phase)
{
    if (code->function_count == *cap) {
        *cap = *cap ? *cap * 2 : 16;
        code->functions = realloc(code->functions, *cap * sizeof *code->functions);
        if (!code->functions)
            abort();
    }
    code->functions[code->function_count++] = (struct moon_function){
        copy(moon_slice_from(object->kind)), moon_code_object_name(object), copy(phase)};
}

static int compare(const void *left, const void *right)
{
    const struct moon_function *a = left, *b = right;
    int order = strcmp(a->kind, b->kind);
    order = order ? order : strcmp(a->name, b->name);
    return order ? order : strcmp(a->phase, b->phase);
}

void moon_code_add_functions(struct moon_code *code, struct moon_model *model)
{
    size_t cap = 0;
    for (size_t i = 0; i < moon_model_count(model); i++) {
        const struct moon_object *object = moon_model_at(model, i);
        const struct moon_value *table = &object->value;
        for (uint32_t k = 0; k < table->table.entry_count; k++)
            if (table->table.entries[k].value.kind == MOON_VALUE_FUNCTION)
                add_function(code, &cap, object, table->table.entries[k].key);
    }
    if (code->function_count)
        qsort(code->functions, code->function_count, sizeof *code->functions, compare);
}

int moon_code_find(const struct moon_code *code, const char *kind, struct moon_slice name,
                   const char *phase)
{
    if (code->function_count == 0)
        return -1;
    char *text = copy(name);
    struct moon_function wanted = {kind, text, phase};
    const struct moon_function *found =
        bsearch(&wanted, code->functions, code->function_count, sizeof *code->functions, compare);
    free(text);
    return found ? (int)(found - code->functions) : -1;
}

// ---- plugins

struct moon_lua_plugin *moon_code_plugin(const struct moon_code *code, const char *name)
{
    for (size_t i = 0; i < code->plugin_count; i++)
        if (strcmp(code->plugins[i]->name, name) == 0)
            return code->plugins[i];
    return NULL;
}

struct moon_lua_plugin *moon_code_add_plugin(struct moon_code *code, const char *name,
                                             uint32_t phases)
{
    struct moon_lua_plugin *plugin = calloc(1, sizeof *plugin);
    code->plugins =
        realloc((void *)code->plugins, (code->plugin_count + 1) * sizeof *code->plugins);
    if (!plugin || !code->plugins)
        abort();
    plugin->name = copy(moon_slice_from(name));
    plugin->phases = phases;
    plugin->index = (uint32_t)code->plugin_count;
    code->plugins[code->plugin_count++] = plugin;
    return plugin;
}

bool moon_code_equal(const struct moon_code *a, const struct moon_code *b)
{
    if (strcmp(a->path, b->path) != 0 || a->function_count != b->function_count ||
        !moon_inputs_equal(a->inputs, b->inputs))
        return false;
    for (size_t i = 0; i < b->plugin_count; i++)
        if (!moon_code_plugin(a, b->plugins[i]->name))
            return false;
    return true;
}
