// What the fuzz targets of http/ share: an arena per input, and a property that failed ends the
// run.
#pragma once

#include "base/arena.h"
#include "base/slice.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define HOLDS(condition)                                                                   \
    do {                                                                                   \
        if (!(condition)) {                                                                \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                       \
        }                                                                                  \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

enum { FUZZ_ARENA_LEN = 1 << 20 };

struct fuzz_arena {
    struct moon_arena_pool *pool;
    struct moon_arena *arena;
};

static inline struct fuzz_arena fuzz_arena_new(void)
{
    struct moon_arena_pool *pool = moon_arena_pool_new(4);
    return (struct fuzz_arena){pool, moon_arena_new(pool, FUZZ_ARENA_LEN)};
}

static inline void fuzz_arena_free(struct fuzz_arena *f)
{
    moon_arena_free(f->arena);
    HOLDS(moon_arena_pool_live_count(f->pool) == 0);
    moon_arena_pool_free(f->pool);
}

// Takes one byte of choices off the input; 0 when there is none.
static inline uint8_t fuzz_choice(struct moon_slice *in)
{
    if (in->len == 0)
        return 0;
    uint8_t choice = (uint8_t)in->ptr[0];
    *in = moon_slice_skip(*in, 1);
    return choice;
}
