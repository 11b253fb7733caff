// Connections that are only there, while somebody else measures or memory is read.
//   idle: each has had one answer and asks no more
//   drip: each sends a byte a second of a head (every other one: of a body) that never ends; one that is thrown out comes back
//   deaf: each has asked for a long answer and does not read it
#include "load.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

// So that what is not read fills the proxy rather than the kernel.
enum { DEAF_RECEIVE_LEN = 4096 };
// Idle ones are looked at when they have been so for a while.
enum { QUIET_NS = 2500000000u };

// ---- HTTP/2: a request of literals, and frames until its stream ends

enum { H2_HEAD_LEN = 9, H2_END_STREAM = 1 };

static size_t h2_field(char *to, const char *name, const char *value)
{
    size_t name_len = strlen(name), value_len = strlen(value);
    to[0] = 0;
    to[1] = (char)name_len;
    memcpy(to + 2, name, name_len);
    to[2 + name_len] = (char)value_len;
    memcpy(to + 3 + name_len, value, value_len);
    return 3 + name_len + value_len;
}

// Preface, SETTINGS and the answer to those that will come, HEADERS of stream 1.
static size_t h2_request(const struct options *options, char *to)
{
    static const char start[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
                                "\0\0\0\4\0\0\0\0\0"
                                "\0\0\0\4\1\0\0\0\0";
    char path[32], *at = to + sizeof start - 1, *fields = at + H2_HEAD_LEN;
    memcpy(to, start, sizeof start - 1);
    snprintf(path, sizeof path, "/%llu", (unsigned long long)options->response_len);
    size_t len = h2_field(fields, ":method", "GET");
    len += h2_field(fields + len, ":scheme", options->tls ? "https" : "http");
    len += h2_field(fields + len, ":authority", options->tls ? "bench.example" : "127.0.0.1");
    len += h2_field(fields + len, ":path", path);
    len += h2_field(fields + len, "user-agent", "load");
    memcpy(at, "\0\0\0\1\5\0\0\0\1", H2_HEAD_LEN);
    at[2] = (char)len;
    return (size_t)(fields - to) + len;
}

// One whole answer.
static void h2_read_answer(int fd)
{
    char bytes[8192];
    size_t len = 0, at = 0;
    for (;;) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        ssize_t n = peer_recv(fd, bytes + len, sizeof bytes - len);
        if (n < 0 && errno == EAGAIN && poll(&ready, 1, 5000) == 1)
            continue;
        if (n <= 0)
            fail("load: no answer");
        len += (size_t)n;
        while (at + H2_HEAD_LEN <= len) {
            const unsigned char *head = (const unsigned char *)bytes + at;
            at += H2_HEAD_LEN + ((size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2]);
            if (head[3] <= 1 && head[4] & H2_END_STREAM)
                return;
        }
    }
}

// ---- connections

static void rest_until(uint64_t at_ns)
{
    struct timespec at = {(time_t)(at_ns / 1000000000u), (long)(at_ns % 1000000000u)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR) {
    }
}

static int connect_and_send(const struct options *options, const char *head, size_t len)
{
    int fd = connect_to(options->port, options->mode == MODE_DEAF ? DEAF_RECEIVE_LEN : 0);
    struct pollfd ready = {.fd = fd, .events = POLLOUT};
    if (poll(&ready, 1, 5000) != 1)
        fail("load: no connection");
    struct iovec iov = {(void *)head, len};
    while (peer_send(fd, &iov, 1) < 0) { // TLS: when its handshake is done
        ready.events = POLLIN;
        if (errno != EAGAIN || poll(&ready, 1, 5000) != 1)
            fail("load: send");
    }
    return fd;
}

static void read_answer(int fd)
{
    char answer[8192];
    size_t len = 0;
    for (;;) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        ssize_t n = peer_recv(fd, answer + len, sizeof answer - 1 - len);
        if (n < 0 && errno == EAGAIN && poll(&ready, 1, 5000) == 1)
            continue;
        if (n <= 0)
            fail("load: no answer");
        len += (size_t)n;
        answer[len] = 0;
        const char *end = strstr(answer, "\r\n\r\n");
        const char *length = strcasestr(answer, "\r\ncontent-length:");
        if (!end || !length)
            continue;
        if (len >= (size_t)(end - answer) + 4 + strtoull(length + 17, NULL, 10))
            return;
    }
}

static void note_peak(const struct options *options, struct report *report)
{
    uint64_t len = usage_glance_len(options->pid);
    if (len > report->after.rss_len)
        report->after.rss_len = len;
}

static void drip_once(const struct options *options, struct report *report, int *fds, uint32_t i)
{
    static const char open_head[] = "GET /128 HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ";
    static const char open_body[] =
        "POST /128 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1048576\r\n\r\n";
    if (fds[i] >= 0 && send(fds[i], "x", 1, MSG_NOSIGNAL) == 1)
        return;
    if (fds[i] >= 0)
        close(fds[i]);
    const char *head = i % 2 ? open_body : open_head;
    fds[i] = connect_and_send(options, head, strlen(head));
    report->connect_count++;
}

static void drip(const struct options *options, struct report *report, int *fds)
{
    uint64_t start = now_ns(), end = start + (uint64_t)(options->seconds * 1e9);
    for (uint64_t second = 0; now_ns() < end; second++) {
        for (uint32_t i = 0; i < options->connections; i++) {
            rest_until(start + second * 1000000000u + i * 1000000000ull / options->connections);
            drip_once(options, report, fds, i);
        }
        note_peak(options, report);
    }
}

static void hold(const struct options *options, struct report *report, int *fds, bool reads)
{
    char *head = request_head(options, 0), h2_head[256];
    size_t h2_len = h2_request(options, h2_head);
    uint64_t end = now_ns() + (uint64_t)(options->seconds * 1e9);
    for (uint32_t i = 0; i < options->connections; i++) {
        fds[i] = options->is_h2 ? connect_and_send(options, h2_head, h2_len)
                                : connect_and_send(options, head, strlen(head));
        report->connect_count++;
        if (options->is_h2)
            h2_read_answer(fds[i]);
        else if (reads)
            read_answer(fds[i]);
    }
    if (reads)
        rest_until(now_ns() + QUIET_NS);
    do {
        rest_until(now_ns() + 250000000u);
        note_peak(options, report);
    } while (now_ns() < end);
    free(head);
}

void crowd_run(const struct options *options, struct report *report)
{
    int *fds = malloc(options->connections * sizeof *fds);
    if (!fds)
        fail("malloc");
    memset(fds, 0xff, options->connections * sizeof *fds);
    usage_read(options->pid, &report->before);
    if (options->mode == MODE_DRIP)
        drip(options, report, fds);
    else
        hold(options, report, fds, options->mode == MODE_IDLE);
    uint64_t peak_len = report->after.rss_len;
    usage_read(options->pid, &report->after);
    if (peak_len > report->after.rss_len)
        report->after.rss_len = peak_len;
    report->seconds = options->seconds;
}
