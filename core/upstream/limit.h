// Limits of an upstream, process-wide: so many connections, so many exchanges that wait for one.
//
//   acquire --permit--> connection --closed: release--> the first waiter, on whatever worker, is granted a permit
//      | at the cap                 --idle: offer-----> a waiter of the same worker is granted the link as it stands
//      v
//   wait: queued with a deadline of the waiter's own; a wake goes to the worker when the waiter was granted something
//
// A permit belongs to a connection from before it is opened until it is closed, idle time included. Limits are known by the
// name of the upstream, so they survive edits. While nobody is at a cap, nothing but atomics is touched.
#pragma once

#include "base/list.h"
#include "base/slice.h"
#include "io/loop.h"
#include "io/mailbox.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct moon_limit;
struct moon_registry;

struct moon_limit_bounds {
    uint32_t connections, pending, pending_timeout_ms;
};

// The limit of the upstream of that name, made when there is none. Thread safe, as all here but where it says.
struct moon_limit *moon_limit_get(struct moon_registry *registry, struct moon_slice name);
struct moon_limit *moon_limit_ref(struct moon_limit *limit);
// NULL is fine.
void moon_limit_unref(struct moon_limit *limit);

// A worker as the one to be woken. Embedded in its pool.
struct moon_wake {
    struct moon_list node; // in the registry
    struct moon_registry *registry;
    struct moon_loop *loop;
    struct moon_mailbox *mailbox;
    struct moon_message message; // under way when is_posted
    atomic_bool is_posted;
    struct moon_task task;    // the same from the own worker
    struct moon_list granted; // of struct moon_waiter
    // On the worker: something was granted, or somebody waits while idle links are kept.
    void (*fn)(struct moon_wake *wake);
};

// On the worker.
void moon_wake_init(struct moon_wake *wake, struct moon_registry *registry, struct moon_loop *loop,
                    void (*fn)(struct moon_wake *wake));
void moon_wake_fini(struct moon_wake *wake);

enum moon_grant {
    MOON_GRANT_NONE,
    MOON_GRANT_PERMIT, // to open a connection
    MOON_GRANT_LINK,   // a link of this worker is kept for it
};

// Zeroed, with fn set; embedded in the exchange.
struct moon_waiter {
    struct moon_list node;
    struct moon_limit *limit; // NULL: neither queued nor granted
    struct moon_wake *wake;
    void (*fn)(struct moon_waiter *waiter); // on its worker: it was granted something, take it
    uint32_t cap;
    uint8_t grant; // enum moon_grant
    uint8_t passed_count;
};

// A permit, when one is free and nobody waits.
bool moon_limit_acquire(struct moon_limit *limit, uint32_t cap);
// Gives a permit back; `self` is the calling worker's.
void moon_limit_release(struct moon_limit *limit, struct moon_wake *self);
// Queues; a permit that is free by now is granted at once (fn is called later all the same). `is_again`: in front of all, and
// whatever the bound. 0, or MOON_ELIMIT when `pending` wait already.
int moon_limit_wait(struct moon_limit *limit, const struct moon_limit_bounds *bounds,
                    struct moon_waiter *waiter, struct moon_wake *self, bool is_again);
// Takes the waiter out and what it was granted from it: that is the caller's now. Harmless on one that does not wait.
enum moon_grant moon_limit_leave(struct moon_waiter *waiter);
// The next waiter of this worker that was granted something, which moon_limit_leave tells; NULL when none is left.
struct moon_waiter *moon_limit_next_granted(struct moon_wake *self);

bool moon_limit_is_waited_for(const struct moon_limit *limit);
enum moon_offer { MOON_OFFER_KEEP, MOON_OFFER_GRANTED, MOON_OFFER_CLOSE };
// A link has become idle. KEEP: nobody waits; GRANTED: a waiter of this worker comes for it; CLOSE: another worker's is next.
enum moon_offer moon_limit_offer(struct moon_limit *limit, struct moon_wake *self);
// How many idle links all workers keep: one who waits asks for them.
void moon_limit_count_idle(struct moon_limit *limit, int change);
// For tests and the admin surface.
uint32_t moon_limit_used_count(const struct moon_limit *limit);
uint32_t moon_limit_waiting_count(const struct moon_limit *limit);
