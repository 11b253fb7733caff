// The load generator of the benchmarks: load PORT [--option VALUE]... (load.h lists its parts).
//
//   --mode clients|idle|drip|deaf|slow|tunnel|attack   --connections N   --seconds S   --warmup S   --rate N (open loop)
//   --response BYTES   --upload BYTES   --headers plain|browser|key   --close 1   --tls full|resume   --pid N (the proxy to be watched)
//   --protocol h2 (idle alone)   --pipeline N (open loop: what is due goes out N at a time)   --also PATH (of every second request)
//   --attack NAME (attack.c has them)
//   --routes N (host-0.example.com/.../service-0 and so on, ten a host)   --marker FIELD (of responses: a number)
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { READY_WAIT_MS = 10000, OVERTIME_S = 30 };

uint64_t now_ns(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (uint64_t)at.tv_sec * 1000000000u + (uint64_t)at.tv_nsec;
}

void fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

int connect_to(uint16_t port, int receive_len)
{
    struct sockaddr_in at = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    if (fd < 0)
        fail("load: socket");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (receive_len)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_len, sizeof receive_len);
    if (connect(fd, (struct sockaddr *)&at, sizeof at) < 0 && errno != EINPROGRESS)
        fail("load: connect");
    return fd;
}

static bool answers(uint16_t port)
{
    static const char request[] = "GET /1 HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
    char answer[16];
    int fd = connect_to(port, 0);
    struct pollfd ready = {.fd = fd, .events = POLLOUT};
    struct iovec iov = {(void *)request, sizeof request - 1};
    bool is_fine = poll(&ready, 1, 1000) == 1;
    ssize_t n;
    ready.events = POLLIN;
    while (is_fine && peer_send(fd, &iov, 1) < 0)
        is_fine = errno == EAGAIN && poll(&ready, 1, 1000) == 1;
    while (is_fine && (n = peer_recv(fd, answer, sizeof answer)) <= 12)
        is_fine = n < 0 && errno == EAGAIN && poll(&ready, 1, 1000) == 1;
    // 401: it wants a key
    is_fine = is_fine && memcmp(answer, "HTTP/1.1 ", 9) == 0 && answer[9] != '5';
    peer_close(fd);
    return is_fine;
}

static bool takes(uint16_t port)
{
    int fd = connect_to(port, 0), error = 0;
    socklen_t len = sizeof error;
    struct pollfd ready = {.fd = fd, .events = POLLOUT};
    bool is_fine = poll(&ready, 1, 1000) == 1 &&
                   getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0 && error == 0;
    close(fd);
    return is_fine;
}

// Proxies and the backend start beside us.
static void wait_for(uint16_t port, bool is_h2)
{
    uint64_t end = now_ns() + READY_WAIT_MS * 1000000ull;
    while (is_h2 ? !takes(port) : !answers(port)) {
        if (now_ns() > end) {
            fprintf(stderr, "load: nobody answers on port %u\n", port);
            exit(1);
        }
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    }
}

static enum mode mode_of(const char *text)
{
    static const char *const names[] = {"clients", "idle",   "drip",  "deaf",
                                        "slow",    "tunnel", "attack"};
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(text, names[i]) == 0)
            return (enum mode)i;
    fprintf(stderr, "load: no mode %s\n", text);
    exit(2);
}

static bool set_option(struct options *options, const char *name, const char *value)
{
    if (strcmp(name, "--mode") == 0)
        options->mode = mode_of(value);
    else if (strcmp(name, "--connections") == 0)
        options->connections = (uint32_t)atoi(value);
    else if (strcmp(name, "--seconds") == 0)
        options->seconds = atof(value);
    else if (strcmp(name, "--warmup") == 0)
        options->warmup = atof(value);
    else if (strcmp(name, "--rate") == 0)
        options->rate = atof(value);
    else if (strcmp(name, "--response") == 0)
        options->response_len = strtoull(value, NULL, 10);
    else if (strcmp(name, "--upload") == 0)
        options->upload_len = strtoull(value, NULL, 10);
    else if (strcmp(name, "--headers") == 0)
        options->fields = strcmp(value, "browser") == 0 ? FIELDS_BROWSER
                          : strcmp(value, "key") == 0   ? FIELDS_KEY
                                                        : FIELDS_PLAIN;
    else if (strcmp(name, "--tls") == 0)
        options->tls = strcmp(value, "resume") == 0 ? TLS_RESUME : TLS_FULL;
    else if (strcmp(name, "--protocol") == 0)
        options->is_h2 = strcmp(value, "h2") == 0;
    else if (strcmp(name, "--close") == 0)
        options->closes = atoi(value) != 0;
    else if (strcmp(name, "--pipeline") == 0)
        options->pipeline = (uint32_t)atoi(value);
    else if (strcmp(name, "--also") == 0)
        options->also = value;
    else if (strcmp(name, "--attack") == 0)
        options->attack = value;
    else if (strcmp(name, "--routes") == 0)
        options->route_count = (uint32_t)atoi(value);
    else if (strcmp(name, "--marker") == 0)
        options->marker = value;
    else if (strcmp(name, "--pid") == 0)
        options->pid = atoi(value);
    else
        return false;
    return true;
}

static void print_report(const struct report *report)
{
    printf("{\"requests\":%llu,\"errors\":%llu,\"connects\":%llu,\"seconds\":%.3f,\"cpu_ns\":%llu,"
           "\"wait_ns\":%llu,\"own_wait_ns\":%llu,\"rss_before\":%llu,\"rss_after\":%llu",
           (unsigned long long)report->request_count, (unsigned long long)report->error_count,
           (unsigned long long)report->connect_count, report->seconds,
           (unsigned long long)(report->after.cpu_ns - report->before.cpu_ns),
           (unsigned long long)(report->after.wait_ns - report->before.wait_ns),
           (unsigned long long)report->own_wait_ns, (unsigned long long)report->before.rss_len,
           (unsigned long long)report->after.rss_len);
    static const struct {
        const char *name;
        double share;
    } points[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p999", 0.999}};
    for (size_t i = 0; report->latency && i < sizeof points / sizeof *points; i++)
        printf(",\"%s_us\":%.1f", points[i].name,
               (double)histogram_at(report->latency, points[i].share) / 1000);
    const struct failures *failures = &report->failures;
    printf(",\"pipelined\":%llu,\"stale\":%llu,\"unsent\":%llu,\"resets\":%llu,\"shorts\":%llu,"
           "\"statuses\":%llu,"
           "\"markers\":%llu,"
           "\"bytes\":%llu,\"exchanged\":%llu",
           (unsigned long long)report->pipelined_count, (unsigned long long)report->stale_count,
           (unsigned long long)report->unsent_count, (unsigned long long)failures->reset_count,
           (unsigned long long)failures->short_count, (unsigned long long)failures->status_count,
           (unsigned long long)failures->marker_count, (unsigned long long)failures->byte_count,
           (unsigned long long)report->exchanged_len);
    printf(",\"steps\":%llu,\"ends\":%llu,\"held\":%llu,\"held_share\":%.3f,\"own_cpu_ns\":%llu",
           (unsigned long long)report->attack.step_count,
           (unsigned long long)report->attack.end_count,
           (unsigned long long)report->attack.held_len, report->attack.share,
           (unsigned long long)report->attack.cpu_ns);
    if (report->markers)
        markers_print(report->markers);
    printf("}\n");
}

int main(int argc, char **argv)
{
    struct options options = {.connections = 64, .seconds = 2, .warmup = 0.5, .response_len = 128};
    struct report report = {0};
    if (argc < 2 || argc % 2) {
        fprintf(stderr, "usage: load PORT [--option VALUE]...\n");
        return 2;
    }
    options.port = (uint16_t)atoi(argv[1]);
    for (int i = 2; i < argc; i += 2) {
        if (!set_option(&options, argv[i], argv[i + 1])) {
            fprintf(stderr, "load: no option %s\n", argv[i]);
            return 2;
        }
    }
    if (options.pipeline < 1 || options.pipeline > PIPELINE_MAX || options.closes ||
        options.upload_len)
        options.pipeline = 1;
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    prctl(PR_SET_TIMERSLACK, 1ul);
    alarm((unsigned)(options.seconds + options.warmup) + options.connections / 50 +
          OVERTIME_S); // it ends by itself, whatever happens
    peer_init(&options);
    wait_for(options.port, options.is_h2);
    if (options.mode == MODE_CLIENTS)
        clients_run(&options, &report);
    else if (options.mode == MODE_SLOW || options.mode == MODE_TUNNEL)
        lasting_run(&options, &report);
    else if (options.mode == MODE_ATTACK)
        attack_run(&options, &report);
    else
        crowd_run(&options, &report);
    print_report(&report);
    return 0;
}
