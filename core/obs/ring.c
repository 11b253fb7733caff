// The ring: positions grow for ever and are cut to the length by a mask. Behind the end lies slack for one record, so that
// a record is always written in one piece; what falls into the slack is then copied to the start.
#include "obs/ring.h"

#include <stdbool.h>
#include <stdlib.h>

struct moon_ring {
    // the worker's line
    _Alignas(64) _Atomic uint64_t head;
    uint64_t seen_tail; // as last read
    // the writer's line
    _Alignas(64) _Atomic uint64_t tail;
    // written by both, but seldom
    _Alignas(64) atomic_bool is_asleep, is_urgent;
    _Alignas(64) size_t len;
    char *bytes;
    void (*wake)(void *owner);
    void *owner;
};

struct moon_ring *moon_ring_new(size_t len, void (*wake)(void *owner), void *owner)
{
    struct moon_ring *ring = aligned_alloc(64, sizeof *ring);
    if (!ring)
        abort();
    memset(ring, 0, sizeof *ring);
    ring->len = MOON_RING_MIN_LEN;
    while (ring->len < len)
        ring->len *= 2;
    ring->bytes = malloc(ring->len + MOON_RING_RECORD_MAX_LEN);
    if (!ring->bytes)
        abort();
    ring->wake = wake;
    ring->owner = owner;
    return ring;
}

void moon_ring_free(struct moon_ring *ring)
{
    if (!ring)
        return;
    free(ring->bytes);
    free(ring);
}

char *moon_ring_reserve(struct moon_ring *ring)
{
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    if (head - ring->seen_tail > ring->len - MOON_RING_RECORD_MAX_LEN) {
        ring->seen_tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
        if (head - ring->seen_tail > ring->len - MOON_RING_RECORD_MAX_LEN)
            return NULL;
    }
    return ring->bytes + (head & (ring->len - 1));
}

// Whether the writer must be told: it sleeps, or the half was passed and it was not told yet.
static bool must_wake(struct moon_ring *ring, uint64_t head)
{
    if (atomic_load_explicit(&ring->is_asleep, memory_order_relaxed)) {
        atomic_store_explicit(&ring->is_asleep, false, memory_order_relaxed);
        return true;
    }
    if (head - ring->seen_tail <= ring->len / 2)
        return false;
    ring->seen_tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
    if (head - ring->seen_tail <= ring->len / 2 ||
        atomic_load_explicit(&ring->is_urgent, memory_order_relaxed))
        return false;
    atomic_store_explicit(&ring->is_urgent, true, memory_order_relaxed);
    return true;
}

void moon_ring_commit(struct moon_ring *ring, size_t len)
{
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    size_t end = (head & (ring->len - 1)) + len;
    if (end > ring->len)
        memcpy(ring->bytes, ring->bytes + ring->len, end - ring->len);
    atomic_store_explicit(&ring->head, head + len, memory_order_release);
    if (must_wake(ring, head + len))
        ring->wake(ring->owner);
}

size_t moon_ring_peek(const struct moon_ring *ring, struct moon_slice out[2])
{
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    size_t len = (size_t)(atomic_load_explicit(&ring->head, memory_order_acquire) - tail);
    size_t at = tail & (ring->len - 1), first = ring->len - at < len ? ring->len - at : len;
    out[0] = (struct moon_slice){ring->bytes + at, first};
    out[1] = (struct moon_slice){ring->bytes, len - first};
    return len;
}

void moon_ring_consume(struct moon_ring *ring, size_t len)
{
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    atomic_store_explicit(&ring->tail, tail + len, memory_order_release);
    atomic_store_explicit(&ring->is_urgent, false, memory_order_relaxed);
}

void moon_ring_sleep(struct moon_ring *ring)
{
    atomic_store_explicit(&ring->is_asleep, true, memory_order_relaxed);
}
