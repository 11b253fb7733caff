// Unit tests of the simulated world's streams: what TCP on Linux shows, in memory.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h> // after what it needs

#include "base/err.h"
#include "io/loop.h"
#include "io/sim.h"

#include <errno.h>

// Both ends of one connection; what each was told so far.
struct fixture {
    struct moon_world *world;
    struct moon_loop *loop;
    struct moon_socket *socket;
    struct moon_stream *client, *server;
    unsigned client_ready, server_ready;
};

static const struct moon_address place = {MOON_FAMILY_IPV4, {10, 0, 0, 9}, 80};

static void note(void *owner, unsigned ready)
{
    *(unsigned *)owner |= ready;
}

static void settle(struct fixture *f)
{
    moon_sim_run(f->world, NULL, NULL, 1000);
}

static void on_accept(void *owner, unsigned ready)
{
    struct fixture *f = owner;
    (void)ready;
    if (moon_loop_accept(f->loop, f->socket, &f->server) == 0)
        moon_stream_set_owner(f->server, note, &f->server_ready);
}

static void dial(struct fixture *f)
{
    assert_int_equal(moon_loop_connect(f->loop, &place, &f->client), 0);
    moon_stream_set_owner(f->client, note, &f->client_ready);
    assert_int_equal(moon_stream_connected(f->client), -EINPROGRESS);
    settle(f);
}

static int setup(void **state)
{
    static const struct moon_sim_faults perfect;
    struct fixture *f = calloc(1, sizeof *f);
    f->world = moon_world_new_sim(1, &perfect);
    f->loop = moon_loop_new(f->world);
    assert_int_equal(moon_world_listen(f->world, &place, 1, &f->socket), 0);
    moon_loop_accept_start(f->loop, f->socket, on_accept, f);
    *state = f;
    return 0;
}

static int setup_connected(void **state)
{
    setup(state);
    struct fixture *f = *state;
    dial(f);
    assert_non_null(f->server);
    assert_int_equal(moon_stream_connected(f->client), 0);
    assert_int_equal(f->client_ready, MOON_READY_WRITE);
    f->client_ready = f->server_ready = 0;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    moon_stream_close(f->client);
    moon_stream_close(f->server);
    moon_loop_accept_stop(f->loop, f->socket);
    moon_socket_free(f->socket);
    assert_int_equal(moon_sim_live_count(f->world), 0);
    moon_loop_free(f->loop);
    moon_world_free(f->world);
    free(f);
    return 0;
}

static ssize_t put(struct moon_stream *stream, const char *text)
{
    struct iovec iov = {(void *)text, strlen(text)};
    return moon_stream_writev(stream, &iov, 1);
}

static void expect_bytes(struct moon_stream *stream, const char *text)
{
    char bytes[64];
    assert_int_equal(moon_stream_read(stream, bytes, sizeof bytes), strlen(text));
    assert_memory_equal(bytes, text, strlen(text));
}

static ssize_t read_some(struct moon_stream *stream)
{
    char bytes[64];
    return moon_stream_read(stream, bytes, sizeof bytes);
}

static void bytes_cross_when_they_arrive(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(put(f->client, "hello"), 5);
    assert_int_equal(read_some(f->server), 0);
    settle(f);
    assert_int_equal(f->server_ready, MOON_READY_READ);
    expect_bytes(f->server, "hello");
    assert_int_equal(read_some(f->server), 0);
}

static void an_end_comes_behind_the_bytes(void **state)
{
    struct fixture *f = *state;
    put(f->client, "bye");
    assert_int_equal(moon_stream_shutdown(f->client), 0);
    settle(f);
    assert_int_equal(f->server_ready, MOON_READY_READ | MOON_READY_HUP);
    expect_bytes(f->server, "bye");
    assert_int_equal(read_some(f->server), MOON_EOF);
    assert_int_equal(put(f->client, "x"), -EPIPE);
    assert_int_equal(put(f->server, "still"), 5); // half closed
    settle(f);
    expect_bytes(f->client, "still");
}

static void a_reset_leaves_what_had_arrived(void **state)
{
    struct fixture *f = *state;
    put(f->client, "413");
    settle(f);
    moon_stream_abort(f->client);
    f->client = NULL;
    settle(f);
    assert_true(f->server_ready & MOON_READY_ERROR);
    expect_bytes(f->server, "413");
    assert_int_equal(read_some(f->server), -ECONNRESET);
    assert_int_equal(read_some(f->server), MOON_EOF); // told once
    assert_int_equal(put(f->server, "x"), -EPIPE);
}

static void a_write_may_take_the_error(void **state)
{
    struct fixture *f = *state;
    put(f->client, "cut");
    moon_stream_abort(f->client);
    f->client = NULL;
    settle(f);
    assert_int_equal(put(f->server, "x"), -ECONNRESET);
    expect_bytes(f->server, "cut");
    assert_int_equal(read_some(f->server), MOON_EOF);
}

static void closing_with_unread_bytes_resets(void **state)
{
    struct fixture *f = *state;
    put(f->client, "unread");
    settle(f);
    moon_stream_close(f->server);
    f->server = NULL;
    settle(f);
    assert_int_equal(read_some(f->client), -ECONNRESET);
}

static void bytes_to_a_closed_end_are_answered_by_a_reset(void **state)
{
    struct fixture *f = *state;
    moon_stream_close(f->server);
    f->server = NULL;
    settle(f);
    assert_int_equal(f->client_ready, MOON_READY_READ | MOON_READY_HUP);
    put(f->client, "late");
    settle(f);
    assert_int_equal(read_some(f->client), MOON_EOF); // the FIN came first
    assert_int_equal(put(f->client, "x"), -EPIPE);
}

static void a_full_buffer_blocks_until_it_is_read(void **state)
{
    struct fixture *f = *state;
    static char bytes[100000];
    struct iovec iov = {bytes, sizeof bytes};
    assert_int_equal(moon_stream_writev(f->client, &iov, 1), 65536);
    settle(f);
    assert_int_equal(moon_stream_writev(f->client, &iov, 1), 0);
    assert_int_equal(f->client_ready, 0);
    assert_int_equal(moon_stream_read(f->server, bytes, sizeof bytes), 65536);
    settle(f);
    assert_int_equal(f->client_ready, MOON_READY_WRITE); // the part that was taken had asked for it
    assert_int_equal(moon_stream_writev(f->client, &iov, 1), 65536);
}

static void short_reads_are_told_of_the_rest(void **state)
{
    struct fixture *f = *state;
    struct moon_sim_faults faults = {.short_read_permille = 1000};
    char bytes[1000];
    struct iovec iov = {bytes, sizeof bytes};
    size_t written = 0, got = 0;
    moon_sim_set_faults(f->world, &faults);
    for (int i = 0; i < 1000 && got < 3000; i++) {
        f->server_ready = 0;
        ssize_t n = written < 3000 ? moon_stream_writev(f->client, &iov, 1) : 0;
        written += (size_t)n;
        settle(f);
        assert_int_equal(f->server_ready, MOON_READY_READ);
        n = moon_stream_read(f->server, bytes, sizeof bytes);
        assert_true(n > 0);
        got += (size_t)n;
    }
    assert_true(got >= 3000);
}

static void again_tells_in_the_next_turn(void **state)
{
    struct fixture *f = *state;
    moon_stream_again(f->server);
    assert_int_equal(f->server_ready, 0);
    settle(f);
    assert_int_equal(f->server_ready, MOON_READY_READ);
}

// As to an owner that has come since.
static void again_tells_of_the_end(void **state)
{
    struct fixture *f = *state;
    put(f->client, "bye");
    moon_stream_shutdown(f->client);
    settle(f);
    f->server_ready = 0;
    moon_stream_again(f->server);
    settle(f);
    assert_int_equal(f->server_ready, MOON_READY_READ | MOON_READY_HUP);
    moon_stream_abort(f->client);
    f->client = NULL;
    settle(f);
    f->server_ready = 0;
    moon_stream_again(f->server);
    settle(f);
    assert_int_equal(f->server_ready, MOON_READY_READ | MOON_READY_HUP | MOON_READY_ERROR);
}

static void pipes_move_bytes_as_reads_and_writes_do(void **state)
{
    struct fixture *f = *state;
    struct moon_pipe *pipe;
    assert_int_equal(moon_loop_pipe_open(f->loop, &pipe), 0);
    put(f->client, "through");
    settle(f);
    assert_int_equal(moon_stream_pipe_in(f->server, pipe, 4), 4);
    assert_int_equal(moon_stream_pipe_in(f->server, pipe, 100), 3);
    assert_int_equal(moon_stream_pipe_in(f->server, pipe, 100), 0);
    assert_int_equal(moon_stream_pipe_out(f->server, pipe, 7), 7);
    settle(f);
    expect_bytes(f->client, "through");
    moon_loop_pipe_close(f->loop, pipe);
}

static void a_refused_connect_fails_with_the_reason(void **state)
{
    struct fixture *f = *state;
    moon_sim_set_port(f->world, place.port, MOON_SIM_PORT_REFUSES);
    dial(f);
    assert_true(f->client_ready & MOON_READY_ERROR);
    assert_int_equal(moon_stream_connected(f->client), -ECONNREFUSED);
}

static void a_hanging_connect_never_ends(void **state)
{
    struct fixture *f = *state;
    moon_sim_set_port(f->world, place.port, MOON_SIM_PORT_HANGS);
    dial(f);
    assert_int_equal(f->client_ready, 0);
    assert_int_equal(moon_stream_connected(f->client), -EINPROGRESS);
}

#define CONNECTED(name) cmocka_unit_test_setup_teardown(name, setup_connected, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CONNECTED(bytes_cross_when_they_arrive),
        CONNECTED(an_end_comes_behind_the_bytes),
        CONNECTED(a_reset_leaves_what_had_arrived),
        CONNECTED(a_write_may_take_the_error),
        CONNECTED(closing_with_unread_bytes_resets),
        CONNECTED(bytes_to_a_closed_end_are_answered_by_a_reset),
        CONNECTED(a_full_buffer_blocks_until_it_is_read),
        CONNECTED(short_reads_are_told_of_the_rest),
        CONNECTED(again_tells_in_the_next_turn),
        CONNECTED(again_tells_of_the_end),
        CONNECTED(pipes_move_bytes_as_reads_and_writes_do),
        cmocka_unit_test_setup_teardown(a_refused_connect_fails_with_the_reason, setup, teardown),
        cmocka_unit_test_setup_teardown(a_hanging_connect_never_ends, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
