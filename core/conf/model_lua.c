// The model as a configuration script, for a later start that must serve without its own. Data only: code stays with its producer.
#include "conf/conf.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

// `dir`: of the script, where paths of files are relative to; NULL: no paths are among what is written.
static int write_value(const struct moon_value *value, const char *dir, FILE *out);
static int write_table(const struct moon_value *table, const char *dir, bool is_acme, FILE *out);

static void write_text(struct moon_slice text, FILE *out)
{
    fputc('"', out);
    for (size_t i = 0; i < text.len; i++) {
        unsigned char byte = (unsigned char)text.ptr[i];
        if (byte == '"' || byte == '\\')
            fprintf(out, "\\%c", byte);
        else if (byte < ' ' || byte > '~')
            fprintf(out, "\\%03u", byte);
        else
            fputc(byte, out);
    }
    fputc('"', out);
}

static void write_number(double number, FILE *out)
{
    if (isnan(number))
        fputs("0/0", out);
    else if (isinf(number))
        fputs(number > 0 ? "1/0" : "-1/0", out);
    else
        fprintf(out, "%.17g", number);
}

static bool is_one_of(struct moon_slice key, const char *const *names)
{
    while (*names && !moon_slice_equal(key, moon_slice_from(*names)))
        names++;
    return *names != NULL;
}

// What is written is read in another directory.
static int write_path(const struct moon_value *value, const char *dir, FILE *out)
{
    char path[PATH_MAX];
    int len = snprintf(path, sizeof path, "%s/%.*s", dir, MOON_SLICE_ARG(value->string));
    bool is_relative = value->string.len && value->string.ptr[0] != '/';
    if (is_relative && len > 0 && (size_t)len < sizeof path)
        write_text((struct moon_slice){path, (size_t)len}, out);
    else
        write_text(value->string, out);
    return 0;
}

// Where `acme` keeps its files when nothing is said, which is a path, too.
static void write_storage(const struct moon_value *acme, const char *dir, FILE *out)
{
    static const struct moon_value shipped = {.kind = MOON_VALUE_STRING,
                                              .string = MOON_SLICE("acme")};
    if (moon_value_get(acme, "storage"))
        return;
    fputs(" [\"storage\"] = ", out);
    write_path(&shipped, dir, out);
    fputc(',', out);
}

static int write_entry(const struct moon_entry *entry, const char *dir, FILE *out)
{
    static const char *const paths[] = {"cert", "key", "ca", "crl", "storage", NULL};
    const struct moon_value *value = &entry->value;
    if (dir && value->kind == MOON_VALUE_STRING && is_one_of(entry->key, paths))
        return write_path(value, dir, out);
    bool is_acme =
        dir && value->kind == MOON_VALUE_TABLE && moon_slice_equal(entry->key, MOON_SLICE("acme"));
    return is_acme ? write_table(value, dir, true, out) : write_value(value, dir, out);
}

static int write_table(const struct moon_value *table, const char *dir, bool is_acme, FILE *out)
{
    int err = 0;
    fputc('{', out);
    if (is_acme)
        write_storage(table, dir, out);
    for (uint32_t i = 0; i < table->table.item_count && !err; i++) {
        fputc(' ', out);
        err = write_value(&table->table.items[i], dir, out);
        fputc(',', out);
    }
    for (uint32_t i = 0; i < table->table.entry_count && !err; i++) {
        fputs(" [", out);
        write_text(table->table.entries[i].key, out);
        fputs("] = ", out);
        err = write_entry(&table->table.entries[i], dir, out);
        fputc(',', out);
    }
    fputs(" }", out);
    return err;
}

static int write_value(const struct moon_value *value, const char *dir, FILE *out)
{
    switch (value->kind) {
    case MOON_VALUE_NIL:
        fputs("nil", out);
        return 0;
    case MOON_VALUE_BOOL:
        fputs(value->boolean ? "true" : "false", out);
        return 0;
    case MOON_VALUE_NUMBER:
        write_number(value->number, out);
        return 0;
    case MOON_VALUE_STRING:
        write_text(value->string, out);
        return 0;
    case MOON_VALUE_TABLE:
        return write_table(value, dir, false, out);
    case MOON_VALUE_FUNCTION:
        return -ENOTSUP;
    }
    return 0;
}

// Where the object was written, on a line of its own.
static void write_place(const struct moon_place *place, FILE *out)
{
    fputs("-- ", out);
    for (const char *at = place->file ? place->file : ""; *at; at++)
        fputc(iscntrl((unsigned char)*at) ? '?' : *at, out);
    fprintf(out, ":%u\n", place->line);
}

// An object's own entries: the files of `tls` are from where its script is.
static int write_object(const struct moon_object *object, FILE *out)
{
    const struct moon_value *tls = moon_value_get_kind(&object->value, "tls", MOON_VALUE_TABLE);
    bool has_paths = tls && strcmp(object->kind, "settings") != 0 && object->place.file;
    char *file = has_paths ? realpath(object->place.file, NULL) : NULL;
    char *slash = file ? strrchr(file, '/') : NULL;
    if (slash)
        *slash = '\0';
    int err = 0;
    if (!slash) {
        err = write_value(&object->value, NULL, out);
    } else {
        const struct moon_value *table = &object->value;
        fputc('{', out);
        for (uint32_t i = 0; i < table->table.entry_count && !err; i++) {
            const struct moon_entry *entry = &table->table.entries[i];
            fputs(" [", out);
            write_text(entry->key, out);
            fputs("] = ", out);
            err = write_value(&entry->value, &entry->value == tls ? file : NULL, out);
            fputc(',', out);
        }
        fputs(" }", out);
    }
    free(file);
    return err;
}

// Each call in a function of its own: a function of Lua holds 65536 constants at most, a model more.
int moon_model_write_lua(const struct moon_model *model, FILE *out,
                         const struct moon_object **refused)
{
    fputs("local moongate = require \"moongate\"\n", out);
    for (size_t i = 0; i < moon_model_count(model); i++) {
        const struct moon_object *object = moon_model_at(model, i);
        write_place(&object->place, out);
        fprintf(out, ";(function() moongate.%s ", object->kind);
        int err = write_object(object, out);
        fputs(" end)()\n", out);
        if (err) {
            *refused = object;
            return err;
        }
    }
    return 0;
}
