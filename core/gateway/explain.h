// Explain: what a configuration would do with a request, and why. Pure lookups on a snapshot; nothing is sent.
#pragma once

#include "base/slice.h"

#include <stdio.h>

struct moon_ports;
struct moon_snapshot;

struct moon_explain_question {
    struct moon_slice method, url; // "GET", "http://api.example.com/users?x=1"
    struct moon_slice fields;      // further header lines, each with CRLF; may be empty
};

// A JSON object: { matched, status?, reason?, listener?, route?, plugins?, upstream?, ... }. `ports` may be NULL: the listeners as
// configured.
void moon_explain_write_json(const struct moon_snapshot *snapshot, const struct moon_ports *ports,
                             const struct moon_explain_question *question, FILE *out);
// The question in a query string: method=GET&url=...&header=name:value, percent-encoded. Slices live in *text (malloc'd).
void moon_explain_read_query(struct moon_slice query, struct moon_explain_question *out,
                             char **text);
