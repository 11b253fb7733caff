// Unit tests of the simulated world: time, chance, mail, files, limits.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h> // after what it needs

#include "io/loop.h"
#include "io/mailbox.h"
#include "io/sim.h"

#include <errno.h>

static const struct moon_sim_faults perfect;

struct alarm {
    struct moon_timer timer;
    struct moon_world *world;
    uint64_t fired_ms;
};

static void ring(struct moon_timer *timer)
{
    struct alarm *alarm = MOON_CONTAINER(timer, struct alarm, timer);
    alarm->fired_ms = moon_sim_now_ms(alarm->world);
}

static void time_moves_to_the_next_timer(void **state)
{
    struct moon_world *world = moon_world_new_sim(1, &perfect);
    struct moon_loop *loop = moon_loop_new(world);
    struct alarm alarm = {.timer = {.fn = ring}, .world = world};
    uint64_t start_ms = moon_sim_now_ms(world);
    (void)state;
    moon_loop_timer_add(loop, &alarm.timer, 3600000);
    assert_false(moon_sim_run(world, NULL, NULL, 3599999));
    assert_int_equal(alarm.fired_ms, 0);
    assert_int_equal(moon_sim_now_ms(world), start_ms + 3599999);
    moon_sim_run(world, NULL, NULL, 10000);
    assert_int_equal(alarm.fired_ms, start_ms + 3600000);
    moon_loop_free(loop);
    moon_world_free(world);
}

static void a_jump_of_the_wall_clock_moves_no_timer(void **state)
{
    struct moon_world *world = moon_world_new_sim(1, &perfect);
    struct moon_loop *loop = moon_loop_new(world);
    struct alarm alarm = {.timer = {.fn = ring}, .world = world};
    uint64_t start_ms = moon_sim_now_ms(world), wall_ms = moon_world_wall_ms(world);
    (void)state;
    moon_loop_timer_add(loop, &alarm.timer, 500);
    moon_sim_jump_wall(world, 86400000);
    assert_int_equal(moon_sim_now_ms(world), start_ms);
    assert_int_equal(moon_loop_wall_ms(loop), wall_ms + 86400000);
    moon_sim_run(world, NULL, NULL, 499);
    assert_int_equal(alarm.fired_ms, 0);
    moon_sim_jump_wall(world, -2 * 86400000);
    moon_sim_run(world, NULL, NULL, 10);
    assert_int_equal(alarm.fired_ms, start_ms + 500);
    assert_int_equal(moon_world_wall_ms(world), wall_ms - 86400000 + 500);
    moon_loop_free(loop);
    moon_world_free(world);
}

struct letter {
    struct moon_message message;
    int number;
};

static void take(void *owner, struct moon_message *message)
{
    int *log = owner;
    log[++log[0]] = ((struct letter *)message)->number;
}

// Two mailboxes, ten letters each; the order in which they were taken.
static void deliver(uint64_t seed, int log[21])
{
    struct moon_world *world = moon_world_new_sim(seed, &perfect);
    struct moon_loop *loop = moon_loop_new(world);
    struct moon_mailbox *boxes[2] = {moon_mailbox_new(loop, take, log),
                                     moon_mailbox_new(loop, take, log)};
    struct letter letters[20] = {0};
    memset(log, 0, 21 * sizeof *log);
    for (int i = 0; i < 20; i++) {
        letters[i].number = i;
        moon_mailbox_post(boxes[i % 2], &letters[i].message);
    }
    assert_int_equal(log[0], 0); // not under the caller
    moon_sim_run(world, NULL, NULL, 10);
    moon_mailbox_free(boxes[0]);
    moon_mailbox_free(boxes[1]);
    assert_int_equal(moon_sim_live_count(world), 0);
    moon_loop_free(loop);
    moon_world_free(world);
}

static void mail_keeps_the_order_of_its_box_and_chance_mixes_boxes(void **state)
{
    int log[21], again[21], last[2] = {-1, -1}, other_count = 0;
    (void)state;
    deliver(1, log);
    assert_int_equal(log[0], 20);
    for (int i = 1; i <= 20; i++) {
        assert_true(log[i] > last[log[i] % 2]);
        last[log[i] % 2] = log[i];
    }
    deliver(1, again);
    assert_memory_equal(log, again, sizeof log);
    for (uint64_t seed = 2; seed < 10; seed++) {
        deliver(seed, again);
        other_count += memcmp(log, again, sizeof log) != 0;
    }
    assert_true(other_count > 0);
}

static void files_come_from_memory(void **state)
{
    struct moon_world *world = moon_world_new_sim(1, &perfect);
    char *text;
    size_t len;
    (void)state;
    assert_int_equal(moon_world_read_file(world, "/a", 100, &text, &len), -ENOENT);
    moon_sim_add_file(world, "/a", "old", 3);
    moon_sim_add_file(world, "/a", "newer", 5);
    assert_int_equal(moon_world_read_file(world, "/a", 4, &text, &len), -EFBIG);
    assert_int_equal(moon_world_read_file(world, "/a", 5, &text, &len), 0);
    assert_int_equal(len, 5);
    assert_string_equal(text, "newer");
    free(text);
    assert_int_equal(moon_world_write_file(world, "/a", MOON_SLICE("x")), -ENOTSUP);
    assert_int_equal(moon_world_sleep(world, 1), -ENOTSUP);
    moon_world_free(world);
}

static void descriptors_are_few_for_those_inside(void **state)
{
    static const struct moon_address nowhere = {MOON_FAMILY_IPV4, {10, 0, 0, 9}, 1};
    struct moon_world *world = moon_world_new_sim(1, &perfect);
    struct moon_loop *inside = moon_loop_new(world), *outside = moon_loop_new(world);
    struct moon_stream *streams[3];
    struct moon_pipe *pipe;
    (void)state;
    moon_sim_set_outside(outside);
    moon_sim_set_descriptor_limit(world, 1);
    assert_int_equal(moon_world_descriptor_limit(world), 1);
    assert_int_equal(moon_loop_connect(inside, &nowhere, &streams[0]), 0);
    assert_int_equal(moon_loop_connect(inside, &nowhere, &streams[1]), -EMFILE);
    assert_int_equal(moon_loop_pipe_open(inside, &pipe), -EMFILE);
    assert_int_equal(moon_loop_connect(outside, &nowhere, &streams[1]), 0);
    moon_stream_close(streams[0]);
    assert_int_equal(moon_loop_connect(inside, &nowhere, &streams[2]), 0);
    assert_int_equal(moon_sim_live_count(world), 2);
    moon_stream_close(streams[1]);
    moon_stream_close(streams[2]);
    moon_loop_free(inside);
    moon_loop_free(outside);
    moon_world_free(world);
}

static void an_address_is_bound_once(void **state)
{
    struct moon_address at = {MOON_FAMILY_IPV4, {10, 0, 0, 9}, 0};
    struct moon_world *world = moon_world_new_sim(1, &perfect);
    struct moon_socket *sockets[2], *other;
    (void)state;
    assert_int_equal(moon_world_listen(world, &at, 2, sockets), 0);
    moon_socket_address(sockets[1], &at);
    assert_int_not_equal(at.port, 0);
    assert_int_equal(moon_world_listen(world, &at, 1, &other), -EADDRINUSE);
    moon_socket_free(sockets[0]);
    moon_socket_free(sockets[1]);
    assert_int_equal(moon_world_listen(world, &at, 1, &other), 0);
    moon_socket_free(other);
    assert_int_equal(moon_sim_live_count(world), 0);
    moon_world_free(world);
}

static void there_are_no_threads(void **state)
{
    struct moon_world *world = moon_world_new_sim(1, &perfect);
    struct moon_loop *loop = moon_loop_new(world);
    struct moon_thread *thread;
    (void)state;
    assert_int_equal(moon_thread_start(world, free, NULL, &thread), -ENOTSUP);
    assert_int_equal(moon_loop_run(loop), -ENOTSUP);
    moon_loop_free(loop);
    moon_world_free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(time_moves_to_the_next_timer),
        cmocka_unit_test(a_jump_of_the_wall_clock_moves_no_timer),
        cmocka_unit_test(mail_keeps_the_order_of_its_box_and_chance_mixes_boxes),
        cmocka_unit_test(files_come_from_memory),
        cmocka_unit_test(descriptors_are_few_for_those_inside),
        cmocka_unit_test(an_address_is_bound_once),
        cmocka_unit_test(there_are_no_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
