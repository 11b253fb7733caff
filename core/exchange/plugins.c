// Compiles `plugins` of an object into a chain of filters: names looked up, tables checked against the filter's schema with
// their full key path, then handed to the filter's own compiler.
#include "exchange/plugins.h"

#include "filter/chain.h"
#include "filter/compile.h"
#include "filter/source.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Of a filter that takes no configuration.
static const struct moon_schema_key no_keys[] = {{.name = NULL}};
static const struct moon_schema no_schema = {no_keys, NULL, NULL};

enum { PLUGIN_TYPE_MAX_COUNT = 64 };

struct compiling {
    const struct moon_compile *compile;
    const struct moon_object *object;
    const char *title;
    bool has_prefix;
};

static const struct moon_filter_registry *registry_of(const struct compiling *at)
{
    static const struct moon_filter_registry none = {NULL, NULL};
    const struct moon_filter_registry *registry = at->compile->section->registry;
    return registry ? registry : &none;
}

static const struct moon_filter_type *find_type(const struct compiling *at, struct moon_slice name)
{
    const struct moon_filter_type *const *types = registry_of(at)->types;
    for (; types && *types; types++)
        if (moon_slice_equal(moon_slice_from((*types)->name), name))
            return *types;
    return NULL;
}

// The nearest plugin by name, or what there is.
static void unknown_plugin(const struct compiling *at, const char *path, struct moon_slice name)
{
    const struct moon_filter_type *const *types = registry_of(at)->types;
    const char *names[PLUGIN_TYPE_MAX_COUNT + 1] = {NULL};
    char hint[320];
    int used = snprintf(hint, sizeof hint, types ? "there are" : "this gateway has none");
    for (size_t i = 0; types && types[i] && i < PLUGIN_TYPE_MAX_COUNT; i++) {
        names[i] = types[i]->name;
        if (used >= 0 && (size_t)used < sizeof hint)
            used +=
                snprintf(hint + used, sizeof hint - (size_t)used, "%s %s", i ? "," : "", names[i]);
    }
    if (used >= 0 && (size_t)used < sizeof hint)
        snprintf(hint + used, sizeof hint - (size_t)used,
                 "; one of your own is plugins/NAME/handler.lua beside the script");
    const char *nearest = moon_nearest_name(name, names);
    if (nearest)
        snprintf(hint, sizeof hint, "did you mean \"%s\"?", nearest);
    moon_report_addf(at->compile->report, at->object->place, at->title, path, hint,
                     "there is no plugin \"%.*s\"", MOON_SLICE_ARG(name));
}

// One item of plugins: { "name", key = value } or "name". False with a problem when it is neither.
static bool read_item(const struct compiling *at, const struct moon_value *item, const char *path,
                      struct moon_slice *name, struct moon_value *conf)
{
    *conf = (struct moon_value){.kind = MOON_VALUE_TABLE};
    if (item->kind == MOON_VALUE_STRING) {
        *name = item->string;
        return true;
    }
    if (item->kind == MOON_VALUE_TABLE && item->table.item_count == 1 &&
        item->table.items[0].kind == MOON_VALUE_STRING) {
        *name = item->table.items[0].string;
        conf->table.entries = item->table.entries;
        conf->table.entry_count = item->table.entry_count;
        return true;
    }
    moon_report_addf(at->compile->report, at->object->place, at->title, path,
                     "expected { \"plugin\", key = value }", "found %s that names no plugin",
                     moon_value_kind_name(item->kind));
    return false;
}

// A plugin that is no type of ours.
static bool find_in_source(const struct compiling *at, const struct moon_filter_compile *compile,
                           struct moon_slice name, const struct moon_value *conf,
                           struct moon_filter *filter)
{
    const struct moon_filter_source *source = registry_of(at)->source;
    struct moon_code *code = moon_model_code(at->compile->model);
    int err = source && code ? source->plugin(code, compile, name, conf, filter) : -ENOENT;
    if (err == -ENOENT)
        unknown_plugin(at, compile->path, name);
    return err == 0;
}

static bool compile_filter(const struct compiling *at, const struct moon_value *item,
                           const char *path, struct moon_filter *filter)
{
    struct moon_slice name;
    struct moon_value conf;
    if (!read_item(at, item, path, &name, &conf))
        return false;
    struct moon_filter_compile compile = {.report = at->compile->report,
                                          .place = at->object->place,
                                          .title = at->title,
                                          .path = path,
                                          .has_prefix = at->has_prefix};
    filter->type = find_type(at, name);
    if (!filter->type)
        return find_in_source(at, &compile, name, &conf, filter);
    struct moon_schema_check check = {at->object->place, at->title, at->compile->report, path};
    const struct moon_schema *schema = filter->type->schema ? filter->type->schema : &no_schema;
    if (!moon_schema_check(&check, &conf, &schema, 1))
        return false;
    return !filter->type->compile || filter->type->compile(&compile, &conf, &filter->conf) == 0;
}

static bool check_excludes(const struct compiling *at, const struct moon_filter *filters,
                           uint32_t index, const char *path)
{
    const char *excludes = filters[index].type->excludes;
    for (uint32_t i = 0; excludes && i < index; i++) {
        if (!filters[i].type || strcmp(filters[i].type->name, excludes) != 0)
            continue;
        moon_report_addf(at->compile->report, at->object->place, at->title, path,
                         "one route has one of them", "cannot stand together with \"%s\"",
                         excludes);
        return false;
    }
    return true;
}

// What only has a say about connections does nothing in a route.
static bool check_place(const struct compiling *at, const struct moon_filter_type *type,
                        const char *path)
{
    struct moon_chain alone = {.count = 0};
    moon_chain_note(&alone, type);
    if (!alone.has_certificate || !moon_chain_is_idle(&alone) || alone.has_preread ||
        strcmp(at->object->kind, "route") != 0)
        return true;
    moon_report_addf(at->compile->report, at->object->place, at->title, path,
                     "list it in the `plugins` of a listener",
                     "the plugin \"%s\" runs in handshakes alone, before there is a route",
                     type->name);
    return false;
}

// The functions that stand in the object itself come last.
static bool add_functions(const struct compiling *at, struct moon_slice name,
                          struct moon_filter *filter)
{
    const struct moon_filter_source *source = registry_of(at)->source;
    struct moon_code *code = moon_model_code(at->compile->model);
    return source && code &&
           source->functions(code, at->object->kind, name, &at->object->value, filter) == 0;
}

static bool check_list(const struct compiling *at, const struct moon_value *list)
{
    if (list && list->table.entry_count)
        moon_report_addf(at->compile->report, at->object->place, at->title, "plugins",
                         "expected a list of { \"plugin\", key = value }",
                         "not a list: key \"%.*s\"", MOON_SLICE_ARG(list->table.entries[0].key));
    else if (list && list->table.item_count >= MOON_CHAIN_MAX_COUNT)
        moon_report_addf(at->compile->report, at->object->place, at->title, "plugins", "at most 63",
                         "found %u plugins", list->table.item_count);
    else
        return true;
    return false;
}

bool moon_plugins_compile(const struct moon_plugins_args *args, struct moon_chain *chain,
                          bool *answers)
{
    const struct moon_value *list = moon_value_get(&args->object->value, "plugins");
    struct compiling at = {args->compile, args->object,
                           moon_object_title(args->compile->model, args->object), args->has_prefix};
    bool is_fine = true;
    if (!check_list(&at, list))
        return false;
    uint32_t count = list ? list->table.item_count : 0;
    struct moon_filter *filters = moon_filter_alloc(count + 1, sizeof *filters);
    chain->filters = filters;
    chain->count = (uint16_t)count;
    for (uint32_t i = 0; i < count; i++) {
        char path[32];
        snprintf(path, sizeof path, "plugins[%u]", i + 1);
        if (!compile_filter(&at, &list->table.items[i], path, &filters[i]) ||
            !check_excludes(&at, filters, i, path) || !check_place(&at, filters[i].type, path)) {
            is_fine = false;
            continue;
        }
        moon_chain_note(chain, filters[i].type);
        *answers |= filters[i].type->answers;
    }
    if (is_fine && add_functions(&at, args->name, &filters[count]))
        moon_chain_note(chain, filters[chain->count++].type);
    return is_fine;
}

void moon_plugins_fini(struct moon_chain *chain)
{
    for (uint16_t i = 0; i < chain->count; i++) {
        const struct moon_filter *filter = &chain->filters[i];
        if (filter->type && filter->type->unref && filter->conf)
            filter->type->unref(filter->conf);
    }
    free((void *)chain->filters);
}
