// Compiles the part of moongate.route { ... } that says what to do: name, plugins, backends, timeouts, retry.
#include "exchange/action.h"

#include "base/err.h"
#include "exchange/access.h"
#include "exchange/plugins.h"
#include "obs/series.h"
#include "route/listener.h"
#include "route/route.h"
#include "route/stream_route.h"
#include "upstream/upstream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_MESSAGE_LEN = 1048576 }; // of WebSocket, where filters read them

struct moon_actions {
    struct moon_action *actions;
    size_t count;
    // some chain belongs to the code of its configuration: it is compiled with every one
    bool has_code;
};

static const struct moon_schema_key no_keys[] = {{.name = NULL}};
static const struct moon_schema_key backend_weight = {
    .types = MOON_TYPE_NUMBER,
    .is_integer = true,
    .min = 0,
    .max = 1000000,
    .expected = "a weight, 0 to 1000000, such as { users = 95, [\"users-next\"] = 5 }"};
static const struct moon_schema backends_schema = {no_keys, NULL, &backend_weight};

static const struct moon_schema_key timeout_keys[] = {
    MOON_SCHEMA_SECONDS("request"),
    MOON_SCHEMA_SECONDS("response"),
    MOON_SCHEMA_SECONDS("idle"),
    {.name = NULL},
};
static const struct moon_schema timeouts_schema = {timeout_keys, NULL, NULL};

static const struct moon_schema_key websocket_keys[] = {
    {.name = "max_message",
     .types = MOON_TYPE_NUMBER,
     .is_integer = true,
     .min = 1,
     .max = 1073741824,
     .expected = "bytes, 1 to 1073741824"},
    {.name = NULL},
};
static const struct moon_schema websocket_schema = {websocket_keys, NULL, NULL};

static const char *const retry_hint =
    "expected \"connect\", \"reset\", \"timeout\" or a status from \"400\" to \"599\"";
static const struct moon_schema_key retry_condition = {
    .types = MOON_TYPE_STRING,
    .expected = "\"connect\", \"reset\", \"timeout\" or a status from \"400\" to \"599\""};
static const struct moon_schema conditions_schema = {no_keys, &retry_condition, NULL};
static const struct moon_schema_key retry_keys[] = {
    {.name = "attempts",
     .types = MOON_TYPE_NUMBER,
     .is_integer = true,
     .min = 1,
     .max = 10,
     .expected = "how many more after the first, 1 to 10"},
    {.name = "on",
     .types = MOON_TYPE_TABLE,
     .table = &conditions_schema,
     .expected = "a list such as { \"connect\", \"503\" }"},
    {.name = "backoff",
     .types = MOON_TYPE_NUMBER,
     .min = 0,
     .max = 60,
     .expected = "seconds, 0 to 60"},
    {.name = NULL},
};
static const struct moon_schema retry_schema = {retry_keys, NULL, NULL};

static const struct moon_schema_key route_keys[] = {
    {.name = "name", .types = MOON_TYPE_STRING, .expected = "a name"},
    {.name = "backends",
     .types = MOON_TYPE_STRING | MOON_TYPE_TABLE,
     .table = &backends_schema,
     .expected =
         "the name of an upstream, or weights such as { users = 95, [\"users-next\"] = 5 }"},
    {.name = "plugins",
     .types = MOON_TYPE_TABLE,
     .expected = "a list of { \"plugin\", key = value }"},
    {.name = "timeouts",
     .types = MOON_TYPE_TABLE,
     .table = &timeouts_schema,
     .expected = "{ request = 5, response = 2 }"},
    {.name = "retry",
     .types = MOON_TYPE_TABLE,
     .table = &retry_schema,
     .expected = "{ attempts = 2, on = { \"connect\", \"503\" } }"},
    {.name = "rewrite", .types = MOON_TYPE_FUNCTION, .expected = "a function"},
    {.name = "access", .types = MOON_TYPE_FUNCTION, .expected = "a function"},
    {.name = "balancer", .types = MOON_TYPE_FUNCTION, .is_later = true},
    {.name = "header_filter", .types = MOON_TYPE_FUNCTION, .expected = "a function"},
    {.name = "body_filter", .types = MOON_TYPE_FUNCTION, .expected = "a function"},
    {.name = "websocket_frame", .types = MOON_TYPE_FUNCTION, .expected = "a function"},
    {.name = "preread", .types = MOON_TYPE_FUNCTION, .expected = "a function"},
    {.name = "log", .types = MOON_TYPE_FUNCTION, .expected = "a function"},
    {.name = "websocket",
     .types = MOON_TYPE_TABLE,
     .table = &websocket_schema,
     .expected = "{ max_message = 1048576 }"},
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

// The path prefix of one match, without a slash at its end. False: it is an exact path or an expression.
static bool match_prefix(const struct moon_value *match, struct moon_slice *prefix)
{
    const struct moon_value *path = moon_value_get(match, "path");
    if ((path && path->kind != MOON_VALUE_STRING) || moon_value_get(match, "grpc"))
        return false;
    *prefix = path ? path->string : MOON_SLICE("/");
    if (prefix->len && prefix->ptr[prefix->len - 1] == '/')
        prefix->len--;
    return true;
}

// The length of the path prefix that all requests of the route share. False: its matches have no one prefix.
static bool find_prefix(const struct moon_object *route, uint32_t *len)
{
    const struct moon_value *list = moon_value_get(&route->value, "matches");
    struct moon_slice first, other;
    *len = 0;
    if (list && list->table.item_count == 0)
        return false;
    if (!match_prefix(list ? &list->table.items[0] : &route->value, &first))
        return false;
    for (uint32_t i = 1; list && i < list->table.item_count; i++)
        if (!match_prefix(&list->table.items[i], &other) || !moon_slice_equal(first, other))
            return false;
    *len = (uint32_t)first.len;
    return true;
}

static bool has_grpc(const struct moon_object *route)
{
    const struct moon_value *list = moon_value_get(&route->value, "matches");
    bool is_found = moon_value_get(&route->value, "grpc") != NULL;
    for (uint32_t i = 0; list && i < list->table.item_count; i++)
        is_found = is_found || moon_value_get(&list->table.items[i], "grpc");
    return is_found;
}

// The upstream of that name. False when there is none and its producer does not allow that.
static bool find_backend(const struct compiling *at, struct moon_slice name, const char *path,
                         struct moon_backend *backend)
{
    const struct moon_upstreams *upstreams = moon_snapshot_upstreams(at->compile->snapshot);
    backend->upstream = MOON_BACKEND_MISSING;
    if (!upstreams) // their problems are told already
        return true;
    const struct moon_upstream *upstream = moon_upstreams_find(upstreams, name);
    if (upstream)
        backend->upstream = (int32_t)upstream->index;
    if (upstream || at->object->is_lenient)
        return true;
    const char *nearest = moon_nearest_name(name, moon_upstreams_names(upstreams));
    char hint[160];
    if (nearest)
        snprintf(hint, sizeof hint, "did you mean \"%s\"?", nearest);
    else
        snprintf(hint, sizeof hint, "define it with moongate.upstream { name = ... }");
    report(at, path, hint, "there is no upstream", name);
    return false;
}

// The upstreams and their weights; a route whose plugins answer every request needs none.
static bool compile_backends(const struct compiling *at, bool is_needed, struct moon_split *split)
{
    const struct moon_value *value = moon_value_get(&at->object->value, "backends");
    if (!value && !at->object->is_lenient) {
        if (is_needed)
            moon_report_addf(at->compile->report, at->object->place,
                             moon_object_title(at->compile->model, at->object), "backends",
                             "expected the name of an upstream, weights by name, or a plugin that "
                             "answers (redirect, direct-response)",
                             "missing");
        return !is_needed;
    }
    bool is_table = value && value->kind == MOON_VALUE_TABLE, is_fine = true;
    uint32_t count = is_table ? value->table.entry_count : value ? 1 : 0;
    if (!at->object->is_lenient && (count == 0 || count > UINT16_MAX)) {
        report(at, "backends", "expected the name of an upstream, or weights by name",
               count ? "too many backends" : "no backends in", MOON_SLICE("{}"));
        return false;
    }
    count = count > UINT16_MAX ? UINT16_MAX : count;
    struct moon_backend *backends = calloc(count + 1, sizeof *backends);
    if (!backends)
        abort();
    for (uint32_t i = 0; i < count; i++) { // entries are in order of their keys
        char path[160] = "backends";
        struct moon_slice name = is_table ? value->table.entries[i].key : value->string;
        if (is_table)
            snprintf(path, sizeof path, "backends.%.*s", MOON_SLICE_ARG(name));
        backends[i].weight = is_table ? (uint32_t)value->table.entries[i].value.number : 1;
        is_fine = find_backend(at, name, path, &backends[i]) && is_fine;
    }
    moon_split_init(split, backends, (uint16_t)count);
    return is_fine;
}

static bool compile_condition(const struct compiling *at, struct moon_slice text, uint32_t index,
                              struct moon_retry *retry)
{
    static const char *const names[] = {"connect", "reset", "timeout", NULL};
    bool *const flags[] = {&retry->on_connect, &retry->on_reset, &retry->on_timeout};
    char path[32];
    for (size_t i = 0; names[i]; i++) {
        if (!moon_slice_equal(moon_slice_from(names[i]), text))
            continue;
        *flags[i] = true;
        return true;
    }
    bool is_status = text.len == 3 && (text.ptr[0] == '4' || text.ptr[0] == '5');
    for (size_t i = 0; is_status && i < text.len; i++)
        is_status = text.ptr[i] >= '0' && text.ptr[i] <= '9';
    if (is_status) {
        unsigned bit =
            (unsigned)((text.ptr[0] - '4') * 100 + (text.ptr[1] - '0') * 10 + (text.ptr[2] - '0'));
        retry->statuses[bit / 64] |= (uint64_t)1 << (bit % 64);
        return true;
    }
    snprintf(path, sizeof path, "retry.on[%u]", index + 1);
    report(at, path, retry_hint, "found", text);
    return false;
}

// Without `on`: what can't have done anything twice.
static bool compile_retry(const struct compiling *at, struct moon_retry *retry)
{
    const struct moon_value *value = moon_value_get(&at->object->value, "retry");
    const struct moon_value *on = moon_value_get(value, "on");
    bool is_fine = true;
    if (!value)
        return true;
    retry->attempts = (uint8_t)moon_value_number(value, "attempts", 1);
    retry->backoff_ms = moon_value_ms(value, "backoff", 0.025);
    retry->on_connect = on == NULL;
    for (uint32_t i = 0; on && i < on->table.item_count; i++)
        is_fine = compile_condition(at, on->table.items[i].string, i, retry) && is_fine;
    return is_fine;
}

// Built-in upstreams answer requests: a stream route has none.
static bool check_builtins(const struct compiling *at, const struct moon_split *split)
{
    const struct moon_upstreams *upstreams = moon_snapshot_upstreams(at->compile->snapshot);
    if (!upstreams ||
        !moon_route_is_stream(moon_snapshot_listeners(at->compile->snapshot), at->object))
        return true;
    for (uint32_t i = 0; i < split->count; i++) {
        int32_t index = split->backends[i].upstream;
        const struct moon_upstream *upstream =
            index >= 0 ? moon_upstreams_at(upstreams, (size_t)index) : NULL;
        if (!upstream || !upstream->builtin)
            continue;
        report(at, "backends", "a route without HTTP needs endpoints with addresses",
               "built into the binary, for requests alone:", upstream->name);
        return false;
    }
    return true;
}

// What looks at requests has nothing to do on a stream route, and what looks at connections nothing on others.
static bool check_phases(const struct compiling *at, const struct moon_chain *chain)
{
    const struct moon_listeners *listeners = moon_snapshot_listeners(at->compile->snapshot);
    char path[32];
    if (!listeners) // told to be wrong: what a route is for is not known
        return true;
    if (!moon_route_is_stream(listeners, at->object)) {
        if (!moon_value_get(&at->object->value, "preread"))
            return true;
        moon_report_addf(at->compile->report, at->object->place,
                         moon_object_title(at->compile->model, at->object), "preread",
                         "requests have rewrite and access",
                         "it is for listeners with protocol \"tcp\" or \"tls\"");
        return false;
    }
    for (uint16_t i = 0; i < chain->count; i++) {
        const struct moon_filter_type *type = chain->filters[i].type;
        if (type->preread)
            continue;
        snprintf(path, sizeof path, "plugins[%u]", i + 1u);
        report(at, path, "bytes pass as they are: remove it",
               "has no meaning without requests, it has no preread:", moon_slice_from(type->name));
        return false;
    }
    return true;
}

static bool compile_one(const struct compiling *at, struct moon_action *action)
{
    const struct moon_value *value = &at->object->value;
    const struct moon_value *timeouts = moon_value_get(value, "timeouts");
    action->name = moon_route_name(value);
    action->is_grpc = has_grpc(at->object);
    action->timeouts.request_ms = moon_value_ms(timeouts, "request", 0);
    action->timeouts.response_ms = moon_value_ms(timeouts, "response", 0);
    action->timeouts.idle_ms = moon_value_ms(timeouts, "idle", 0);
    action->max_message_len = (uint32_t)moon_value_number(moon_value_get(value, "websocket"),
                                                          "max_message", MAX_MESSAGE_LEN);
    action->series = moon_series_names_add(at->compile->section->series, MOON_SERIES_ROUTE,
                                           moon_slice_from(action->name));
    bool has_prefix = find_prefix(at->object, &action->prefix_len);
    struct moon_plugins_args plugins = {at->compile, at->object, moon_slice_from(action->name),
                                        has_prefix};
    bool is_fine = moon_plugins_compile(&plugins, &action->chain, &action->answers);
    // A plugin that is broken might be the one that answers.
    bool is_needed = is_fine && !action->answers && !action->chain.may_answer;
    is_fine = is_fine && check_phases(at, &action->chain);
    is_fine = compile_retry(at, &action->retry) && is_fine;
    return compile_backends(at, is_needed, &action->split) && check_builtins(at, &action->split) &&
           is_fine;
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
        free(action->split.backends);
    }
    free(all->actions);
    free(all);
}

static int actions_compile(const struct moon_compile *compile, void **part)
{
    struct moon_actions *all = calloc(1, sizeof *all);
    bool is_fine = true;
    uint32_t phase_count = 0;
    if (!all)
        abort();
    all->actions = calloc(compile->object_count + 1, sizeof *all->actions);
    if (!all->actions)
        abort();
    for (size_t i = 0; i < compile->object_count; i++) {
        struct compiling at = {compile, compile->objects[i]};
        struct moon_action *action = &all->actions[all->count++];
        is_fine = compile_one(&at, action) && is_fine;
        all->has_code |= action->chain.is_code;
        action->split.index = action->split.has_phase ? phase_count++ : 0;
    }
    if (!is_fine) {
        actions_unref(all);
        return MOON_ECONFIG;
    }
    *part = all;
    return 0;
}

// Actions know upstreams by name and index, count under ids of which there is a bound, and stand by what their listeners speak.
static bool actions_are_same(const struct moon_snapshot *before, const struct moon_snapshot *now)
{
    const struct moon_actions *all = moon_snapshot_actions(before);
    return !all->has_code && moon_snapshot_listeners(before) == moon_snapshot_listeners(now) &&
           moon_access_counts_same(before, now) &&
           moon_upstreams_same_names(moon_snapshot_upstreams(before), moon_snapshot_upstreams(now));
}

const struct moon_section moon_action_section = {
    .name = "actions",
    .kind = "route",
    .schema = &route_schema,
    .is_same = actions_are_same,
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

uint32_t moon_actions_most_plugins(const struct moon_actions *actions)
{
    uint32_t most = 0;
    for (size_t i = 0; i < actions->count; i++)
        if (actions->actions[i].chain.count > most)
            most = actions->actions[i].chain.count;
    return most;
}
