// Byte ring between one worker, which writes whole records, and the log writer, which takes runs of them. Neither waits for the
// other: a record that finds no room is dropped and counted by its worker.
//
//   worker: reserve -> fill in -> commit          writer: peek (two slices) -> write to the file -> consume
//
// Invariant: what lies between tail and head is whole records (each ends with '\n').
#pragma once

#include "base/slice.h"

#include <stdatomic.h>
#include <stdint.h>

enum {
    MOON_RING_RECORD_MAX_LEN = 65536,
    MOON_RING_MIN_LEN = 262144,
};

struct moon_ring;

// `len` is rounded up to a power of two. `wake(owner)` runs on the worker when the writer sleeps, or the ring is half full.
struct moon_ring *moon_ring_new(size_t len, void (*wake)(void *owner), void *owner);
// NULL is fine.
void moon_ring_free(struct moon_ring *ring);

// ---- the worker

// Room for a record of any length up to MOON_RING_RECORD_MAX_LEN, in one piece; NULL when the ring is too full for that.
char *moon_ring_reserve(struct moon_ring *ring);
// Publishes the first `len` bytes of what was reserved.
void moon_ring_commit(struct moon_ring *ring, size_t len);

// ---- the writer

// What is there, in order; the second slice is empty unless it wraps. The bytes in all.
size_t moon_ring_peek(const struct moon_ring *ring, struct moon_slice out[2]);
// Gives the first `len` bytes back.
void moon_ring_consume(struct moon_ring *ring, size_t len);
// The next record wakes the writer. It looks once more after a while before it trusts in that: the worker may just have
// committed one without having seen the change.
void moon_ring_sleep(struct moon_ring *ring);
