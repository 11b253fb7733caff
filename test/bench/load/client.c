// Measured clients. Closed loop: each connection sends its next request when it has the answer. Open loop: requests are due at
// random times of a fixed mean rate (Poisson); one that finds no connection free waits in `due`, and its latency counts
// from the time it was due, so that a slow proxy is not spared by a client that waits for it.
//
// With --pipeline requests that are due together go out together on one connection, so that a generator that was late catches up
// at less cost; each is counted for itself. A connection takes the next ones when all are answered.
//
//   IDLE --due--> SENDING --all sent--> HEAD --head read--> BODY --all read--> IDLE, or CLOSING until the proxy ends it
#include "load.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum {
    HEAD_CAP_LEN = 4096,
    EVENT_COUNT = 256,
    DUE_COUNT = 1 << 16,
    UPLOAD_PART_LEN = 1 << 20,
    CHUNKS_READ_LEN = 65536
};

enum state { IDLE, SENDING, HEAD, BODY, CHUNKED, CLOSING };

struct client {
    int fd; // -1: none
    enum state state;
    bool is_reused;
    uint64_t due_ns[PIPELINE_MAX]; // when the requests of this batch were due
    uint32_t asked, answered;      // of them
    uint32_t first_request;        // of the run's: the batch goes on from there
    uint64_t sent_ns;              // when they were sent, the first time or again
    uint64_t heads_len, sent_len;
    size_t head_len;
    uint64_t body_left;
    struct chunks chunks;
    char head[HEAD_CAP_LEN];
};

struct run {
    const struct options *options;
    struct report *report;
    char **requests, *upload, *read_buffer; // CHUNKS_READ_LEN
    size_t *request_lens;
    uint32_t request_count, next_request;
    int epoll_fd;
    struct client *clients;
    struct client **idle; // open loop: a ring of those that are free
    uint32_t idle_at, idle_count;
    uint64_t *due; // open loop: a ring of times that found nobody free
    uint32_t due_at, due_count;
    uint64_t next_ns;
    uint64_t random;
    uint64_t warm_ns, end_ns;
    bool is_measuring;
    char known
        [1024]; // the last head that was as asked for: in a run they are all alike, and need not be read again
    size_t known_len;
};

static void start(struct run *run, struct client *c, uint64_t due_ns);
static void send_batch(struct run *run, struct client *c);

static void disconnect(struct client *c)
{
    if (c->fd >= 0)
        peer_close(c->fd);
    c->fd = -1;
    c->is_reused = false;
}

static uint64_t pop_due(struct run *run)
{
    uint64_t due_ns = run->due[run->due_at];
    run->due_at = (run->due_at + 1) % DUE_COUNT;
    run->due_count--;
    return due_ns;
}

static void becomes_free(struct run *run, struct client *c)
{
    c->state = IDLE;
    if (!run->options->rate) {
        start(run, c, now_ns());
        return;
    }
    if (run->due_count) {
        start(run, c, pop_due(run));
        return;
    }
    uint32_t at = (run->idle_at + run->idle_count++) % run->options->connections;
    run->idle[at] = c;
}

// What was not answered, once more, from the time it was due.
static void start_again(struct run *run, struct client *c)
{
    c->asked -= c->answered;
    memmove(c->due_ns, c->due_ns + c->answered, c->asked * sizeof *c->due_ns);
    send_batch(run, c);
}

// `count` is one of report->failures.
static void failed(struct run *run, struct client *c, uint64_t *count)
{
    run->report->error_count++;
    (*count)++;
    disconnect(c);
    if (run->report->error_count > 100000)
        fail("the proxy fails all requests");
    start_again(run, c);
}

// The connection is lost: on a reused one that brought nothing it is the proxy's right to close between requests.
static void lost(struct run *run, struct client *c, bool is_reset)
{
    struct failures *failures = &run->report->failures;
    bool is_waiting = c->state == SENDING || c->state == HEAD;
    bool is_fair = c->state == IDLE || (c->is_reused && is_waiting && c->head_len == 0);
    if (is_reset && (c->state == CLOSING || is_fair))
        failures->reset_count++;
    if (c->state == CLOSING) {
        disconnect(c);
        becomes_free(run, c);
        return;
    }
    if (!is_fair) {
        failed(run, c, is_reset ? &failures->reset_count : &failures->short_count);
        return;
    }
    disconnect(c);
    if (c->state == IDLE)
        return;
    run->report->stale_count++;
    start_again(run, c);
}

// One answer is whole; *the last* of a batch frees the connection.
static void done(struct run *run, struct client *c)
{
    if (run->is_measuring) {
        run->report->request_count++;
        histogram_add(run->report->latency, now_ns() - c->due_ns[c->answered]);
    }
    c->is_reused = true;
    c->state = HEAD;
    if (++c->answered < c->asked)
        return;
    if (run->options->closes)
        c->state = CLOSING;
    else
        becomes_free(run, c);
}

// False: the connection is broken.
static bool send_request(struct run *run, struct client *c)
{
    uint64_t upload_len = run->options->upload_len;
    while (c->sent_len < c->heads_len + upload_len) {
        struct iovec iov[PIPELINE_MAX + 1];
        int count = 0;
        uint64_t sent = c->sent_len, skip = sent;
        for (uint32_t i = 0; i < c->asked; i++) {
            uint32_t request = (c->first_request + i) % run->request_count;
            size_t len = run->request_lens[request];
            if (skip < len)
                iov[count++] = (struct iovec){run->requests[request] + skip, len - (size_t)skip};
            skip -= skip < len ? skip : len;
        }
        uint64_t left = upload_len - (sent > c->heads_len ? sent - c->heads_len : 0);
        if (left)
            iov[count++] = (struct iovec){run->upload,
                                          left < UPLOAD_PART_LEN ? (size_t)left : UPLOAD_PART_LEN};
        ssize_t n = peer_send(c->fd, iov, count);
        if (n < 0)
            return errno == EAGAIN || errno == ENOTCONN;
        c->sent_len += (uint64_t)n;
    }
    c->state = HEAD;
    return true;
}

static void start(struct run *run, struct client *c, uint64_t due_ns)
{
    c->due_ns[0] = due_ns;
    c->asked = 1;
    while (c->asked < run->options->pipeline && run->due_count)
        c->due_ns[c->asked++] = pop_due(run);
    if (run->is_measuring)
        run->report->pipelined_count += c->asked - 1;
    send_batch(run, c);
}

static void send_batch(struct run *run, struct client *c)
{
    c->sent_ns = now_ns();
    c->answered = 0;
    c->first_request = run->next_request;
    c->heads_len = 0;
    for (uint32_t i = 0; i < c->asked; i++)
        c->heads_len += run->request_lens[(c->first_request + i) % run->request_count];
    run->next_request = (run->next_request + c->asked) % run->request_count;
    c->state = SENDING;
    c->sent_len = 0;
    c->head_len = 0;
    if (c->fd < 0) {
        c->fd = connect_to(run->options->port, 0);
        run->report->connect_count++;
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                                    .data.ptr = c};
        if (epoll_ctl(run->epoll_fd, EPOLL_CTL_ADD, c->fd, &event) < 0)
            fail("epoll_ctl");
    }
    if (!send_request(run, c)) // told by the next event
        c->state = SENDING;
}

// False with *broken when it is not the body that was asked for.
static bool take_chunks(struct run *run, struct client *c, const char *bytes, size_t len,
                        uint64_t **broken)
{
    bool is_fine = chunks_take(&c->chunks, bytes, len);
    if (is_fine && c->chunks.is_over)
        is_fine = c->chunks.body_len == run->options->response_len;
    *broken = is_fine ? NULL : &run->report->failures.byte_count;
    return is_fine;
}

// The head, of that length, is of an answer as long as asked for: takes what has come of its body.
static size_t begin_body(const struct run *run, struct client *c, size_t head_len)
{
    size_t of_body = c->head_len - head_len;
    c->body_left = run->options->response_len;
    if (of_body > c->body_left)
        of_body = (size_t)c->body_left;
    c->body_left -= of_body;
    return head_len + of_body;
}

static void get_to_know(struct run *run, const char *head, size_t len)
{
    if (len > sizeof run->known || run->options->marker)
        return;
    memcpy(run->known, head, len);
    run->known_len = len;
}

// True when the head is complete; *len of the buffer are of it and its body. False with *broken (one of report->failures) when
// it is no answer that was asked for.
static bool take_head(struct run *run, struct client *c, size_t *len, uint64_t **broken)
{
    struct failures *failures = &run->report->failures;
    *broken = NULL;
    if (run->known_len && c->head_len >= run->known_len &&
        memcmp(c->head, run->known, run->known_len) == 0) {
        *len = begin_body(run, c, run->known_len);
        return true;
    }
    c->head[c->head_len] = 0;
    char *end = memmem(c->head, c->head_len, "\r\n\r\n", 4);
    if (!end) {
        *broken = c->head_len == HEAD_CAP_LEN - 1 ? &failures->status_count : NULL;
        return false;
    }
    *end = 0;
    const char *length = strcasestr(c->head, "\r\ncontent-length:");
    bool is_chunked = !length && strcasestr(c->head, "\r\ntransfer-encoding: chunked");
    if (memcmp(c->head, "HTTP/1.1 200", 12) != 0 || (!length && !is_chunked)) {
        *broken = &failures->status_count;
        return false;
    }
    const char *marker = run->options->marker;
    if (marker && !markers_add(run->report->markers, marker, c->head, c->sent_ns)) {
        *broken = &failures->marker_count;
        return false;
    }
    *len = (size_t)(end - c->head) + 4;
    size_t of_body = c->head_len - *len;
    if (is_chunked) { // one answer at a time: it takes all that has come
        *len = c->head_len;
        c->chunks = (struct chunks){0};
        c->state = CHUNKED;
        return take_chunks(run, c, end + 4, of_body, broken);
    }
    if (strtoull(length + 17, NULL, 10) != run->options->response_len) {
        *broken = &failures->byte_count;
        return false;
    }
    *end = '\r';
    get_to_know(run, c->head, *len);
    *len = begin_body(run, c, *len);
    return true;
}

// Takes whole answers off the buffer. False with *broken when one is not what was asked for.
static bool take_answers(struct run *run, struct client *c, uint64_t **broken)
{
    size_t len;
    while (c->head_len) {
        if (!take_head(run, c, &len, broken))
            return !*broken;
        c->head_len -= len;
        memmove(c->head, c->head + len, c->head_len);
        if (c->state == CHUNKED)
            return true;
        if (c->body_left) {
            c->state = BODY;
            return true;
        }
        if (c->head_len && c->answered + 1 == c->asked) { // more than was asked for
            *broken = &run->report->failures.byte_count;
            return false;
        }
        done(run, c);
    }
    return true;
}

static bool is_drained(ssize_t n, size_t want, bool has_ended)
{
    return n < 0 || ((size_t)n < want && !has_ended && !peer_is_secure());
}

static void receive(struct run *run, struct client *c, bool has_ended)
{
    int fd = c->fd;
    for (;;) {
        size_t want;
        ssize_t n;
        if (c->state == BODY) {
            want = c->body_left < (1u << 30) ? (size_t)c->body_left : 1u << 30;
            n = peer_recv(fd, NULL, want);
        } else if (c->state == CHUNKED) {
            want = CHUNKS_READ_LEN;
            n = peer_recv(fd, run->read_buffer, want);
        } else {
            want = HEAD_CAP_LEN - 1 - c->head_len;
            n = peer_recv(fd, c->head + c->head_len, want);
        }
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            lost(run, c, n < 0 && errno == ECONNRESET);
            return;
        }
        uint64_t *broken = &run->report->failures.status_count;
        bool is_head = c->state != BODY && c->state != CHUNKED, is_fine = true;
        if (c->state == BODY)
            c->body_left -= (uint64_t)n;
        else if (c->state == CHUNKED)
            is_fine = take_chunks(run, c, run->read_buffer, (size_t)n, &broken);
        else
            c->head_len += (size_t)n;
        if (!is_fine || (is_head && (c->state != HEAD || !take_answers(run, c, &broken)))) {
            failed(run, c, broken); // an answer that nobody asked for, or another than expected
            return;
        }
        if ((c->state == BODY && c->body_left == 0) || (c->state == CHUNKED && c->chunks.is_over))
            done(run, c);
        if (c->fd != fd || is_drained(n, want, has_ended))
            return;
    }
}

static void on_event(struct run *run, struct client *c, uint32_t events)
{
    bool has_ended = events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR);
    if (c->fd < 0)
        return;
    bool may_send = events & (peer_is_secure() ? EPOLLIN | EPOLLOUT : EPOLLOUT);
    if (c->state == SENDING && may_send && !send_request(run, c) && !has_ended) {
        lost(run, c, errno == ECONNRESET || errno == EPIPE);
        return;
    }
    if (events & EPOLLIN || has_ended)
        receive(run, c, has_ended);
}

// ---- open loop

static uint64_t gap_ns(struct run *run)
{
    run->random ^= run->random << 13;
    run->random ^= run->random >> 7;
    run->random ^= run->random << 17;
    double uniform = ((double)(run->random >> 11) + 1) / 9007199254740993.0;
    return (uint64_t)(-log(uniform) * 1e9 / run->options->rate);
}

static void send_due(struct run *run, uint64_t now)
{
    while (run->options->rate > 0 && run->next_ns <= now) {
        if (run->due_count < DUE_COUNT)
            run->due[(run->due_at + run->due_count++) % DUE_COUNT] = run->next_ns;
        else
            run->report->unsent_count++; // hopelessly behind
        run->next_ns += gap_ns(run);
    }
    while (run->due_count && run->idle_count) {
        struct client *c = run->idle[run->idle_at];
        run->idle_at = (run->idle_at + 1) % run->options->connections;
        run->idle_count--;
        start(run, c, pop_due(run));
    }
}

// ---- the run

static void begin_measuring(struct run *run)
{
    struct usage own;
    run->is_measuring = true;
    histogram_clear(run->report->latency);
    run->report->connect_count = 0;
    run->report->error_count = 0;
    run->report->stale_count = 0;
    run->report->pipelined_count = 0;
    run->report->unsent_count = 0;
    run->report->failures = (struct failures){0};
    usage_read(run->options->pid, &run->report->before);
    usage_read(getpid(), &own);
    run->report->own_wait_ns = own.wait_ns;
    run->warm_ns = now_ns();
}

static void loop(struct run *run)
{
    struct epoll_event events[EVENT_COUNT];
    for (;;) {
        uint64_t now = now_ns();
        if (!run->is_measuring && now >= run->warm_ns)
            begin_measuring(run);
        if (now >= run->end_ns)
            return;
        send_due(run, now);
        uint64_t until = run->is_measuring ? run->end_ns : run->warm_ns;
        if (run->options->rate > 0 && run->next_ns < until)
            until = run->next_ns;
        now = now_ns();
        uint64_t wait = until > now ? until - now : 0;
        struct timespec timeout = {(time_t)(wait / 1000000000u), (long)(wait % 1000000000u)};
        int count = epoll_pwait2(run->epoll_fd, events, EVENT_COUNT, &timeout, NULL);
        for (int i = 0; i < count; i++)
            on_event(run, events[i].data.ptr, events[i].events);
    }
}

void clients_run(const struct options *options, struct report *report)
{
    struct run run = {.options = options, .report = report, .random = 88172645463325252u};
    struct usage own;
    report->latency = histogram_new();
    report->markers = options->marker ? markers_new() : NULL;
    run.request_count = options->route_count ? options->route_count : options->also ? 2 : 1;
    run.requests = calloc(run.request_count, sizeof *run.requests);
    run.request_lens = calloc(run.request_count, sizeof *run.request_lens);
    run.upload = calloc(1, UPLOAD_PART_LEN);
    run.read_buffer = malloc(CHUNKS_READ_LEN);
    run.clients = calloc(options->connections, sizeof *run.clients);
    run.idle = calloc(options->connections, sizeof(struct client *));
    run.due = calloc(DUE_COUNT, sizeof *run.due);
    run.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (!run.requests || !run.request_lens || !run.upload || !run.read_buffer || !run.clients ||
        !run.idle || !run.due || run.epoll_fd < 0)
        fail("load: memory");
    for (uint32_t i = 0; i < run.request_count; i++)
        run.requests[i] = request_head(options, i);
    for (uint32_t i = 0; i < run.request_count; i++)
        run.request_lens[i] = strlen(run.requests[i]);
    uint64_t now = now_ns();
    run.next_ns = now;
    run.warm_ns = now + (uint64_t)(options->warmup * 1e9);
    run.end_ns = run.warm_ns + (uint64_t)(options->seconds * 1e9);
    for (uint32_t i = 0; i < options->connections; i++) {
        run.clients[i].fd = -1;
        becomes_free(&run, &run.clients[i]);
    }
    loop(&run);
    usage_read(options->pid, &report->after);
    usage_read(getpid(), &own);
    report->own_wait_ns = own.wait_ns - report->own_wait_ns;
    report->seconds = (double)(now_ns() - run.warm_ns) / 1e9;
}
