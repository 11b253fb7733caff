// Buffer pool and byte FIFO.
//
//   block: | consumed | head .. tail: the bytes | tail .. cap: room |
//
// A buffer that does not fit at its tail moves its bytes to the front of its block, or to a block
// of the next class. The pool keeps a bounded number of free blocks per class, so memory returns
// after a burst. Only blocks in use count against the budget. To keep the shared counter off the
// request path a pool keeps a little credit: bytes taken from the budget that no block uses now, at
// most CREDIT_MAX_LEN and 1/64 of the budget; credit is given back when the pool is freed.
// Invariants: head <= tail <= cap; base is NULL exactly when cap is 0; a buffer left empty by
// consume owns no block.
#include "base/buffer.h"

#include "base/poison.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

enum { CLASS_COUNT = 3, CREDIT_MAX_LEN = 131072 };

struct free_block {
    struct free_block *next;
};

struct moon_buffer_pool {
    struct moon_buffer_budget *budget;
    size_t credit_len;
    atomic_size_t used_len; // of blocks lent out; written by the pool's thread alone
    struct free_block *free[CLASS_COUNT];
    uint32_t free_count[CLASS_COUNT];
};

static const uint32_t class_len[CLASS_COUNT] = {4096, 16384, MOON_BUFFER_MAX_LEN};
static const uint32_t class_keep_count[CLASS_COUNT] = {64, 32, 16};

static int class_of(size_t len)
{
    return (len > class_len[0]) + (len > class_len[1]);
}

static bool budget_take(struct moon_buffer_budget *budget, size_t len)
{
    size_t used = atomic_load_explicit(&budget->used_len, memory_order_relaxed);
    size_t max_len = atomic_load_explicit(&budget->max_len, memory_order_relaxed);
    do {
        if (used > max_len || len > max_len - used)
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&budget->used_len, &used, used + len,
                                                    memory_order_relaxed, memory_order_relaxed));
    return true;
}

static void budget_give(struct moon_buffer_budget *budget, size_t len)
{
    atomic_fetch_sub_explicit(&budget->used_len, len, memory_order_relaxed);
}

static bool credit_take(struct moon_buffer_pool *pool, size_t len)
{
    if (len <= pool->credit_len) {
        pool->credit_len -= len;
        return true;
    }
    size_t missing_len = len - pool->credit_len;
    if (!budget_take(pool->budget, missing_len))
        return false;
    pool->credit_len = 0;
    return true;
}

static size_t credit_max_len(struct moon_buffer_budget *budget)
{
    enum { UNIT_LEN = 8192 }; // two of the smallest blocks
    size_t len = atomic_load_explicit(&budget->max_len, memory_order_relaxed) / 64;
    return len < CREDIT_MAX_LEN ? len / UNIT_LEN * UNIT_LEN : CREDIT_MAX_LEN;
}

// Halves the credit when it is full (half of it is whole blocks): giving back one block at a time
// would touch the shared counter for each.
static void credit_give(struct moon_buffer_pool *pool, size_t len)
{
    size_t max_len = credit_max_len(pool->budget);
    pool->credit_len += len;
    if (pool->credit_len <= max_len)
        return;
    budget_give(pool->budget, pool->credit_len - max_len / 2);
    pool->credit_len = max_len / 2;
}

static void used_add(struct moon_buffer_pool *pool, size_t len)
{
    size_t used_len = atomic_load_explicit(&pool->used_len, memory_order_relaxed);
    atomic_store_explicit(&pool->used_len, used_len + len, memory_order_relaxed);
}

size_t moon_buffer_pool_used_len(const struct moon_buffer_pool *pool)
{
    return atomic_load_explicit(&pool->used_len, memory_order_relaxed);
}

static int block_take(struct moon_buffer_pool *pool, int tier, char **out)
{
    if (!credit_take(pool, class_len[tier]))
        return -ENOBUFS;
    struct free_block *block = pool->free[tier];
    used_add(pool, class_len[tier]);
    if (block) {
        pool->free[tier] = block->next;
        pool->free_count[tier]--;
        moon_poison_del(block, class_len[tier]);
        *out = (char *)block;
        return 0;
    }
    *out = malloc(class_len[tier]);
    if (*out)
        return 0;
    used_add(pool, -(size_t)class_len[tier]);
    credit_give(pool, class_len[tier]);
    return -ENOMEM;
}

static void block_give(struct moon_buffer_pool *pool, char *base, uint32_t len)
{
    int tier = class_of(len);
    used_add(pool, -(size_t)len);
    credit_give(pool, len);
    if (pool->free_count[tier] >= class_keep_count[tier]) {
        free(base);
        return;
    }
    struct free_block *block = (struct free_block *)base;
    block->next = pool->free[tier];
    pool->free[tier] = block;
    pool->free_count[tier]++;
    moon_poison_add(block + 1, len - sizeof(*block));
}

// Makes room for `len` more bytes at the tail.
static int make_room(struct moon_buffer *b, struct moon_buffer_pool *pool, size_t len)
{
    size_t used_len = moon_buffer_len(b);
    if (len > MOON_BUFFER_MAX_LEN - used_len)
        return -ENOBUFS;
    if (b->base && used_len + len <= b->cap) {
        memmove(b->base, b->base + b->head, used_len);
        b->head = 0;
        b->tail = (uint32_t)used_len;
        return 0;
    }
    char *base;
    int tier = class_of(used_len + len);
    int err = block_take(pool, tier, &base);
    if (err)
        return err;
    if (b->base) {
        memcpy(base, b->base + b->head, used_len);
        block_give(pool, b->base, b->cap);
    }
    *b = (struct moon_buffer){base, 0, (uint32_t)used_len, class_len[tier]};
    return 0;
}

struct moon_buffer_pool *moon_buffer_pool_new(struct moon_buffer_budget *budget)
{
    struct moon_buffer_pool *pool = calloc(1, sizeof(*pool));
    if (!pool)
        abort();
    pool->budget = budget;
    return pool;
}

void moon_buffer_pool_free(struct moon_buffer_pool *pool)
{
    if (!pool)
        return;
    for (int tier = 0; tier < CLASS_COUNT; tier++) {
        for (struct free_block *block = pool->free[tier], *next; block; block = next) {
            next = block->next;
            moon_poison_del(block, class_len[tier]);
            free(block);
        }
    }
    budget_give(pool->budget, pool->credit_len);
    free(pool);
}

int moon_buffer_pool_charge(struct moon_buffer_pool *pool, size_t len)
{
    if (!credit_take(pool, len))
        return -ENOBUFS;
    used_add(pool, len);
    return 0;
}

void moon_buffer_pool_discharge(struct moon_buffer_pool *pool, size_t len)
{
    used_add(pool, -len);
    credit_give(pool, len);
}

int moon_buffer_append(struct moon_buffer *b, struct moon_buffer_pool *pool, struct moon_slice s)
{
    if (s.len == 0)
        return 0;
    if (s.len > b->cap - b->tail) {
        int err = make_room(b, pool, s.len);
        if (err)
            return err;
    }
    memcpy(b->base + b->tail, s.ptr, s.len);
    b->tail += (uint32_t)s.len;
    return 0;
}

char *moon_buffer_reserve(struct moon_buffer *b, struct moon_buffer_pool *pool, size_t len)
{
    if ((!b->base || len > b->cap - b->tail) && make_room(b, pool, len) != 0)
        return NULL;
    return b->base + b->tail;
}

void moon_buffer_commit(struct moon_buffer *b, size_t len)
{
    assert(len <= b->cap - b->tail);
    b->tail += (uint32_t)len;
}

void moon_buffer_consume(struct moon_buffer *b, struct moon_buffer_pool *pool, size_t len)
{
    assert(len <= moon_buffer_len(b));
    b->head += (uint32_t)len;
    if (b->head == b->tail)
        moon_buffer_fini(b, pool);
}

void moon_buffer_fini(struct moon_buffer *b, struct moon_buffer_pool *pool)
{
    if (b->base)
        block_give(pool, b->base, b->cap);
    *b = (struct moon_buffer){0};
}
