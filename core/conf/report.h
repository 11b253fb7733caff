// What is wrong with a configuration: problems with a place, the key path, the value found and a hint (DESIGN 4).
//   gateway.lua:12: route "users": retry.on[2]: found "50x"; expected one of ...; did you mean "503"?
#pragma once

#include "conf/value.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct moon_report;

struct moon_problem {
    struct moon_place place; // file NULL: no place (the process itself)
    const char *object;      // `route "users"`, or NULL
    const char *path;        // `retry.on[2]`, or NULL
    const char *message;     // what is wrong, with the value found
    const char *hint;        // what would be right or how to go on, or NULL
};

struct moon_report *moon_report_new(void);
void moon_report_free(struct moon_report *report);
// Copies everything. At most 50 problems are kept; further ones are counted.
void moon_report_add(struct moon_report *report, const struct moon_problem *problem);
// A problem whose message is formatted.
void moon_report_addf(struct moon_report *report, struct moon_place place, const char *object,
                      const char *path, const char *hint, const char *format, ...)
    __attribute__((format(printf, 6, 7)));
// What is no error, but not as one may think; kept apart from the problems.
void moon_report_warn(struct moon_report *report, const struct moon_problem *warning);
size_t moon_report_count(const struct moon_report *report);
const struct moon_problem *moon_report_at(const struct moon_report *report, size_t index);
// The problems as a JSON list of { file, line, object, path, message, hint }.
void moon_report_write_json(const struct moon_report *report, FILE *out);
// One line a problem, as shown above; malloc'd, NUL-terminated.
char *moon_report_text(const struct moon_report *report);
// The warnings likewise; "" where there are none.
char *moon_report_warnings(const struct moon_report *report);
// The name of `choices` (NULL-terminated) nearest to `found` by edit distance, NULL when none is near (distance > 1/3).
const char *moon_nearest_name(struct moon_slice found, const char *const *choices);
