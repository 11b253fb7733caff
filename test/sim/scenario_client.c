// A client of a scenario: sends its requests over as few connections as it can, several at once where chance said so, and judges
// every answer. A request is sent once: what the end of a connection leaves unanswered is lost, and the next connection goes
// on behind it.
#include "test/sim/scenario.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONNECT_MS = 2000 };

static void go_on(struct client *client);

static uint64_t now_of(const struct client *client)
{
    return moon_sim_now_ms(client->scenario->stage.world);
}

static struct request *current(struct client *client)
{
    return &client->requests[client->next_answer];
}

static void fail(struct client *client, const char *what)
{
    const struct request *request = current(client);
    const struct message *answer = client->answer;
    scenario_fail(client->scenario,
                  "%s: %s 1.%u request %016" PRIx64 " (%zu bytes), plan %d/%d of %zu bytes: "
                  "status %d, %" PRIu64 " bytes of body",
                  what, request->method, request->minor, request->tag, request->len,
                  (int)request->plan.framing, (int)request->plan.end, request->plan.len,
                  answer->status, answer->body_len);
}

// ---- sending

static size_t head_of(const struct request *request, char *to, size_t cap)
{
    const struct plan *plan = &request->plan;
    int len = snprintf(to, cap,
                       "%s /%s/%016" PRIx64 " HTTP/1.%u\r\nHost: sim.example\r\nX-Plan: %d %d %zu "
                       "%zu %u %d %d %d\r\n",
                       request->method, request->is_nowhere ? "none" : "b", request->tag,
                       request->minor, (int)plan->framing, (int)plan->end, plan->len, plan->cut_len,
                       plan->wait_ms, plan->is_early, plan->has_interim, plan->is_empty);
    size_t used = (size_t)len;
    if (request->framing == FRAMING_LENGTH)
        used += (size_t)snprintf(to + used, cap - used, "Content-Length: %zu\r\n", request->len);
    if (request->framing == FRAMING_CHUNKED)
        used += (size_t)snprintf(to + used, cap - used, "Transfer-Encoding: chunked\r\n");
    if (request->expects_continue)
        used += (size_t)snprintf(to + used, cap - used, "Expect: 100-continue\r\n");
    return used + (size_t)snprintf(to + used, cap - used, "\r\n");
}

static void send_request(struct client *client)
{
    struct request *request = &client->requests[client->next_send++];
    char head[512];
    struct text text = {0};
    text_add(&text, head, head_of(request, head, sizeof head));
    body_add_framed(&text, request, 0, request->len, true,
                    1 + scenario_below(client->scenario, 20000));
    request->state = REQUEST_SENT;
    request->sent_ms = now_of(client);
    peer_send(&client->peer, text.bytes, text.len);
    text_fini(&text);
}

static void send_more(struct client *client)
{
    while (
        client->is_open && client->next_send < client->request_count && !client->says_close &&
        client->next_send - client->next_answer < client->depth &&
        (client->next_send == client->next_answer || client->requests[client->next_send - 1].minor))
        send_request(client);
}

// ---- judging

static void on_body(void *owner, const char *bytes, size_t len)
{
    struct client *client = owner;
    char tag[32];
    if (!message_field(client->answer, "X-Tag", tag, sizeof tag))
        return; // the gateway's own answer
    if (!body_matches(current(client)->tag, 1, client->body_at, bytes, len))
        fail(client, "the response's body is another");
    client->body_at += len;
}

static void begin_answer(struct client *client)
{
    client->body_at = 0;
    message_begin(client->answer);
    if (client->next_answer < client->request_count)
        client->answer->is_answer_to_head = strcmp(current(client)->method, "HEAD") == 0;
}

static bool is_error(int status)
{
    return status == 408 || status == 502 || status == 503 || status == 504;
}

static void judge_backend_answer(struct client *client, const char *tag)
{
    const struct request *request = current(client);
    const struct plan *plan = &request->plan;
    char own[32];
    snprintf(own, sizeof own, "%016" PRIx64, request->tag);
    if (strcmp(tag, own) != 0)
        fail(client, "the answer to another request");
    if (client->answer->status != (plan->is_empty ? 204 : 200))
        fail(client, "another status");
    size_t due_len = plan->is_empty || client->answer->is_answer_to_head ? 0 : plan->len;
    if (client->body_at != due_len)
        fail(client, "a response cut short looks whole");
}

static void answered(struct client *client)
{
    struct scenario *scenario = client->scenario;
    struct request *request = current(client);
    char tag[32], connection[32];
    if (message_field(client->answer, "X-Tag", tag, sizeof tag)) {
        judge_backend_answer(client, tag);
    } else {
        scenario->error_count++;
        bool is_due = request->is_nowhere && client->answer->status == 404;
        if (!is_due && (!is_error(client->answer->status) || scenario->is_calm))
            fail(client, "an answer of the gateway's own");
    }
    if (message_field(client->answer, "Connection", connection, sizeof connection))
        client->says_close = strcmp(connection, "close") == 0;
    if (request->minor == 0)
        client->says_close = true; // it asked for no more
    if (now_of(client) - request->sent_ms > REQUEST_MAX_MS)
        fail(client, "the answer took too long");
    request->state = REQUEST_ANSWERED;
    scenario->answered_count++;
    client->next_answer++;
    begin_answer(client);
}

static void read_answers(struct client *client)
{
    struct text *in = &client->peer.in;
    while (in->len && !client->scenario->problem[0]) {
        if (client->next_answer == client->next_send) {
            scenario_fail(client->scenario, "bytes that answer no request: %.*s",
                          (int)(in->len < 60 ? in->len : 60), in->bytes + in->head);
            return;
        }
        text_take(in, message_feed(client->answer, in->bytes + in->head, in->len));
        if (client->answer->state == MESSAGE_BAD)
            fail(client, client->answer->why);
        if (client->answer->state == MESSAGE_OVER)
            answered(client);
    }
}

// The connection is over: what it leaves unanswered is lost.
static void connection_ended(struct client *client)
{
    struct peer *peer = &client->peer;
    bool is_clean = peer->stream && peer->has_ended && !peer->error && !peer->has_write_failed;
    if (is_clean && client->next_answer < client->next_send &&
        client->answer->state == MESSAGE_BODY && message_end(client->answer))
        answered(client);
    for (; client->next_answer < client->next_send; client->next_answer++) {
        struct request *request = current(client);
        if (now_of(client) - request->sent_ms > REQUEST_MAX_MS)
            fail(client, "the end took too long");
        if (client->scenario->is_calm && !client->says_close)
            fail(client, "no answer where nothing went wrong");
        request->state = REQUEST_LOST;
        client->scenario->lost_count++;
    }
    peer_fini(peer);
    client->is_open = false;
}

// ---- connections

static void on_change(void *owner)
{
    struct client *client = owner;
    read_answers(client);
    bool leaves = client->leave_after_len && client->peer.in_total >= client->leave_after_len;
    if (leaves && client->next_answer < client->next_send) {
        if (scenario_below(client->scenario, 2))
            peer_close(&client->peer);
        else
            peer_reset(&client->peer);
    }
    if (peer_is_over(&client->peer))
        connection_ended(client);
    else if (client->next_answer == client->next_send &&
             (client->says_close || client->next_answer == client->request_count)) {
        peer_fini(&client->peer); // nothing is asked any more
        client->is_open = false;
    }
    go_on(client);
}

// A connect that failed loses one request, so that a gateway that is gone ends the client.
static void open_connection(struct client *client)
{
    struct stage *stage = &client->scenario->stage;
    client->peer = (struct peer){.on_change = on_change, .owner = client};
    peer_open(&client->peer, stage->loop, &stage->address);
    if (client->slow_len)
        peer_slow(&client->peer, client->slow_len, client->slow_ms);
    client->is_open = true;
    client->says_close = false;
    begin_answer(client);
    send_request(client);
    moon_loop_timer_add(stage->loop, &client->timer, CONNECT_MS);
}

static void go_on(struct client *client)
{
    if (client->scenario->problem[0])
        return;
    if (client->is_open)
        send_more(client);
    else if (client->next_send < client->request_count)
        moon_loop_timer_add(client->scenario->stage.loop, &client->timer, 1);
    else
        moon_loop_timer_del(client->scenario->stage.loop, &client->timer);
}

static void on_timer(struct moon_timer *timer)
{
    struct client *client = MOON_CONTAINER(timer, struct client, timer);
    if (client->scenario->problem[0])
        return; // judged already
    if (!client->is_open) {
        open_connection(client);
    } else if (client->peer.is_connecting) { // nobody answers: chance lets connects hang
        peer_close(&client->peer);
        connection_ended(client);
        go_on(client);
    }
}

void client_start(struct client *client, uint64_t after_ms)
{
    client->answer = calloc(1, sizeof *client->answer);
    if (!client->answer)
        abort();
    client->answer->is_response = true;
    client->answer->on_body = on_body;
    client->answer->owner = client;
    client->timer.fn = on_timer;
    moon_loop_timer_add(client->scenario->stage.loop, &client->timer, after_ms);
}

bool client_is_done(const struct client *client)
{
    return !client->is_open && client->next_answer == client->request_count;
}

void client_fini(struct client *client)
{
    moon_loop_timer_del(client->scenario->stage.loop, &client->timer);
    peer_fini(&client->peer);
    free(client->answer);
}
