// The model as a configuration script, for a later start that must serve without its own. Data only: code stays with its producer.
#include "conf/conf.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>

static int write_value(const struct moon_value *value, FILE *out);

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

static int write_table(const struct moon_value *table, FILE *out)
{
    int err = 0;
    fputc('{', out);
    for (uint32_t i = 0; i < table->table.item_count && !err; i++) {
        fputc(' ', out);
        err = write_value(&table->table.items[i], out);
        fputc(',', out);
    }
    for (uint32_t i = 0; i < table->table.entry_count && !err; i++) {
        fputs(" [", out);
        write_text(table->table.entries[i].key, out);
        fputs("] = ", out);
        err = write_value(&table->table.entries[i].value, out);
        fputc(',', out);
    }
    fputs(" }", out);
    return err;
}

static int write_value(const struct moon_value *value, FILE *out)
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
        return write_table(value, out);
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

// Each call in a function of its own: a function of Lua holds 65536 constants at most, a model more.
int moon_model_write_lua(const struct moon_model *model, FILE *out,
                         const struct moon_object **refused)
{
    fputs("local moongate = require \"moongate\"\n", out);
    for (size_t i = 0; i < moon_model_count(model); i++) {
        const struct moon_object *object = moon_model_at(model, i);
        write_place(&object->place, out);
        fprintf(out, ";(function() moongate.%s ", object->kind);
        int err = write_value(&object->value, out);
        fputs(" end)()\n", out);
        if (err) {
            *refused = object;
            return err;
        }
    }
    return 0;
}
