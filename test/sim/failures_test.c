// Failing backends (P08): the table test/spec/data/failures.lua in the simulated world, a fresh gateway for each row. The steps
// mean what the table says; what a backend does not read stays in its socket.
//
//   failures_test [ROW]      all rows, or that one, with the gateway's log
#include "io/world.h"
#include "test/sim/message.h"
#include "test/sim/peer.h"
#include "test/sim/stage.h"

#include "failure_rows.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PORT = 7000, CONNECTION_COUNT = 8, ROW_MAX_MS = 30000 };

struct connection {
    struct play *play;
    struct peer peer;
    const struct failure_step *step; // NULL: answers "fresh" to every head
    bool is_over;
};

// One row on its stage.
struct play {
    const struct failure_row *row;
    struct stage stage;
    struct moon_socket *socket;
    struct connection connections[CONNECTION_COUNT];
    struct peer client;
    const struct failure_step *step; // of the client
    struct message answer;           // of the expect step under way
    struct text body, seen;          // of the answer; all that the client ever took
    int connection_count, head_count;
    uint64_t start_ms, end_ms;
    const char *problem;
    bool is_head; // the last request sent
};

static void fail(struct play *play, const char *problem)
{
    if (!play->problem)
        play->problem = problem;
}

static void send_fill(struct peer *peer, size_t len)
{
    char bytes[4096];
    memset(bytes, 'x', sizeof bytes);
    for (size_t n; len > 0; len -= n) {
        n = len < sizeof bytes ? len : sizeof bytes;
        peer_send(peer, bytes, n);
    }
}

// ---- the backend. A step gives true when it is done.

static bool ends_head(const struct text *text)
{
    return text->len >= 4 && memcmp(text->bytes + text->head + text->len - 4, "\r\n\r\n", 4) == 0;
}

static bool read_head(struct connection *connection)
{
    struct peer *peer = &connection->peer;
    while (!ends_head(&peer->in))
        if (!peer_read(peer, 1))
            return peer_is_over(peer);
    text_take(&peer->in, peer->in.len);
    connection->play->head_count++;
    return true;
}

static bool read_bytes(struct peer *peer, size_t len)
{
    while (peer->in.len < len)
        if (!peer_read(peer, len - peer->in.len))
            break;
    if (peer->in.len < len && !peer_is_over(peer))
        return false;
    text_take(&peer->in, peer->in.len);
    return true;
}

static bool play_backend_step(struct connection *connection, const struct failure_step *step)
{
    struct peer *peer = &connection->peer;
    switch (step->op) {
    case FAILURE_READ_HEAD:
        return read_head(connection);
    case FAILURE_READ:
        return read_bytes(peer, step->number);
    case FAILURE_SEND:
        peer_send(peer, step->bytes, step->bytes_len);
        return true;
    case FAILURE_FILL:
        send_fill(peer, step->number);
        return true;
    case FAILURE_SHUTDOWN:
        peer_shutdown(peer);
        return true;
    case FAILURE_CLOSE:
    case FAILURE_END:
        if (peer->out.len)
            return false;
        peer_close(peer);
        return true;
    case FAILURE_RESET:
        if (peer->out.len)
            return false;
        peer_reset(peer);
        return true;
    case FAILURE_WAIT:
        return peer->has_hup || peer_is_over(peer);
    case FAILURE_AWAIT_CLIENT:
        return connection->play->client.in_total >= step->number;
    case FAILURE_AWAIT_HEADS:
    case FAILURE_AWAIT_BYTES:
    case FAILURE_AWAIT_SCRIPT:
    case FAILURE_EXPECT:
    case FAILURE_EXPECT_END:
        return true; // the client's
    }
    return true;
}

static bool answer_fresh(struct connection *connection)
{
    static const char fresh[] = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nfresh\n";
    struct peer *peer = &connection->peer;
    if (!read_head(connection))
        return false;
    if (peer_is_over(peer))
        peer_close(peer);
    else
        peer_send(peer, fresh, sizeof fresh - 1);
    connection->is_over = !peer->stream;
    return true;
}

// True when a step was done.
static bool play_backend(struct connection *connection)
{
    if (connection->is_over)
        return false;
    if (!connection->step)
        return answer_fresh(connection);
    if (!play_backend_step(connection, connection->step))
        return false;
    // An error while reading ends the script, as a closed connection does.
    connection->is_over = !connection->peer.stream || connection->step->op == FAILURE_END;
    connection->step++;
    return true;
}

// ---- the client

static void take_body(void *owner, const char *bytes, size_t len)
{
    text_add(owner, bytes, len);
}

static void begin_answer(struct play *play)
{
    text_take(&play->body, play->body.len);
    play->answer.is_response = true;
    play->answer.is_answer_to_head = play->is_head;
    play->answer.on_body = take_body;
    play->answer.owner = &play->body;
    message_begin(&play->answer);
}

static void judge_kept(struct play *play)
{
    char value[32];
    if (message_field(&play->answer, "Connection", value, sizeof value) &&
        strcmp(value, "close") == 0)
        fail(play, "the answer says close");
    if (peer_is_over(&play->client))
        fail(play, "the connection has ended");
}

static void judge_body(struct play *play, const struct failure_step *step, bool is_whole)
{
    const struct text *body = &play->body;
    if (!step->bytes)
        return;
    if (body->len > step->bytes_len || (is_whole && body->len != step->bytes_len))
        fail(play, "the body has another length");
    else if (body->len && memcmp(body->bytes + body->head, step->bytes, body->len) != 0)
        fail(play, "the body is another");
}

static bool expect(struct play *play, const struct failure_step *step)
{
    struct peer *client = &play->client;
    struct message *answer = &play->answer;
    size_t n = message_feed(answer, client->in.bytes + client->in.head, client->in.len);
    text_add(&play->seen, client->in.bytes + client->in.head, n);
    text_take(&client->in, n);
    bool is_over = peer_is_over(client);
    if (is_over && client->has_ended)
        message_end(answer);
    if (answer->state == MESSAGE_BAD)
        fail(play, answer->why);
    if (answer->state != MESSAGE_OVER && answer->state != MESSAGE_BAD && !is_over)
        return false;
    bool is_whole = answer->state == MESSAGE_OVER;
    if (answer->status != (int)step->number)
        fail(play, "another status");
    if (is_whole != (step->outcome != FAILURE_ABORTED))
        fail(play, is_whole ? "a broken response looks whole" : "the response broke off");
    judge_body(play, step, is_whole);
    if (step->outcome == FAILURE_KEPT)
        judge_kept(play);
    return step->outcome != FAILURE_CLOSED || is_over || play->problem;
}

static bool script_is_over(const struct play *play, size_t index)
{
    return index < (size_t)play->connection_count && play->connections[index].is_over;
}

static bool play_client_step(struct play *play, const struct failure_step *step)
{
    struct peer *client = &play->client;
    switch (step->op) {
    case FAILURE_SEND:
        play->is_head = strncmp(step->bytes, "HEAD ", 5) == 0;
        peer_send(client, step->bytes, step->bytes_len);
        begin_answer(play);
        return true;
    case FAILURE_FILL:
        send_fill(client, step->number);
        return true;
    case FAILURE_SHUTDOWN:
        peer_shutdown(client);
        return true;
    case FAILURE_CLOSE:
        peer_close(client);
        return true;
    case FAILURE_RESET:
        peer_reset(client);
        return true;
    case FAILURE_AWAIT_HEADS:
        return play->head_count >= (int)step->number;
    case FAILURE_AWAIT_BYTES:
        return client->in_total >= step->number || peer_is_over(client);
    case FAILURE_AWAIT_SCRIPT:
        return script_is_over(play, step->number - 1);
    case FAILURE_EXPECT:
        return expect(play, step);
    case FAILURE_EXPECT_END:
        if (client->in.len)
            fail(play, "bytes where the end was expected");
        return peer_is_over(client) || play->problem;
    case FAILURE_READ_HEAD:
    case FAILURE_READ:
    case FAILURE_WAIT:
    case FAILURE_AWAIT_CLIENT:
    case FAILURE_END:
        return true; // the backend's
    }
    return true;
}

static bool play_client(struct play *play)
{
    if (play->step->op == FAILURE_END || play->client.is_connecting)
        return false;
    if (!play_client_step(play, play->step))
        return false;
    play->step++;
    play->end_ms = moon_sim_now_ms(play->stage.world);
    return true;
}

static void go_on(struct play *play)
{
    bool has_moved = true;
    while (has_moved) {
        has_moved = play_client(play);
        for (int i = 0; i < play->connection_count; i++)
            has_moved = play_backend(&play->connections[i]) || has_moved;
    }
}

// ---- one row

static void on_client(void *owner)
{
    go_on(owner);
}

static void on_backend(void *owner)
{
    go_on(((struct connection *)owner)->play);
}

static void on_accept(void *owner, unsigned ready)
{
    struct play *play = owner;
    struct moon_stream *stream;
    (void)ready;
    while (moon_loop_accept(play->stage.loop, play->socket, &stream) == 0) {
        if (play->connection_count == CONNECTION_COUNT)
            abort();
        size_t index = (size_t)play->connection_count++;
        struct connection *connection = &play->connections[index];
        connection->play = play;
        connection->step = index < play->row->backend_count ? play->row->backend[index] : NULL;
        peer_adopt(&connection->peer, play->stage.loop, stream);
        connection->peer.is_paused = true;
        connection->peer.on_change = on_backend;
        connection->peer.owner = connection;
    }
    go_on(play);
}

static bool is_done(void *arg)
{
    const struct play *play = arg;
    return play->problem || play->step->op == FAILURE_END;
}

static void judge(struct play *play)
{
    const struct failure_row *row = play->row;
    uint64_t took_ms = play->end_ms - play->start_ms;
    if (play->step->op != FAILURE_END)
        fail(play, "a step of the client is never done");
    if (row->min_ms && took_ms < row->min_ms)
        fail(play, "too soon");
    if (row->max_ms && took_ms > row->max_ms)
        fail(play, "too late");
    if (row->connections >= 0 && row->connections != play->connection_count)
        fail(play, "another number of connections");
    if (row->heads >= 0 && row->heads != play->head_count)
        fail(play, "another number of heads");
    text_add(&play->seen, play->client.in.bytes + play->client.in.head, play->client.in.len);
    if (play->seen.len && memmem(play->seen.bytes, play->seen.len, "POISON", 6))
        fail(play, "the client saw what was not for it");
}

static void set_up(struct play *play, uint64_t seed, bool is_verbose)
{
    static const struct moon_sim_faults perfect;
    static const char script[] =
        "local moongate = require 'moongate'\n"
        "moongate.settings { timeouts = { connect = 0.3, response = 0.5, body = 0.5 } }\n"
        "moongate.listener { port = 8080, address = '10.0.0.1' }\n"
        "moongate.upstream { name = 'backend', endpoints = { '10.0.0.2:7000' } }\n"
        "moongate.route { path = '/', backends = 'backend' }\n";
    struct stage *stage = &play->stage;
    stage_init(stage, seed, &perfect, is_verbose);
    if (play->row->listen == FAILURE_LISTENS) {
        play->socket = stage_listen(stage, PORT);
        moon_loop_accept_start(stage->loop, play->socket, on_accept, play);
    } else if (play->row->listen == FAILURE_HANGS) {
        moon_sim_set_port(stage->world, PORT, MOON_SIM_PORT_HANGS);
    }
    stage_start(stage, script, 1);
    play->start_ms = moon_sim_now_ms(stage->world);
    play->step = play->row->client;
    peer_open(&play->client, stage->loop, &stage->address);
    play->client.on_change = on_client;
    play->client.owner = play;
}

static void tear_down(struct play *play)
{
    peer_close(&play->client);
    const char *left = stage_stop(&play->stage, ROW_MAX_MS);
    if (left)
        fail(play, left);
    for (int i = 0; i < play->connection_count; i++)
        peer_fini(&play->connections[i].peer);
    peer_fini(&play->client);
    if (play->socket)
        moon_loop_accept_stop(play->stage.loop, play->socket);
    moon_socket_free(play->socket);
    text_fini(&play->body);
    text_fini(&play->seen);
    left = stage_fini(&play->stage);
    if (left)
        fail(play, left);
}

static bool run_row(size_t index, uint64_t seed, bool is_verbose)
{
    struct play *play = calloc(1, sizeof *play);
    if (!play)
        abort();
    play->row = &failure_rows[index];
    set_up(play, seed, is_verbose);
    moon_sim_run(play->stage.world, is_done, play, ROW_MAX_MS);
    judge(play);
    tear_down(play);
    bool is_fine = !play->problem;
    if (!is_fine)
        printf("%s: %s; alone: failures_test %zu (seed %llu)\n", play->row->name, play->problem,
               index + 1, (unsigned long long)seed);
    free(play);
    return is_fine;
}

int main(int argc, char **argv)
{
    enum { SEED_COUNT = 16 }; // other orders of the same things
    size_t failed_count = 0;
    size_t only = argc > 1 ? (size_t)strtoul(argv[1], NULL, 10) : 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (size_t i = 0; i < failure_row_count; i++)
        for (uint64_t seed = 1; seed <= SEED_COUNT && (!only || only == i + 1); seed++)
            if (!run_row(i, seed, only != 0)) {
                failed_count++;
                break;
            }
    printf("%d rows, %d seeds each, %zu rows failed\n", failure_row_count, SEED_COUNT,
           failed_count);
    return failed_count != 0;
}
