// Calls (exchange/call.h) in the simulated world: seeded scenarios with a network that refuses, hangs, resets and cuts short, a
// backend that does worse, clients that leave, and a drain at any moment. What a call brings back is whole or an error, every
// client with patience gets its answer, nothing is left behind, and a seed run twice is the same.
//
//   calls_test [SEED [TO]]
#include "io/world.h"
#include "test/sim/message.h"
#include "test/sim/peer.h"
#include "test/sim/stage.h"
#include "test/support/test_call.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PORT = 7000,
    CLIENT_COUNT = 6,
    CONNECTION_COUNT = 512,
    ANSWER_MAX_LEN = 100000,
    HANG_MS = 100000, // so long a client waits for its own connection
    PLAY_MAX_MS = 120000,
    SEED_COUNT = 400,
};

struct connection {
    struct play *play;
    struct peer peer;
};

struct client {
    struct play *play;
    struct peer peer;
    struct message answer;
    struct text body;
    struct moon_timer timer; // comes, and perhaps leaves
    bool has_come, is_over, leaves;
};

struct play {
    struct stage stage;
    struct moon_socket *socket;
    struct connection connections[CONNECTION_COUNT];
    int connection_count;
    struct client clients[CLIENT_COUNT];
    struct moon_timer drain_timer;
    const char *problem;
    unsigned call_count, fine_count;
};

static uint64_t below(struct play *play, uint64_t n)
{
    return moon_sim_random_u64(play->stage.world) % n;
}

// ---- the backend

static void send_body(struct peer *peer, size_t len, size_t chunk_len)
{
    char bytes[4096], line[32];
    memset(bytes, 'y', sizeof bytes);
    while (len > 0) {
        size_t n = len < sizeof bytes ? len : sizeof bytes;
        if (chunk_len) {
            n = n < chunk_len ? n : chunk_len;
            peer_send(peer, line, (size_t)snprintf(line, sizeof line, "%zx\r\n", n));
        }
        peer_send(peer, bytes, n);
        if (chunk_len)
            peer_send(peer, "\r\n", 2);
        len -= n;
    }
    if (chunk_len)
        peer_send(peer, "0\r\n\r\n", 5);
}

static void answer(struct connection *connection)
{
    struct play *play = connection->play;
    struct peer *peer = &connection->peer;
    char head[256];
    size_t len = below(play, 4) ? below(play, 3000) : below(play, ANSWER_MAX_LEN);
    uint64_t kind = below(play, 16);
    if (kind == 0) // silence
        return;
    if (kind == 1) {
        peer_reset(peer);
        return;
    }
    if (kind == 2) {
        peer_close(peer);
        return;
    }
    if (kind == 3)
        peer_send(peer, "HTTP/1.1 100 Continue\r\n\r\n", 25);
    if (kind == 4)
        peer_send(peer, "rubbish\r\n\r\n", 11);
    int n = snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nX-Len: %zu\r\n", len);
    bool is_chunked = kind >= 12, is_close = kind == 5;
    if (is_chunked)
        n += snprintf(head + n, sizeof head - (size_t)n, "Transfer-Encoding: chunked\r\n\r\n");
    else if (is_close)
        n += snprintf(head + n, sizeof head - (size_t)n, "\r\n");
    else
        n += snprintf(head + n, sizeof head - (size_t)n, "Content-Length: %zu\r\n\r\n", len);
    peer_send(peer, head, (size_t)n);
    send_body(peer, kind == 6 ? len / 2 : len, is_chunked ? 1 + below(play, 5000) : 0);
    if (is_close || kind == 6 || kind == 7)
        peer_shutdown(peer);
}

// The length of the first request in what came, body included; 0: not there yet.
static size_t request_len(const struct text *in)
{
    const char *bytes = in->bytes + in->head;
    const char *end = in->len ? memmem(bytes, in->len, "\r\n\r\n", 4) : NULL;
    if (!end)
        return 0;
    size_t len = (size_t)(end - bytes) + 4;
    const char *field = memmem(bytes, len, "Content-Length: ", 16);
    len += field ? strtoul(field + 16, NULL, 10) : 0;
    return len <= in->len ? len : 0;
}

static void on_backend(void *owner)
{
    struct connection *connection = owner;
    struct peer *peer = &connection->peer;
    size_t len;
    while (peer->stream && (len = request_len(&peer->in)) > 0) {
        text_take(&peer->in, len);
        answer(connection);
    }
    if (peer_is_over(peer))
        peer_close(peer);
}

static void on_accept(void *owner, unsigned ready)
{
    struct play *play = owner;
    struct moon_stream *stream;
    (void)ready;
    while (moon_loop_accept(play->stage.loop, play->socket, &stream) == 0) {
        if (play->connection_count == CONNECTION_COUNT)
            abort();
        struct connection *connection = &play->connections[play->connection_count++];
        connection->play = play;
        connection->peer.on_change = on_backend;
        connection->peer.owner = connection;
        peer_adopt(&connection->peer, play->stage.loop, stream);
    }
}

// ---- the clients

static void take_body(void *owner, const char *bytes, size_t len)
{
    text_add(owner, bytes, len);
}

static void fail(struct play *play, const char *problem)
{
    if (!play->problem)
        play->problem = problem;
}

static void judge_call(struct play *play, const char *text)
{
    int err;
    unsigned status;
    size_t len, said = SIZE_MAX;
    const char *field = strstr(text, "X-Len: ");
    const char *next = strstr(text + 1, "{\"error\"");
    play->call_count++;
    if (sscanf(text, "{\"error\":%d,\"text\":\"%*[^\"]\",\"status\":%u,\"body_len\":%zu", &err,
               &status, &len) != 3) {
        fail(play, "no result of a call");
        return;
    }
    if (field && (!next || field < next))
        said = strtoul(field + 7, NULL, 10);
    play->fine_count += err == 0;
    if (err == 0 && (status != 200 || len != said))
        fail(play, "a call that is not whole is no error");
    if (err != 0 && (status != 0 || len != 0 || said != SIZE_MAX))
        fail(play, "an error with a response");
}

static void judge_answer(struct client *client)
{
    struct play *play = client->play;
    const char *at;
    text_add(&client->body, "", 1);
    at = client->body.bytes + client->body.head;
    if (client->answer.status != 200 || strncmp(at, "{\"calls\":[", 10) != 0)
        return; // 503 and the like in a drain
    while ((at = strstr(at, "{\"error\"")) != NULL)
        judge_call(play, at++);
}

static void on_client(void *owner)
{
    struct client *client = owner;
    struct peer *peer = &client->peer;
    if (client->is_over)
        return;
    size_t n = message_feed(&client->answer, peer->in.bytes + peer->in.head, peer->in.len);
    text_take(&peer->in, n);
    if (client->answer.state == MESSAGE_BAD)
        fail(client->play, client->answer.why);
    bool is_whole = client->answer.state == MESSAGE_OVER;
    if (!is_whole && !peer_is_over(peer) && client->answer.state != MESSAGE_BAD)
        return;
    client->is_over = true;
    if (is_whole)
        judge_answer(client);
    peer_close(peer);
    moon_loop_timer_del(client->play->stage.loop, &client->timer);
}

static void come(struct client *client)
{
    static const char *const paths[] = {"/one", "/many", "/put", "/upstream", "/name"};
    struct play *play = client->play;
    char request[128];
    int len = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n",
                       paths[below(play, sizeof paths / sizeof *paths)]);
    client->has_come = true;
    client->leaves = below(play, 4) == 0;
    client->answer.is_response = true;
    client->answer.on_body = take_body;
    client->answer.owner = &client->body;
    message_begin(&client->answer);
    client->peer.on_change = on_client;
    client->peer.owner = client;
    peer_open(&client->peer, play->stage.loop, &play->stage.address);
    peer_send(&client->peer, request, (size_t)len);
    moon_loop_timer_add(play->stage.loop, &client->timer,
                        client->leaves ? below(play, 2000) : HANG_MS);
}

static void on_client_timer(struct moon_timer *timer)
{
    struct client *client = MOON_CONTAINER(timer, struct client, timer);
    if (!client->has_come) {
        come(client);
        return;
    }
    if (!client->leaves && !client->peer.is_connecting)
        return; // waits without end
    client->is_over = true;
    if (below(client->play, 2))
        peer_reset(&client->peer);
    else
        peer_close(&client->peer);
}

// ---- one seed

static void on_drain(struct moon_timer *timer)
{
    stage_drain(&MOON_CONTAINER(timer, struct play, drain_timer)->stage);
}

static bool is_done(void *arg)
{
    const struct play *play = arg;
    for (int i = 0; i < CLIENT_COUNT; i++)
        if (!play->clients[i].is_over)
            return false;
    return true;
}

static void set_up(struct play *play, uint64_t seed, bool is_verbose)
{
    static const struct moon_sim_faults perfect;
    static const struct moon_filter_type *filters[] = {&test_call, NULL};
    static const char script[] =
        "local moongate = require 'moongate'\n"
        "moongate.settings { timeouts = { connect = 1, drain = 2 } }\n"
        "moongate.listener { port = 8080, address = '10.0.0.1' }\n"
        "moongate.upstream { name = 'users', endpoints = { '10.0.0.2:7000', '10.0.0.2:7001' },\n"
        "  limits = { connections = 2, pending = 4, pending_timeout = 1 } }\n"
        "local function route(path, call)\n"
        "  call[1], call.body_max, call.timeout = 'test-call', 60000, 3\n"
        "  moongate.route { path = path, plugins = { call } }\n"
        "end\n"
        "local url = 'http://10.0.0.2:7000/x'\n"
        "route('/one', { url = url, times = 4 })\n"
        "route('/many', { url = url, count = 8, times = 2, connect_timeout = 0.2 })\n"
        "route('/put', { url = url, method = 'PUT', body_len = 150000, times = 2 })\n"
        "route('/upstream', { upstream = 'users', count = 5, times = 2 })\n"
        "route('/name', { url = 'http://users.test/', count = 2 })\n";
    struct stage *stage = &play->stage;
    stage_init(stage, seed, &perfect, is_verbose);
    stage->filters = filters;
    play->socket = stage_listen(stage, PORT);
    moon_loop_accept_start(stage->loop, play->socket, on_accept, play);
    stage_start(stage, script, 1 + (unsigned)below(play, 2));
    struct moon_sim_faults faults = {.latency_max_ms = (uint32_t)below(play, 40),
                                     .short_read_permille = (uint32_t)below(play, 300),
                                     .reset_permille = (uint32_t)below(play, 2) * 5,
                                     .refuse_permille = (uint32_t)below(play, 2) * 100,
                                     .hang_permille = (uint32_t)below(play, 2) * 50,
                                     .socket_buffer_len = below(play, 2) ? 0 : 3000};
    moon_sim_set_faults(stage->world, &faults);
    for (int i = 0; i < CLIENT_COUNT; i++) {
        struct client *client = &play->clients[i];
        client->play = play;
        client->timer.fn = on_client_timer;
        moon_loop_timer_add(stage->loop, &client->timer, below(play, 1000));
    }
    play->drain_timer.fn = on_drain;
    if (below(play, 2))
        moon_loop_timer_add(stage->loop, &play->drain_timer, below(play, 5000));
}

static void tear_down(struct play *play)
{
    struct stage *stage = &play->stage;
    const char *left;
    moon_loop_timer_del(stage->loop, &play->drain_timer);
    for (int i = 0; i < CLIENT_COUNT; i++) {
        moon_loop_timer_del(stage->loop, &play->clients[i].timer);
        peer_fini(&play->clients[i].peer);
        text_fini(&play->clients[i].body);
    }
    left = stage_stop(stage, PLAY_MAX_MS);
    if (left)
        fail(play, left);
    for (int i = 0; i < play->connection_count; i++)
        peer_fini(&play->connections[i].peer);
    moon_loop_accept_stop(stage->loop, play->socket);
    moon_socket_free(play->socket);
}

static uint64_t run(uint64_t seed, bool is_verbose, const char **problem, unsigned counts[2])
{
    struct play *play = calloc(1, sizeof *play);
    if (!play)
        abort();
    set_up(play, seed, is_verbose);
    if (!moon_sim_run(play->stage.world, is_done, play, PLAY_MAX_MS))
        fail(play, "a client waits without end");
    tear_down(play);
    uint64_t hash = moon_sim_trace_hash(play->stage.world);
    const char *left = stage_fini(&play->stage);
    if (left)
        fail(play, left);
    *problem = play->problem;
    counts[0] += play->call_count;
    counts[1] += play->fine_count;
    free(play);
    return hash;
}

int main(int argc, char **argv)
{
    uint64_t from = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    uint64_t to = argc > 2   ? strtoull(argv[2], NULL, 10)
                  : argc > 1 ? from
                             : SEED_COUNT / stage_scale();
    unsigned counts[2] = {0, 0}, bad_count = 0;
    for (uint64_t seed = from; seed <= to; seed++) {
        const char *problem, *again;
        uint64_t hash = run(seed, argc == 2, &problem, counts);
        if (hash != run(seed, false, &again, counts) && !problem)
            problem = "another trace the second time";
        if (!problem)
            continue;
        printf("seed %llu: %s      calls_test %llu\n", (unsigned long long)seed, problem,
               (unsigned long long)seed);
        bad_count++;
    }
    printf("%llu seeds, %u calls, %u with a response, %u seeds failed\n",
           (unsigned long long)(to - from + 1), counts[0], counts[1], bad_count);
    if (argc == 1 && counts[1] < counts[0] / 4) {
        printf("hardly any call got through\n");
        return 1;
    }
    return bad_count > 0;
}
