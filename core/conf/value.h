// Plain-data values of the model: what a producer (a script, later a manifest or an API) hands over. A tree in the model's
// arena; immutable once built. A table may hold items (a list part) and entries (string keys) at once, as Lua's do.
#pragma once

#include "base/slice.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum moon_value_kind {
    MOON_VALUE_NIL,
    MOON_VALUE_BOOL,
    MOON_VALUE_NUMBER,
    MOON_VALUE_STRING,
    MOON_VALUE_TABLE,
    MOON_VALUE_FUNCTION, // code stays with its producer; only its presence crosses
};

struct moon_entry;

struct moon_value {
    enum moon_value_kind kind;
    union {
        bool boolean;
        double number;
        struct moon_slice string; // NUL-terminated behind len, too
        struct {
            const struct moon_value *items;
            const struct moon_entry *entries; // sorted by key: evaluation order never shows
            uint32_t item_count, entry_count;
        } table;
    };
};

struct moon_entry {
    struct moon_slice key;
    struct moon_value value;
};

// Where an object was written: the line of the call.
struct moon_place {
    const char *file; // as the user named it
    unsigned line;
};

// Whether both say the same. A function is never equal: what it does stays with its producer.
bool moon_value_equal(const struct moon_value *a, const struct moon_value *b);
// The value of a key, or NULL; also NULL when `table` is not a table.
const struct moon_value *moon_value_get(const struct moon_value *table, const char *key);
// The same with its kind checked: NULL unless present and of that kind.
const struct moon_value *moon_value_get_kind(const struct moon_value *table, const char *key,
                                             enum moon_value_kind kind);
// Typed reads with a default for an absent key (the schema has checked the kind).
double moon_value_number(const struct moon_value *table, const char *key, double absent);
// A number of seconds, in whole milliseconds.
uint32_t moon_value_ms(const struct moon_value *table, const char *key, double absent_s);
bool moon_value_bool(const struct moon_value *table, const char *key, bool absent);
struct moon_slice moon_value_string(const struct moon_value *table, const char *key,
                                    struct moon_slice absent);
// The path of a file that was named at that place: relative ones are from where the script is. malloc'd.
char *moon_path_beside(const struct moon_place *place, struct moon_slice name);
// "a string", "a table": for messages.
const char *moon_value_kind_name(enum moon_value_kind kind);
