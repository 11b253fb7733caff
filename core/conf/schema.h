// Schemas: what a table may hold. Declared as static tables by the room that reads the keys, checked here in one place.
#pragma once

#include "conf/report.h"
#include "conf/value.h"

enum {
    MOON_TYPE_BOOL = 1 << MOON_VALUE_BOOL,
    MOON_TYPE_NUMBER = 1 << MOON_VALUE_NUMBER,
    MOON_TYPE_STRING = 1 << MOON_VALUE_STRING,
    MOON_TYPE_TABLE = 1 << MOON_VALUE_TABLE,
    MOON_TYPE_FUNCTION = 1 << MOON_VALUE_FUNCTION,
};

struct moon_schema;

struct moon_schema_key {
    const char *name;
    unsigned types; // MOON_TYPE_ bits that are accepted
    bool is_required;
    bool is_later;                   // known, of a later issue: "not supported yet"
    bool is_integer;                 // of numbers
    double min, max;                 // of numbers, both inclusive; both 0: unbounded
    const char *const *choices;      // of strings, NULL-terminated; NULL: any
    const struct moon_schema *table; // of tables; NULL: anything (the compiler checks)
    const char *expected;            // for messages: "seconds, 0.001 to 3600"
};

// A key of a time; moon_value_ms reads it.
#define MOON_SCHEMA_SECONDS(key)                                            \
    {                                                                       \
        .name = key, .types = MOON_TYPE_NUMBER, .min = 0.001, .max = 86400, \
        .expected = "seconds, 0.001 to 86400"                               \
    }

struct moon_schema {
    const struct moon_schema_key *keys; // ends with a NULL name
    // what each list item must be (its name is ignored); NULL: no list part allowed
    const struct moon_schema_key *item;
    // what the values of free keys must be; NULL: only `keys` are allowed
    const struct moon_schema_key *entry;
};

struct moon_schema_check {
    struct moon_place place;
    const char *object;
    struct moon_report *report;
    // key path of the table itself, put before the paths of its problems; NULL: a whole object
    const char *path;
};

// Checks one table against the union of several schemas (rooms that share a kind of object each bring their keys).
// Adds every problem it finds; true when there was none.
bool moon_schema_check(const struct moon_schema_check *check, const struct moon_value *value,
                       const struct moon_schema *const *schemas, size_t schema_count);
