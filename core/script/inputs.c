// A list of records: what was asked for, and the answer. Scripts read few things, so a list it is.
//
// As text: a line "wall_ms took_chance count", then each record: a line "kind err name_len text_len", the name, the text and an end of
// line. Lengths tell where things end, whatever they hold.
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
    record->text = moon_slice_dup(text);
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

// ---- as text

void moon_inputs_write(const struct moon_inputs *inputs, FILE *out)
{
    fprintf(out, "%llu %d %zu\n", (unsigned long long)inputs->wall_ms, inputs->took_chance,
            inputs->count);
    for (size_t i = 0; i < inputs->count; i++) {
        const struct record *record = &inputs->records[i];
        fprintf(out, "%d %d %zu %zu\n%s", (int)record->kind, record->err, strlen(record->name),
                record->len, record->name);
        if (record->len)
            fwrite(record->text, 1, record->len, out);
        fputc('\n', out);
    }
}

// The numbers of a line, which is taken off the text. False: they are not there.
static bool read_numbers(struct moon_slice *text, long long *numbers, size_t count)
{
    char line[128], *at = line;
    const char *end = text->len ? memchr(text->ptr, '\n', text->len) : NULL;
    size_t len = end ? (size_t)(end - text->ptr) : sizeof line;
    if (len >= sizeof line)
        return false;
    memcpy(line, text->ptr, len);
    line[len] = '\0';
    *text = moon_slice_skip(*text, len + 1);
    for (size_t i = 0; i < count; i++) {
        char *from = at;
        numbers[i] = strtoll(from, &at, 10);
        if (at == from)
            return false;
    }
    return *at == '\0';
}

// NUL-terminated, malloc'd; NULL: the text ends before.
static char *read_bytes(struct moon_slice *text, long long len)
{
    if (len < 0 || (unsigned long long)len > text->len)
        return NULL;
    char *bytes = malloc((size_t)len + 1);
    if (!bytes)
        abort();
    memcpy(bytes, text->ptr, (size_t)len);
    bytes[len] = '\0';
    *text = moon_slice_skip(*text, (size_t)len);
    return bytes;
}

static bool read_record(struct moon_inputs *inputs, struct moon_slice *text)
{
    long long numbers[4];
    if (!read_numbers(text, numbers, 4) || numbers[0] < KIND_FILE || numbers[0] > KIND_ENV)
        return false;
    char *name = read_bytes(text, numbers[2]), *bytes = name ? read_bytes(text, numbers[3]) : NULL;
    if (bytes) {
        struct record *record = add(inputs, (enum kind)numbers[0], name);
        record->err = (int)numbers[1];
        record->text = bytes;
        record->len = (size_t)numbers[3];
    }
    free(name);
    if (!bytes || text->len == 0 || text->ptr[0] != '\n')
        return false;
    *text = moon_slice_skip(*text, 1);
    return true;
}

struct moon_inputs *moon_inputs_read(struct moon_slice text)
{
    long long numbers[3];
    if (!read_numbers(&text, numbers, 3))
        return NULL;
    struct moon_inputs *inputs = calloc(1, sizeof *inputs);
    if (!inputs)
        abort();
    inputs->wall_ms = (uint64_t)numbers[0];
    inputs->took_chance = numbers[1] != 0;
    inputs->is_frozen = true;
    long long left = numbers[2];
    while (left > 0 && read_record(inputs, &text))
        left--;
    if (left == 0 && text.len == 0)
        return inputs;
    moon_inputs_free(inputs);
    return NULL;
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
