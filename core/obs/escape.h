// Making bytes of a peer safe to print (A67): no control byte, no quote and no broken UTF-8 comes out. What does not fit is left
// out, never cut inside a character or an escape.
#pragma once

#include "base/slice.h"

#include <stddef.h>

// The inside of a JSON string: \" \\ \u00XX; a byte that is no UTF-8 becomes \ufffd. Bytes written, at most `cap`.
size_t moon_escape_json(struct moon_slice from, char *to, size_t cap);
// For lines of text: controls, '"', '\' and bytes that are no UTF-8 become \xXX.
size_t moon_escape_text(struct moon_slice from, char *to, size_t cap);
// The inside of a label value of Prometheus: \" \\ \n; a byte that is no UTF-8 becomes U+FFFD.
size_t moon_escape_label(struct moon_slice from, char *to, size_t cap);
