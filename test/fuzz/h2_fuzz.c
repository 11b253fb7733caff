// HTTP/2: what a client may send behind its preface, in any pieces. A request that is accepted reads as the same request once it
// was written for an HTTP/1.1 peer: nothing of one protocol means something else in the other. First byte: choices.
#include "heads.h"

#include "base/list.h"
#include "http/body.h"
#include "http/h2.h"

enum { STREAM_COUNT = 512, OUT_LEN = 16384 };

struct stream {
    struct moon_h2_stream h2;
    bool is_open, is_closed, has_head, is_answered;
    size_t unread_len; // not consumed yet
};

struct client {
    struct moon_h2 *h2;
    struct fuzz_arena arena;
    struct moon_buffer_budget budget;
    struct moon_buffer_pool *buffers;
    struct moon_buffer out;
    struct stream streams[STREAM_COUNT];
    size_t stream_count;
    struct moon_h2_shape *shape;
    bool consumes_late, answers_in_pieces;
};

static struct stream *stream_of(struct moon_h2_stream *h2)
{
    return MOON_CONTAINER(h2, struct stream, h2);
}

static struct moon_h2_stream *on_open(void *owner)
{
    struct client *client = owner;
    if (client->stream_count == STREAM_COUNT)
        return NULL;
    struct stream *stream = &client->streams[client->stream_count++];
    stream->is_open = true;
    return &stream->h2;
}

static void on_head(void *owner, struct moon_h2_stream *h2)
{
    (void)owner;
    struct stream *stream = stream_of(h2);
    HOLDS(stream->is_open && !stream->is_closed && !stream->has_head);
    stream->has_head = true;
}

static void on_data(void *owner, struct moon_h2_stream *h2, struct moon_slice bytes)
{
    struct client *client = owner;
    struct stream *stream = stream_of(h2);
    HOLDS(stream->has_head && !stream->is_closed && bytes.len > 0);
    stream->unread_len += bytes.len;
    HOLDS(stream->unread_len <= MOON_H2_STREAM_LEN); // the window bounds what is kept
    if (client->consumes_late)
        return;
    moon_h2_consumed(client->h2, h2, stream->unread_len);
    stream->unread_len = 0;
}

static void on_end(void *owner, struct moon_h2_stream *h2)
{
    (void)owner;
    struct stream *stream = stream_of(h2);
    HOLDS(stream->has_head && !stream->is_closed);
}

static void on_closed(void *owner, struct moon_h2_stream *h2, uint32_t code)
{
    (void)owner, (void)code;
    struct stream *stream = stream_of(h2);
    HOLDS(stream->is_open && !stream->is_closed);
    stream->is_closed = true;
}

static void on_nothing(void *owner)
{
    (void)owner;
}

static const struct moon_h2_events events = {
    .open = on_open,
    .head = on_head,
    .data = on_data,
    .end = on_end,
    .closed = on_closed,
    .window = on_nothing,
    .pong = on_nothing,
};

// ---- what a gateway does with it

static void check_written(struct moon_arena *arena, struct moon_head *head)
{
    struct moon_head_limits limits = moon_head_limits_default;
    struct moon_framing framing = {.body = head->body, .content_length = head->content_length};
    struct moon_head again;
    struct moon_fault fault;
    moon_head_strip_hop(head);
    char *to = moon_arena_try_bytes(arena, moon_head_size(head));
    if (!to)
        return;
    struct moon_slice text = {to, moon_request_write(head, &framing, to)};
    struct moon_head_scan scan = {0};
    limits.head_bytes *= 2; // the lines' ends, and what was written anew
    limits.field_count *= 4;
    HOLDS(moon_head_scan(&scan, text, &limits, true, &fault) == (ssize_t)text.len);
    if (moon_request_parse(arena, text, &limits, &again, &fault) < 0) {
        HOLDS(fault.status == 431); // the arena's cap
        return;
    }
    HOLDS(moon_slice_equal(again.method, head->method));
    HOLDS(moon_slice_equal(again.target.path, head->target.path));
    HOLDS(moon_slice_equal(again.target.query, head->target.query));
    HOLDS(moon_slice_equal(again.host_text, head->host_text));
    HOLDS(again.body == head->body && again.content_length == head->content_length);
    check_same_fields(&head->headers, &again.headers);
}

static void read_request(struct client *client, struct stream *stream, struct moon_head *head)
{
    struct moon_fault fault = {0, NULL};
    struct moon_head_limits limits = moon_head_limits_default;
    if (moon_h2_request_read(client->h2, &stream->h2, client->arena.arena, &limits, head, &fault) <
        0) {
        HOLDS(fault.status >= 400 && fault.reason);
        return;
    }
    check_fields(&head->headers);
    HOLDS(head->host_text.len > 0 && head->is_h2 && head->body != MOON_BODY_CLOSE);
    HOLDS(head->method_id != MOON_METHOD_OTHER && head->method_id != MOON_METHOD_CONNECT);
    check_written(client->arena.arena, head);
}

static void answer(struct client *client, struct stream *stream)
{
    struct moon_head request, response = {.status = 200, .minor = 1};
    struct moon_headers trailers = {0};
    struct moon_framing framing = {.body = MOON_BODY_CHUNKED};
    static const char body[4096];
    stream->is_answered = true;
    read_request(client, stream, &request);
    if (request.is_h2_upgrade) {
        stream->h2.is_tunnel = true;
        response.status = 101;
    }
    if (moon_h2_send_head(client->h2, &stream->h2, &response, &framing, true) < 0)
        return;
    struct moon_slice bytes = {body, client->answers_in_pieces ? 7 : sizeof body};
    size_t before = moon_buffer_len(&client->out);
    size_t taken = moon_h2_send_body(client->h2, &stream->h2, bytes, &client->out);
    HOLDS(taken <= bytes.len && moon_buffer_len(&client->out) >= before);
    moon_h2_send_end(client->h2, &stream->h2, &trailers);
}

// The turn is over: heads are read, answers sent, what came is consumed, `out` is flushed.
static int turn(struct client *client)
{
    for (size_t i = 0; i < client->stream_count; i++) {
        struct stream *stream = &client->streams[i];
        if (stream->is_closed)
            continue;
        if (stream->has_head && !stream->is_answered)
            answer(client, stream);
        if (stream->unread_len && !stream->is_closed)
            moon_h2_consumed(client->h2, &stream->h2, stream->unread_len);
        stream->unread_len = 0;
    }
    int err = moon_h2_pump(client->h2, &client->out);
    bool is_idle = true;
    for (size_t i = 0; i < client->stream_count; i++)
        is_idle = is_idle && client->streams[i].is_closed;
    if (is_idle && !err)
        moon_h2_sleep(client->h2);
    HOLDS(moon_buffer_len(&client->out) <= MOON_BUFFER_MAX_LEN);
    moon_buffer_fini(&client->out, client->buffers);
    return err;
}

static void receive(struct client *client, struct moon_slice in, size_t step)
{
    static const char start[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0";
    uint64_t now_ms = 1000;
    int err = moon_h2_receive(client->h2, (struct moon_slice){start, sizeof start}, now_ms);
    HOLDS(err == 0);
    while (in.len && !err) {
        size_t len = in.len < step ? in.len : step;
        err = moon_h2_receive(client->h2, (struct moon_slice){in.ptr, len}, ++now_ms);
        in = moon_slice_skip(in, len);
        if (!err)
            err = turn(client);
    }
    if (err) { // GOAWAY goes out
        moon_h2_pump(client->h2, &client->out);
        HOLDS(moon_h2_receive(client->h2, MOON_SLICE("x"), now_ms) != 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct moon_slice in = {(const char *)bytes, len};
    uint8_t choice = fuzz_choice(&in);
    struct client *client = calloc(1, sizeof *client);
    client->arena = fuzz_arena_new();
    atomic_init(&client->budget.max_len, 1 << 24);
    client->buffers = moon_buffer_pool_new(&client->budget);
    client->consumes_late = choice & 1;
    client->answers_in_pieces = choice & 2;
    client->shape = moon_h2_shape_new();
    client->h2 = moon_h2_new(&(struct moon_h2_args){.events = &events,
                                                    .owner = client,
                                                    .buffers = client->buffers,
                                                    .shape = client->shape,
                                                    .header_bytes = 32768,
                                                    .header_count = 100});
    receive(client, in, choice & 4 ? 1 + (choice >> 3) : 65536);
    for (size_t i = 0; i < client->stream_count; i++)
        moon_h2_stream_fini(client->h2, &client->streams[i].h2);
    moon_h2_free(client->h2);
    moon_h2_shape_free(client->shape);
    moon_buffer_fini(&client->out, client->buffers);
    moon_buffer_pool_free(client->buffers);
    fuzz_arena_free(&client->arena);
    free(client);
    return 0;
}
