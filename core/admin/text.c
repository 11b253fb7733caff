// See text.h. Lines are copied in blocks of fixed length that may run over what they copy: room is asked for once a series, and what
// is read or written beyond a piece is overwritten by the next one.
#include "admin/text.h"

#include "obs/escape.h"
#include "obs/histogram.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    LINE_ROOM_LEN = 1024,
    BLOCK_LEN = 32,      // one copy
    LINE_REST_LEN = 128, // of a line behind its start, with what copies run over
};

void moon_text_fini(struct moon_text *text)
{
    free(text->ptr);
    *text = (struct moon_text){0};
}

bool moon_text_reserve(struct moon_text *text, size_t len)
{
    if (text->cap - text->len >= len)
        return !text->is_broken;
    size_t cap = (text->cap + len) * 2;
    char *ptr = text->is_broken ? NULL : realloc(text->ptr, cap);
    if (!ptr) {
        text->is_broken = true;
        return false;
    }
    text->ptr = ptr;
    text->cap = cap;
    return true;
}

void moon_text_put(struct moon_text *text, struct moon_slice bytes)
{
    if (bytes.len == 0 || !moon_text_reserve(text, bytes.len))
        return;
    memcpy(text->ptr + text->len, bytes.ptr, bytes.len);
    text->len += bytes.len;
}

void moon_text_number(struct moon_text *text, uint64_t number)
{
    char digits[MOON_U64_DIGITS];
    moon_text_put(text, moon_slice_from_u64(number, digits));
}

void moon_text_putf(struct moon_text *text, const char *format, ...)
{
    va_list args;
    if (!moon_text_reserve(text, LINE_ROOM_LEN))
        return;
    va_start(args, format);
    int len = vsnprintf(text->ptr + text->len, LINE_ROOM_LEN, format, args);
    va_end(args);
    if (len > 0)
        text->len += len < LINE_ROOM_LEN ? (size_t)len : LINE_ROOM_LEN - 1;
}

void moon_text_head(struct moon_text *text, const char *name, const char *type, const char *help)
{
    moon_text_putf(text, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

// ---- labels

void moon_label_set(struct moon_label *label, const char *name, struct moon_slice value)
{
    char *end = stpcpy(label->text, name);
    *end++ = '=';
    *end++ = '"';
    end += moon_escape_label(value, end, MOON_LABEL_VALUE_LEN);
    *end++ = '"';
    label->len = (size_t)(end - label->text);
}

void moon_text_series(struct moon_text *text, struct moon_slice name,
                      const struct moon_label *label)
{
    moon_text_put(text, name);
    MOON_TEXT_PUT(text, "{");
    moon_text_put(text, (struct moon_slice){label->text, label->len});
}

struct moon_slice moon_line_start(char *to, const char *name, const char *suffix,
                                  const struct moon_label *label)
{
    char *end = stpcpy(stpcpy(to, name), suffix);
    *end++ = '{';
    memcpy(end, label->text, label->len);
    return (struct moon_slice){to, (size_t)(end - to) + label->len};
}

// ---- histograms

enum { BOUND_COUNT = 15 };

static const uint64_t bounds_us[BOUND_COUNT] = {500,     1000,    2500,    5000,     10000,
                                                25000,   50000,   100000,  250000,   500000,
                                                1000000, 2500000, 5000000, 10000000, 60000000};

// Behind the label: the rest of a bucket's line up to its value. As long as one block.
struct bound {
    char text[BLOCK_LEN];
    size_t len;
};

#define BOUND(le)                                          \
    {                                                      \
        ",le=\"" le "\"} ", sizeof(",le=\"" le "\"} ") - 1 \
    }
static const struct bound bounds[BOUND_COUNT + 1] = {
    BOUND("0.0005"), BOUND("0.001"), BOUND("0.0025"), BOUND("0.005"), BOUND("0.01"), BOUND("0.025"),
    BOUND("0.05"),   BOUND("0.1"),   BOUND("0.25"),   BOUND("0.5"),   BOUND("1"),    BOUND("2.5"),
    BOUND("5"),      BOUND("10"),    BOUND("60"),     BOUND("+Inf"),
};

// A number as it stands behind a line, with its end of line. As long as one block.
struct digits {
    char text[BLOCK_LEN];
    size_t len;
};

static void digits_set(struct digits *digits, uint64_t number)
{
    char text[MOON_U64_DIGITS];
    struct moon_slice from = moon_slice_from_u64(number, text);
    memcpy(digits->text, from.ptr, from.len);
    digits->text[from.len] = '\n';
    digits->len = from.len + 1;
}

// `from` can be read, and `to` written, to the end of the last block.
static char *copy_blocks(char *to, const char *from, size_t len)
{
    for (size_t at = 0; at < len; at += BLOCK_LEN)
        memcpy(to + at, from + at, BLOCK_LEN);
    return to + len;
}

// Most of the bounds that follow each other count the same.
static void put_buckets(struct moon_text *text, struct moon_slice start, const uint64_t *below)
{
    struct digits digits = {{0}, 0};
    char *to = text->ptr + text->len;
    for (size_t i = 0; i <= BOUND_COUNT; i++) {
        if (i == 0 || below[i] != below[i - 1])
            digits_set(&digits, below[i]);
        to = copy_blocks(to, start.ptr, start.len);
        memcpy(to, bounds[i].text, BLOCK_LEN);
        memcpy(to + bounds[i].len, digits.text, BLOCK_LEN);
        to += bounds[i].len + digits.len;
    }
    text->len = (size_t)(to - text->ptr);
}

void moon_text_histogram(struct moon_text *text, const char *name, const struct moon_label *label,
                         const struct moon_histogram_sum *values)
{
    char line[MOON_LINE_START_LEN + BLOCK_LEN];
    uint64_t below[BOUND_COUNT + 1];
    struct moon_slice start = moon_line_start(line, name, "_bucket", label);
    memset(line + start.len, 0, BLOCK_LEN); // may be copied along
    if (!moon_text_reserve(text, (BOUND_COUNT + 3) * (start.len + LINE_REST_LEN)))
        return;
    moon_histogram_sum_below_each(values, bounds_us, BOUND_COUNT, below);
    below[BOUND_COUNT] = values->count;
    put_buckets(text, start, below);
    moon_text_put(text, moon_line_start(line, name, "_sum", label));
    MOON_TEXT_PUT(text, "} ");
    moon_text_number(text, values->sum_us / 1000000u);
    MOON_TEXT_PUT(text, ".");
    for (uint64_t rest = values->sum_us % 1000000u, unit = 100000u; unit; rest %= unit, unit /= 10)
        text->ptr[text->len++] = (char)('0' + rest / unit);
    MOON_TEXT_PUT(text, "\n");
    moon_text_put(text, moon_line_start(line, name, "_count", label));
    MOON_TEXT_PUT(text, "} ");
    moon_text_number(text, values->count);
    MOON_TEXT_PUT(text, "\n");
}
