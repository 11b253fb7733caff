// Backends of a scenario: each connection reads requests, judges their bodies and does what the request's plan says.
#include "test/sim/scenario.h"

#include "io/world.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct connection {
    struct moon_list node; // in scenario->connections
    struct scenario *scenario;
    struct peer peer;
    struct message message;
    struct request *request; // being read or answered
    struct moon_timer timer; // the response is due, or the connection idles too long
    size_t body_at;
    bool is_answered, was_drawn; // this request was; its response waits for the timer, or goes out
    bool ends_after, resets_after;
};

static void go_on(struct connection *connection);

static void on_body(void *owner, const char *bytes, size_t len)
{
    struct connection *connection = owner;
    if (!connection->request)
        return;
    if (!body_matches(connection->request->tag, 0, connection->body_at, bytes, len))
        scenario_fail(connection->scenario, "request %016" PRIx64 ": its body is another",
                      connection->request->tag);
    connection->body_at += len;
}

static void begin_request(struct connection *connection)
{
    connection->request = NULL;
    connection->body_at = 0;
    connection->is_answered = connection->was_drawn = false;
    message_begin(&connection->message);
}

static bool is_idempotent(const struct request *request)
{
    return strcmp(request->method, "POST") != 0 && strcmp(request->method, "PATCH") != 0;
}

// The head is there: whose it is.
static void know_request(struct connection *connection)
{
    struct scenario *scenario = connection->scenario;
    const char *path = strstr(connection->message.head, "/b/");
    uint64_t tag = path ? strtoull(path + 3, NULL, 16) : 0;
    connection->request = scenario_request(scenario, tag);
    if (!connection->request) {
        scenario_fail(scenario, "a backend got a request that nobody sent");
        return;
    }
    unsigned bound = is_idempotent(connection->request) ? 3 : 1;
    if (++connection->request->seen_count > bound)
        scenario_fail(scenario, "%s request %016" PRIx64 " came %u times",
                      connection->request->method, tag, connection->request->seen_count);
}

static void judge_request(struct connection *connection)
{
    const struct request *request = connection->request;
    if (connection->body_at != request->len)
        scenario_fail(connection->scenario,
                      "request %016" PRIx64 ": a body of %zu bytes ends after %zu", request->tag,
                      request->len, connection->body_at);
}

// ---- answering

static void add_head(struct text *text, const struct connection *connection)
{
    const struct request *request = connection->request;
    const struct plan *plan = &request->plan;
    char head[256];
    if (plan->has_interim)
        text_add(
            text, head,
            (size_t)snprintf(head, sizeof head, "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"));
    size_t len = (size_t)snprintf(head, sizeof head, "HTTP/1.1 %s\r\nX-Tag: %016" PRIx64 "\r\n",
                                  plan->is_empty ? "204 No Content" : "200 OK", request->tag);
    if (plan->framing == FRAMING_LENGTH && !plan->is_empty)
        len +=
            (size_t)snprintf(head + len, sizeof head - len, "Content-Length: %zu\r\n", plan->len);
    if (plan->framing == FRAMING_CHUNKED && !plan->is_empty)
        len += (size_t)snprintf(head + len, sizeof head - len, "Transfer-Encoding: chunked\r\n");
    if (plan->end == PLAN_CLOSE)
        len += (size_t)snprintf(head + len, sizeof head - len, "Connection: close\r\n");
    len += (size_t)snprintf(head + len, sizeof head - len, "\r\n");
    text_add(text, head, len);
}

static void answer(struct connection *connection)
{
    const struct request *request = connection->request;
    const struct plan *plan = &request->plan;
    bool is_cut = plan->end == PLAN_CUT || plan->end == PLAN_RESET;
    bool is_bodiless = plan->is_empty || strcmp(request->method, "HEAD") == 0;
    struct text text = {0};
    connection->is_answered = true;
    if (plan->end == PLAN_DROP) {
        peer_close(&connection->peer);
        return;
    }
    add_head(&text, connection);
    if (!is_bodiless)
        body_add_framed(&text, request, 1, is_cut ? plan->cut_len : plan->len, !is_cut,
                        1 + scenario_below(connection->scenario, 20000));
    peer_send(&connection->peer, text.bytes, text.len);
    text_fini(&text);
    connection->resets_after = plan->end == PLAN_RESET;
    connection->ends_after = plan->end == PLAN_CUT || plan->end == PLAN_CLOSE ||
                             (plan->framing == FRAMING_CLOSE && !is_bodiless);
}

static void on_timer(struct moon_timer *timer)
{
    struct connection *connection = MOON_CONTAINER(timer, struct connection, timer);
    if (!connection->request)
        peer_close(&connection->peer); // idle
    else
        answer(connection);
    go_on(connection);
}

static void draw(struct connection *connection)
{
    const struct plan *plan = &connection->request->plan;
    bool is_whole = connection->message.state == MESSAGE_OVER;
    if (connection->was_drawn || plan->end == PLAN_SILENT || (!is_whole && !plan->is_early))
        return;
    connection->was_drawn = true;
    moon_loop_timer_add(connection->scenario->stage.loop, &connection->timer, plan->wait_ms);
}

// ---- reading

static void read_request(struct connection *connection)
{
    struct text *in = &connection->peer.in;
    struct message *message = &connection->message;
    text_take(in, message_feed(message, in->bytes + in->head, in->len));
    if (message->state == MESSAGE_BAD)
        scenario_fail(connection->scenario, "a backend got %s", message->why);
    else if (message->state == MESSAGE_OVER)
        judge_request(connection);
}

// Feeds up to the end of the head first, so that the body finds its request.
static void read_head(struct connection *connection)
{
    struct text *in = &connection->peer.in;
    struct message *message = &connection->message;
    while (in->len && message->state == MESSAGE_HEAD) {
        const char *from = in->bytes + in->head, *end = memchr(from, '\n', in->len);
        size_t len = end ? (size_t)(end - from) + 1 : in->len;
        text_take(in, message_feed(message, from, len));
    }
    if (message->state == MESSAGE_BAD)
        scenario_fail(connection->scenario, "a backend got %s", message->why);
    if (!message_has_head(message))
        return;
    moon_loop_timer_del(connection->scenario->stage.loop, &connection->timer);
    know_request(connection);
    if (connection->request && message->state == MESSAGE_OVER)
        judge_request(connection);
}

static void finish(struct connection *connection)
{
    if (connection->resets_after)
        peer_reset(&connection->peer);
    else if (connection->ends_after)
        peer_close(&connection->peer);
    else if (connection->message.state == MESSAGE_OVER)
        begin_request(connection);
}

static void go_on(struct connection *connection)
{
    struct scenario *scenario = connection->scenario;
    struct peer *peer = &connection->peer;
    while (peer->stream && !scenario->problem[0]) {
        size_t before = peer->in.len;
        if (!connection->request && connection->message.state == MESSAGE_HEAD)
            read_head(connection);
        if (connection->request && connection->message.state != MESSAGE_OVER)
            read_request(connection);
        if (connection->request)
            draw(connection);
        bool was_answered = connection->is_answered && peer->out.len == 0;
        if (was_answered)
            finish(connection);
        if (peer->in.len == before && !(was_answered && !connection->request))
            break;
    }
    bool has_failed = peer->error || (peer->has_ended && !connection->is_answered);
    if (has_failed || (peer->has_ended && !connection->request))
        peer_close(peer);
    bool idles = peer->stream && !connection->request && scenario->idle_close_ms;
    if (idles && !moon_timer_is_armed(&connection->timer))
        moon_loop_timer_add(scenario->stage.loop, &connection->timer, scenario->idle_close_ms);
    if (!peer->stream)
        moon_loop_timer_del(scenario->stage.loop, &connection->timer);
}

static void on_change(void *owner)
{
    go_on(owner);
}

// ---- life

static void connection_new(struct backend *backend, struct moon_stream *stream)
{
    struct scenario *scenario = backend->scenario;
    struct connection *connection = calloc(1, sizeof *connection);
    if (!connection)
        abort();
    connection->scenario = scenario;
    connection->timer.fn = on_timer;
    connection->message.on_body = on_body;
    connection->message.owner = connection;
    moon_list_add_before(&scenario->connections, &connection->node);
    begin_request(connection);
    peer_adopt(&connection->peer, scenario->stage.loop, stream);
    connection->peer.on_change = on_change;
    connection->peer.owner = connection;
    if (scenario_below(scenario, 1000) < backend->slow_permille) {
        size_t len = 2000 + (size_t)scenario_below(scenario, 30000);
        peer_slow(&connection->peer, len, 1 + (size_t)scenario_below(scenario, 40));
    }
}

static void on_accept(void *owner, unsigned ready)
{
    struct backend *backend = owner;
    struct moon_stream *stream;
    (void)ready;
    while (moon_loop_accept(backend->scenario->stage.loop, backend->socket, &stream) == 0)
        connection_new(backend, stream);
}

void backend_start(struct backend *backend, uint16_t port)
{
    backend->socket = stage_listen(&backend->scenario->stage, port);
    moon_loop_accept_start(backend->scenario->stage.loop, backend->socket, on_accept, backend);
}

void backends_fini(struct scenario *scenario)
{
    while (!moon_list_is_empty(&scenario->connections)) {
        struct connection *connection =
            MOON_CONTAINER(scenario->connections.next, struct connection, node);
        moon_list_del(&connection->node);
        moon_loop_timer_del(scenario->stage.loop, &connection->timer);
        peer_fini(&connection->peer);
        free(connection);
    }
    for (unsigned i = 0; i < scenario->backend_count; i++) {
        moon_loop_accept_stop(scenario->stage.loop, scenario->backends[i].socket);
        moon_socket_free(scenario->backends[i].socket);
    }
}
