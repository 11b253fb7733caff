// Writing JSON (RFC 8259) to a stream of text, for documents that people and programs read off the admin surface and the
// command line. Not for hot paths. The caller writes the structure: moon_json_text(out, ...), fputs(":", out), and so on.
#pragma once

#include "base/slice.h"

#include <stdio.h>

// A string with its quotes. Control bytes are escaped, invalid UTF-8 becomes U+FFFD.
void moon_json_text(FILE *out, struct moon_slice text);
// `"key":` and a string; NULL writes null.
void moon_json_member(FILE *out, const char *key, const char *text);
// The shortest form that reads back to the same number; no value that JSON lacks: null.
void moon_json_number(FILE *out, double number);
