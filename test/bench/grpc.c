// Bidirectional streams of gRPC for benches, on nghttp2 in clear: a server that echoes, and a load that keeps one message under way
// on each of its streams.
//
//   grpc serve PORT                                     echoes the DATA of every stream, ends it with grpc-status 0
//   grpc load PORT CONNECTIONS STREAMS LEN MESSAGES     sends so many messages of LEN bytes in all, prints "N messages in S seconds"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { FRAME_HEAD_LEN = 5, EVENT_COUNT = 64, READ_LEN = 65536, WINDOW_LEN = 1 << 20 };

struct stream {
    int32_t id;
    char *bytes; // to be sent, from `at` to `len`
    size_t at, len, cap;
    size_t got_len; // of the message that comes back
    bool has_ended; // nothing follows `bytes`
};

struct connection {
    int fd;
    nghttp2_session *session;
    const uint8_t *out; // what the session gave and the socket has not taken
    size_t out_len;
    bool is_server;
};

struct bench {
    int epoll;
    size_t message_len; // with its head
    unsigned long messages, done, begun, open_count;
    char *message;
};

static struct bench bench;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

// ---- streams

static void put(struct stream *stream, const void *bytes, size_t len)
{
    if (stream->at == stream->len)
        stream->at = stream->len = 0;
    if (stream->len + len > stream->cap) {
        stream->cap = (stream->len + len) * 2;
        stream->bytes = realloc(stream->bytes, stream->cap);
        if (!stream->bytes)
            die("realloc");
    }
    memcpy(stream->bytes + stream->len, bytes, len);
    stream->len += len;
}

static ssize_t on_read(nghttp2_session *session, int32_t id, uint8_t *to, size_t cap,
                       uint32_t *flags, nghttp2_data_source *source, void *owner)
{
    static const nghttp2_nv trailers[] = {
        {(uint8_t *)"grpc-status", (uint8_t *)"0", 11, 1, NGHTTP2_NV_FLAG_NONE}};
    const struct connection *connection = owner;
    struct stream *stream = source->ptr;
    size_t len = stream->len - stream->at < cap ? stream->len - stream->at : cap;
    memcpy(to, stream->bytes + stream->at, len);
    stream->at += len;
    if (stream->at < stream->len || !stream->has_ended)
        return len ? (ssize_t)len : NGHTTP2_ERR_DEFERRED;
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    if (connection->is_server) {
        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
        nghttp2_submit_trailer(session, id, trailers, 1);
    }
    return (ssize_t)len;
}

static struct stream *stream_new(void)
{
    struct stream *stream = calloc(1, sizeof *stream);
    if (!stream)
        die("calloc");
    return stream;
}

static int on_close(nghttp2_session *session, int32_t id, uint32_t code, void *owner)
{
    struct stream *stream = nghttp2_session_get_stream_user_data(session, id);
    const struct connection *connection = owner;
    if (stream && !connection->is_server) {
        bench.open_count--;
        if (code || !stream->has_ended) {
            fprintf(stderr, "a stream ended with %u\n", code);
            exit(1);
        }
    }
    if (stream)
        free(stream->bytes);
    free(stream);
    return 0;
}

// ---- the server

static int on_begin(nghttp2_session *session, const nghttp2_frame *frame, void *owner)
{
    const struct connection *connection = owner;
    if (connection->is_server && frame->headers.cat == NGHTTP2_HCAT_REQUEST)
        nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, stream_new());
    return 0;
}

static void answer(nghttp2_session *session, int32_t id, struct stream *stream)
{
    static const nghttp2_nv head[] = {
        {(uint8_t *)":status", (uint8_t *)"200", 7, 3, NGHTTP2_NV_FLAG_NONE},
        {(uint8_t *)"content-type", (uint8_t *)"application/grpc", 12, 16, NGHTTP2_NV_FLAG_NONE}};
    nghttp2_data_provider body = {.source.ptr = stream, .read_callback = on_read};
    nghttp2_submit_response(session, id, head, 2, &body);
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *owner)
{
    const struct connection *connection = owner;
    struct stream *stream = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (!connection->is_server || !stream)
        return 0;
    bool is_head = frame->hd.type == NGHTTP2_HEADERS;
    if (is_head && frame->headers.cat == NGHTTP2_HCAT_REQUEST)
        answer(session, frame->hd.stream_id, stream);
    if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM && (is_head || frame->hd.type == NGHTTP2_DATA)) {
        stream->has_ended = true;
        nghttp2_session_resume_data(session, frame->hd.stream_id);
    }
    return 0;
}

// ---- the load

// The next message, or the end.
static void go_on(nghttp2_session *session, int32_t id, struct stream *stream)
{
    if (bench.begun < bench.messages) {
        bench.begun++;
        put(stream, bench.message, bench.message_len);
    } else {
        stream->has_ended = true;
    }
    nghttp2_session_resume_data(session, id);
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *bytes,
                   size_t len, void *owner)
{
    const struct connection *connection = owner;
    struct stream *stream = nghttp2_session_get_stream_user_data(session, id);
    (void)flags;
    if (connection->is_server) {
        put(stream, bytes, len);
        nghttp2_session_resume_data(session, id);
        return 0;
    }
    stream->got_len += len;
    if (stream->got_len < bench.message_len)
        return 0;
    stream->got_len = 0;
    bench.done++;
    go_on(session, id, stream);
    return 0;
}

static void begin_stream(struct connection *connection)
{
#define FIELD(name, value)                                                            \
    {                                                                                 \
        (uint8_t *)(name), (uint8_t *)(value), sizeof(name) - 1, sizeof(value) - 1, 0 \
    }
    static const nghttp2_nv head[] = {FIELD(":method", "POST"),
                                      FIELD(":scheme", "http"),
                                      FIELD(":authority", "bench.example"),
                                      FIELD(":path", "/bench.Echo/Both"),
                                      FIELD("content-type", "application/grpc"),
                                      FIELD("te", "trailers")};
    struct stream *stream = stream_new();
    nghttp2_data_provider body = {.source.ptr = stream, .read_callback = on_read};
    bench.begun++;
    bench.open_count++;
    put(stream, bench.message, bench.message_len);
    nghttp2_submit_request(connection->session, NULL, head, sizeof head / sizeof *head, &body,
                           stream);
}

// ---- connections

static struct connection *connection_new(int fd, bool is_server)
{
    static const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WINDOW_LEN},
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 1000}};
    struct connection *connection = calloc(1, sizeof *connection);
    nghttp2_session_callbacks *callbacks;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = connection};
    int one = 1;
    if (!connection || nghttp2_session_callbacks_new(&callbacks))
        die("connection");
    connection->fd = fd;
    connection->is_server = is_server;
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
    if (is_server)
        nghttp2_session_server_new(&connection->session, callbacks, connection);
    else
        nghttp2_session_client_new(&connection->session, callbacks, connection);
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_submit_settings(connection->session, NGHTTP2_FLAG_NONE, settings, 2);
    nghttp2_session_set_local_window_size(connection->session, NGHTTP2_FLAG_NONE, 0,
                                          WINDOW_LEN * 16);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    if (epoll_ctl(bench.epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        die("epoll_ctl");
    return connection;
}

static bool receive(struct connection *connection)
{
    static uint8_t bytes[READ_LEN];
    ssize_t len;
    while ((len = recv(connection->fd, bytes, sizeof bytes, 0)) > 0)
        if (nghttp2_session_mem_recv(connection->session, bytes, (size_t)len) < 0)
            return false;
    return len < 0 && errno == EAGAIN;
}

// What is due, in one send: small frames of many streams go together.
static bool flush(struct connection *connection)
{
    static uint8_t batch[READ_LEN * 2];
    for (;;) {
        size_t len = 0;
        while (connection->out_len || len < READ_LEN) {
            if (!connection->out_len) {
                ssize_t more = nghttp2_session_mem_send(connection->session, &connection->out);
                if (more <= 0)
                    break;
                connection->out_len = (size_t)more;
            }
            size_t part =
                connection->out_len < sizeof batch - len ? connection->out_len : sizeof batch - len;
            if (part == 0)
                break;
            memcpy(batch + len, connection->out, part);
            len += part;
            connection->out += part;
            connection->out_len -= part;
        }
        for (size_t at = 0; at < len;) {
            ssize_t sent = send(connection->fd, batch + at, len - at, MSG_NOSIGNAL);
            if (sent < 0 && errno != EAGAIN)
                return false;
            at += sent > 0 ? (size_t)sent : 0;
        }
        if (len == 0)
            return true;
    }
}

static void serve_connection(struct connection *connection)
{
    if (receive(connection) && flush(connection))
        return;
    if (!connection->is_server && bench.open_count) {
        fprintf(stderr, "a connection was lost\n");
        exit(1);
    }
    close(connection->fd);
    nghttp2_session_del(connection->session);
    free(connection);
}

static void turn(void)
{
    struct epoll_event events[EVENT_COUNT];
    int count = epoll_wait(bench.epoll, events, EVENT_COUNT, -1);
    for (int i = 0; i < count; i++)
        serve_connection(events[i].data.ptr);
}

// ---- main

static struct sockaddr_in address_of(const char *port)
{
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)atoi(port)),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static _Noreturn void serve(const char *port)
{
    struct sockaddr_in at = address_of(port);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1, fd;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[EVENT_COUNT];
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) < 0 || listen(listener, 128) < 0)
        die("listen");
    epoll_ctl(bench.epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int count = epoll_wait(bench.epoll, events, EVENT_COUNT, -1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr) {
                serve_connection(events[i].data.ptr);
                continue;
            }
            while ((fd = accept(listener, NULL, NULL)) >= 0)
                connection_new(fd, true);
        }
    }
}

static double now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

// What is to be loaded may be starting.
static int reach(const struct sockaddr_in *at)
{
    enum { TRY_COUNT = 250, PAUSE_US = 20000 };
    for (int i = 0; i < TRY_COUNT; i++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(fd, (const struct sockaddr *)at, sizeof *at) == 0)
            return fd;
        close(fd);
        usleep(PAUSE_US);
    }
    die("connect");
    return -1;
}

static int load(char **args)
{
    unsigned connections = (unsigned)atoi(args[1]), streams = (unsigned)atoi(args[2]);
    size_t len = (size_t)atoi(args[3]);
    struct sockaddr_in at = address_of(args[0]);
    double start = now();
    bench.messages = strtoul(args[4], NULL, 10);
    bench.message_len = FRAME_HEAD_LEN + len;
    bench.message = calloc(1, bench.message_len);
    bench.message[3] = (char)(len >> 8);
    bench.message[4] = (char)len;
    for (unsigned i = 0; i < connections; i++) {
        struct connection *connection = connection_new(reach(&at), false);
        for (unsigned k = 0; k < streams; k++)
            begin_stream(connection);
        if (!flush(connection))
            die("send");
    }
    while (bench.open_count)
        turn();
    printf("%lu messages in %.3f seconds\n", bench.done, now() - start);
    return bench.done == bench.messages ? 0 : 1;
}

int main(int argc, char **argv)
{
    bench.epoll = epoll_create1(0);
    if (argc == 3 && strcmp(argv[1], "serve") == 0)
        serve(argv[2]);
    if (argc == 7 && strcmp(argv[1], "load") == 0)
        return load(argv + 2);
    fprintf(stderr, "usage: grpc serve PORT | load PORT CONNECTIONS STREAMS LEN MESSAGES\n");
    return 2;
}
