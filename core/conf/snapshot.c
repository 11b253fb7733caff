// Compiling a model: every object against the schemas of its kind first, then one section after another. What comes out is
// immutable but for its count of references.
#include "conf/conf.h"

#include "base/err.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum { SECTION_MAX_COUNT = 16 };

// What a section compiled, shared by the snapshots that hold it.
struct part {
    atomic_uint ref_count;
    const struct moon_section *section;
    void *compiled;
};

struct moon_snapshot {
    atomic_uint ref_count;
    const struct moon_section *const *sections;
    size_t section_count;
    struct part *parts[SECTION_MAX_COUNT]; // NULL: it did not compile
    struct moon_model *model;              // adopted, or NULL
    uint64_t number;
};

struct compiling {
    const struct moon_conf_args *args;
    struct moon_model *model;
    const struct moon_section *const *sections;
    size_t section_count;
    struct moon_report *report;
    // some object of the section's kind breaks a schema: it is not compiled
    bool is_bad[SECTION_MAX_COUNT];
    // the objects of the section's kind say what they said before: they were checked then
    bool is_unchanged[SECTION_MAX_COUNT];
};

// ---- parts

static struct part *part_new(const struct moon_section *section, void *compiled)
{
    struct part *part = malloc(sizeof *part);
    if (!part)
        abort();
    atomic_init(&part->ref_count, 1);
    part->section = section;
    part->compiled = compiled;
    return part;
}

static void part_unref(struct part *part)
{
    if (!part || atomic_fetch_sub_explicit(&part->ref_count, 1, memory_order_acq_rel) > 1)
        return;
    part->section->unref(part->compiled);
    free(part);
}

// ---- what did not change

// The next object of a kind from `at` on, or NULL; `at` moves behind it.
static const struct moon_object *next_of(const struct moon_model *model, const char *kind,
                                         size_t *at)
{
    while (*at < moon_model_count(model)) {
        const struct moon_object *object = moon_model_at(model, (*at)++);
        if (strcmp(object->kind, kind) == 0)
            return object;
    }
    return NULL;
}

// By value and in order; where they stand does not count.
static bool kind_is_unchanged(const struct moon_model *before, const struct moon_model *now,
                              const char *kind)
{
    size_t at = 0, at_before = 0;
    for (;;) {
        const struct moon_object *x = next_of(before, kind, &at_before),
                                 *y = next_of(now, kind, &at);
        if (!x || !y)
            return x == y;
        if (x->is_lenient != y->is_lenient || !moon_value_equal(&x->value, &y->value))
            return false;
    }
}

static void find_unchanged(struct compiling *at)
{
    const struct moon_snapshot *before = at->args->before;
    if (!before || !before->model || before->sections != at->sections)
        return;
    for (size_t i = 0; i < at->section_count; i++) {
        const char *kind = at->sections[i]->kind;
        size_t first = 0;
        while (strcmp(at->sections[first]->kind, kind) != 0)
            first++;
        at->is_unchanged[i] =
            first < i ? at->is_unchanged[first] : kind_is_unchanged(before->model, at->model, kind);
    }
}

// ---- checking and compiling

static void check_object(struct compiling *at, const struct moon_object *object)
{
    const struct moon_schema *schemas[SECTION_MAX_COUNT];
    size_t count = 0;
    bool is_of[SECTION_MAX_COUNT] = {false}, is_known = false;
    for (size_t i = 0; i < at->section_count; i++) {
        if (strcmp(at->sections[i]->kind, object->kind) != 0)
            continue;
        if (at->is_unchanged[i])
            return;
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

static bool keep_part(const struct compiling *at, struct moon_snapshot *snapshot, size_t index)
{
    const struct moon_section *section = at->sections[index];
    const struct moon_snapshot *before = at->args->before;
    if (!at->is_unchanged[index] || !section->is_same || !section->is_same(before, snapshot))
        return false;
    snapshot->parts[index] = before->parts[index];
    atomic_fetch_add_explicit(&snapshot->parts[index]->ref_count, 1, memory_order_relaxed);
    return true;
}

static int compile_section(struct compiling *at, struct moon_snapshot *snapshot, size_t index)
{
    const struct moon_section *section = at->sections[index];
    void *compiled = NULL;
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
        err = section->compile(&compile, &compiled);
    free(objects);
    if (!err)
        snapshot->parts[index] = part_new(section, compiled);
    return err;
}

int moon_conf_compile(const struct moon_conf_args *args, struct moon_snapshot **out)
{
    struct compiling at = {.args = args,
                           .model = args->model,
                           .sections = args->sections,
                           .section_count = args->section_count,
                           .report = args->report};
    size_t before = moon_report_count(args->report);
    struct moon_snapshot *snapshot = calloc(1, sizeof *snapshot);
    if (!snapshot || args->section_count > SECTION_MAX_COUNT)
        abort();
    find_unchanged(&at);
    for (size_t i = 0; i < moon_model_count(at.model); i++)
        check_object(&at, moon_model_at(at.model, i));
    atomic_init(&snapshot->ref_count, 1);
    snapshot->sections = at.sections;
    int err = 0;
    for (size_t i = 0; i < at.section_count; i++) { // later sections may have problems to tell, too
        int section_err = at.is_bad[i] ? MOON_ECONFIG : 0;
        snapshot->section_count = i + 1;
        if (!section_err && (err || !keep_part(&at, snapshot, i)))
            section_err = compile_section(&at, snapshot, i);
        err = err ? err : section_err;
    }
    if (!err && moon_report_count(args->report) > before)
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
        part_unref(snapshot->parts[i - 1]);
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

static struct part *part_of(const struct moon_snapshot *snapshot, const char *section_name)
{
    for (size_t i = 0; i < snapshot->section_count; i++)
        if (strcmp(snapshot->sections[i]->name, section_name) == 0)
            return snapshot->parts[i];
    return NULL;
}

void *moon_snapshot_part(const struct moon_snapshot *snapshot, const char *section_name)
{
    const struct part *part = part_of(snapshot, section_name);
    return part ? part->compiled : NULL;
}

bool moon_snapshot_shares(const struct moon_snapshot *a, const struct moon_snapshot *b,
                          const char *section_name)
{
    const struct part *part = part_of(a, section_name);
    return part && part == part_of(b, section_name);
}
