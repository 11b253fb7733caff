// The load generator's parts. One thread, one epoll set; it prints one line of JSON and leaves.
//
//   load.c       arguments, the wait for the proxy, the report
//   request.c    the bytes of the requests
//   marker.c     which configuration answered
//   client.c     measured clients: closed loop or open loop
//   peer.c       the bytes of a connection, TLS or not
//   crowd.c      connections that are only there: idle, dripping, deaf
//   attack.c     attackers by HTTP/2
//   lasting.c    one exchange as long as the run, every byte of it checked: a slow download, a tunnel
//   watch.c      CPU time and memory of the proxy, read from /proc
//   histogram.c  latencies
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

enum { PIPELINE_MAX = 16 };

struct histogram;
struct markers;

enum mode {
    MODE_CLIENTS, // measured
    MODE_IDLE,    // one request each, then nothing: memory
    MODE_DRIP,    // a byte a second: heads and bodies that never end
    MODE_DEAF,    // asks for much and reads none of it
    MODE_SLOW,    // one download that takes the whole time
    MODE_TUNNEL,  // one upgraded connection whose backend echoes
    MODE_ATTACK,  // what HTTP/2 may be abused for, at a bounded rate
};

// A chunked body under way; zeroed at its start.
struct chunks {
    int state;
    uint64_t left, body_len;
    bool is_over;
};

// False: the framing is broken, or bytes follow the end.
bool chunks_take(struct chunks *chunks, const char *bytes, size_t len);

enum tls {
    TLS_NONE,
    TLS_FULL,   // each connection with a handshake of its own
    TLS_RESUME, // with the session that came last
};

enum fields { FIELDS_PLAIN, FIELDS_BROWSER, FIELDS_KEY };

struct options {
    uint16_t port;
    enum mode mode;
    uint32_t connections;
    double seconds, warmup; // measured, before that
    double rate;            // requests a second that are due; 0: closed loop
    uint64_t response_len, upload_len;
    enum fields fields; // of the request
    enum tls tls;
    const char *attack; // which (attack.c)
    bool closes;        // a new connection for each request
    bool is_h2;         // idle crowds alone: over HTTP/2
    int pid;            // the proxy; 0: none is watched
    uint32_t pipeline;  // open loop: so many requests that are due go out at once on one connection
    const char *also;   // every second request asks for this path; NULL: none does
    uint32_t route_count; // requests take turns between so many routes; 0: one for all
    const char
        *marker; // response field with the number of the configuration; NULL: none is expected
};

struct usage {
    uint64_t cpu_ns;  // of all threads
    uint64_t wait_ns; // ready to run, and others had the core
    uint64_t rss_len; // resident bytes
};

// What may go wrong, counted apart. A request fails by one of them and is sent again.
struct failures {
    uint64_t reset_count; // RST, whenever it comes: between requests, too
    uint64_t
        short_count; // the connection ended within an answer, or before one on a new connection
    uint64_t status_count; // another answer than 200, or none that can be understood
    uint64_t marker_count; // no marker, or one that cannot be
    uint64_t byte_count;   // another byte than was sent
};

struct report {
    uint64_t request_count, error_count, connect_count;
    uint64_t
        stale_count; // kept connections that the proxy closed under a request: allowed, but told
    uint64_t pipelined_count; // sent together with one before them
    uint64_t exchanged_len;   // of the one lasting exchange
    uint64_t unsent_count;    // were due in vain: the clients are hopelessly behind
    struct failures failures;
    struct markers *markers; // NULL: nobody looked
    double seconds;
    struct usage before, after; // around what is measured; rss_len of `after` is the peak
    struct attacks_report {
        uint64_t step_count, end_count,
            connect_quota;         // quota: connections there may have been by now
        uint64_t held_len, cpu_ns; // at the worst glance; the attacker's own
        double share;              // of what the proxy may hold, at most
    } attack;
    uint64_t own_wait_ns;      // of the load generator itself, ready while others had its core
    struct histogram *latency; // NULL: nobody measured
};

uint64_t now_ns(void);
void fail(const char *what);
// A socket on its way to 127.0.0.1, non-blocking. receive_len: its receive buffer; 0: as the system has it.
int connect_to(uint16_t port, int receive_len);

// The head of a request to a route (of route_count), NUL-terminated; the caller frees it.
char *request_head(const struct options *options, uint32_t route);

// Which values of the marker were seen, when first, and when the last request was sent that it answered.
struct markers *markers_new(void);
// False: the head has no such field, or no number in it. `head` is NUL-terminated.
bool markers_add(struct markers *markers, const char *field, const char *head, uint64_t sent_ns);
void markers_print(const struct markers *markers);

void clients_run(const struct options *options, struct report *report);
void attack_run(const struct options *options, struct report *report);
void crowd_run(const struct options *options, struct report *report);
void lasting_run(const struct options *options, struct report *report);

void peer_init(const struct options *options);
bool peer_is_secure(void);
ssize_t peer_send(int fd, const struct iovec *iov, int count);
ssize_t peer_recv(int fd, void *to, size_t len);
void peer_close(int fd);

// Exact, which takes the kernel a millisecond for each 100 MiB or so, and the process cannot map memory meanwhile.
void usage_read(int pid, struct usage *usage);
// Resident memory to within 256 KiB a thread, in microseconds: for looking often, beside others who measure latencies.
uint64_t usage_glance_len(int pid);

struct histogram *histogram_new(void);
void histogram_clear(struct histogram *histogram);
void histogram_add(struct histogram *histogram, uint64_t value_ns);
// The value below which `share` of all lie, in nanoseconds, within 1 %.
uint64_t histogram_at(const struct histogram *histogram, double share);
