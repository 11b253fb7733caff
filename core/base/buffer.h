// Byte FIFO in one contiguous block of a worker's pool. An empty buffer owns no block, so an idle link costs nothing.
// Blocks are 4, 16 or 64 KiB; a buffer grows by moving to the next size and never beyond 64 KiB (DESIGN 6, bounds).
// The pool carries a share of the process-wide buffer budget: over it, appends fail with -ENOBUFS and the caller sheds.
// Not thread safe, except the budget counter, which is atomic.
#pragma once

#include "base/slice.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum { MOON_BUFFER_MAX_LEN = 65536 };

// Bytes in blocks of all pools of the process against its bound.
struct moon_buffer_budget {
    atomic_size_t used_len;
    atomic_size_t max_len; // may change; blocks over a smaller one stay
};

struct moon_buffer_pool;

struct moon_buffer {
    char *base; // NULL while empty
    uint32_t head, tail, cap;
};

// `budget` outlives the pool.
struct moon_buffer_pool *moon_buffer_pool_new(struct moon_buffer_budget *budget);
void moon_buffer_pool_free(struct moon_buffer_pool *pool);
// Bytes in blocks lent out now, and what is charged. Thread safe.
size_t moon_buffer_pool_used_len(const struct moon_buffer_pool *pool);

// Counts memory that the caller allocates by itself, because it is to hold more than a buffer does. 0, or -ENOBUFS over the budget.
int moon_buffer_pool_charge(struct moon_buffer_pool *pool, size_t len);
void moon_buffer_pool_discharge(struct moon_buffer_pool *pool, size_t len);

static inline size_t moon_buffer_len(const struct moon_buffer *b)
{
    return b->tail - b->head;
}

static inline struct moon_slice moon_buffer_bytes(const struct moon_buffer *b)
{
    return (struct moon_slice){b->base + b->head, (size_t)(b->tail - b->head)};
}

// Bytes that may still be appended before MOON_BUFFER_MAX_LEN.
static inline size_t moon_buffer_room(const struct moon_buffer *b)
{
    return MOON_BUFFER_MAX_LEN - moon_buffer_len(b);
}

// All of s or nothing. 0, -ENOBUFS (over 64 KiB, or over the budget), -ENOMEM.
int moon_buffer_append(struct moon_buffer *b, struct moon_buffer_pool *pool, struct moon_slice s);
// At least `len` writable bytes at the tail (NULL as append fails); call moon_buffer_commit with what was written.
char *moon_buffer_reserve(struct moon_buffer *b, struct moon_buffer_pool *pool, size_t len);
void moon_buffer_commit(struct moon_buffer *b, size_t len);
// Drops len bytes at the head; gives the block back when nothing is left. len <= moon_buffer_len.
void moon_buffer_consume(struct moon_buffer *b, struct moon_buffer_pool *pool, size_t len);
// Empties it and gives the block back.
void moon_buffer_fini(struct moon_buffer *b, struct moon_buffer_pool *pool);
