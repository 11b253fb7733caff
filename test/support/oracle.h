// A second opinion on heads: llhttp in strict mode, which many servers stand on. What core/http accepts it must accept too, with
// the same fields; the other way round core/http is the stricter one (test/spec/data/strictness.lua).
#pragma once

#include "base/slice.h"

#include <stdbool.h>
#include <stddef.h>

enum { ORACLE_MAX_COUNT = 256 };

struct oracle {
    struct moon_slice names[ORACLE_MAX_COUNT],
        values[ORACLE_MAX_COUNT]; // slices of the head; values without white space
    size_t count;
    bool is_folded;   // a value came in several pieces
    bool is_accepted; // all of it was taken as one head
    const char *why;  // it was not
};

// `head` is one whole head with its empty line; a request if is_request, else a response.
void oracle_read(struct oracle *oracle, struct moon_slice head, bool is_request);
