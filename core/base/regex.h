// Regular expressions: PCRE2 on bytes (8 bit, no UTF), seen here alone. An expression matches a text as a whole, as if it
// stood between \A(?: and )\z; case matters unless it says (?i).
//
// A compiled expression is immutable and may be shared between threads; what a match works in is the scratch, one a thread,
// made beforehand, so that matching allocates nothing (without JIT the library may grow the scratch, up to 256 KiB).
// Work is bounded: an expression that backtracks too much on a text gives MOON_ELIMIT, after about a millisecond.
#pragma once

#include "base/slice.h"

enum { MOON_REGEX_PATTERN_MAX_LEN = 4096 };

struct moon_regex;
struct moon_regex_scratch;

// What is wrong with a pattern.
struct moon_regex_fault {
    char text[128];
    size_t offset; // in the pattern, bytes
};

// NULL with *fault when the pattern is wrong.
struct moon_regex *moon_regex_new(struct moon_slice pattern, struct moon_regex_fault *fault);
void moon_regex_free(struct moon_regex *regex);
// The literal bytes that every text it matches begins with, copied to `to`; their number, at most `cap`. It may know fewer
// than there are.
size_t moon_regex_literal(struct moon_slice pattern, char *to, size_t cap);

struct moon_regex_scratch *moon_regex_scratch_new(void);
void moon_regex_scratch_free(struct moon_regex_scratch *scratch);

// 1: it matches the whole text, 0: it does not, MOON_ELIMIT: it gave up.
int moon_regex_match(const struct moon_regex *regex, struct moon_regex_scratch *scratch,
                     struct moon_slice text);
