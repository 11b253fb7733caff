// Compiles the part of moongate.route { ... } that says what to do: name, plugins, backends.
#include "exchange/action.h"

#include "base/err.h"
#include "exchange/plugins.h"
#include "obs/series.h"
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
    {.name = "backends", .types = MOON_TYPE_STRING, .expected = "the name of an upstream"},
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

// The length of the path prefix that all requests of the route share, without a slash at its end. False: there is no one.
static bool find_prefix(const struct moon_object *route, uint32_t *len)
{
    const struct moon_value *path = moon_value_get(&route->value, "path");
    *len = 0;
    if (moon_value_get(&route->value, "matches") || (path && path->kind != MOON_VALUE_STRING))
        return false;
    if (path && path->string.len)
        *len = (uint32_t)(path->string.len - (path->string.ptr[path->string.len - 1] == '/'));
    return true;
}

// Finds the upstream; a route whose plugins answer every request needs none.
static bool compile_backends(const struct compiling *at, struct moon_action *action)
{
    const struct moon_value *value = moon_value_get(&at->object->value, "backends");
    const struct moon_upstreams *upstreams = moon_snapshot_upstreams(at->compile->snapshot);
    if (!value && action->answers)
        return true;
    if (!value) {
        moon_report_addf(at->compile->report, at->object->place,
                         moon_object_title(at->compile->model, at->object), "backends",
                         "expected the name of an upstream, or a plugin that answers (redirect, "
                         "direct-response)",
                         "missing");
        return false;
    }
    if (!upstreams) // their problems are told already
        return true;
    action->upstream = moon_upstreams_find(upstreams, value->string);
    if (action->upstream)
        return true;
    const char *nearest = moon_nearest_name(value->string, moon_upstreams_names(upstreams));
    char hint[160];
    if (nearest)
        snprintf(hint, sizeof hint, "did you mean \"%s\"?", nearest);
    else
        snprintf(hint, sizeof hint, "define it with moongate.upstream { name = ... }");
    report(at, "backends", hint, "there is no upstream", value->string);
    return false;
}

static bool compile_one(const struct compiling *at, struct moon_action *action)
{
    const struct moon_value *value = &at->object->value;
    action->name = moon_route_name(value);
    action->series = moon_series_names_add(at->compile->section->series, MOON_SERIES_ROUTE,
                                           moon_slice_from(action->name));
    bool has_prefix = find_prefix(at->object, &action->prefix_len);
    bool is_fine =
        moon_plugins_compile(at->compile, at->object, has_prefix, &action->chain, &action->answers);
    if (!is_fine && !moon_value_get(value, "backends"))
        return false; // a plugin that is broken might be the one that answers
    return compile_backends(at, action) && is_fine;
}

static void actions_unref(void *part)
{
    struct moon_actions *all = part;
    if (!all)
        return;
    for (size_t i = 0; i < all->count; i++) {
        struct moon_action *action = &all->actions[i];
        moon_plugins_fini(&action->chain);
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
