// Unit tests of base/wheel: by example, by callbacks that change the wheel, and at random against a
// naive list.
#include "base/wheel.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h> // after what it needs

// A timer that notes its number when it fires, then does as it was told.
struct probe {
    struct moon_timer timer;
    struct fixture *fixture;
    int id;
    struct probe *kills; // del this one
    struct probe *arms;  // add this one at `arms_ms`
    uint64_t arms_ms;
};

struct fixture {
    struct moon_wheel *wheel;
    struct probe probes[64];
    int fired[256];
    int fired_count;
};

static void note(struct moon_timer *timer)
{
    struct probe *probe = MOON_CONTAINER(timer, struct probe, timer);
    struct fixture *f = probe->fixture;
    assert_false(moon_timer_is_armed(timer));
    f->fired[f->fired_count++] = probe->id;
    if (probe->kills)
        moon_wheel_del(f->wheel, &probe->kills->timer);
    if (probe->arms)
        moon_wheel_add(f->wheel, &probe->arms->timer, probe->arms_ms);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->wheel = moon_wheel_new(1000);
    for (int i = 0; i < 64; i++) {
        f->probes[i].timer.fn = note;
        f->probes[i].fixture = f;
        f->probes[i].id = i;
    }
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    moon_wheel_free(f->wheel);
    for (int i = 0; i < 64; i++)
        assert_false(moon_timer_is_armed(&f->probes[i].timer));
    free(f);
    return 0;
}

static void arm(struct fixture *f, int id, uint64_t deadline_ms)
{
    moon_wheel_add(f->wheel, &f->probes[id].timer, deadline_ms);
}

static void assert_fired(struct fixture *f, const char *ids)
{
    char text[256] = "";
    for (int i = 0; i < f->fired_count; i++)
        text[i] = (char)('a' + f->fired[i]);
    assert_string_equal(text, ids);
    f->fired_count = 0;
}

static void an_empty_wheel_waits_for_ever(void **state)
{
    struct fixture *f = *state;
    assert_true(moon_wheel_next(f->wheel) == UINT64_MAX);
    moon_wheel_del(f->wheel, &f->probes[0].timer);
    moon_wheel_advance(f->wheel, 500);
    moon_wheel_advance(f->wheel, UINT64_MAX);
    assert_true(moon_wheel_next(f->wheel) == UINT64_MAX);
    moon_wheel_free(NULL);
}

static void timers_fire_on_time_and_in_order(void **state)
{
    struct fixture *f = *state;
    arm(f, 0, 1500);
    arm(f, 1, 1010);
    arm(f, 2, 1500);
    arm(f, 3, 90000);
    assert_true(moon_timer_is_armed(&f->probes[0].timer));
    assert_int_equal(moon_wheel_next(f->wheel), 1010);
    moon_wheel_advance(f->wheel, 1009);
    assert_fired(f, "");
    moon_wheel_advance(f->wheel, 1010);
    assert_fired(f, "b");
    moon_wheel_advance(f->wheel, 1499);
    assert_fired(f, "");
    moon_wheel_advance(f->wheel, 89999);
    assert_fired(f, "ac");
    moon_wheel_advance(f->wheel, 90000);
    assert_fired(f, "d");
}

static void a_large_jump_keeps_the_order(void **state)
{
    struct fixture *f = *state;
    const uint64_t deadlines[] = {UINT64_MAX - 1, 1u << 30, 1001,    UINT64_C(1) << 62,
                                  5000,           4999,     1u << 30};
    for (int i = 0; i < 7; i++)
        arm(f, i, deadlines[i]);
    moon_wheel_advance(f->wheel, UINT64_MAX);
    assert_fired(f, "cfebgda");
}

static void a_passed_deadline_fires_in_the_next_advance(void **state)
{
    struct fixture *f = *state;
    arm(f, 0, 3);
    arm(f, 1, 1000);
    assert_true(moon_wheel_next(f->wheel) <= 1000);
    moon_wheel_advance(f->wheel, 1000);
    assert_fired(f, "ab");
}

static void moving_and_deleting(void **state)
{
    struct fixture *f = *state;
    arm(f, 0, 2000);
    arm(f, 0, 1001);
    arm(f, 1, 1001);
    arm(f, 1, 900000);
    arm(f, 2, 1002);
    moon_wheel_del(f->wheel, &f->probes[2].timer);
    moon_wheel_del(f->wheel, &f->probes[2].timer);
    arm(f, 3, 1);
    moon_wheel_del(f->wheel, &f->probes[3].timer);
    moon_wheel_advance(f->wheel, 3000);
    assert_fired(f, "a");
    moon_wheel_del(f->wheel, &f->probes[1].timer);
    assert_true(moon_wheel_next(f->wheel) == UINT64_MAX);
}

// a deletes its successor in the slot, c arms one that is about to fire, d one that has fired.
static void callbacks_change_the_slot_being_fired(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 6; i++)
        arm(f, i, 1005);
    f->probes[0].kills = &f->probes[1];
    f->probes[2].arms = &f->probes[4];
    f->probes[2].arms_ms = 1006;
    f->probes[3].arms = &f->probes[0];
    f->probes[3].arms_ms = 1007;
    moon_wheel_advance(f->wheel, 1005);
    assert_fired(f, "acdf");
    moon_wheel_advance(f->wheel, 2000);
    assert_fired(f, "ea");
}

static void a_callback_that_arms_itself_for_now_does_not_spin(void **state)
{
    struct fixture *f = *state;
    arm(f, 0, 1001);
    f->probes[0].arms = &f->probes[0];
    f->probes[0].arms_ms = 1500;
    moon_wheel_advance(f->wheel, 2000);
    assert_fired(f, "a");
    assert_true(moon_wheel_next(f->wheel) <= 2000);
    moon_wheel_advance(f->wheel, 2000);
    assert_fired(f, "a");
}

static void free_owner(struct moon_timer *timer)
{
    free(timer);
}

static void a_callback_may_free_its_timer(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 10; i++) {
        struct moon_timer *timer = calloc(1, sizeof(*timer));
        timer->fn = free_owner;
        moon_wheel_add(f->wheel, timer, 1000 + (uint64_t)i / 3);
    }
    moon_wheel_advance(f->wheel, 1100);
    assert_true(moon_wheel_next(f->wheel) == UINT64_MAX);
}

// Following moon_wheel_next reaches every deadline exactly, in at most one step for each level.
static void next_leads_to_the_deadline(void **state)
{
    struct fixture *f = *state;
    const uint64_t deadline_ms = 1000 + UINT64_C(86400000) * 400 + 777;
    arm(f, 0, deadline_ms);
    int steps = 0;
    for (uint64_t now_ms = 0; f->fired_count == 0; steps++) {
        uint64_t next_ms = moon_wheel_next(f->wheel);
        assert_true(next_ms > now_ms && next_ms <= deadline_ms);
        now_ms = next_ms;
        moon_wheel_advance(f->wheel, now_ms);
        assert_int_equal(f->fired_count, now_ms == deadline_ms);
    }
    assert_in_range(steps, 1, 6);
}

// The naive wheel: an array, searched from end to end.
enum { MODEL_COUNT = 300 };

struct model {
    struct moon_wheel *wheel;
    struct model_timer {
        struct moon_timer timer;
        struct model *model;
        bool armed;
        uint64_t deadline_ms, order; // order: of arming, decides among equals
    } timers[MODEL_COUNT];
    uint64_t now_ms, target_ms, order, last_ms, fired_count;
    uint32_t seed;
    bool busy; // callbacks change timers
};

static uint32_t draw(struct model *m, uint32_t bound)
{
    m->seed ^= m->seed << 13;
    m->seed ^= m->seed >> 17;
    m->seed ^= m->seed << 5;
    return m->seed % bound;
}

static struct model_timer *model_first(struct model *m)
{
    struct model_timer *best = NULL;
    for (int i = 0; i < MODEL_COUNT; i++) {
        struct model_timer *t = &m->timers[i];
        if (!t->armed)
            continue;
        if (!best || t->deadline_ms < best->deadline_ms ||
            (t->deadline_ms == best->deadline_ms && t->order < best->order))
            best = t;
    }
    return best;
}

static void model_change(struct model *m)
{
    static const uint32_t spans[] = {4, 64, 200, 5000, 300000, 40000000, 4000000000};
    struct model_timer *t = &m->timers[draw(m, MODEL_COUNT)];
    if (draw(m, 3) == 0) {
        moon_wheel_del(m->wheel, &t->timer);
        t->armed = false;
        return;
    }
    uint64_t deadline_ms = m->target_ms + draw(m, spans[draw(m, 7)]);
    deadline_ms -= draw(m, 3); // sometimes late
    moon_wheel_add(m->wheel, &t->timer, deadline_ms);
    t->armed = true;
    t->deadline_ms = deadline_ms < m->target_ms ? m->target_ms : deadline_ms;
    t->order = ++m->order;
}

static void model_fire(struct moon_timer *timer)
{
    struct model_timer *t = MOON_CONTAINER(timer, struct model_timer, timer);
    struct model *m = t->model;
    assert_true(t->armed);
    assert_true(t->deadline_ms <= m->target_ms);
    assert_true(t->deadline_ms >= m->last_ms);
    if (!m->busy)
        assert_ptr_equal(t, model_first(m));
    m->last_ms = t->deadline_ms;
    m->fired_count++;
    t->armed = false;
    for (uint32_t i = m->busy ? draw(m, 3) : 0; i > 0; i--)
        model_change(m);
}

// What was armed for now or earlier while callbacks ran may wait for one more advance.
static void model_check(struct model *m, uint64_t order_before)
{
    struct model_timer *first = NULL;
    for (int i = 0; i < MODEL_COUNT; i++) {
        struct model_timer *t = &m->timers[i];
        assert_int_equal(t->armed, moon_timer_is_armed(&t->timer));
        if (t->armed && t->order <= order_before)
            assert_true(t->deadline_ms > m->now_ms);
        if (t->armed && (!first || t->deadline_ms < first->deadline_ms))
            first = t;
    }
    uint64_t next_ms = moon_wheel_next(m->wheel);
    assert_true(first ? next_ms <= first->deadline_ms : next_ms == UINT64_MAX);
    assert_true(next_ms >= m->now_ms);
}

static void model_run(uint32_t seed, bool busy)
{
    static const uint32_t jumps[] = {1, 2, 64, 500, 10000, 1000000, 100000000, 3000000000};
    struct model *m = calloc(1, sizeof(*m));
    *m = (struct model){.seed = seed, .busy = busy, .now_ms = UINT64_C(1700000000000) + seed};
    m->target_ms = m->now_ms;
    m->wheel = moon_wheel_new(m->now_ms);
    for (int i = 0; i < MODEL_COUNT; i++) {
        m->timers[i].timer.fn = model_fire;
        m->timers[i].model = m;
    }
    for (int round = 0; round < 1500; round++) {
        for (uint32_t i = draw(m, 20); i > 0; i--)
            model_change(m);
        uint64_t next_ms = moon_wheel_next(m->wheel);
        bool follow = draw(m, 2) && next_ms != UINT64_MAX;
        m->target_ms = follow ? next_ms : m->now_ms + draw(m, jumps[draw(m, 8)]);
        m->last_ms = 0;
        uint64_t order_before = m->order;
        moon_wheel_advance(m->wheel, m->target_ms);
        m->now_ms = m->target_ms;
        model_check(m, order_before);
    }
    assert_true(m->fired_count > 1000);
    moon_wheel_free(m->wheel);
    free(m);
}

static void random_use_agrees_with_a_naive_list(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed <= 6; seed++)
        model_run(seed * 7919, false);
}

static void random_callbacks_agree_with_a_naive_list(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed <= 6; seed++)
        model_run(seed * 104729, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_empty_wheel_waits_for_ever, setup, teardown),
        cmocka_unit_test_setup_teardown(timers_fire_on_time_and_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(a_large_jump_keeps_the_order, setup, teardown),
        cmocka_unit_test_setup_teardown(a_passed_deadline_fires_in_the_next_advance, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(moving_and_deleting, setup, teardown),
        cmocka_unit_test_setup_teardown(callbacks_change_the_slot_being_fired, setup, teardown),
        cmocka_unit_test_setup_teardown(a_callback_that_arms_itself_for_now_does_not_spin, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_callback_may_free_its_timer, setup, teardown),
        cmocka_unit_test_setup_teardown(next_leads_to_the_deadline, setup, teardown),
        cmocka_unit_test(random_use_agrees_with_a_naive_list),
        cmocka_unit_test(random_callbacks_agree_with_a_naive_list),
    };
    return cmocka_run_group_tests_name("base/wheel", tests, NULL, NULL);
}
