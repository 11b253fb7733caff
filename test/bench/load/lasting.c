// One exchange that lasts as long as the run, and every byte of it is checked.
//   slow:    a download of so many bytes, read evenly over the time, through a small receive buffer: the proxy holds it open
//   tunnel:  an upgraded connection; a numbered line each 10 ms, which must come back before the next is sent
// Neither comes back after an error: it is told, and the run is over.
#include "load.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { STEP_MS = 10, ANSWER_WAIT_MS = 5000, RECEIVE_LEN = 65536, HEAD_CAP_LEN = 4096 };

struct lasting {
    const struct options *options;
    struct report *report;
    int fd;
    char rest[HEAD_CAP_LEN]; // what came behind the head
    size_t rest_len;
};

static bool failed(struct lasting *lasting, uint64_t *count)
{
    (*count)++;
    lasting->report->error_count++;
    return false;
}

// > 0 bytes; 0 with the failure counted.
static size_t receive(struct lasting *lasting, char *to, size_t cap)
{
    struct failures *failures = &lasting->report->failures;
    struct pollfd ready = {.fd = lasting->fd, .events = POLLIN};
    ssize_t n = poll(&ready, 1, ANSWER_WAIT_MS) == 1 ? recv(lasting->fd, to, cap, 0) : 0;
    if (n <= 0) {
        failed(lasting, n < 0 ? &failures->reset_count : &failures->short_count);
        return 0;
    }
    return (size_t)n;
}

static bool send_all(struct lasting *lasting, const char *text, size_t len)
{
    struct pollfd ready = {.fd = lasting->fd, .events = POLLOUT};
    if (poll(&ready, 1, ANSWER_WAIT_MS) == 1 &&
        send(lasting->fd, text, len, MSG_NOSIGNAL) == (ssize_t)len)
        return true;
    return failed(lasting, &lasting->report->failures.reset_count);
}

// Sends a request and reads the head of its answer, which must begin with `wanted`.
static bool open_exchange(struct lasting *lasting, const char *request, const char *wanted)
{
    char head[HEAD_CAP_LEN];
    size_t len = 0;
    if (!send_all(lasting, request, strlen(request)))
        return false;
    for (;;) {
        size_t n = receive(lasting, head + len, sizeof head - 1 - len);
        if (!n)
            return false;
        len += n;
        head[len] = 0;
        const char *end = strstr(head, "\r\n\r\n");
        if (!end && len < sizeof head - 1)
            continue;
        if (!end || strncmp(head, wanted, strlen(wanted)) != 0)
            return failed(lasting, &lasting->report->failures.status_count);
        lasting->rest_len = len - ((size_t)(end - head) + 4);
        memcpy(lasting->rest, end + 4, lasting->rest_len);
        return true;
    }
}

static void rest_until(uint64_t at_ns)
{
    struct timespec at = {(time_t)(at_ns / 1000000000u), (long)(at_ns % 1000000000u)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR) {
    }
}

static bool take_body(struct lasting *lasting, const char *bytes, size_t len)
{
    lasting->report->exchanged_len += len;
    for (size_t i = 0; i < len; i++)
        if (bytes[i] != 'x')
            return failed(lasting, &lasting->report->failures.byte_count);
    return lasting->report->exchanged_len <= lasting->options->response_len ||
           failed(lasting, &lasting->report->failures.byte_count);
}

static void download(struct lasting *lasting)
{
    const struct options *options = lasting->options;
    static char bytes[RECEIVE_LEN];
    char *request = request_head(options, 0);
    bool is_fine = open_exchange(lasting, request, "HTTP/1.1 200") &&
                   take_body(lasting, lasting->rest, lasting->rest_len);
    free(request);
    uint64_t start = now_ns();
    while (is_fine && lasting->report->exchanged_len < options->response_len) {
        double past = (double)(now_ns() - start) / 1e9;
        uint64_t due = past < options->seconds
                           ? (uint64_t)((double)options->response_len * past / options->seconds)
                           : options->response_len;
        if (due <= lasting->report->exchanged_len) {
            rest_until(now_ns() + STEP_MS * 1000000u);
            continue;
        }
        uint64_t want = due - lasting->report->exchanged_len;
        size_t n = receive(lasting, bytes, want < sizeof bytes ? (size_t)want : sizeof bytes);
        is_fine = n && take_body(lasting, bytes, n);
    }
    if (is_fine)
        lasting->report->request_count = 1;
}

// One line there and back.
static bool echo(struct lasting *lasting, uint64_t number)
{
    char line[64], back[64];
    size_t len = (size_t)snprintf(line, sizeof line, "line %llu\n", (unsigned long long)number);
    size_t got = 0;
    if (!send_all(lasting, line, len))
        return false;
    while (got < len) {
        size_t n = receive(lasting, back + got, sizeof back - got);
        if (!n)
            return false;
        got += n;
        if (got > len || memcmp(back, line, got) != 0)
            return failed(lasting, &lasting->report->failures.byte_count);
    }
    lasting->report->exchanged_len += len;
    return true;
}

static void tunnel(struct lasting *lasting)
{
    static const char request[] = "GET /0 HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                                  "Connection: Upgrade\r\nUpgrade: echo\r\n\r\n";
    bool is_fine = open_exchange(lasting, request, "HTTP/1.1 101") &&
                   (!lasting->rest_len || failed(lasting, &lasting->report->failures.byte_count));
    uint64_t end = now_ns() + (uint64_t)(lasting->options->seconds * 1e9);
    while (is_fine && now_ns() < end) {
        uint64_t start = now_ns();
        is_fine = echo(lasting, lasting->report->request_count);
        if (is_fine) {
            histogram_add(lasting->report->latency, now_ns() - start);
            lasting->report->request_count++;
        }
        rest_until(start + STEP_MS * 1000000u);
    }
}

void lasting_run(const struct options *options, struct report *report)
{
    struct lasting lasting = {.options = options, .report = report};
    uint64_t start = now_ns();
    report->latency = histogram_new();
    lasting.fd = connect_to(options->port, RECEIVE_LEN);
    report->connect_count = 1;
    usage_read(options->pid, &report->before);
    if (options->mode == MODE_SLOW)
        download(&lasting);
    else
        tunnel(&lasting);
    usage_read(options->pid, &report->after);
    close(lasting.fd);
    report->seconds = (double)(now_ns() - start) / 1e9;
}
