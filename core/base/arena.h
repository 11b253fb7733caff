// Arena: bump allocation that is freed whole, with cleanup hooks. One arena per exchange; its blocks come from a free list
// that each worker owns, so that a request on a warm worker calls malloc not at all.
// Not thread safe: pool and arenas belong to one thread.
#pragma once

#include "base/slice.h"

#include <stddef.h>
#include <stdint.h>

enum { MOON_ARENA_BLOCK_LEN = 4096 };

struct moon_arena_pool;
struct moon_arena;

// Keeps at most `keep_count` free blocks.
struct moon_arena_pool *moon_arena_pool_new(size_t keep_count);
// Every arena must have been freed. NULL is fine.
void moon_arena_pool_free(struct moon_arena_pool *pool);
// Arenas now alive: zero when nothing leaks.
size_t moon_arena_pool_live_count(const struct moon_arena_pool *pool);

// `cap_len` bounds all bytes handed out by the try_ functions (and by them alone). The arena itself lives in its first block.
struct moon_arena *moon_arena_new(struct moon_arena_pool *pool, size_t cap_len);
// Runs the cleanup hooks, newest first, then gives every block back. NULL is fine.
void moon_arena_free(struct moon_arena *arena);

// Small fixed sizes: aligned to 16, not zeroed, aborts on OOM.
void *moon_arena_alloc(struct moon_arena *arena, size_t len);
// The same, zeroed.
void *moon_arena_zalloc(struct moon_arena *arena, size_t len);
// Sizes a peer decides: NULL over the cap or on OOM.
void *moon_arena_try_alloc(struct moon_arena *arena, size_t len);
// Bytes without alignment, for text; NULL over the cap or on OOM.
char *moon_arena_try_bytes(struct moon_arena *arena, size_t len);
// A copy of s; ptr is NULL over the cap or on OOM (an empty s gives a non-NULL ptr).
struct moon_slice moon_arena_try_copy(struct moon_arena *arena, struct moon_slice s);
// printf into the arena; ptr is NULL over the cap.
struct moon_slice moon_arena_try_format(struct moon_arena *arena, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
// `fn(arg)` runs when the arena is freed.
void moon_arena_on_free(struct moon_arena *arena, void (*fn)(void *arg), void *arg);
