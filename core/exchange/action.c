// Compiles the part of moongate.route { ... } that says what to do: name, plugins, backends.
#include "exchange/action.h"

#include "base/err.h"
#include "route/route.h"
#include "upstream/upstream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct moon_actions {
    struct moon_action *actions;
    size_t count;
};

static const struct moon_schema_key route_keys[] = {
    {.name = "name", .types = MOON_TYPE_STRING, .expected = "a name"},
    {.name = "backends",
     .types = MOON_TYPE_STRING,
     .is_required = true,
     .expected = "the name of an upstream"},
    {.name = "plugins",
     .types = MOON_TYPE_TABLE,
     .expected = "a list of { \"plugin\", key = value }"},
    {.name = "timeouts", .types = MOON_TYPE_TABLE, .is_later = true},
    {.name = "retry", .types = MOON_TYPE_TABLE, .is_later = true},
    {.name = "rewrite", .types = MOON_TYPE_FUNCTION, .is_later = true},
    {.name = "access", .types = MOON_TYPE_FUNCTION, .is_later = true},
    {.name = "balancer", .types = MOON_TYPE_FUNCTION, .is_later = true},
    {.name = "header_filter", .types = MOON_TYPE_FUNCTION, .is_later = true},
    {.name = "body_filter", .types = MOON_TYPE_FUNCTION, .is_later = true},
    {.name = "log", .types = MOON_TYPE_FUNCTION, .is_later = true},
    {.name = NULL},
};
static const struct moon_schema route_schema = {route_keys, NULL, NULL};

struct compiling {
    const struct moon_compile *compile;
    const struct moon_object *object;
};

static void report(const struct compiling *at, const char *path, const char *hint,
                   const char *message, struct moon_slice found)
{
    moon_report_addf(at->compile->report, at->object->place,
                     moon_object_title(at->compile->model, at->object), path, hint, "%s \"%.*s\"",
                     message, MOON_SLICE_ARG(found));
}

static const struct moon_filter_type *find_type(const struct compiling *at, struct moon_slice name)
{
    const struct moon_filter_type *const *types = at->compile->section->registry;
    for (; types && *types; types++)
        if (moon_slice_equal(moon_slice_from((*types)->name), name))
            return *types;
    return NULL;
}

// One item of plugins: { "name", key = value } or "name".
static bool compile_filter(const struct compiling *at, const struct moon_value *item,
                           uint32_t index, struct moon_filter *filter)
{
    char path[32];
    struct moon_slice name = MOON_SLICE("");
    snprintf(path, sizeof path, "plugins[%u]", index + 1);
    if (item->kind == MOON_VALUE_STRING)
        name = item->string;
    else if (item->kind == MOON_VALUE_TABLE && item->table.item_count == 1 &&
             item->table.items[0].kind == MOON_VALUE_STRING)
        name = item->table.items[0].string;
    filter->type = find_type(at, name);
    if (!filter->type) {
        report(at, path, "plugins come with a later version; this one has none",
               "there is no plugin", name);
        return false;
    }
    struct moon_value conf = {.kind = MOON_VALUE_TABLE};
    if (item->kind == MOON_VALUE_TABLE) {
        conf.table.entries = item->table.entries;
        conf.table.entry_count = item->table.entry_count;
    }
    struct moon_schema_check check = {
        at->object->place, moon_object_title(at->compile->model, at->object), at->compile->report};
    if (filter->type->schema && !moon_schema_check(&check, &conf, &filter->type->schema, 1))
        return false;
    return !filter->type->compile ||
           filter->type->compile(&conf, at->compile->report, &filter->conf) == 0;
}

static bool compile_chain(const struct compiling *at, struct moon_chain *chain)
{
    const struct moon_value *list = moon_value_get(&at->object->value, "plugins");
    uint32_t count = list ? list->table.item_count : 0;
    bool is_fine = true;
    if (count > 64) {
        report(at, "plugins", "at most 64 plugins", "too many plugins", MOON_SLICE(""));
        return false;
    }
    struct moon_filter *filters = calloc(count + 1, sizeof *filters);
    if (!filters)
        abort();
    chain->filters = filters;
    for (uint32_t i = 0; i < count; i++) {
        if (!compile_filter(at, &list->table.items[i], i, &filters[i])) {
            is_fine = false;
            continue;
        }
        chain->has_request_body |= filters[i].type->request_body != NULL;
        chain->has_response_body |= filters[i].type->response_body != NULL;
    }
    chain->count = (uint16_t)count;
    return is_fine;
}

static bool compile_one(const struct compiling *at, struct moon_action *action)
{
    const struct moon_value *value = &at->object->value;
    struct moon_slice backend = moon_value_string(value, "backends", MOON_SLICE(""));
    const struct moon_upstreams *upstreams = moon_snapshot_upstreams(at->compile->snapshot);
    action->name = moon_route_name(value);
    bool is_fine = compile_chain(at, &action->chain);
    if (!upstreams) // their problems are told already
        return is_fine;
    action->upstream = moon_upstreams_find(upstreams, backend);
    if (action->upstream)
        return is_fine;
    const char *nearest = moon_nearest_name(backend, moon_upstreams_names(upstreams));
    char hint[160];
    if (nearest)
        snprintf(hint, sizeof hint, "did you mean \"%s\"?", nearest);
    else
        snprintf(hint, sizeof hint, "define it with moongate.upstream { name = ... }");
    report(at, "backends", hint, "there is no upstream", backend);
    return false;
}

static void actions_unref(void *part)
{
    struct moon_actions *all = part;
    if (!all)
        return;
    for (size_t i = 0; i < all->count; i++) {
        struct moon_action *action = &all->actions[i];
        for (uint16_t k = 0; k < action->chain.count; k++) {
            const struct moon_filter *filter = &action->chain.filters[k];
            if (filter->type && filter->type->unref && filter->conf)
                filter->type->unref(filter->conf);
        }
        free((void *)action->chain.filters);
        free((void *)action->name);
    }
    free(all->actions);
    free(all);
}

static int actions_compile(const struct moon_compile *compile, void **part)
{
    struct moon_actions *all = calloc(1, sizeof *all);
    bool is_fine = true;
    if (!all)
        abort();
    all->actions = calloc(compile->object_count + 1, sizeof *all->actions);
    if (!all->actions)
        abort();
    for (size_t i = 0; i < compile->object_count; i++) {
        struct compiling at = {compile, compile->objects[i]};
        is_fine = compile_one(&at, &all->actions[all->count++]) && is_fine;
    }
    if (!is_fine) {
        actions_unref(all);
        return MOON_ECONFIG;
    }
    *part = all;
    return 0;
}

const struct moon_section moon_action_section = {
    .name = "actions",
    .kind = "route",
    .schema = &route_schema,
    .compile = actions_compile,
    .unref = actions_unref,
};

const struct moon_actions *moon_snapshot_actions(const struct moon_snapshot *snapshot)
{
    return moon_snapshot_part(snapshot, moon_action_section.name);
}

const struct moon_action *moon_actions_at(const struct moon_actions *actions, int index)
{
    return &actions->actions[index];
}
