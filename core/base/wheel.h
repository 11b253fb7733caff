// Hierarchical timer wheel in milliseconds (Varghese and Lauck, SOSP 1987): add and del are O(1), a turn costs what expires.
// The caller brings the time; the wheel never looks at a clock. Not thread safe.
#pragma once

#include "base/list.h"

#include <stdbool.h>
#include <stdint.h>

struct moon_wheel;
struct moon_timer;

typedef void moon_timer_fn(struct moon_timer *timer);

// Embedded in its owner (MOON_CONTAINER finds it back); zeroed and with `fn` set it is ready for use.
struct moon_timer {
    struct moon_list node;
    uint64_t deadline_ms;
    // The timer is off the wheel when fn runs; fn may add it again or free its owner.
    moon_timer_fn *fn;
};

struct moon_wheel *moon_wheel_new(uint64_t now_ms);
void moon_wheel_free(struct moon_wheel *wheel);

// Arms the timer for deadline_ms, or moves it there; a deadline that has passed fires in the next advance.
void moon_wheel_add(struct moon_wheel *wheel, struct moon_timer *timer, uint64_t deadline_ms);
// Disarms; harmless on a timer that is not armed.
void moon_wheel_del(struct moon_wheel *wheel, struct moon_timer *timer);

static inline bool moon_timer_is_armed(const struct moon_timer *timer)
{
    return !moon_list_is_empty(&timer->node);
}

// Fires every timer with deadline_ms <= now_ms, in order of deadline as far as one millisecond tells. Never fires early.
void moon_wheel_advance(struct moon_wheel *wheel, uint64_t now_ms);
// A time not after the earliest deadline (it may be earlier: a cascade), UINT64_MAX when empty.
uint64_t moon_wheel_next(const struct moon_wheel *wheel);
