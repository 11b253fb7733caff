// A list of records: what was asked for, and the answer. Scripts read few things, so a list it is.
#include "script/inputs.h"

#include "io/world.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_MAX_LEN = 64 << 20 };

enum kind { KIND_FILE, KIND_ENV };

struct record {
    enum kind kind;
    char *name, *text;
    size_t len;
    int err;
};

struct moon_inputs {
    struct moon_world *world;
    struct record *records;
    size_t count, cap;
    uint64_t wall_ms;
    bool is_frozen, took_chance;
};

struct moon_inputs *moon_inputs_new(struct moon_world *world)
{
    struct moon_inputs *inputs = calloc(1, sizeof *inputs);
    if (!inputs)
        abort();
    inputs->world = world;
    inputs->wall_ms = moon_world_wall_ms(world);
    return inputs;
}

void moon_inputs_free(struct moon_inputs *inputs)
{
    if (!inputs)
        return;
    for (size_t i = 0; i < inputs->count; i++) {
        free(inputs->records[i].name);
        free(inputs->records[i].text);
    }
    free(inputs->records);
    free(inputs);
}

void moon_inputs_freeze(struct moon_inputs *inputs)
{
    inputs->is_frozen = true;
}

static struct record *find(const struct moon_inputs *inputs, enum kind kind, const char *name)
{
    for (size_t i = 0; i < inputs->count; i++)
        if (inputs->records[i].kind == kind && strcmp(inputs->records[i].name, name) == 0)
            return &inputs->records[i];
    return NULL;
}

static struct record *add(struct moon_inputs *inputs, enum kind kind, const char *name)
{
    if (inputs->count == inputs->cap) {
        inputs->cap = inputs->cap ? inputs->cap * 2 : 16;
        inputs->records = realloc(inputs->records, inputs->cap * sizeof *inputs->records);
        if (!inputs->records)
            abort();
    }
    struct record *record = &inputs->records[inputs->count++];
    *record = (struct record){.kind = kind, .name = strdup(name)};
    if (!record->name)
        abort();
    return record;
}

static int answer(const struct record *record, struct moon_slice *out)
{
    *out = (struct moon_slice){record->text, record->len};
    return record->err;
}

int moon_inputs_file(struct moon_inputs *inputs, const char *path, struct moon_slice *out)
{
    struct record *record = find(inputs, KIND_FILE, path);
    if (!record && inputs->is_frozen)
        return -ESTALE;
    if (!record) {
        record = add(inputs, KIND_FILE, path);
        record->err =
            moon_world_read_file(inputs->world, path, FILE_MAX_LEN, &record->text, &record->len);
    }
    return answer(record, out);
}

void moon_inputs_put_file(struct moon_inputs *inputs, const char *path, struct moon_slice text)
{
    struct record *record = add(inputs, KIND_FILE, path);
    record->text = strndup(text.ptr, text.len);
    if (!record->text)
        abort();
    record->len = text.len;
}

int moon_inputs_env(struct moon_inputs *inputs, const char *name, struct moon_slice *out)
{
    struct record *record = find(inputs, KIND_ENV, name);
    if (!record && inputs->is_frozen)
        return -ESTALE;
    if (!record) {
        const char *value = getenv(name);
        record = add(inputs, KIND_ENV, name);
        record->err = value ? 0 : -ENOENT;
        record->text = value ? strdup(value) : NULL;
        record->len = value ? strlen(value) : 0;
    }
    return answer(record, out);
}

uint64_t moon_inputs_wall_ms(struct moon_inputs *inputs)
{
    inputs->took_chance = true;
    return inputs->wall_ms;
}

uint64_t moon_inputs_seed(struct moon_inputs *inputs)
{
    inputs->took_chance = true;
    return inputs->wall_ms * UINT64_C(0x9e3779b97f4a7c15);
}

bool moon_inputs_equal(const struct moon_inputs *a, const struct moon_inputs *b)
{
    if (a->count != b->count || a->took_chance || b->took_chance)
        return false;
    for (size_t i = 0; i < a->count; i++) {
        const struct record *x = &a->records[i], *y = find(b, x->kind, x->name);
        if (!y || x->err != y->err || x->len != y->len ||
            (x->len && memcmp(x->text, y->text, x->len) != 0))
            return false;
    }
    return true;
}
