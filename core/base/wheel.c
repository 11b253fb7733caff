// Hierarchical timer wheel: 11 levels of 64 slots cover every 64-bit deadline, so none is ever out
// of range.
//
//   level 0: one millisecond a slot    level 1: 64 ms a slot    level 2: 4096 ms a slot    ...
//
// A timer sits at the level of the highest group of 6 bits in which its deadline differs from
// `now`, in the slot that the deadline has in that group. Hence in every level only slots after
// now's own are in use, each level lies wholly after the levels below it, and the next event is the
// first used slot of the lowest used level: two bit scans. When time reaches a slot above level 0
// its timers are put in place again, further down ("cascade").
//
// Advancing first collects what is due into `firing`, then runs the callbacks, which thus may add
// and del what they like. A timer armed for now or earlier waits in `late` for the next advance: a
// callback that arms itself again cannot spin. Invariants: an armed timer is in exactly one list; a
// slot's bit is set exactly when its list is not empty. Ownership: timers belong to their owners;
// the wheel owns only itself.
#include "base/wheel.h"

#include <stdlib.h>

enum { SLOT_BITS = 6, SLOT_COUNT = 1 << SLOT_BITS, LEVEL_COUNT = 11 };

struct moon_wheel {
    uint64_t now_ms;
    uint32_t used_levels;             // bit: the level has a used slot
    uint64_t used_slots[LEVEL_COUNT]; // bit: the slot has a timer
    struct moon_list late, firing;
    struct moon_list slots[LEVEL_COUNT * SLOT_COUNT];
};

static struct moon_timer *timer_of(struct moon_list *node)
{
    return MOON_CONTAINER(node, struct moon_timer, node);
}

static void move_all(struct moon_list *from, struct moon_list *to)
{
    if (moon_list_is_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    moon_list_init(from);
}

// The deadline must be after now.
static void place(struct moon_wheel *wheel, struct moon_timer *timer)
{
    unsigned level =
        (63U - (unsigned)__builtin_clzll(timer->deadline_ms ^ wheel->now_ms)) / SLOT_BITS;
    unsigned slot = (timer->deadline_ms >> (level * SLOT_BITS)) & (SLOT_COUNT - 1);
    moon_list_add_before(&wheel->slots[level * SLOT_COUNT + slot], &timer->node);
    wheel->used_slots[level] |= UINT64_C(1) << slot;
    wheel->used_levels |= 1U << level;
}

static void mark_empty(struct moon_wheel *wheel, unsigned level, unsigned slot)
{
    wheel->used_slots[level] &= ~(UINT64_C(1) << slot);
    if (wheel->used_slots[level] == 0)
        wheel->used_levels &= ~(1U << level);
}

// The first used slot; a level must be in use.
static uint64_t first_slot(const struct moon_wheel *wheel, unsigned *level, unsigned *slot)
{
    *level = (unsigned)__builtin_ctz(wheel->used_levels);
    *slot = (unsigned)__builtin_ctzll(wheel->used_slots[*level]);
    unsigned shift = *level * SLOT_BITS;
    return (((wheel->now_ms >> shift) & ~(uint64_t)(SLOT_COUNT - 1)) | *slot) << shift;
}

// Takes the slot's timers, now that its time has come: those due to `firing`, the others further
// down.
static void open_slot(struct moon_wheel *wheel, unsigned level, unsigned slot)
{
    struct moon_list *head = &wheel->slots[level * SLOT_COUNT + slot];
    mark_empty(wheel, level, slot);
    if (level == 0) {
        move_all(head, &wheel->firing);
        return;
    }
    struct moon_list *next;
    struct moon_list opened;
    moon_list_init(&opened);
    move_all(head, &opened);
    for (struct moon_list *node = opened.next; node != &opened; node = next) {
        next = node->next;
        if (timer_of(node)->deadline_ms > wheel->now_ms)
            place(wheel, timer_of(node));
        else
            moon_list_add_before(&wheel->firing, node);
    }
}

static void disarm_all(struct moon_list *head)
{
    while (!moon_list_is_empty(head))
        moon_list_del(head->next);
}

struct moon_wheel *moon_wheel_new(uint64_t now_ms)
{
    struct moon_wheel *wheel = calloc(1, sizeof(*wheel));
    if (!wheel)
        abort();
    wheel->now_ms = now_ms;
    moon_list_init(&wheel->late);
    moon_list_init(&wheel->firing);
    for (int i = 0; i < LEVEL_COUNT * SLOT_COUNT; i++)
        moon_list_init(&wheel->slots[i]);
    return wheel;
}

// Timers outlive the wheel here and there: they must not point into it.
void moon_wheel_free(struct moon_wheel *wheel)
{
    if (!wheel)
        return;
    disarm_all(&wheel->late);
    disarm_all(&wheel->firing);
    for (int i = 0; i < LEVEL_COUNT * SLOT_COUNT; i++)
        disarm_all(&wheel->slots[i]);
    free(wheel);
}

void moon_wheel_add(struct moon_wheel *wheel, struct moon_timer *timer, uint64_t deadline_ms)
{
    moon_wheel_del(wheel, timer);
    if (deadline_ms > wheel->now_ms) {
        timer->deadline_ms = deadline_ms;
        place(wheel, timer);
        return;
    }
    timer->deadline_ms = wheel->now_ms;
    moon_list_add_before(&wheel->late, &timer->node);
}

// Where the timer sits is not computed but seen: the neighbour of the last timer of a slot is the
// slot's head.
void moon_wheel_del(struct moon_wheel *wheel, struct moon_timer *timer)
{
    if (!moon_timer_is_armed(timer))
        return;
    struct moon_list *head = timer->node.next;
    moon_list_del(&timer->node);
    if (!moon_list_is_empty(head))
        return;
    uintptr_t offset = (uintptr_t)head - (uintptr_t)wheel->slots;
    if (offset >= sizeof(wheel->slots))
        return; // `late` or `firing`
    unsigned index = (unsigned)(offset / sizeof(struct moon_list));
    mark_empty(wheel, index / SLOT_COUNT, index % SLOT_COUNT);
}

void moon_wheel_advance(struct moon_wheel *wheel, uint64_t now_ms)
{
    if (now_ms < wheel->now_ms)
        return;
    move_all(&wheel->late, &wheel->firing);
    while (wheel->used_levels) {
        unsigned level, slot;
        uint64_t slot_ms = first_slot(wheel, &level, &slot);
        if (slot_ms > now_ms)
            break;
        wheel->now_ms = slot_ms;
        open_slot(wheel, level, slot);
    }
    wheel->now_ms = now_ms;
    while (!moon_list_is_empty(&wheel->firing)) {
        struct moon_timer *timer = timer_of(wheel->firing.next);
        moon_list_del(&timer->node);
        timer->fn(timer);
    }
}

uint64_t moon_wheel_next(const struct moon_wheel *wheel)
{
    if (!moon_list_is_empty(&wheel->late) || !moon_list_is_empty(&wheel->firing))
        return wheel->now_ms;
    if (!wheel->used_levels)
        return UINT64_MAX;
    unsigned level, slot;
    return first_slot(wheel, &level, &slot);
}
