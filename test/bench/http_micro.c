// Nanoseconds per scan, parse, strip and write of the two heads that the figures of the gateway
// stand on: a small request and its response, and a browser-like request of 20 fields. One thread,
// warm arena; prints a line per work.
#include "base/arena.h"
#include "http/head.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { ROUNDS = 400000, ARENA_CAP_LEN = 262144 };

static const char small_request[] = "GET /index.html HTTP/1.1\r\n"
                                    "Host: 127.0.0.1:8080\r\n"
                                    "User-Agent: wrk/4.1.0\r\n"
                                    "Accept: */*\r\n"
                                    "Connection: keep-alive\r\n"
                                    "\r\n";

static const char browser_request[] =
    "GET /shop/articles/2024/overview?page=2&sort=price HTTP/1.1\r\n"
    "Host: www.example.com\r\n"
    "Connection: keep-alive\r\n"
    "Cache-Control: max-age=0\r\n"
    "sec-ch-ua: \"Chromium\";v=\"124\", \"Not-A.Brand\";v=\"99\"\r\n"
    "sec-ch-ua-mobile: ?0\r\n"
    "sec-ch-ua-platform: \"Linux\"\r\n"
    "DNT: 1\r\n"
    "Upgrade-Insecure-Requests: 1\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/124.0.0.0 Safari/537.36\r\n"
    "Accept: "
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n"
    "Sec-Fetch-Site: same-origin\r\n"
    "Sec-Fetch-Mode: navigate\r\n"
    "Sec-Fetch-User: ?1\r\n"
    "Sec-Fetch-Dest: document\r\n"
    "Referer: https://www.example.com/shop\r\n"
    "Accept-Encoding: gzip, deflate, br\r\n"
    "Accept-Language: en-US,en;q=0.9,de;q=0.8\r\n"
    "Cookie: session=0123456789abcdef; theme=dark; consent=yes\r\n"
    "If-None-Match: \"33a64df551425fcc55e4d42a148795d9f25f89d4\"\r\n"
    "X-Requested-With: XMLHttpRequest\r\n"
    "\r\n";

static const char small_response[] = "HTTP/1.1 200 OK\r\n"
                                     "Server: nginx/1.22.1\r\n"
                                     "Date: Mon, 01 Jan 2024 00:00:00 GMT\r\n"
                                     "Content-Type: text/plain\r\n"
                                     "Content-Length: 128\r\n"
                                     "Connection: keep-alive\r\n"
                                     "\r\n";

enum work { SCAN, PARSE, RELAY }; // RELAY: scan, copy, parse, strip and write

struct job {
    const char *name;
    struct moon_slice text;
    bool is_request;
};

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void fail(const char *what)
{
    fprintf(stderr, "http_micro: %s\n", what);
    exit(1);
}

static size_t work_once(struct moon_arena_pool *pool, const struct job *job, enum work work)
{
    struct moon_head_scan scan = {0};
    struct moon_head head;
    struct moon_fault fault;
    char out[4096];
    const struct moon_head_limits *limits = &moon_head_limits_default;
    ssize_t len = (ssize_t)job->text.len;
    if (work != PARSE)
        len = moon_head_scan(&scan, job->text, limits, job->is_request, &fault);
    if (len != (ssize_t)job->text.len)
        fail("scan");
    if (work == SCAN)
        return (size_t)len;
    struct moon_arena *arena = moon_arena_new(pool, ARENA_CAP_LEN);
    struct moon_slice text = work == RELAY ? moon_arena_try_copy(arena, job->text) : job->text;
    int err = job->is_request
                  ? moon_request_parse(arena, text, limits, &head, &fault)
                  : moon_response_parse(arena, text, limits, MOON_METHOD_GET, &head, &fault);
    if (err != 0)
        fail(fault.reason);
    size_t done = head.headers.count;
    if (work == RELAY) {
        const struct moon_framing framing = {.body = head.body,
                                             .content_length = head.content_length};
        moon_head_strip_hop(&head);
        if (moon_head_size(&head) > sizeof out)
            fail("size");
        done = job->is_request ? moon_request_write(&head, &framing, out)
                               : moon_response_write(&head, &framing, out);
    }
    moon_arena_free(arena);
    return done;
}

static void measure(struct moon_arena_pool *pool, const struct job *job, enum work work,
                    const char *work_name)
{
    size_t sum = 0;
    double best = 1e18;
    for (int turn = 0; turn < 5; turn++) {
        double start = now_ns();
        for (int i = 0; i < ROUNDS / 5; i++)
            sum += work_once(pool, job, work);
        double took = (now_ns() - start) / (ROUNDS / 5);
        best = took < best ? took : best;
    }
    printf("%-10s %-6s %7.0f ns  (%zu bytes, check %zu)\n", job->name, work_name, best,
           job->text.len, sum % 1000);
}

int main(void)
{
    static const struct job jobs[] = {
        {"request", {small_request, sizeof small_request - 1}, true},
        {"browser", {browser_request, sizeof browser_request - 1}, true},
        {"response", {small_response, sizeof small_response - 1}, false},
    };
    struct moon_arena_pool *pool = moon_arena_pool_new(16);
    for (size_t i = 0; i < sizeof jobs / sizeof jobs[0]; i++) {
        measure(pool, &jobs[i], SCAN, "scan");
        measure(pool, &jobs[i], PARSE, "parse");
        measure(pool, &jobs[i], RELAY, "relay");
    }
    moon_arena_pool_free(pool);
    return 0;
}
