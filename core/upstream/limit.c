// Permits and the queue for them. Who waits is counted before it looks at the permits once more, and who releases looks at that
// count afterwards (both sequentially consistent): one of the two always sees the other, so no wake-up is lost.
#include "upstream/limit.h"

#include "base/err.h"
#include "upstream/registry_priv.h"

#include <stdlib.h>
#include <string.h>

enum {
    // A link goes to a waiter of its own worker, whose place may be up to here, rather than being closed for another worker's.
    OFFER_SCAN_COUNT = 16,
    PASSED_MAX_COUNT = 8, // so often at most is the first one passed over by that
};

struct moon_limit {
    struct moon_list node;
    struct moon_registry *registry;
    unsigned ref_count;       // under the lock, as the next
    struct moon_list waiters; // the longest waiting first
    size_t name_len;
    _Alignas(64) atomic_uint used_count;
    atomic_uint waiting_count, idle_count;
    char name[];
};

struct moon_limit *moon_limit_get(struct moon_registry *registry, struct moon_slice name)
{
    struct moon_limit *limit = NULL;
    pthread_mutex_lock(&registry->lock);
    for (struct moon_list *at = registry->limits.next; at != &registry->limits; at = at->next) {
        struct moon_limit *known = MOON_CONTAINER(at, struct moon_limit, node);
        if (moon_slice_equal((struct moon_slice){known->name, known->name_len}, name)) {
            limit = known;
            break;
        }
    }
    if (!limit) {
        size_t len = (sizeof *limit + name.len + 63) / 64 * 64;
        limit = aligned_alloc(64, len);
        if (!limit)
            abort();
        memset(limit, 0, len);
        limit->registry = registry;
        limit->name_len = name.len;
        memcpy(limit->name, name.ptr, name.len);
        moon_list_init(&limit->waiters);
        moon_list_add_before(&registry->limits, &limit->node);
    }
    limit->ref_count++;
    pthread_mutex_unlock(&registry->lock);
    return limit;
}

struct moon_limit *moon_limit_ref(struct moon_limit *limit)
{
    pthread_mutex_lock(&limit->registry->lock);
    limit->ref_count++;
    pthread_mutex_unlock(&limit->registry->lock);
    return limit;
}

void moon_limit_unref(struct moon_limit *limit)
{
    if (!limit)
        return;
    struct moon_registry *registry = limit->registry;
    pthread_mutex_lock(&registry->lock);
    if (--limit->ref_count == 0) {
        moon_list_del(&limit->node);
        free(limit);
    }
    pthread_mutex_unlock(&registry->lock);
}

// ---- waking workers

static void on_message(void *owner, struct moon_message *message)
{
    (void)message;
    struct moon_wake *wake = owner;
    atomic_store(&wake->is_posted, false);
    wake->fn(wake);
}

static void on_task(struct moon_task *task)
{
    struct moon_wake *wake = MOON_CONTAINER(task, struct moon_wake, task);
    wake->fn(wake);
}

void moon_wake_init(struct moon_wake *wake, struct moon_registry *registry, struct moon_loop *loop,
                    void (*fn)(struct moon_wake *wake))
{
    *wake = (struct moon_wake){.registry = registry, .loop = loop, .fn = fn};
    wake->task.fn = on_task;
    wake->mailbox = moon_mailbox_new(loop, on_message, wake);
    moon_list_init(&wake->granted);
    pthread_mutex_lock(&registry->lock);
    moon_list_add_before(&registry->wakes, &wake->node);
    pthread_mutex_unlock(&registry->lock);
}

void moon_wake_fini(struct moon_wake *wake)
{
    pthread_mutex_lock(&wake->registry->lock);
    moon_list_del(&wake->node);
    pthread_mutex_unlock(&wake->registry->lock);
    moon_task_cancel(&wake->task);
    moon_mailbox_free(wake->mailbox);
}

// Under the lock, so that the worker is still there.
static void wake_up(struct moon_wake *wake, const struct moon_wake *self)
{
    if (wake == self)
        moon_loop_defer(wake->loop, &wake->task);
    else if (!atomic_exchange(&wake->is_posted, true))
        moon_mailbox_post(wake->mailbox, &wake->message);
}

// ---- permits

static bool take_permit(struct moon_limit *limit, uint32_t cap)
{
    unsigned used = atomic_load(&limit->used_count);
    while (used < cap)
        if (atomic_compare_exchange_weak(&limit->used_count, &used, used + 1))
            return true;
    return false;
}

bool moon_limit_acquire(struct moon_limit *limit, uint32_t cap)
{
    return atomic_load(&limit->waiting_count) == 0 && take_permit(limit, cap);
}

// Under the lock.
static void grant(struct moon_waiter *waiter, enum moon_grant what, const struct moon_wake *self)
{
    moon_list_del(&waiter->node);
    atomic_fetch_sub(&waiter->limit->waiting_count, 1);
    waiter->grant = (uint8_t)what;
    moon_list_add_before(&waiter->wake->granted, &waiter->node);
    wake_up(waiter->wake, self);
}

static struct moon_waiter *first_of(const struct moon_limit *limit)
{
    return MOON_CONTAINER(limit->waiters.next, struct moon_waiter, node);
}

// Under the lock: free permits go to those who wait, in order.
static void serve(struct moon_limit *limit, const struct moon_wake *self)
{
    while (!moon_list_is_empty(&limit->waiters) && take_permit(limit, first_of(limit)->cap))
        grant(first_of(limit), MOON_GRANT_PERMIT, self);
}

void moon_limit_release(struct moon_limit *limit, struct moon_wake *self)
{
    atomic_fetch_sub(&limit->used_count, 1);
    if (atomic_load(&limit->waiting_count) == 0)
        return;
    pthread_mutex_lock(&limit->registry->lock);
    serve(limit, self);
    pthread_mutex_unlock(&limit->registry->lock);
}

// ---- the queue

// Others keep idle links while somebody waits: they are to close one.
static void ask_for_idle(struct moon_limit *limit, const struct moon_wake *self)
{
    if (moon_list_is_empty(&limit->waiters) || atomic_load(&limit->idle_count) == 0)
        return;
    struct moon_list *wakes = &limit->registry->wakes;
    for (struct moon_list *at = wakes->next; at != wakes; at = at->next)
        wake_up(MOON_CONTAINER(at, struct moon_wake, node), self);
}

int moon_limit_wait(struct moon_limit *limit, const struct moon_limit_bounds *bounds,
                    struct moon_waiter *waiter, struct moon_wake *self, bool is_again)
{
    int err = 0;
    pthread_mutex_lock(&limit->registry->lock);
    if (!is_again && atomic_load(&limit->waiting_count) >= bounds->pending) {
        err = MOON_ELIMIT;
    } else {
        waiter->limit = limit;
        waiter->wake = self;
        waiter->cap = bounds->connections;
        waiter->grant = MOON_GRANT_NONE;
        waiter->passed_count = 0;
        atomic_fetch_add(&limit->waiting_count, 1);
        if (is_again)
            moon_list_add_after(&limit->waiters, &waiter->node);
        else
            moon_list_add_before(&limit->waiters, &waiter->node);
        serve(limit, self);
        ask_for_idle(limit, self);
    }
    pthread_mutex_unlock(&limit->registry->lock);
    return err;
}

enum moon_grant moon_limit_leave(struct moon_waiter *waiter)
{
    struct moon_limit *limit = waiter->limit;
    if (!limit)
        return MOON_GRANT_NONE;
    pthread_mutex_lock(&limit->registry->lock);
    enum moon_grant what = waiter->grant;
    moon_list_del(&waiter->node);
    if (what == MOON_GRANT_NONE)
        atomic_fetch_sub(&limit->waiting_count, 1);
    waiter->limit = NULL;
    waiter->grant = MOON_GRANT_NONE;
    pthread_mutex_unlock(&limit->registry->lock);
    return what;
}

struct moon_waiter *moon_limit_next_granted(struct moon_wake *self)
{
    struct moon_waiter *waiter = NULL;
    pthread_mutex_lock(&self->registry->lock);
    if (!moon_list_is_empty(&self->granted)) {
        waiter = MOON_CONTAINER(self->granted.next, struct moon_waiter, node);
        moon_list_del(&waiter->node);
    }
    pthread_mutex_unlock(&self->registry->lock);
    return waiter;
}

bool moon_limit_is_waited_for(const struct moon_limit *limit)
{
    return atomic_load(&limit->waiting_count) > 0;
}

// Under the lock: the waiter of this worker that a link of its own goes to.
static struct moon_waiter *choose(const struct moon_limit *limit, const struct moon_wake *self)
{
    struct moon_waiter *first = first_of(limit);
    if (first->wake == self || first->passed_count >= PASSED_MAX_COUNT)
        return first->wake == self ? first : NULL;
    struct moon_list *at = first->node.next;
    for (int i = 1; i < OFFER_SCAN_COUNT && at != &limit->waiters; i++, at = at->next) {
        struct moon_waiter *waiter = MOON_CONTAINER(at, struct moon_waiter, node);
        if (waiter->wake != self)
            continue;
        first->passed_count++;
        return waiter;
    }
    return NULL;
}

enum moon_offer moon_limit_offer(struct moon_limit *limit, struct moon_wake *self)
{
    enum moon_offer offer = MOON_OFFER_KEEP;
    if (!moon_limit_is_waited_for(limit))
        return offer;
    pthread_mutex_lock(&limit->registry->lock);
    if (!moon_list_is_empty(&limit->waiters)) {
        struct moon_waiter *waiter = choose(limit, self);
        offer = waiter ? MOON_OFFER_GRANTED : MOON_OFFER_CLOSE;
        if (waiter)
            grant(waiter, MOON_GRANT_LINK, self);
    }
    pthread_mutex_unlock(&limit->registry->lock);
    return offer;
}

void moon_limit_count_idle(struct moon_limit *limit, int change)
{
    atomic_fetch_add(&limit->idle_count, (unsigned)change);
}

uint32_t moon_limit_used_count(const struct moon_limit *limit)
{
    return atomic_load(&limit->used_count);
}

uint32_t moon_limit_waiting_count(const struct moon_limit *limit)
{
    return atomic_load(&limit->waiting_count);
}
