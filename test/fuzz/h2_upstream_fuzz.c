// HTTP/2: what an upstream may send behind its first SETTINGS to a gateway that has asked four things at once, in any pieces. A
// response that is accepted reads as the same response once it was written for an HTTP/1.1 client. First byte: choices.
#include "heads.h"

#include "base/list.h"
#include "http/body.h"
#include "http/h2.h"

enum { STREAM_COUNT = 4 };

struct stream {
    struct moon_h2_stream h2;
    bool has_final, has_end, is_closed;
    size_t unread_len;
    unsigned head_count;
};

struct upstream {
    struct moon_h2 *h2;
    struct fuzz_arena arena;
    struct moon_buffer_budget budget;
    struct moon_buffer_pool *buffers;
    struct moon_buffer out;
    struct stream streams[STREAM_COUNT];
    bool consumes_late, was_sent_away;
};

static struct stream *stream_of(struct moon_h2_stream *h2)
{
    return MOON_CONTAINER(h2, struct stream, h2);
}

static enum moon_method method_of(const struct upstream *upstream, const struct stream *stream)
{
    return stream == &upstream->streams[1] ? MOON_METHOD_HEAD : MOON_METHOD_POST;
}

static void check_written(struct moon_arena *arena, struct moon_head *head,
                          enum moon_method request_method)
{
    struct moon_head_limits limits = moon_head_limits_default;
    struct moon_framing framing = {.body = head->body, .content_length = head->content_length};
    struct moon_head again;
    struct moon_fault fault;
    moon_head_strip_hop(head);
    char *to = moon_arena_try_bytes(arena, moon_head_size(head));
    if (!to)
        return;
    struct moon_slice text = {to, moon_response_write(head, &framing, to)};
    struct moon_head_scan scan = {0};
    limits.head_bytes *= 2; // the lines' ends, and what was written anew
    limits.field_count *= 4;
    limits.allow_underscore = true;
    HOLDS(moon_head_scan(&scan, text, &limits, false, &fault) == (ssize_t)text.len);
    if (moon_response_parse(arena, text, &limits, request_method, &again, &fault) < 0)
        return; // the arena's cap
    HOLDS(again.status == head->status);
    check_same_fields(&head->headers, &again.headers);
}

static void on_head(void *owner, struct moon_h2_stream *h2)
{
    struct upstream *upstream = owner;
    struct stream *stream = stream_of(h2);
    struct moon_head head;
    struct moon_fault fault = {0, NULL};
    HOLDS(!stream->has_final && !stream->has_end && !stream->is_closed);
    stream->has_final = h2->has_final;
    stream->head_count++;
    enum moon_method method = method_of(upstream, stream);
    if (moon_h2_response_read(upstream->h2, h2, upstream->arena.arena, method, &head, &fault) < 0) {
        HOLDS(fault.status == 502 && fault.reason);
        moon_h2_reset(upstream->h2, h2, MOON_H2_CANCEL);
        return;
    }
    HOLDS(head.status >= 100 && head.status < 600 && head.status != 101);
    HOLDS((head.status >= 200) == h2->has_final);
    HOLDS(head.is_h2 && head.body != MOON_BODY_CLOSE);
    HOLDS(method != MOON_METHOD_HEAD || head.body == MOON_BODY_NONE);
    check_fields(&head.headers);
    check_written(upstream->arena.arena, &head, method);
}

static void on_data(void *owner, struct moon_h2_stream *h2, struct moon_slice bytes)
{
    struct upstream *upstream = owner;
    struct stream *stream = stream_of(h2);
    HOLDS(stream->has_final && !stream->has_end && !stream->is_closed && bytes.len > 0);
    stream->unread_len += bytes.len;
    HOLDS(stream->unread_len <= MOON_H2_STREAM_LEN); // the window bounds what is kept
    if (upstream->consumes_late)
        return;
    moon_h2_consumed(upstream->h2, h2, stream->unread_len);
    stream->unread_len = 0;
}

static void on_end(void *owner, struct moon_h2_stream *h2)
{
    struct upstream *upstream = owner;
    struct stream *stream = stream_of(h2);
    struct moon_headers trailers = {0};
    HOLDS(stream->has_final && !stream->has_end && !stream->is_closed);
    stream->has_end = true;
    moon_h2_trailers_read(upstream->h2, h2, upstream->arena.arena, &trailers);
}

static void on_closed(void *owner, struct moon_h2_stream *h2, uint32_t code)
{
    (void)owner, (void)code;
    struct stream *stream = stream_of(h2);
    HOLDS(!stream->is_closed);
    // what may be sent again has not been answered
    HOLDS(!h2->is_unprocessed || !stream->has_end);
    stream->is_closed = true;
}

static void on_nothing(void *owner)
{
    (void)owner;
}

static void on_goaway(void *owner)
{
    ((struct upstream *)owner)->was_sent_away = true;
}

static const struct moon_h2_events events = {
    .head = on_head,
    .data = on_data,
    .end = on_end,
    .closed = on_closed,
    .window = on_nothing,
    .pong = on_nothing,
    .goaway = on_goaway,
    .settings = on_nothing,
};

// ---- what a gateway does

static void ask(struct upstream *upstream)
{
    static const char body[4096];
    for (size_t i = 0; i < STREAM_COUNT; i++) {
        struct stream *stream = &upstream->streams[i];
        bool is_head = method_of(upstream, stream) == MOON_METHOD_HEAD;
        struct moon_head head = {.method = is_head ? MOON_SLICE("HEAD") : MOON_SLICE("POST"),
                                 .target = {.path = MOON_SLICE("/a")},
                                 .host_text = MOON_SLICE("h.example")};
        struct moon_framing framing = {.body = is_head ? MOON_BODY_NONE : MOON_BODY_CHUNKED};
        struct moon_h2_request_args args = {
            .head = &head, .framing = &framing, .scheme = MOON_SLICE("http"), .has_body = !is_head};
        HOLDS(moon_h2_request_send(upstream->h2, &stream->h2, &args) == 0);
        if (is_head)
            continue;
        moon_h2_send_body(upstream->h2, &stream->h2, (struct moon_slice){body, sizeof body},
                          &upstream->out);
        if (i != 2) // one goes on for ever
            moon_h2_send_end(upstream->h2, &stream->h2, NULL);
    }
}

static int turn(struct upstream *upstream)
{
    for (size_t i = 0; i < STREAM_COUNT; i++) {
        struct stream *stream = &upstream->streams[i];
        if (stream->unread_len)
            moon_h2_consumed(upstream->h2, &stream->h2, stream->unread_len);
        stream->unread_len = 0;
        if (i == 2 && !stream->is_closed)
            moon_h2_send_body(upstream->h2, &stream->h2, MOON_SLICE("more"), &upstream->out);
    }
    int err = moon_h2_pump(upstream->h2, &upstream->out);
    HOLDS(!upstream->was_sent_away || moon_h2_stream_cap(upstream->h2) == 0);
    HOLDS(moon_buffer_len(&upstream->out) <= MOON_BUFFER_MAX_LEN);
    moon_buffer_fini(&upstream->out, upstream->buffers);
    return err;
}

static void receive(struct upstream *upstream, struct moon_slice in, size_t step)
{
    static const char start[] = "\0\0\0\4\0\0\0\0";
    uint64_t now_ms = 1000;
    int err = moon_h2_receive(upstream->h2, (struct moon_slice){start, sizeof start}, now_ms);
    HOLDS(err == 0);
    while (in.len && !err) {
        size_t len = in.len < step ? in.len : step;
        err = moon_h2_receive(upstream->h2, (struct moon_slice){in.ptr, len}, ++now_ms);
        in = moon_slice_skip(in, len);
        if (!err)
            err = turn(upstream);
    }
    if (err)
        moon_h2_pump(upstream->h2, &upstream->out); // GOAWAY goes out
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct moon_slice in = {(const char *)bytes, len};
    uint8_t choice = fuzz_choice(&in);
    struct upstream *upstream = calloc(1, sizeof *upstream);
    upstream->arena = fuzz_arena_new();
    atomic_init(&upstream->budget.max_len, 1 << 24);
    upstream->buffers = moon_buffer_pool_new(&upstream->budget);
    upstream->consumes_late = choice & 1;
    upstream->h2 = moon_h2_new(&(struct moon_h2_args){.events = &events,
                                                      .owner = upstream,
                                                      .buffers = upstream->buffers,
                                                      .header_bytes = 32768,
                                                      .header_count = 100,
                                                      .is_client = true});
    ask(upstream);
    HOLDS(turn(upstream) == 0);
    receive(upstream, in, choice & 4 ? 1 + (choice >> 3) : 65536);
    for (size_t i = 0; i < STREAM_COUNT; i++)
        moon_h2_stream_fini(upstream->h2, &upstream->streams[i].h2);
    moon_h2_free(upstream->h2);
    moon_buffer_fini(&upstream->out, upstream->buffers);
    moon_buffer_pool_free(upstream->buffers);
    fuzz_arena_free(&upstream->arena);
    free(upstream);
    return 0;
}
