// A filter for the specs: waits in every hook, edits heads, answers, fails and aborts; passes, replaces, holds, cuts and lengthens
// bodies, as its configuration says. It checks what it is promised (filter.h) and tells what it does on stderr:
//
//   test-filter info NAME waits in HOOK | goes on in HOOK | cancelled in HOOK | logs STATUS whole|cut REQUEST_LEN RESPONSE_LEN
//   test-filter info NAME reads in HOOK | has read LEN bytes in HOOK | cancelled after LEN bytes in HOOK
//   test-filter info NAME saw bodies of REQUEST_LEN and RESPONSE_LEN bytes | went by worker N, route "R", upstream "U", endpoint "E"
//   test-filter error NAME: a broken promise
#pragma once

#include "filter/filter.h"

// "test" with all hooks, "test-heads" without those for bodies (then bodies may be spliced), "test-may" the same for
// routes without backends. NULL-terminated.
extern const struct moon_filter_type *const test_filters[];

// The last line: "test-filter info in all: W waits, R went on, C cancelled, L live, E errors". W is R + C and L is 0, or
// something is wrong.
void test_filters_print(void);
