// The load generator's parts. One thread, one epoll set; it prints one line of JSON and leaves.
//
//   load.c       arguments, the wait for the proxy, the report
//   request.c    the bytes of the request
//   client.c     measured clients: closed loop or open loop
//   crowd.c      connections that are only there: idle, dripping, deaf
//   watch.c      CPU time and memory of the proxy, read from /proc
//   histogram.c  latencies
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct histogram;

enum mode {
    MODE_CLIENTS, // measured
    MODE_IDLE,    // one request each, then nothing: memory
    MODE_DRIP,    // a byte a second: heads and bodies that never end
    MODE_DEAF,    // asks for much and reads none of it
};

struct options {
    uint16_t port;
    enum mode mode;
    uint32_t connections;
    double seconds, warmup; // measured, before that
    double rate;            // requests a second that are due; 0: closed loop
    uint64_t response_len, upload_len;
    bool is_browser; // the long set of request fields
    bool closes;     // a new connection for each request
    int pid;         // the proxy; 0: none is watched
};

struct usage {
    uint64_t cpu_ns;  // of all threads
    uint64_t wait_ns; // ready to run, and others had the core
    uint64_t rss_len; // resident bytes
};

struct report {
    uint64_t request_count, error_count, connect_count;
    double seconds;
    struct usage before, after; // around what is measured; rss_len of `after` is the peak
    uint64_t own_wait_ns;       // of the load generator itself, ready while others had its core
    struct histogram *latency;  // NULL: nobody measured
};

uint64_t now_ns(void);
void fail(const char *what);
// A socket on its way to 127.0.0.1, non-blocking. receive_len: its receive buffer; 0: as the system has it.
int connect_to(uint16_t port, int receive_len);

// The head of a request, NUL-terminated; the caller frees it.
char *request_head(const struct options *options);

void clients_run(const struct options *options, struct report *report);
void crowd_run(const struct options *options, struct report *report);

void usage_read(int pid, struct usage *usage);

struct histogram *histogram_new(void);
void histogram_clear(struct histogram *histogram);
void histogram_add(struct histogram *histogram, uint64_t value_ns);
// The value below which `share` of all lie, in nanoseconds, within 1 %.
uint64_t histogram_at(const struct histogram *histogram, double share);
