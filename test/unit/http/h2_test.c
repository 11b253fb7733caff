// HTTP/2 without a socket: frames in, events and frames out.
#include "fixture.h"

#include "base/buffer.h"
#include "base/list.h"
#include "http/h2.h"

#include <string.h>

#define BYTES(literal) ((struct moon_slice){(literal), sizeof(literal) - 1})
#define START "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"
// Blocks of literals and static entries: POST / of h.example
#define POST "\x83\x86\x84\x41\x09h.example"
#define GET "\x82\x86\x84\x41\x09h.example"

enum { STREAM_COUNT = 8 };

struct stream {
    struct moon_h2_stream h2;
    size_t body_len;
    bool has_head, has_end, is_closed;
    uint32_t code;
};

struct peer {
    struct fixture *f;
    struct moon_h2 *h2;
    struct moon_buffer_budget budget;
    struct moon_buffer_pool *buffers;
    struct moon_buffer out;
    struct moon_h2_shape *shape; // its own
    struct stream streams[STREAM_COUNT];
    size_t stream_count;
    unsigned pong_count;
    uint64_t now_ms;
};

static struct stream *stream_of(struct moon_h2_stream *h2)
{
    return MOON_CONTAINER(h2, struct stream, h2);
}

static struct moon_h2_stream *on_open(void *owner)
{
    struct peer *peer = owner;
    return peer->stream_count < STREAM_COUNT ? &peer->streams[peer->stream_count++].h2 : NULL;
}

static void on_head(void *owner, struct moon_h2_stream *h2)
{
    (void)owner;
    stream_of(h2)->has_head = true;
}

static void on_data(void *owner, struct moon_h2_stream *h2, struct moon_slice bytes)
{
    (void)owner;
    stream_of(h2)->body_len += bytes.len;
}

static void on_end(void *owner, struct moon_h2_stream *h2)
{
    (void)owner;
    stream_of(h2)->has_end = true;
}

static void on_closed(void *owner, struct moon_h2_stream *h2, uint32_t code)
{
    (void)owner;
    stream_of(h2)->is_closed = true;
    stream_of(h2)->code = code;
}

static void on_window(void *owner)
{
    (void)owner;
}

static void on_pong(void *owner)
{
    ((struct peer *)owner)->pong_count++;
}

static const struct moon_h2_events events = {.open = on_open,
                                             .head = on_head,
                                             .data = on_data,
                                             .end = on_end,
                                             .closed = on_closed,
                                             .window = on_window,
                                             .pong = on_pong};

static struct peer *peer_new_shaped(void **state, struct moon_h2_shape *shape)
{
    struct peer *peer = calloc(1, sizeof *peer);
    peer->f = *state;
    peer->now_ms = 5000;
    atomic_init(&peer->budget.max_len, 1 << 24);
    peer->buffers = moon_buffer_pool_new(&peer->budget);
    peer->shape = shape ? NULL : moon_h2_shape_new();
    peer->h2 = moon_h2_new(&(struct moon_h2_args){.events = &events,
                                                  .owner = peer,
                                                  .buffers = peer->buffers,
                                                  .shape = shape ? shape : peer->shape,
                                                  .header_bytes = 32768,
                                                  .header_count = 100});
    return peer;
}

static struct peer *peer_new(void **state)
{
    return peer_new_shaped(state, NULL);
}

static void peer_free(struct peer *peer)
{
    for (size_t i = 0; i < peer->stream_count; i++)
        moon_h2_stream_fini(peer->h2, &peer->streams[i].h2);
    moon_h2_free(peer->h2);
    moon_h2_shape_free(peer->shape);
    moon_buffer_fini(&peer->out, peer->buffers);
    assert_int_equal(moon_buffer_pool_used_len(peer->buffers), 0);
    moon_buffer_pool_free(peer->buffers);
    free(peer);
}

static int receive(struct peer *peer, struct moon_slice bytes)
{
    return moon_h2_receive(peer->h2, bytes, peer->now_ms);
}

static int receive_frame(struct peer *peer, uint8_t type, uint8_t flags, uint32_t id,
                         struct moon_slice payload)
{
    char head[9] = {(char)(payload.len >> 16),
                    (char)(payload.len >> 8),
                    (char)payload.len,
                    (char)type,
                    (char)flags,
                    (char)(id >> 24),
                    (char)(id >> 16),
                    (char)(id >> 8),
                    (char)id};
    int err = receive(peer, (struct moon_slice){head, sizeof head});
    return err || !payload.len ? err : receive(peer, payload);
}

static int read_head(struct peer *peer, size_t at)
{
    struct fixture *f = peer->f;
    return moon_h2_request_read(peer->h2, &peer->streams[at].h2, f->arena,
                                &moon_head_limits_default, &f->head, &f->fault);
}

static void pumps(struct peer *peer)
{
    assert_int_equal(moon_h2_pump(peer->h2, &peer->out), 0);
}

// ---- reading

static void preface(void **state)
{
    (void)state;
    assert_int_equal(moon_h2_is_preface(BYTES("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")), 1);
    assert_int_equal(moon_h2_is_preface(BYTES("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore")), 1);
    assert_int_equal(moon_h2_is_preface(BYTES("PRI")), 0);
    assert_true(moon_h2_is_preface(BYTES("PRX")) < 0);
    assert_true(moon_h2_is_preface(BYTES("PRI * HTTP/2.0\r\n\r\nSX")) < 0);
}

static void request_in_steps_of_any_size(void **state)
{
    static const char bytes[] = START "\0\0\x1b\1\5\0\0\0\1" GET "\0\3x-a\3b c\0\1y\0";
    for (size_t step = 1; step < sizeof bytes; step++) {
        struct peer *peer = peer_new(state);
        for (size_t at = 0; at < sizeof bytes - 1; at += step) {
            size_t left = sizeof bytes - 1 - at;
            struct moon_slice part = {bytes + at, left < step ? left : step};
            assert_int_equal(receive(peer, part), 0);
        }
        assert_true(peer->streams[0].has_head && peer->streams[0].has_end);
        assert_int_equal(read_head(peer, 0), 0);
        const struct moon_head *head = &peer->f->head;
        assert_true(head->is_h2 && head->minor == 1 && head->body == MOON_BODY_NONE);
        assert_true(moon_slice_equal(head->host_text, MOON_SLICE("h.example")));
        assert_int_equal(head->headers.count, 3); // Host among them
        assert_true(moon_slice_equal(head->headers.fields[1].value, MOON_SLICE("b c")));
        peer_free(peer);
    }
}

static void crumbs_become_one_cookie(void **state)
{
    struct peer *peer = peer_new(state);
    receive(peer, BYTES(START));
    receive_frame(peer, 1, 5, 1, BYTES(GET "\0\6cookie\3a=1\0\1x\1y\0\6cookie\0\0\6cookie\3b=2"));
    assert_int_equal(read_head(peer, 0), 0);
    const struct moon_headers *h = &peer->f->head.headers;
    assert_int_equal(h->count, 3);
    assert_true(
        moon_slice_equal(moon_headers_get(h, MOON_H_COOKIE)->value, MOON_SLICE("a=1; b=2")));
    peer_free(peer);
}

// Both in the session before the head is read, as when one read brings them.
static void trailers_do_not_mix_with_their_head(void **state)
{
    struct peer *peer = peer_new(state);
    struct moon_headers trailers = {0};
    receive(peer, BYTES(START));
    receive_frame(peer, 1, 4, 1, BYTES(POST));
    receive_frame(peer, 1, 5, 1,
                  BYTES("\0\5x-sum\1"
                        "9"));
    assert_true(peer->streams[0].has_end);
    assert_int_equal(read_head(peer, 0), 0);
    assert_int_equal(peer->f->head.headers.count, 1);
    assert_int_equal(peer->f->head.body, MOON_BODY_CHUNKED);
    assert_int_equal(
        moon_h2_trailers_read(peer->h2, &peer->streams[0].h2, peer->f->arena, &trailers), 0);
    assert_int_equal(trailers.count, 1);
    assert_true(moon_slice_equal(trailers.fields[0].value, MOON_SLICE("9")));
    peer_free(peer);
}

static void check_refused(void **state, struct moon_slice block, uint16_t status)
{
    struct peer *peer = peer_new(state);
    receive(peer, BYTES(START));
    assert_int_equal(receive_frame(peer, 1, 5, 1, block), 0);
    if (status == 0) { // malformed: reset, and never told
        pumps(peer);
        assert_false(peer->streams[0].has_head);
        assert_true(peer->streams[0].is_closed);
        assert_int_equal(peer->streams[0].code, MOON_H2_PROTOCOL_ERROR);
    } else {
        assert_int_equal(read_head(peer, 0), -1);
        assert_int_equal(peer->f->fault.status, status);
    }
    peer_free(peer);
}

static void refused_heads(void **state)
{
    check_refused(state, BYTES(GET "\0\3X-A\1b"), 0);
    check_refused(state, BYTES(GET "\0\2:a\1b"), 0);
    check_refused(state, BYTES(GET "\0\1a\3b\r\n"), 0);
    check_refused(state, BYTES(GET "\0\1a\2 b"), 0);
    check_refused(state, BYTES(GET "\0\nconnection\5close"), 0);
    check_refused(state, BYTES(GET "\x84"), 0);
    check_refused(state, BYTES("\x82\x86\x84"), 0);
    check_refused(state, BYTES(GET "\0\3x_a\1b"), 400);
    check_refused(state, BYTES(GET "\0\4host\5other"), 400);
    check_refused(state,
                  BYTES("\x82\x86\x84\x41\x03"
                        "a@b"),
                  400);
    check_refused(state,
                  BYTES("\x82\x86\x84\x41\x03"
                        "a..b"),
                  400);
    check_refused(state, BYTES("\x82\x86\x04\x04/%00\x41\x01h"), 400);
    check_refused(state,
                  BYTES("\x02\x04"
                        "BREW\x86\x84\x41\x01h"),
                  501);
}

#define CONNECT \
    "\x02\x07"  \
    "CONNECT\x86\x84\x41\x09h.example\0\x09:protocol\x09websocket"

static void connect_with_protocol_is_an_upgrade(void **state)
{
    struct peer *peer = peer_new(state);
    receive(peer, BYTES(START));
    assert_int_equal(receive_frame(peer, 1, 4, 1, BYTES(CONNECT)), 0);
    assert_int_equal(read_head(peer, 0), 0);
    const struct moon_head *head = &peer->f->head;
    assert_true(head->is_h2_upgrade && head->has_upgrade);
    assert_int_equal(head->method_id, MOON_METHOD_GET);
    assert_true(moon_slice_equal(head->method, MOON_SLICE("GET")));
    assert_int_equal(head->body, MOON_BODY_NONE);
    assert_true(moon_slice_equal(moon_headers_get(&head->headers, MOON_H_UPGRADE)->value,
                                 MOON_SLICE("websocket")));
    peer_free(peer);
}

static void connects_that_are_refused(void **state)
{
    check_refused(state,
                  BYTES("\x02\x07"
                        "CONNECT\x41\x09h.example"),
                  501);
    check_refused(state,
                  BYTES("\x02\x07"
                        "CONNECT\x86\x84\x41\1h\0\x09:protocol\1x"),
                  501);
    check_refused(state,
                  BYTES(CONNECT "\x0f\x0d\1"
                                "5"),
                  400); // Content-Length
    check_refused(state, BYTES(CONNECT "\0\7upgrade\1x"), 0);
    check_refused(state, BYTES("\x82\x86\x84\x41\1h\0\x09:protocol\x09websocket"), 0);
    check_refused(state,
                  BYTES("\x02\x07"
                        "CONNECT\x86\x41\1h\0\x09:protocol\x09websocket"),
                  0);
}

// ---- writing

static void trailers_may_follow_a_body_of_known_length(void **state)
{
    for (int has_trailers = 0; has_trailers < 2; has_trailers++) {
        struct peer *peer = peer_new(state);
        struct moon_head response = {.status = 200, .minor = 1};
        struct moon_framing framing = {
            .body = MOON_BODY_LENGTH, .content_length = 3, .may_trail = true};
        struct moon_headers trailers;
        moon_headers_init(&trailers, peer->f->arena, 1);
        if (has_trailers)
            moon_headers_add(&trailers, peer->f->arena, MOON_SLICE("x"), MOON_SLICE("y"));
        receive(peer, BYTES(START));
        receive_frame(peer, 1, 5, 1, BYTES(GET));
        assert_int_equal(read_head(peer, 0), 0);
        struct stream *stream = &peer->streams[0];
        moon_h2_send_head(peer->h2, &stream->h2, &response, &framing, true);
        assert_int_equal(moon_h2_send_body(peer->h2, &stream->h2, BYTES("abc"), &peer->out), 3);
        assert_false(stream->h2.is_sent);
        moon_buffer_fini(&peer->out, peer->buffers);
        moon_h2_send_end(peer->h2, &stream->h2, &trailers);
        pumps(peer);
        assert_true(stream->is_closed && stream->code == MOON_H2_NO_ERROR);
        struct moon_slice out = moon_buffer_bytes(&peer->out);
        if (has_trailers) // HEADERS that end the stream
            assert_true(out.ptr[out.len - 5 - 9 + 3] == 1 && out.ptr[out.len - 5 - 9 + 4] == 5);
        else
            assert_true(out.ptr[3] == 0 && out.ptr[4] == 1);
        peer_free(peer);
    }
}

// 101 is 200 there, and an end of ours leaves the client's side open until the owner has enough of it.
static void tunnels_end_each_side_by_itself(void **state)
{
    struct peer *peer = peer_new(state);
    struct moon_head response = {.status = 101, .minor = 1};
    struct moon_framing none = {.body = MOON_BODY_NONE};
    receive(peer, BYTES(START));
    receive_frame(peer, 1, 4, 1, BYTES(CONNECT));
    assert_int_equal(read_head(peer, 0), 0);
    struct stream *stream = &peer->streams[0];
    stream->h2.is_tunnel = true;
    pumps(peer);
    moon_buffer_fini(&peer->out, peer->buffers);
    assert_int_equal(moon_h2_send_head(peer->h2, &stream->h2, &response, &none, true), 0);
    pumps(peer);
    struct moon_slice out = moon_buffer_bytes(&peer->out);
    assert_true(out.len == 10 && out.ptr[3] == 1 &&
                (uint8_t)out.ptr[9] == 0x88); // :status 200 alone
    assert_int_equal(moon_h2_send_body(peer->h2, &stream->h2, BYTES("abc"), &peer->out), 3);
    moon_h2_send_end(peer->h2, &stream->h2, NULL);
    pumps(peer);
    assert_true(stream->h2.is_sent && !stream->is_closed);
    receive_frame(peer, 0, 0, 1, BYTES("still here"));
    assert_int_equal(stream->body_len, 10);
    receive_frame(peer, 0, 1, 1, BYTES(""));
    pumps(peer);
    assert_true(stream->is_closed);
    assert_int_equal(stream->code, MOON_H2_NO_ERROR);
    peer_free(peer);
}

static void bodies_keep_to_the_windows(void **state)
{
    static const char body[100000];
    struct peer *peer = peer_new(state);
    struct moon_head response = {.status = 200, .minor = 1};
    struct moon_framing framing = {.body = MOON_BODY_LENGTH, .content_length = sizeof body};
    receive(peer, BYTES(START));
    receive_frame(peer, 4, 0, 0, BYTES("\0\4\0\0\0\x0a")); // INITIAL_WINDOW_SIZE 10
    receive_frame(peer, 1, 5, 1, BYTES(GET));
    struct moon_h2_stream *stream = &peer->streams[0].h2;
    assert_int_equal(read_head(peer, 0), 0);
    assert_int_equal(moon_h2_send_head(peer->h2, stream, &response, &framing, true), 0);
    struct moon_slice rest = {body, sizeof body};
    assert_int_equal(moon_h2_send_body(peer->h2, stream, rest, &peer->out), 10);
    assert_int_equal(moon_h2_window(peer->h2, stream), 0);
    assert_int_equal(moon_h2_send_body(peer->h2, stream, rest, &peer->out), 0);
    receive_frame(peer, 8, 0, 1, BYTES("\0\0\0\x05"));
    assert_int_equal(moon_h2_send_body(peer->h2, stream, rest, &peer->out), 5);
    receive_frame(peer, 8, 0, 1, BYTES("\0\1\0\0"));
    rest = moon_slice_skip(rest, 15);
    size_t taken = moon_h2_send_body(peer->h2, stream, rest, &peer->out);
    assert_true(taken > 0 && moon_buffer_len(&peer->out) <= MOON_BUFFER_MAX_LEN); // room bounds
    peer_free(peer);
}

static void a_response_that_is_early_resets_what_it_did_not_read(void **state)
{
    struct peer *peer = peer_new(state);
    struct moon_head response = {.status = 403, .minor = 1};
    struct moon_framing none = {.body = MOON_BODY_LENGTH};
    receive(peer, BYTES(START));
    receive_frame(peer, 1, 4, 1, BYTES(POST));
    assert_int_equal(read_head(peer, 0), 0);
    moon_h2_send_head(peer->h2, &peer->streams[0].h2, &response, &none, false);
    pumps(peer);
    assert_true(peer->streams[0].h2.is_sent && peer->streams[0].is_closed);
    assert_int_equal(peer->streams[0].code, MOON_H2_NO_ERROR);
    assert_int_equal(receive_frame(peer, 0, 0, 1, BYTES("late")), 0); // was on its way
    peer_free(peer);
}

// ---- sleep

// Answers stream `at` with a field that goes into the encoder's table; how many bytes its HEADERS have.
static size_t answered(struct peer *peer, size_t at)
{
    struct moon_head response = {.status = 200, .minor = 1};
    struct moon_framing none = {.body = MOON_BODY_LENGTH};
    assert_true(peer->streams[at].has_head);
    assert_int_equal(read_head(peer, at), 0);
    moon_headers_init(&response.headers, peer->f->arena, 1);
    moon_headers_add(&response.headers, peer->f->arena, MOON_SLICE("x-kept"),
                     MOON_SLICE("a value of some length"));
    pumps(peer); // what else waits
    moon_buffer_fini(&peer->out, peer->buffers);
    moon_h2_send_head(peer->h2, &peer->streams[at].h2, &response, &none, false);
    pumps(peer);
    assert_int_equal(moon_buffer_bytes(&peer->out).ptr[3], 1);
    return moon_buffer_len(&peer->out);
}

// What it was told before it slept it knows: windows, streams that are over, the entries of the decoder's table.
static void it_sleeps_and_wakes_as_it_was(void **state)
{
    struct peer *peer = peer_new(state);
    receive(peer, BYTES(START));
    moon_h2_sleep(peer->h2); // its SETTINGS have not gone out
    assert_false(moon_h2_is_asleep(peer->h2));
    pumps(peer);
    receive_frame(peer, 4, 0, 0, BYTES("\0\4\0\0\0\x0a")); // INITIAL_WINDOW_SIZE 10
    receive_frame(peer, 1, 5, 1, BYTES(GET "\x40\3x-a\3one"));
    size_t whole_len = answered(peer, 0);
    assert_true(peer->streams[0].is_closed);
    moon_h2_sleep(peer->h2);
    assert_true(moon_h2_is_asleep(peer->h2));
    moon_buffer_fini(&peer->out, peer->buffers);
    pumps(peer); // nothing goes out for it
    assert_int_equal(moon_buffer_len(&peer->out), 0);
    assert_int_equal(receive_frame(peer, 1, 5, 3, BYTES(GET "\xbf")), 0); // the entry of before
    assert_false(moon_h2_is_asleep(peer->h2));
    assert_int_equal(moon_h2_window(peer->h2, &peer->streams[1].h2), 10);
    size_t again_len = answered(peer, 1);
    assert_in_range(again_len, whole_len,
                    whole_len + 6); // the table is empty, and the client was told
    assert_int_equal(peer->f->head.headers.count, 2);
    receive_frame(peer, 1, 5, 5, BYTES(GET));
    assert_true(answered(peer, 2) < whole_len);                 // and fills again
    assert_true(receive_frame(peer, 0, 0, 3, BYTES("x")) != 0); // 3 is over
    peer_free(peer);
}

// What they have in common is kept once; what differs is each one's own.
static void many_sleep_in_one_shape(void **state)
{
    enum { COUNT = 20 };
    struct peer *peers[COUNT];
    peers[0] = peer_new(state);
    for (int i = 1; i < COUNT; i++)
        peers[i] = peer_new_shaped(state, peers[0]->shape);
    for (int i = 0; i < COUNT; i++) {
        const char window[6] = {0, 4, 0, 0, 0, (char)(i + 1)};
        receive(peers[i], BYTES(START));
        receive_frame(peers[i], 4, 0, 0, (struct moon_slice){window, sizeof window});
        for (int k = 0; k <= i % 3; k++) {
            receive_frame(peers[i], 1, 5, 2 * (uint32_t)k + 1, BYTES(GET "\x40\3x-a\3one"));
            answered(peers[i], (size_t)k);
        }
        moon_h2_sleep(peers[i]->h2);
        assert_true(moon_h2_is_asleep(peers[i]->h2));
    }
    for (int i = COUNT - 1; i >= 0; i--) {
        size_t at = peers[i]->stream_count;
        assert_int_equal(receive_frame(peers[i], 1, 5, 11, BYTES(GET "\xbf")), 0);
        assert_int_equal(moon_h2_window(peers[i]->h2, &peers[i]->streams[at].h2), i + 1);
        answered(peers[i], at);
        assert_int_equal(peers[i]->f->head.headers.count, 2);
    }
    for (int i = COUNT - 1; i >= 0; i--)
        peer_free(peers[i]);
}

static void it_sleeps_as_often_as_it_likes(void **state)
{
    struct peer *peer = peer_new(state);
    receive(peer, BYTES(START));
    pumps(peer);
    for (int i = 0; i < 3000; i++) {
        moon_h2_sleep(peer->h2);
        assert_true(moon_h2_is_asleep(peer->h2));
        peer->now_ms += 1000;
        moon_buffer_fini(&peer->out, peer->buffers);
        assert_int_equal(receive_frame(peer, 6, 0, 0, BYTES("12345678")), 0); // PING
        pumps(peer);
        assert_int_equal(moon_buffer_len(&peer->out), 17);
    }
    moon_h2_sleep(peer->h2);
    moon_h2_drain_notice(peer->h2);
    pumps(peer);
    assert_true(moon_buffer_len(&peer->out) > 17);
    peer_free(peer);
}

static void it_does_not_sleep_in_a_frame(void **state)
{
    struct peer *peer = peer_new(state);
    receive(peer, BYTES(START));
    pumps(peer);
    receive(peer, BYTES("\0\0"));
    moon_h2_sleep(peer->h2);
    assert_false(moon_h2_is_asleep(peer->h2));
    receive(peer, BYTES("\x08\6\0\0\0\0\0"
                        "1234"));
    moon_h2_sleep(peer->h2);
    assert_false(moon_h2_is_asleep(peer->h2));
    receive(peer, BYTES("5678"));
    pumps(peer);
    moon_h2_sleep(peer->h2);
    assert_true(moon_h2_is_asleep(peer->h2)); // and is freed so
    peer_free(peer);
}

// ---- the guard

static void buckets_empty_and_fill(void **state)
{
    struct peer *peer = peer_new(state);
    receive(peer, BYTES(START));
    int count = 0;
    while (count < 5000 && receive_frame(peer, 2, 0, 3, BYTES("\0\0\0\1\5")) == 0)
        count++;
    assert_in_range(count, 900, 1000);
    assert_int_equal(moon_h2_cause(peer->h2), MOON_H2_CONTROL);
    peer_free(peer);
    peer = peer_new(state);
    receive(peer, BYTES(START));
    for (count = 0; count < 5000; count++) { // twenty a second are in order
        peer->now_ms += 50;
        assert_int_equal(receive_frame(peer, 2, 0, 3, BYTES("\0\0\0\1\5")), 0);
    }
    peer_free(peer);
}

static void continuations_are_counted(void **state)
{
    struct peer *peer = peer_new(state);
    receive(peer, BYTES(START));
    receive_frame(peer, 1, 1, 1, BYTES(GET));
    int count = 0;
    while (count < 100 && receive_frame(peer, 9, 0, 1, BYTES("")) == 0)
        count++;
    assert_int_equal(count, 8);
    assert_int_equal(moon_h2_cause(peer->h2), MOON_H2_CONTINUATIONS);
    peer_free(peer);
}

static void frames_of_closed_streams_end_the_connection(void **state)
{
    struct peer *peer = peer_new(state);
    receive(peer, BYTES(START));
    receive_frame(peer, 1, 4, 1, BYTES(POST));
    receive_frame(peer, 3, 0, 1, BYTES("\0\0\0\x08"));
    assert_true(peer->streams[0].is_closed);
    assert_true(receive_frame(peer, 0, 0, 1, BYTES("x")) != 0);
    assert_int_equal(moon_h2_cause(peer->h2), MOON_H2_PROTOCOL);
    peer_free(peer);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(preface),
        TEST(request_in_steps_of_any_size),
        TEST(crumbs_become_one_cookie),
        TEST(trailers_do_not_mix_with_their_head),
        TEST(refused_heads),
        TEST(connect_with_protocol_is_an_upgrade),
        TEST(connects_that_are_refused),
        TEST(trailers_may_follow_a_body_of_known_length),
        TEST(tunnels_end_each_side_by_itself),
        TEST(bodies_keep_to_the_windows),
        TEST(a_response_that_is_early_resets_what_it_did_not_read),
        TEST(it_sleeps_and_wakes_as_it_was),
        TEST(many_sleep_in_one_shape),
        TEST(it_sleeps_as_often_as_it_likes),
        TEST(it_does_not_sleep_in_a_frame),
        TEST(buckets_empty_and_fill),
        TEST(continuations_are_counted),
        TEST(frames_of_closed_streams_end_the_connection),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
