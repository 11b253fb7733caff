// Text in Prometheus' format that grows: numbers, labels, and lines of series put together by hand, because a scrape of 10,000
// routes has 190,000 of them. Owned by one scrape, on one thread.
#pragma once

#include "base/slice.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct moon_text {
    char *ptr; // malloc'd; freed by moon_text_fini
    size_t len, cap;
    bool is_broken; // out of memory: what is put is lost
};

// name="value"
struct moon_label {
    char text[512];
    size_t len;
};

enum {
    MOON_LABEL_VALUE_LEN = 256, // what is longer is cut
    MOON_LINE_START_LEN = 1024, // room for the start of a line
};

void moon_text_fini(struct moon_text *text);
// Whether `len` more bytes fit.
bool moon_text_reserve(struct moon_text *text, size_t len);
void moon_text_put(struct moon_text *text, struct moon_slice bytes);
void moon_text_number(struct moon_text *text, uint64_t number);
// At most 1,023 bytes; the rest is cut.
__attribute__((format(printf, 2, 3))) void moon_text_putf(struct moon_text *text,
                                                          const char *format, ...);
// The lines HELP and TYPE.
void moon_text_head(struct moon_text *text, const char *name, const char *type, const char *help);

#define MOON_TEXT_PUT(text, literal) moon_text_put((text), MOON_SLICE(literal))

// The value is escaped and cut; `name` is short.
void moon_label_set(struct moon_label *label, const char *name, struct moon_slice value);
// name{label, the beginning of a line.
void moon_text_series(struct moon_text *text, struct moon_slice name,
                      const struct moon_label *label);
// The same with a suffix to the name, into a buffer of MOON_LINE_START_LEN, which name, suffix and label stay below.
struct moon_slice moon_line_start(char *to, const char *name, const char *suffix,
                                  const struct moon_label *label);

struct moon_histogram_sum;

// All lines of one histogram: buckets, sum and count. `name` is short.
void moon_text_histogram(struct moon_text *text, const char *name, const struct moon_label *label,
                         const struct moon_histogram_sum *values);
