// Names of one worker, with answers made here in place of the desk's: who waits, what is remembered and how much of it.
#include "upstream/names.c"

#include "io/sim.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h> // after what it needs

enum { ASKER_COUNT = 2000 };

struct asker {
    struct moon_name_wait wait;
    struct moon_name_answer answer;
    unsigned told_count;
};

static struct moon_world *world;
static struct moon_resources res;
static struct moon_settings settings;
static struct moon_names *names;
static struct moon_name_question *asked[ASKER_COUNT];
static size_t asked_count;
static struct asker askers[ASKER_COUNT];

// In place of name_desk.c.
void moon_name_desk_ask(struct moon_name_desk *desk, struct moon_name_question *question)
{
    (void)desk;
    asked[asked_count++] = question;
}

static void on_told(struct moon_name_wait *wait, const struct moon_name_answer *answer)
{
    struct asker *asker = MOON_CONTAINER(wait, struct asker, wait);
    asker->answer = *answer;
    asker->told_count++;
}

static bool ask(size_t index, const char *host)
{
    askers[index] = (struct asker){.wait.fn = on_told};
    return moon_names_ask(names, moon_slice_from(host), &askers[index].wait, &askers[index].answer);
}

static void reply(size_t index, int err, uint8_t last_byte, uint32_t ttl_s)
{
    struct moon_name_question *question = asked[index];
    question->err = err;
    question->ttl_s = ttl_s;
    question->count = err ? 0 : 1;
    question->addresses = calloc(1, sizeof *question->addresses);
    question->addresses[0] =
        (struct moon_address){.family = MOON_FAMILY_IPV4, .ip = {10, 0, 0, last_byte}};
    on_message(names, &question->message);
}

static int set_up(void **state)
{
    static const struct moon_sim_faults perfect;
    (void)state;
    world = moon_world_new_sim(1, &perfect);
    settings.resolver.negative_ms = 5000;
    res = (struct moon_resources){.loop = moon_loop_new(world), .settings = &settings};
    names = moon_names_new(&res, NULL);
    asked_count = 0;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    moon_names_free(names);
    moon_loop_free(res.loop);
    assert_int_equal(0, moon_sim_live_count(world));
    moon_world_free(world);
    settings.resolver.stale_ms = 0;
    return 0;
}

static void pass(uint64_t ms)
{
    res.loop->now_ms += ms;
}

static void those_who_ask_for_the_same_wait_together(void **state)
{
    (void)state;
    assert_false(ask(0, "a.test"));
    assert_false(ask(1, "A.Test"));
    assert_false(ask(2, "b.test"));
    assert_int_equal(2, asked_count);
    moon_name_wait_stop(&askers[1].wait);
    reply(0, 0, 7, 60);
    assert_int_equal(1, askers[0].told_count);
    assert_int_equal(0, askers[1].told_count);
    assert_int_equal(0, askers[2].told_count);
    assert_int_equal(1, askers[0].answer.count);
    assert_true(ask(3, "a.test"));
    assert_int_equal(7, askers[3].answer.addresses[0].ip[3]);
    assert_int_equal(2, asked_count);
    moon_name_wait_stop(&askers[2].wait);
}

static void an_old_answer_serves_for_a_while(void **state)
{
    (void)state;
    ask(0, "a.test");
    reply(0, 0, 7, 2);
    pass(1999);
    assert_true(ask(0, "a.test"));
    assert_int_equal(1, asked_count);
    pass(2);
    assert_true(ask(0, "a.test")); // and is asked for
    assert_true(ask(0, "a.test")); // once
    assert_int_equal(2, asked_count);
    reply(1, 0, 8, 2);
    assert_true(ask(0, "a.test"));
    assert_int_equal(8, askers[0].answer.addresses[0].ip[3]);
    pass(2000 + GRACE_MS);
    assert_false(ask(0, "a.test")); // too old
    reply(2, 0, 9, 2);
    assert_int_equal(9, askers[0].answer.addresses[0].ip[3]);
}

static void an_old_answer_serves_while_the_resolver_fails(void **state)
{
    (void)state;
    settings.resolver.stale_ms = 60000;
    ask(0, "a.test");
    reply(0, 0, 7, 1);
    pass(30000);
    assert_false(ask(0, "a.test"));
    reply(1, MOON_ETIMEOUT, 0, 0);
    assert_int_equal(0, askers[0].answer.err);
    assert_int_equal(1, askers[0].answer.count);
    pass(29999);
    assert_true(ask(0, "a.test")); // at once now, and asked for
    reply(2, MOON_ETIMEOUT, 0, 0);
    assert_true(ask(0, "a.test"));
    assert_int_equal(0, askers[0].answer.err);
    pass(10000);
    assert_true(ask(0, "a.test"));
    reply(3, MOON_ETIMEOUT, 0, 0); // stale
    assert_true(ask(0, "a.test"));
    assert_int_equal(MOON_ETIMEOUT, askers[0].answer.err);
}

static void a_missing_name_is_remembered(void **state)
{
    (void)state;
    ask(0, "a.test");
    reply(0, MOON_ENAME, 0, 0);
    assert_int_equal(MOON_ENAME, askers[0].answer.err);
    pass(4999);
    assert_true(ask(0, "a.test"));
    assert_int_equal(MOON_ENAME, askers[0].answer.err);
    pass(1);
    assert_false(ask(0, "a.test"));
    moon_name_wait_stop(&askers[0].wait);
}

static void a_name_that_was_there_is_missed_twice(void **state)
{
    (void)state;
    ask(0, "a.test");
    reply(0, 0, 7, 1);
    pass(1000);
    assert_true(ask(0, "a.test"));
    reply(1, MOON_ENAME, 0, 0);
    assert_true(ask(0, "a.test"));
    assert_int_equal(0, askers[0].answer.err);
    pass(1000);
    assert_true(ask(0, "a.test"));
    reply(2, MOON_ENAME, 0, 0);
    assert_true(ask(0, "a.test"));
    assert_int_equal(MOON_ENAME, askers[0].answer.err);
}

static void there_are_so_many_names_at_most(void **state)
{
    char host[32];
    (void)state;
    for (size_t i = 0; i < MOON_NAME_MAX_COUNT; i++) {
        snprintf(host, sizeof host, "%zu.test", i);
        assert_false(ask(i, host));
    }
    assert_true(ask(MOON_NAME_MAX_COUNT, "x.test")); // all are asked for
    assert_int_equal(MOON_EBUSY, askers[MOON_NAME_MAX_COUNT].answer.err);
    for (size_t i = 0; i < MOON_NAME_MAX_COUNT; i++)
        reply(i, 0, 1, 600);
    assert_true(ask(0, "0.test"));
    assert_false(ask(1, "x.test")); // in the place of 1.test
    assert_int_equal(MOON_NAME_MAX_COUNT, names->count);
    assert_true(ask(2, "0.test"));
    assert_true(ask(2, "2.test"));
    assert_false(ask(2, "1.test"));
    assert_int_equal(MOON_NAME_MAX_COUNT, names->count);
    moon_name_wait_stop(&askers[1].wait);
    moon_name_wait_stop(&askers[2].wait);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(those_who_ask_for_the_same_wait_together),      TEST(an_old_answer_serves_for_a_while),
        TEST(an_old_answer_serves_while_the_resolver_fails), TEST(a_missing_name_is_remembered),
        TEST(a_name_that_was_there_is_missed_twice),         TEST(there_are_so_many_names_at_most),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
