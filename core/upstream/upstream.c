// Compiles moongate.upstream { ... } objects.
#include "upstream/upstream.h"

#include "base/err.h"
#include "filter/filter.h"
#include "obs/series.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct moon_upstreams {
    struct moon_upstream *upstreams;
    const char **names;
    size_t count;
};

static const char *const balance_choices[] = {"round_robin", NULL};

static const struct moon_schema_key endpoint_keys[] = {
    {.name = "weight",
     .types = MOON_TYPE_NUMBER,
     .is_integer = true,
     .min = 0,
     .max = 1000000,
     .expected = "a whole number, 0 to 1000000"},
    {.name = NULL},
};
static const struct moon_schema_key endpoint_address = {
    .types = MOON_TYPE_STRING, .expected = "an address such as \"10.0.0.5:8000\""};
static const struct moon_schema endpoint_schema = {endpoint_keys, &endpoint_address, NULL};
static const struct moon_schema_key endpoint_item = {
    .types = MOON_TYPE_STRING | MOON_TYPE_TABLE,
    .table = &endpoint_schema,
    .expected = "an address such as \"10.0.0.5:8000\", or { \"10.0.0.5:8000\", weight = 2 }"};
static const struct moon_schema_key no_keys[] = {{.name = NULL}};
static const struct moon_schema endpoints_schema = {no_keys, &endpoint_item, NULL};

static const struct moon_schema_key upstream_keys[] = {
    {.name = "name", .types = MOON_TYPE_STRING, .is_required = true, .expected = "a name"},
    {.name = "endpoints",
     .types = MOON_TYPE_TABLE,
     .is_required = true,
     .table = &endpoints_schema,
     .expected = "a list of addresses"},
    {.name = "balance",
     .types = MOON_TYPE_STRING,
     .choices = balance_choices,
     .expected = "\"round_robin\""},
    {.name = "health", .types = MOON_TYPE_TABLE, .is_later = true},
    {.name = "limits", .types = MOON_TYPE_TABLE, .is_later = true},
    {.name = "tls", .types = MOON_TYPE_TABLE, .is_later = true},
    {.name = "timeouts", .types = MOON_TYPE_TABLE, .is_later = true},
    {.name = NULL},
};
static const struct moon_schema upstream_schema = {upstream_keys, NULL, NULL};

static void report(const struct moon_compile *compile, const struct moon_object *object,
                   const char *path, const char *hint, const char *message, struct moon_slice found)
{
    moon_report_addf(compile->report, object->place, moon_object_title(compile->model, object),
                     path, hint, "%s \"%.*s\"", message, MOON_SLICE_ARG(found));
}

static const struct moon_builtin *find_builtin(const struct moon_compile *compile,
                                               struct moon_slice name)
{
    const struct moon_builtin *const *builtins = compile->section->registry;
    for (; builtins && *builtins; builtins++)
        if (moon_slice_equal(moon_slice_from((*builtins)->name), name))
            return *builtins;
    return NULL;
}

// One item of endpoints: its address text and weight.
static struct moon_slice endpoint_text(const struct moon_value *item, uint32_t *weight)
{
    *weight = 1;
    if (item->kind == MOON_VALUE_STRING)
        return item->string;
    *weight = (uint32_t)moon_value_number(item, "weight", 1);
    return item->table.item_count ? item->table.items[0].string : MOON_SLICE("");
}

static bool compile_builtin(const struct moon_compile *compile, const struct moon_object *object,
                            struct moon_slice text, struct moon_upstream *out)
{
    out->builtin = find_builtin(compile, moon_slice_skip(text, strlen("builtin:")));
    if (!out->builtin)
        report(compile, object, "endpoints[1]", "the binary has \"builtin:echo\"",
               "there is no built-in upstream", text);
    return out->builtin != NULL;
}

static bool compile_endpoints(const struct moon_compile *compile, const struct moon_object *object,
                              struct moon_upstream *out)
{
    const struct moon_value *list = moon_value_get(&object->value, "endpoints");
    uint32_t count = list->table.item_count, weight;
    bool is_fine = true;
    if (count == 1 &&
        moon_slice_starts(endpoint_text(&list->table.items[0], &weight), MOON_SLICE("builtin:")))
        return compile_builtin(compile, object, endpoint_text(&list->table.items[0], &weight), out);
    if (count > UINT16_MAX) {
        report(compile, object, "endpoints", "at most 65535 endpoints", "too many endpoints in",
               out->name);
        return false;
    }
    uint32_t *weights = calloc(count + 1, sizeof *weights);
    out->endpoints = calloc(count + 1, sizeof *out->endpoints);
    if (!weights || !out->endpoints)
        abort();
    for (uint32_t i = 0; i < count; i++) {
        struct moon_slice text = endpoint_text(&list->table.items[i], &weights[i]);
        char path[32];
        snprintf(path, sizeof path, "endpoints[%u]", i + 1);
        out->endpoints[i].weight = weights[i];
        if (moon_address_parse(text, &out->endpoints[i].address))
            continue;
        report(compile, object, path,
               "an IP address with a port, \"10.0.0.5:8000\" or \"[::1]:8000\" (host names are not "
               "supported yet)",
               "not an address:", text);
        is_fine = false;
    }
    out->endpoint_count = (uint16_t)count;
    if (moon_cycle_init(&out->cycle, weights, (uint16_t)count) < 0)
        abort();
    free(weights);
    return is_fine;
}

static void upstreams_unref(void *part)
{
    struct moon_upstreams *all = part;
    if (!all)
        return;
    for (size_t i = 0; i < all->count; i++) {
        free(all->upstreams[i].endpoints);
        free((void *)all->upstreams[i].name.ptr);
        moon_cycle_fini(&all->upstreams[i].cycle);
    }
    free(all->upstreams);
    free(all->names);
    free(all);
}

static bool compile_one(const struct moon_compile *compile, const struct moon_object *object,
                        struct moon_upstreams *all)
{
    struct moon_slice name = moon_value_string(&object->value, "name", MOON_SLICE(""));
    if (moon_upstreams_find(all, name)) {
        report(compile, object, "name", "names of upstreams are unique",
               "there is already an upstream", name);
        return false;
    }
    struct moon_upstream *upstream = &all->upstreams[all->count];
    char *copy = strndup(name.ptr, name.len);
    if (!copy)
        abort();
    upstream->name = (struct moon_slice){copy, name.len};
    upstream->index = (uint32_t)all->count;
    upstream->series = moon_series_names_add(compile->section->series, MOON_SERIES_UPSTREAM, name);
    all->names[all->count++] = copy;
    return compile_endpoints(compile, object, upstream);
}

static int upstreams_compile(const struct moon_compile *compile, void **part)
{
    struct moon_upstreams *all = calloc(1, sizeof *all);
    bool is_fine = true;
    if (!all)
        abort();
    all->upstreams = calloc(compile->object_count + 1, sizeof *all->upstreams);
    all->names = calloc(compile->object_count + 1, sizeof *all->names);
    if (!all->upstreams || !all->names)
        abort();
    for (size_t i = 0; i < compile->object_count; i++)
        is_fine = compile_one(compile, compile->objects[i], all) && is_fine;
    if (!is_fine) {
        upstreams_unref(all);
        return MOON_ECONFIG;
    }
    *part = all;
    return 0;
}

const struct moon_section moon_upstream_section = {
    .name = "upstreams",
    .kind = "upstream",
    .schema = &upstream_schema,
    .compile = upstreams_compile,
    .unref = upstreams_unref,
};

const struct moon_upstreams *moon_snapshot_upstreams(const struct moon_snapshot *snapshot)
{
    return moon_snapshot_part(snapshot, moon_upstream_section.name);
}

const struct moon_upstream *moon_upstreams_find(const struct moon_upstreams *upstreams,
                                                struct moon_slice name)
{
    for (size_t i = 0; i < upstreams->count; i++)
        if (moon_slice_equal(upstreams->upstreams[i].name, name))
            return &upstreams->upstreams[i];
    return NULL;
}

const char *const *moon_upstreams_names(const struct moon_upstreams *upstreams)
{
    return upstreams->names;
}
