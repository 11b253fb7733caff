// Arena: everything that dies with a request, freed in one go.
//
//   block: | next | struct moon_arena (first block only) | bytes handed out | free: pos .. end |
//
// Small requests bump `pos`; when they do not fit, a fresh 4 KiB block is taken from the pool. A
// request of more than half a block that does not fit gets a malloc'd block of its own and leaves
// the current one in use. Invariant: `end` is aligned to 16, so rounding `pos` up never passes it.
// Under ASan only handed-out bytes are accessible. Ownership: the pool owns free blocks, an arena
// owns its blocks; nothing else is allocated.
#include "base/arena.h"

#include "base/poison.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { ALIGN = 16, OWN_BLOCK_LEN = MOON_ARENA_BLOCK_LEN / 2 };

struct block {
    _Alignas(ALIGN) struct block *next;
};

struct hook {
    struct hook *next;
    void (*fn)(void *arg);
    void *arg;
};

struct moon_arena {
    char *pos, *end;
    size_t left_len; // of the cap
    struct moon_arena_pool *pool;
    struct block *blocks; // from the pool; the last one holds this struct
    struct block *large;  // malloc'd, one allocation each
    struct hook *hooks;
};

struct moon_arena_pool {
    struct block *free;
    size_t free_count, keep_count, live_count;
};

static char *align_up(char *pos)
{
    return pos + (-(uintptr_t)pos & (ALIGN - 1));
}

// The bytes after the block's header stay poisoned; NULL on OOM.
static struct block *block_take(struct moon_arena_pool *pool)
{
    struct block *block = pool->free;
    if (block) {
        pool->free = block->next;
        pool->free_count--;
        return block;
    }
    block = malloc(MOON_ARENA_BLOCK_LEN);
    if (block)
        moon_poison_add(block + 1, MOON_ARENA_BLOCK_LEN - sizeof(*block));
    return block;
}

static void block_give(struct moon_arena_pool *pool, struct block *block)
{
    if (pool->free_count >= pool->keep_count) {
        moon_poison_del(block, MOON_ARENA_BLOCK_LEN);
        free(block);
        return;
    }
    moon_poison_add(block + 1, MOON_ARENA_BLOCK_LEN - sizeof(*block));
    block->next = pool->free;
    pool->free = block;
    pool->free_count++;
}

static void *take_large(struct moon_arena *arena, size_t len)
{
    if (len > SIZE_MAX - sizeof(struct block))
        return NULL;
    struct block *block = malloc(sizeof(*block) + len);
    if (!block)
        return NULL;
    block->next = arena->large;
    arena->large = block;
    return block + 1;
}

// Out of line: what does not fit into the current block.
static __attribute__((noinline)) void *take_slow(struct moon_arena *arena, size_t len)
{
    if (len > OWN_BLOCK_LEN)
        return take_large(arena, len);
    struct block *block = block_take(arena->pool);
    if (!block)
        return NULL;
    block->next = arena->blocks;
    arena->blocks = block;
    char *start = (char *)(block + 1);
    arena->pos = start + len;
    arena->end = (char *)block + MOON_ARENA_BLOCK_LEN;
    moon_poison_del(start, len);
    return start;
}

// `pos` is the arena's position, aligned or not.
static inline void *take(struct moon_arena *arena, char *pos, size_t len)
{
    if (len > (size_t)(arena->end - pos))
        return take_slow(arena, len);
    arena->pos = pos + len;
    moon_poison_del(pos, len);
    return pos;
}

struct moon_arena_pool *moon_arena_pool_new(size_t keep_count)
{
    struct moon_arena_pool *pool = calloc(1, sizeof(*pool));
    if (!pool)
        abort();
    pool->keep_count = keep_count;
    return pool;
}

void moon_arena_pool_free(struct moon_arena_pool *pool)
{
    if (!pool)
        return;
    assert(pool->live_count == 0);
    for (struct block *block = pool->free, *next; block; block = next) {
        next = block->next;
        moon_poison_del(block, MOON_ARENA_BLOCK_LEN);
        free(block);
    }
    free(pool);
}

size_t moon_arena_pool_live_count(const struct moon_arena_pool *pool)
{
    return pool->live_count;
}

struct moon_arena *moon_arena_new(struct moon_arena_pool *pool, size_t cap_len)
{
    struct block *block = block_take(pool);
    if (!block)
        abort();
    block->next = NULL;
    struct moon_arena *arena = (struct moon_arena *)(block + 1);
    moon_poison_del(arena, sizeof(*arena));
    arena->pos = (char *)(arena + 1);
    arena->end = (char *)block + MOON_ARENA_BLOCK_LEN;
    arena->left_len = cap_len;
    arena->pool = pool;
    arena->blocks = block;
    arena->large = NULL;
    arena->hooks = NULL;
    pool->live_count++;
    return arena;
}

void moon_arena_free(struct moon_arena *arena)
{
    if (!arena)
        return;
    while (arena->hooks) { // a hook may still allocate, and may add a hook
        struct hook *hook = arena->hooks;
        arena->hooks = hook->next;
        hook->fn(hook->arg);
    }
    for (struct block *block = arena->large, *next; block; block = next) {
        next = block->next;
        free(block);
    }
    struct moon_arena_pool *pool = arena->pool;
    for (struct block *block = arena->blocks, *next; block; block = next) {
        next = block->next;
        block_give(pool, block);
    }
    pool->live_count--;
}

void *moon_arena_alloc(struct moon_arena *arena, size_t len)
{
    void *ptr = take(arena, align_up(arena->pos), len);
    if (!ptr)
        abort();
    return ptr;
}

void *moon_arena_zalloc(struct moon_arena *arena, size_t len)
{
    return memset(moon_arena_alloc(arena, len), 0, len);
}

void *moon_arena_try_alloc(struct moon_arena *arena, size_t len)
{
    if (len > arena->left_len)
        return NULL;
    void *ptr = take(arena, align_up(arena->pos), len);
    if (ptr)
        arena->left_len -= len;
    return ptr;
}

char *moon_arena_try_bytes(struct moon_arena *arena, size_t len)
{
    if (len > arena->left_len)
        return NULL;
    char *ptr = take(arena, arena->pos, len);
    if (ptr)
        arena->left_len -= len;
    return ptr;
}

struct moon_slice moon_arena_try_copy(struct moon_arena *arena, struct moon_slice s)
{
    char *ptr = moon_arena_try_bytes(arena, s.len);
    if (!ptr)
        return (struct moon_slice){NULL, 0};
    if (s.len)
        memcpy(ptr, s.ptr, s.len);
    return (struct moon_slice){ptr, s.len};
}

// Formats straight into the free end of the block; a text that does not fit there is formatted a
// second time.
struct moon_slice moon_arena_try_format(struct moon_arena *arena, const char *format, ...)
{
    char *text = arena->pos;
    size_t room = (size_t)(arena->end - text);
    va_list args;
    moon_poison_del(text, room);
    va_start(args, format);
    int written = vsnprintf(text, room, format, args); // NOLINT: clang 14 misses the va_start
    va_end(args);
    moon_poison_add(text, room);

    size_t len = (size_t)written;
    if (written < 0 || len > arena->left_len)
        return (struct moon_slice){NULL, 0};
    bool fits = len < room; // with its NUL, which is not part of the slice
    text = fits ? take(arena, text, len) : take_slow(arena, len + 1);
    if (!text)
        return (struct moon_slice){NULL, 0};
    arena->left_len -= len;
    if (fits)
        return (struct moon_slice){text, len};
    va_start(args, format);
    vsnprintf(text, len + 1, format, args);
    va_end(args);
    return (struct moon_slice){text, len};
}

void moon_arena_on_free(struct moon_arena *arena, void (*fn)(void *arg), void *arg)
{
    struct hook *hook = moon_arena_alloc(arena, sizeof(*hook));
    *hook = (struct hook){arena->hooks, fn, arg};
    arena->hooks = hook;
}
