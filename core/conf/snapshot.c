// Compiling a model: every object against the schemas of its kind first, then one section after another. What comes out is
// immutable but for its count of references.
#include "conf/conf.h"

#include "base/err.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum { SECTION_MAX_COUNT = 16 };

struct moon_snapshot {
    atomic_uint ref_count;
    const struct moon_section *const *sections;
    size_t section_count;
    void *parts[SECTION_MAX_COUNT];
    struct moon_model *model; // adopted, or NULL
    uint64_t number;
};

struct compiling {
    struct moon_model *model;
    const struct moon_section *const *sections;
    size_t section_count;
    struct moon_report *report;
    // some object of the section's kind breaks a schema: it is not compiled
    bool is_bad[SECTION_MAX_COUNT];
};

static void check_object(struct compiling *at, const struct moon_object *object)
{
    const struct moon_schema *schemas[SECTION_MAX_COUNT];
    size_t count = 0;
    bool is_of[SECTION_MAX_COUNT] = {false}, is_known = false;
    for (size_t i = 0; i < at->section_count; i++) {
        if (strcmp(at->sections[i]->kind, object->kind) != 0)
            continue;
        is_of[i] = is_known = true;
        if (at->sections[i]->schema)
            schemas[count++] = at->sections[i]->schema;
    }
    if (!is_known) {
        moon_report_addf(at->report, object->place, NULL, NULL, NULL, "nothing reads a \"%s\"",
                         object->kind);
        return;
    }
    struct moon_schema_check check = {.place = object->place,
                                      .object = moon_object_title(at->model, object),
                                      .report = at->report};
    bool is_fine = moon_schema_check(&check, &object->value, schemas, count);
    for (size_t i = 0; !is_fine && i < at->section_count; i++)
        at->is_bad[i] |= is_of[i];
}

// The objects of a section's kind; malloc'd.
static const struct moon_object **objects_of(const struct compiling *at,
                                             const struct moon_section *section, size_t *count)
{
    size_t all = moon_model_count(at->model);
    const struct moon_object **objects = calloc(all + 1, sizeof *objects);
    if (!objects)
        abort();
    *count = 0;
    for (size_t i = 0; i < all; i++)
        if (strcmp(moon_model_at(at->model, i)->kind, section->kind) == 0)
            objects[(*count)++] = moon_model_at(at->model, i);
    return objects;
}

static bool check_single(struct compiling *at, const struct moon_section *section,
                         const struct moon_object *const *objects, size_t count)
{
    if (!section->is_single || count <= 1)
        return true;
    char hint[64];
    snprintf(hint, sizeof hint, "the first is in line %u; put them together",
             objects[0]->place.line);
    moon_report_addf(at->report, objects[1]->place, section->kind, NULL, hint,
                     "there may be only one %s", section->kind);
    return false;
}

static int compile_section(struct compiling *at, struct moon_snapshot *snapshot, size_t index)
{
    const struct moon_section *section = at->sections[index];
    size_t count;
    const struct moon_object **objects = objects_of(at, section, &count);
    int err = check_single(at, section, objects, count) ? 0 : MOON_ECONFIG;
    struct moon_compile compile = {.section = section,
                                   .model = at->model,
                                   .objects = objects,
                                   .object_count = count,
                                   .snapshot = snapshot,
                                   .report = at->report};
    if (!err)
        err = section->compile(&compile, &snapshot->parts[index]);
    free(objects);
    return err;
}

int moon_conf_compile(struct moon_model *model, const struct moon_section *const *sections,
                      size_t section_count, struct moon_report *report, struct moon_snapshot **out)
{
    struct compiling at = {model, sections, section_count, report, {false}};
    size_t before = moon_report_count(report);
    for (size_t i = 0; i < moon_model_count(model); i++)
        check_object(&at, moon_model_at(model, i));
    struct moon_snapshot *snapshot = calloc(1, sizeof *snapshot);
    if (!snapshot || section_count > SECTION_MAX_COUNT)
        abort();
    atomic_init(&snapshot->ref_count, 1);
    snapshot->sections = sections;
    int err = 0;
    for (size_t i = 0; i < section_count; i++) { // later sections may have problems to tell, too
        int section_err = at.is_bad[i] ? MOON_ECONFIG : compile_section(&at, snapshot, i);
        err = err ? err : section_err;
        snapshot->section_count = i + 1;
    }
    if (!err && moon_report_count(report) > before)
        err = MOON_ECONFIG;
    if (err)
        moon_snapshot_unref(snapshot);
    else
        *out = snapshot;
    return err;
}

struct moon_snapshot *moon_snapshot_ref(struct moon_snapshot *snapshot)
{
    atomic_fetch_add_explicit(&snapshot->ref_count, 1, memory_order_relaxed);
    return snapshot;
}

void moon_snapshot_unref(struct moon_snapshot *snapshot)
{
    if (!snapshot || atomic_fetch_sub_explicit(&snapshot->ref_count, 1, memory_order_acq_rel) > 1)
        return;
    for (size_t i = snapshot->section_count; i > 0; i--)
        snapshot->sections[i - 1]->unref(snapshot->parts[i - 1]);
    moon_model_free(snapshot->model);
    free(snapshot);
}

void moon_snapshot_adopt(struct moon_snapshot *snapshot, struct moon_model *model)
{
    snapshot->model = model;
}

const struct moon_model *moon_snapshot_model(const struct moon_snapshot *snapshot)
{
    return snapshot->model;
}

void moon_snapshot_set_number(struct moon_snapshot *snapshot, uint64_t number)
{
    snapshot->number = number;
}

uint64_t moon_snapshot_number(const struct moon_snapshot *snapshot)
{
    return snapshot->number;
}

bool moon_snapshot_is_last(const struct moon_snapshot *snapshot)
{
    return atomic_load_explicit(&snapshot->ref_count, memory_order_acquire) == 1;
}

void *moon_snapshot_part(const struct moon_snapshot *snapshot, const char *section_name)
{
    for (size_t i = 0; i < snapshot->section_count; i++)
        if (strcmp(snapshot->sections[i]->name, section_name) == 0)
            return snapshot->parts[i];
    return NULL;
}
