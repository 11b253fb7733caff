// Regular expressions: PCRE2 on bytes (8 bit, no UTF unless asked for), seen here alone. Of two kinds: one of routing matches a
// text as a whole, as if it stood between \A(?: and )\z; one for searching is found anywhere, and tells its groups. Case matters
// unless an expression says (?i), or an option does.
//
// A compiled expression is immutable and may be shared between threads; what a match works in is the scratch, one a thread,
// made beforehand, so that matching allocates nothing (without JIT the library may grow the scratch, up to 256 KiB).
// Work is bounded: an expression that backtracks too much on a text gives MOON_ELIMIT, after about a millisecond. A search counts
// anew at each place where a match could begin.
#pragma once

#include "base/slice.h"

#include <stdbool.h>
#include <stdint.h>

enum { MOON_REGEX_PATTERN_MAX_LEN = 4096, MOON_REGEX_SPANS_MAX_COUNT = 256 };

enum moon_regex_option { // of searching; may be or-ed
    MOON_REGEX_CASELESS = 1,
    MOON_REGEX_MULTILINE = 2, // ^ and $ at lines
    MOON_REGEX_DOTALL = 4,    // . is also a line's end
    MOON_REGEX_EXTENDED = 8,  // space and #comments in the pattern are none of it
    MOON_REGEX_UTF = 16,      // UTF-8; what is none in a text is matched by nothing
    MOON_REGEX_ANCHORED = 32, // at the place where the search begins, or not at all
};

struct moon_regex;
struct moon_regex_scratch;

// What is wrong with a pattern.
struct moon_regex_fault {
    char text[128];
    size_t offset; // in the pattern, bytes
};

// NULL with *fault when the pattern is wrong.
struct moon_regex *moon_regex_new(struct moon_slice pattern, struct moon_regex_fault *fault);
// For searching. An expression has at most MOON_REGEX_SPANS_MAX_COUNT - 1 groups. NULL with *fault when the pattern is wrong.
struct moon_regex *moon_regex_new_search(struct moon_slice pattern, unsigned options,
                                         struct moon_regex_fault *fault);
void moon_regex_free(struct moon_regex *regex);
// The literal bytes that every text it matches begins with, copied to `to`; their number, at most `cap`. It may know fewer
// than there are.
size_t moon_regex_literal(struct moon_slice pattern, char *to, size_t cap);

struct moon_regex_scratch *moon_regex_scratch_new(void);
void moon_regex_scratch_free(struct moon_regex_scratch *scratch);

// 1: it matches the whole text, 0: it does not, MOON_ELIMIT: it gave up.
int moon_regex_match(const struct moon_regex *regex, struct moon_regex_scratch *scratch,
                     struct moon_slice text);

// Where a match or a group is; from and to are -1 for a group that took no part.
struct moon_regex_span {
    int32_t from, to;
};

// The first match at or after `from`, of an expression for searching. With is_after_empty an empty one at `from` does not count:
// so whoever goes on at the end of each match finds all of them. Returns the number of spans, which is that of the groups and
// one for the whole; 0: there is none; MOON_ELIMIT: it gave up, or the text is longer than 2 GiB.
int moon_regex_search(const struct moon_regex *regex, struct moon_regex_scratch *scratch,
                      struct moon_slice text, size_t from, bool is_after_empty,
                      struct moon_regex_span spans[MOON_REGEX_SPANS_MAX_COUNT]);
// The name at an index from 0 on, in no order, and the number of its group; 0: there are no more.
unsigned moon_regex_name(const struct moon_regex *regex, unsigned index, struct moon_slice *name);
