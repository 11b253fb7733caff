// The model as JSON, for people and programs who ask what serves.
#include "base/json.h"
#include "conf/conf.h"

static void write_value(const struct moon_value *value, FILE *out);

static bool is_secret(struct moon_slice key)
{
    static const char *const words[] = {"key", "keys", "secret", "password", "token"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (moon_slice_equal_fold(key, moon_slice_from(words[i])))
            return true;
    return false;
}

static void write_items(const struct moon_value *table, FILE *out)
{
    fputc('[', out);
    for (uint32_t i = 0; i < table->table.item_count; i++) {
        if (i)
            fputc(',', out);
        write_value(&table->table.items[i], out);
    }
    fputc(']', out);
}

// A table with keys; a list part beside them has its numbers as keys.
static void write_members(const struct moon_value *table, FILE *out)
{
    const char *comma = "";
    fputc('{', out);
    for (uint32_t i = 0; i < table->table.item_count; i++) {
        fprintf(out, "%s\"%u\":", comma, i + 1);
        write_value(&table->table.items[i], out);
        comma = ",";
    }
    for (uint32_t i = 0; i < table->table.entry_count; i++) {
        const struct moon_entry *entry = &table->table.entries[i];
        fputs(comma, out);
        moon_json_text(out, entry->key);
        fputc(':', out);
        if (is_secret(entry->key))
            fputs("\"***\"", out);
        else
            write_value(&entry->value, out);
        comma = ",";
    }
    fputc('}', out);
}

static void write_value(const struct moon_value *value, FILE *out)
{
    switch (value->kind) {
    case MOON_VALUE_NIL:
        fputs("null", out);
        return;
    case MOON_VALUE_BOOL:
        fputs(value->boolean ? "true" : "false", out);
        return;
    case MOON_VALUE_NUMBER:
        moon_json_number(out, value->number);
        return;
    case MOON_VALUE_STRING:
        moon_json_text(out, value->string);
        return;
    case MOON_VALUE_FUNCTION:
        fputs("\"<function>\"", out);
        return;
    case MOON_VALUE_TABLE:
        if (value->table.entry_count || value->table.item_count == 0)
            write_members(value, out);
        else
            write_items(value, out);
        return;
    }
}

void moon_model_write_json(const struct moon_model *model, const char *kind, FILE *out)
{
    const char *comma = "";
    fputc('[', out);
    for (size_t i = 0; i < moon_model_count(model); i++) {
        const struct moon_object *object = moon_model_at(model, i);
        if (kind && !moon_slice_equal(moon_slice_from(kind), moon_slice_from(object->kind)))
            continue;
        fprintf(out, "%s\n  {", comma);
        moon_json_member(out, "kind", object->kind);
        fputs(",\"place\":{", out);
        moon_json_member(out, "file", object->place.file);
        fprintf(out, ",\"line\":%u},\"value\":", object->place.line);
        write_value(&object->value, out);
        fputc('}', out);
        comma = ",";
    }
    fputs(moon_model_count(model) ? "\n]" : "]", out);
}
