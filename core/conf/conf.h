// The model and its compiled form. Data flows one way:
//
//   producer (script/) -> struct moon_model (plain values) -> moon_conf_compile: schemas, then each section's compiler in rank
//   order -> struct moon_snapshot (opaque, refcounted parts) -> workers, by pointer
//
// A part whose inputs are those of the snapshot before is not compiled again: both hold it.
//
// Rooms register sections; gateway/ passes them as an array in rank order. conf/ knows none of them.
#pragma once

#include "conf/report.h"
#include "conf/schema.h"
#include "conf/value.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

// One call of a script: moongate.route { ... }.
struct moon_object {
    const char *kind; // "settings", "listener", "upstream", "route"
    struct moon_place place;
    struct moon_value value; // a table
    // its producer applies objects one by one: a reference to nothing is no error but answers 500
    bool is_lenient;
};

struct moon_code;
struct moon_model;

struct moon_model *moon_model_new(void);
void moon_model_free(struct moon_model *model);
// Where values and texts of the model are allocated (malloc on OOM aborts: the builder is not a worker).
void *moon_model_alloc(struct moon_model *model, size_t len);
// NUL behind it
struct moon_slice moon_model_copy(struct moon_model *model, struct moon_slice text);
void moon_model_add(struct moon_model *model, const struct moon_object *object);
size_t moon_model_count(const struct moon_model *model);
const struct moon_object *moon_model_at(const struct moon_model *model, size_t index);
// `route "users"`, `listener` for messages; a text in the model.
const char *moon_object_title(struct moon_model *model, const struct moon_object *object);

// The code that the model's objects came with: opaque here, shared, its producer's (script/). The model takes one reference and
// lets go of it with `unref` when it is freed. At most once.
void moon_model_set_code(struct moon_model *model, struct moon_code *code,
                         void (*unref)(struct moon_code *code));
// NULL: its producer has none.
struct moon_code *moon_model_code(const struct moon_model *model);

// The objects of one kind (NULL: all) as a JSON list of { kind, place, value }. Values of keys that name secrets are
// "***"; functions are "<function>".
void moon_model_write_json(const struct moon_model *model, const char *kind, FILE *out);
// The objects as a configuration script that makes the same model. 0, or -ENOTSUP and the first object that holds a function,
// which no text can keep: what was written is no script then.
int moon_model_write_lua(const struct moon_model *model, FILE *out,
                         const struct moon_object **refused);

struct moon_snapshot;
struct moon_section;
struct moon_series_names;

struct moon_compile {
    const struct moon_section *section;
    struct moon_model *model;
    const struct moon_object *const *objects; // of the section's kind, in order
    size_t object_count;
    const struct moon_snapshot *snapshot; // parts of earlier sections that compiled are in place
    struct moon_report *report;
};

struct moon_section {
    const char *name;                 // of the part; unique
    const char *kind;                 // of the objects it reads; several sections may read one kind
    const struct moon_schema *schema; // its keys of that kind; NULL: it adds none
    bool is_single;                   // at most one object of the kind
    // what gateway/ hands to the compiler (filters, built-ins); may be NULL
    const void *registry;
    // where the names that its objects are counted by get their ids; NULL: they are not counted
    struct moon_series_names *series;
    // A part is kept from one snapshot to the next where the section's objects say the same (places aside) and this holds: what
    // compile takes from parts of earlier sections says the same in both. Asked only where those compiled. What is compiled
    // refers neither to the model nor to other parts then, nor keeps places. NULL: it is compiled each time.
    bool (*is_same)(const struct moon_snapshot *before, const struct moon_snapshot *now);
    // 0, or MOON_ECONFIG with problems in the report
    int (*compile)(const struct moon_compile *compile, void **part);
    void (*unref)(void *part);
};

struct moon_conf_args {
    struct moon_model *model;
    const struct moon_section *const *sections; // outlives the snapshot
    size_t section_count;
    // its parts may be kept; it has its model, and the same sections. NULL: everything is compiled
    const struct moon_snapshot *before;
    struct moon_report *report;
};

// 0 and a snapshot with one reference, or MOON_ECONFIG with the report filled. An object of a kind that no section reads is a
// problem too.
int moon_conf_compile(const struct moon_conf_args *args, struct moon_snapshot **out);
// Whether both snapshots hold the same part of that section.
bool moon_snapshot_shares(const struct moon_snapshot *a, const struct moon_snapshot *b,
                          const char *section_name);

// The snapshot takes the model it was compiled from, which is freed with it.
void moon_snapshot_adopt(struct moon_snapshot *snapshot, struct moon_model *model);
// NULL unless adopted.
const struct moon_model *moon_snapshot_model(const struct moon_snapshot *snapshot);
// A number that grows with every snapshot that was put into service; 0 before.
void moon_snapshot_set_number(struct moon_snapshot *snapshot, uint64_t number);
uint64_t moon_snapshot_number(const struct moon_snapshot *snapshot);
// Whether nobody else holds a reference: for the owner that frees it off the workers. Thread safe.
bool moon_snapshot_is_last(const struct moon_snapshot *snapshot);
// Thread safe.
struct moon_snapshot *moon_snapshot_ref(struct moon_snapshot *snapshot);
void moon_snapshot_unref(struct moon_snapshot *snapshot);
// The part of a section by its name; never NULL in a complete snapshot, NULL while compiling when its section failed. Rooms wrap it in a typed accessor, off the hot path.
void *moon_snapshot_part(const struct moon_snapshot *snapshot, const char *section_name);
