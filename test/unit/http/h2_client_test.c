// HTTP/2 of the client side: a session that asks, and one that answers, one writing what the other reads.
#include "fixture.h"

#include "base/buffer.h"
#include "base/err.h"
#include "base/list.h"
#include "http/body.h"
#include "http/h2.h"

#include <string.h>

enum { STREAM_COUNT = 8 };

struct stream {
    struct moon_h2_stream h2;
    struct moon_head head;
    struct moon_headers trailers;
    struct moon_fault fault;
    char body[64];
    size_t body_len;
    unsigned head_count;
    bool has_fault, has_end, is_closed;
};

struct side {
    struct fixture *f;
    struct moon_h2 *h2;
    struct moon_buffer_budget budget;
    struct moon_buffer_pool *buffers;
    struct moon_buffer out;
    struct stream streams[STREAM_COUNT];
    size_t stream_count;
    bool is_client, was_sent_away;
};

struct pair {
    struct side client, server;
};

static struct stream *stream_of(struct moon_h2_stream *h2)
{
    return MOON_CONTAINER(h2, struct stream, h2);
}

static struct moon_h2_stream *on_open(void *owner)
{
    struct side *side = owner;
    return side->stream_count < STREAM_COUNT ? &side->streams[side->stream_count++].h2 : NULL;
}

static void on_head(void *owner, struct moon_h2_stream *h2)
{
    struct side *side = owner;
    struct stream *stream = stream_of(h2);
    struct moon_head_limits limits = moon_head_limits_default;
    int err = side->is_client ? moon_h2_response_read(side->h2, h2, side->f->arena, MOON_METHOD_GET,
                                                      &stream->head, &stream->fault)
                              : moon_h2_request_read(side->h2, h2, side->f->arena, &limits,
                                                     &stream->head, &stream->fault);
    stream->head_count++;
    stream->has_fault |= err < 0;
}

static void on_data(void *owner, struct moon_h2_stream *h2, struct moon_slice bytes)
{
    struct side *side = owner;
    struct stream *stream = stream_of(h2);
    assert_true(stream->body_len + bytes.len <= sizeof stream->body);
    memcpy(stream->body + stream->body_len, bytes.ptr, bytes.len);
    stream->body_len += bytes.len;
    moon_h2_consumed(side->h2, h2, bytes.len);
}

static void on_end(void *owner, struct moon_h2_stream *h2)
{
    struct side *side = owner;
    stream_of(h2)->has_end = true;
    assert_int_equal(moon_h2_trailers_read(side->h2, h2, side->f->arena, &stream_of(h2)->trailers),
                     0);
}

static void on_closed(void *owner, struct moon_h2_stream *h2, uint32_t code)
{
    (void)owner, (void)code;
    stream_of(h2)->is_closed = true;
}

static void on_nothing(void *owner)
{
    (void)owner;
}

static void on_goaway(void *owner)
{
    ((struct side *)owner)->was_sent_away = true;
}

static const struct moon_h2_events events = {.open = on_open,
                                             .head = on_head,
                                             .data = on_data,
                                             .end = on_end,
                                             .closed = on_closed,
                                             .window = on_nothing,
                                             .pong = on_nothing,
                                             .goaway = on_goaway,
                                             .settings = on_nothing};

static void side_init(struct side *side, struct fixture *f, bool is_client)
{
    side->f = f;
    side->is_client = is_client;
    atomic_init(&side->budget.max_len, 1 << 24);
    side->buffers = moon_buffer_pool_new(&side->budget);
    side->h2 = moon_h2_new(&(struct moon_h2_args){.events = &events,
                                                  .owner = side,
                                                  .buffers = side->buffers,
                                                  .header_bytes = 32768,
                                                  .header_count = 100,
                                                  .is_client = is_client});
    assert_non_null(side->h2);
}

static void side_fini(struct side *side)
{
    for (size_t i = 0; i < STREAM_COUNT; i++)
        moon_h2_stream_fini(side->h2, &side->streams[i].h2);
    moon_h2_free(side->h2);
    moon_buffer_fini(&side->out, side->buffers);
    assert_int_equal(moon_buffer_pool_used_len(side->buffers), 0);
    moon_buffer_pool_free(side->buffers);
}

static struct pair *pair_new(void **state)
{
    struct pair *pair = calloc(1, sizeof *pair);
    side_init(&pair->client, *state, true);
    side_init(&pair->server, *state, false);
    return pair;
}

static void pair_free(struct pair *pair)
{
    side_fini(&pair->client);
    side_fini(&pair->server);
    free(pair);
}

// What `from` has to say reaches `to`. False: it had nothing.
static bool carry(struct side *from, struct side *to)
{
    assert_int_equal(moon_h2_pump(from->h2, &from->out), 0);
    struct moon_slice bytes = moon_buffer_bytes(&from->out);
    if (bytes.len == 0)
        return false;
    assert_int_equal(moon_h2_receive(to->h2, bytes, 1000), 0);
    moon_buffer_consume(&from->out, from->buffers, bytes.len);
    return true;
}

static void settle(struct pair *pair)
{
    while (carry(&pair->client, &pair->server) || carry(&pair->server, &pair->client))
        ;
}

static struct stream *ask(struct pair *pair, const char *path, bool has_body)
{
    struct stream *stream = &pair->client.streams[pair->client.stream_count++];
    struct moon_head head = {
        .method = MOON_SLICE("POST"),
        .target = {.path = moon_slice_from(path), .query = MOON_SLICE("q=1"), .has_query = true},
        .host_text = MOON_SLICE("h.example:81")};
    struct moon_framing framing = {.body = has_body ? MOON_BODY_CHUNKED : MOON_BODY_NONE,
                                   .te_trailers = true};
    struct moon_arena *arena = pair->client.f->arena;
    assert_int_equal(moon_headers_init(&head.headers, arena, 4), 0);
    moon_headers_add(&head.headers, arena, MOON_SLICE("X-One"), MOON_SLICE("1"));
    moon_headers_add_id(&head.headers, arena, MOON_H_HOST, MOON_SLICE("h.example:81"));
    struct moon_h2_request_args args = {
        .head = &head, .framing = &framing, .scheme = MOON_SLICE("http"), .has_body = has_body};
    assert_int_equal(moon_h2_request_send(pair->client.h2, &stream->h2, &args), 0);
    return stream;
}

static void respond(struct pair *pair, struct stream *asked, uint16_t status, bool has_body)
{
    struct moon_head head = {.status = status, .minor = 1};
    struct moon_framing framing = {.body = MOON_BODY_CHUNKED};
    assert_int_equal(moon_h2_send_head(pair->server.h2, &asked->h2, &head, &framing, has_body), 0);
}

static void both_directions_flow_at_once(void **state)
{
    struct pair *pair = pair_new(state);
    struct stream *ours = ask(pair, "/a", true), *theirs = &pair->server.streams[0];
    settle(pair);
    assert_int_equal(pair->server.stream_count, 1);
    assert_false(theirs->has_fault);
    assert_true(moon_slice_equal(theirs->head.target.path, MOON_SLICE("/a")));
    assert_true(moon_slice_equal(theirs->head.target.query, MOON_SLICE("q=1")));
    assert_true(moon_slice_equal(theirs->head.host_text, MOON_SLICE("h.example:81")));
    assert_int_equal(theirs->head.headers.count, 3); // host, x-one, te
    assert_int_equal(
        moon_h2_send_body(pair->client.h2, &ours->h2, MOON_SLICE("ping"), &pair->client.out), 4);
    settle(pair);
    assert_memory_equal(theirs->body, "ping", 4);
    respond(pair, theirs, 103, false);
    respond(pair, theirs, 200, true);
    assert_int_equal(
        moon_h2_send_body(pair->server.h2, &theirs->h2, MOON_SLICE("pong"), &pair->server.out), 4);
    settle(pair);
    assert_int_equal(ours->head_count, 2);
    assert_int_equal(ours->head.status, 200);
    assert_int_equal(ours->head.body, MOON_BODY_CHUNKED);
    assert_memory_equal(ours->body, "pong", 4);
    assert_false(ours->has_end); // both directions are open still
    struct moon_headers trailers = {0};
    moon_headers_init(&trailers, pair->client.f->arena, 1);
    moon_headers_add(&trailers, pair->client.f->arena, MOON_SLICE("x-sum"), MOON_SLICE("7"));
    moon_h2_send_end(pair->client.h2, &ours->h2, &trailers);
    settle(pair);
    assert_true(theirs->has_end);
    assert_int_equal(theirs->trailers.count, 1);
    moon_h2_send_end(pair->server.h2, &theirs->h2, &trailers);
    settle(pair);
    assert_true(ours->has_end && ours->is_closed && theirs->is_closed);
    assert_int_equal(ours->trailers.count, 1);
    assert_false(ours->h2.is_unprocessed || ours->h2.is_malformed);
    pair_free(pair);
}

// A GOAWAY says what was begun: all above it may be asked again.
static void a_goaway_says_what_was_begun(void **state)
{
    struct pair *pair = pair_new(state);
    struct stream *first = ask(pair, "/1", false);
    settle(pair);
    assert_true(moon_h2_stream_cap(pair->client.h2) > 0);
    moon_h2_drain(pair->server.h2);
    assert_int_equal(moon_h2_pump(pair->server.h2, &pair->server.out), 0);
    struct stream *second = ask(pair, "/2", false), *third;
    assert_int_equal(moon_h2_pump(pair->client.h2, &pair->client.out), 0);
    third = ask(pair, "/3", false); // has not gone out when the GOAWAY comes
    while (carry(&pair->server, &pair->client) || carry(&pair->client, &pair->server))
        ;
    assert_true(pair->client.was_sent_away);
    assert_int_equal(moon_h2_stream_cap(pair->client.h2), 0);
    assert_true(second->is_closed && second->h2.is_unprocessed);
    assert_true(third->is_closed && third->h2.is_unprocessed);
    assert_false(first->is_closed);
    respond(pair, &pair->server.streams[0], 204, false);
    settle(pair);
    assert_true(first->has_end && first->is_closed && !first->h2.is_unprocessed);
    assert_int_equal(first->head.body, MOON_BODY_NONE);
    pair_free(pair);
}

static void resets_are_told_apart(void **state)
{
    struct pair *pair = pair_new(state);
    struct stream *refused = ask(pair, "/1", true), *broken = ask(pair, "/2", true);
    struct stream *given_up = ask(pair, "/3", true);
    settle(pair);
    moon_h2_reset(pair->server.h2, &pair->server.streams[0].h2, MOON_H2_REFUSED_STREAM);
    moon_h2_reset(pair->server.h2, &pair->server.streams[1].h2, MOON_H2_INTERNAL_ERROR);
    moon_h2_reset(pair->client.h2, &given_up->h2, MOON_H2_CANCEL);
    settle(pair);
    assert_true(refused->is_closed && refused->h2.is_unprocessed);
    assert_true(broken->is_closed && !broken->h2.is_unprocessed && !broken->h2.is_malformed);
    assert_true(given_up->is_closed && !given_up->h2.is_malformed);
    assert_true(pair->server.streams[2].is_closed);
    pair_free(pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(both_directions_flow_at_once),
        TEST(a_goaway_says_what_was_begun),
        TEST(resets_are_told_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
