// Properties that both head targets check.
#pragma once

#include "fuzz.h"
#include "http/head.h"
#include "test/support/oracle.h"

// The scan gives the same answer whole and in steps; the length of the head, 0 or -1. `copy` gets
// the head on its own, so that a read behind it is seen.
static inline ssize_t scan_both(struct moon_slice in, size_t step,
                                const struct moon_head_limits *limits, bool is_request)
{
    struct moon_fault fault = {0, NULL}, step_fault = {0, NULL};
    struct moon_head_scan scan = {0}, step_scan = {0};
    ssize_t whole = moon_head_scan(&scan, in, limits, is_request, &fault), got = 0;
    for (size_t len = 0; len < in.len && got == 0;) {
        len = in.len - len < step ? in.len : len + step;
        got = moon_head_scan(&step_scan, (struct moon_slice){in.ptr, len}, limits, is_request,
                             &step_fault);
    }
    HOLDS(got == whole);
    HOLDS(whole >= 0 || (fault.reason && fault.status >= 400));
    return whole;
}

static inline void check_fields(const struct moon_headers *h)
{
    uint64_t present = 0;
    for (uint32_t i = 0; i < h->count; i++) {
        const struct moon_field *field = &h->fields[i];
        HOLDS(moon_header_name_is_valid(field->name));
        HOLDS(moon_header_value_is_valid(field->value));
        HOLDS(moon_slice_equal(moon_slice_trim(field->value), field->value));
        HOLDS(field->id == moon_header_id(field->name));
        present |= UINT64_C(1) << field->id;
    }
    HOLDS((present & ~UINT64_C(1)) == (h->present & ~UINT64_C(1)));
}

static inline bool is_framing(uint8_t id)
{
    return id == MOON_H_HOST || id == MOON_H_CONTENT_LENGTH || id == MOON_H_TRANSFER_ENCODING ||
           id == MOON_H_CONNECTION || id == MOON_H_UPGRADE;
}

// The same fields in the same order, but for Host and the framing.
static inline void check_same_fields(const struct moon_headers *a, const struct moon_headers *b)
{
    uint32_t j = 0;
    for (uint32_t i = 0; i < a->count; i++) {
        if (is_framing(a->fields[i].id))
            continue;
        while (j < b->count && is_framing(b->fields[j].id))
            j++;
        HOLDS(j < b->count);
        HOLDS(moon_slice_equal(a->fields[i].name, b->fields[j].name));
        HOLDS(moon_slice_equal(a->fields[i].value, b->fields[j].value));
        j++;
    }
    while (j < b->count && is_framing(b->fields[j].id))
        j++;
    HOLDS(j == b->count);
}

// llhttp accepts what was accepted, and sees the same fields.
static inline void check_oracle(const struct moon_headers *h, struct moon_slice text,
                                bool is_request)
{
    struct oracle oracle;
    oracle_read(&oracle, text, is_request);
    HOLDS(oracle.is_accepted);
    HOLDS(oracle.count == h->count);
    for (uint32_t i = 0; i < h->count; i++) {
        HOLDS(moon_slice_equal(oracle.names[i], h->fields[i].name));
        HOLDS(moon_slice_equal(oracle.values[i], h->fields[i].value));
    }
}
