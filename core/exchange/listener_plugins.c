// See listener_plugins.h.
#include "exchange/listener_plugins.h"

#include "base/err.h"
#include "exchange/action.h"
#include "exchange/plugins.h"
#include "filter/chain.h"

#include <stdlib.h>
#include <string.h>

struct moon_listener_plugins {
    struct moon_chain *chains;
    size_t count;
};

static const struct moon_schema_key listener_keys[] = {
    {.name = "plugins",
     .types = MOON_TYPE_TABLE,
     .expected = "a list of { \"plugin\", key = value }"},
    {.name = "certificate", .types = MOON_TYPE_FUNCTION, .expected = "a function"},
    {.name = "rewrite", .types = MOON_TYPE_FUNCTION, .expected = "a function"},
    {.name = "access", .types = MOON_TYPE_FUNCTION, .expected = "a function"},
    {.name = "header_filter", .types = MOON_TYPE_FUNCTION, .expected = "a function"},
    {.name = "body_filter", .types = MOON_TYPE_FUNCTION, .expected = "a function"},
    {.name = "websocket_frame", .types = MOON_TYPE_FUNCTION, .expected = "a function"},
    {.name = "log", .types = MOON_TYPE_FUNCTION, .expected = "a function"},
    {.name = NULL},
};
static const struct moon_schema listener_schema = {listener_keys, NULL, NULL};

static void listener_plugins_unref(void *part)
{
    struct moon_listener_plugins *all = part;
    if (!all)
        return;
    for (size_t i = 0; i < all->count; i++)
        moon_plugins_fini(&all->chains[i]);
    free(all->chains);
    free(all);
}

// A request runs both lists, as one.
static bool check_sum(const struct moon_compile *compile, const struct moon_object *listener,
                      uint32_t count)
{
    const struct moon_actions *actions = moon_snapshot_actions(compile->snapshot);
    uint32_t most = actions ? moon_actions_most_plugins(actions) : 0;
    if (count == 0 || count + most <= MOON_CHAIN_MAX_COUNT)
        return true;
    moon_report_addf(compile->report, listener->place, moon_object_title(compile->model, listener),
                     "plugins", "at most 64 of a listener and a route together",
                     "found %u plugins, and a route has %u", count, most);
    return false;
}

// ---- plugins that exclude each other, one in either list

static const struct moon_filter_type *find_type(const struct moon_chain *chain, const char *name)
{
    for (uint32_t i = 0; i < chain->count; i++)
        if (strcmp(chain->filters[i].type->name, name) == 0)
            return chain->filters[i].type;
    return NULL;
}

// A route that names no listeners has all of them.
static bool has_listener(const struct moon_object *route, struct moon_slice listener)
{
    const struct moon_value *names = moon_value_get(&route->value, "listeners");
    if (!names)
        return true;
    for (uint32_t i = 0; i < names->table.item_count; i++)
        if (moon_slice_equal(names->table.items[i].string, listener))
            return true;
    return false;
}

static bool check_route(const struct moon_compile *compile, const struct moon_object *listener,
                        const struct moon_chain *chain, const struct moon_object *route,
                        const struct moon_chain *own)
{
    for (uint32_t i = 0; i < chain->count; i++) {
        const struct moon_filter_type *type = chain->filters[i].type;
        if (!type->excludes || !find_type(own, type->excludes))
            continue;
        moon_report_addf(
            compile->report, route->place, moon_object_title(compile->model, route), "plugins",
            "a request runs the plugins of its listener, then those of its route: take "
            "one of them away, or name other `listeners` in the route",
            "\"%s\" cannot stand together with \"%s\", which its listener has (line %d)",
            type->excludes, type->name, listener->place.line);
        return false;
    }
    return true;
}

// Actions stand in the order of their routes.
static bool check_excludes(const struct moon_compile *compile, const struct moon_object *listener,
                           const struct moon_chain *chain)
{
    const struct moon_actions *actions = moon_snapshot_actions(compile->snapshot);
    struct moon_slice name = moon_value_string(&listener->value, "name", MOON_SLICE(""));
    bool excludes = false, is_fine = true;
    int index = 0;
    for (uint32_t i = 0; i < chain->count; i++)
        excludes |= chain->filters[i].type->excludes != NULL;
    for (size_t i = 0; actions && excludes && i < moon_model_count(compile->model); i++) {
        const struct moon_object *route = moon_model_at(compile->model, i);
        if (strcmp(route->kind, moon_action_section.kind) != 0)
            continue;
        const struct moon_chain *own = &moon_actions_at(actions, index++)->chain;
        if (has_listener(route, name))
            is_fine = check_route(compile, listener, chain, route, own) && is_fine;
    }
    return is_fine;
}

// The first function among its keys but that one; NULL: there is none.
static const char *first_function(const struct moon_value *table, const char *except)
{
    for (uint32_t i = 0; i < table->table.entry_count; i++)
        if (table->table.entries[i].value.kind == MOON_VALUE_FUNCTION &&
            strcmp(table->table.entries[i].key.ptr, except) != 0)
            return table->table.entries[i].key.ptr;
    return NULL;
}

// It runs where TLS ends.
static bool check_certificate(const struct moon_compile *compile,
                              const struct moon_object *listener, struct moon_slice protocol)
{
    const struct moon_value *tls = moon_value_get(&listener->value, "tls");
    struct moon_slice mode = moon_value_string(tls, "mode", MOON_SLICE("terminate"));
    const char *title = moon_object_title(compile->model, listener);
    bool is_tls = moon_slice_equal(protocol, MOON_SLICE("https")) ||
                  moon_slice_equal(protocol, MOON_SLICE("tls"));
    if (!moon_value_get(&listener->value, "certificate"))
        return true;
    if (!is_tls)
        moon_report_addf(compile->report, listener->place, title, "certificate",
                         "it runs in TLS handshakes: add protocol = \"https\"",
                         "has no meaning with \"%.*s\"", MOON_SLICE_ARG(protocol));
    else if (moon_slice_equal(mode, MOON_SLICE("passthrough")))
        moon_report_addf(compile->report, listener->place, title, "certificate",
                         "remove it, or end TLS here: mode = \"terminate\"",
                         "has no meaning with mode \"passthrough\"");
    else
        return true;
    return false;
}

// A function of a listener is known by the listener's name, and runs where there is something for it.
static bool check_functions(const struct moon_compile *compile, const struct moon_object *listener)
{
    const struct moon_value *table = &listener->value;
    struct moon_slice protocol = moon_value_string(table, "protocol", MOON_SLICE("http"));
    const char *title = moon_object_title(compile->model, listener);
    const char *any = first_function(table, ""),
               *of_requests = first_function(table, "certificate");
    if (any && !moon_value_get(table, "name")) {
        moon_report_addf(compile->report, listener->place, title, any,
                         "add name = \"edge\": a function is known by the name of its listener",
                         "a listener with a function has no name");
        return false;
    }
    if (of_requests && !moon_slice_starts(protocol, MOON_SLICE("http"))) {
        moon_report_addf(compile->report, listener->place, title, of_requests,
                         "bytes pass as they are: remove it", "has no meaning with \"%.*s\"",
                         MOON_SLICE_ARG(protocol));
        return false;
    }
    return check_certificate(compile, listener, protocol);
}

static int listener_plugins_compile(const struct moon_compile *compile, void **part)
{
    struct moon_listener_plugins *all = calloc(1, sizeof *all);
    bool is_fine = true;
    if (!all)
        abort();
    all->chains = calloc(compile->object_count + 1, sizeof *all->chains);
    if (!all->chains)
        abort();
    for (size_t i = 0; i < compile->object_count; i++) {
        struct moon_chain *chain = &all->chains[all->count++];
        struct moon_slice name =
            moon_value_string(&compile->objects[i]->value, "name", MOON_SLICE(""));
        struct moon_plugins_args args = {compile, compile->objects[i], name, false};
        bool answers = false; // then no request of this listener sees the plugins of a route
        is_fine = moon_plugins_compile(&args, chain, &answers) &&
                  check_sum(compile, compile->objects[i], chain->count) &&
                  (answers || check_excludes(compile, compile->objects[i], chain)) &&
                  check_functions(compile, compile->objects[i]) && is_fine;
    }
    if (!is_fine) {
        listener_plugins_unref(all);
        return MOON_ECONFIG;
    }
    *part = all;
    return 0;
}

const struct moon_section moon_listener_plugins_section = {
    .name = "listener_plugins",
    .kind = "listener",
    .schema = &listener_schema,
    .compile = listener_plugins_compile,
    .unref = listener_plugins_unref,
};

const struct moon_listener_plugins *
moon_snapshot_listener_plugins(const struct moon_snapshot *snapshot)
{
    return moon_snapshot_part(snapshot, moon_listener_plugins_section.name);
}

const struct moon_chain *moon_listener_plugins_at(const struct moon_listener_plugins *all,
                                                  int index)
{
    return moon_chain_is_idle(&all->chains[index]) ? NULL : &all->chains[index];
}

const struct moon_chain *moon_listener_plugins_certificate(const struct moon_listener_plugins *all,
                                                           int index)
{
    return all->chains[index].has_certificate ? &all->chains[index] : NULL;
}
