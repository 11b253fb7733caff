// See sniff.h. Each time bytes come they are peeked at from the first on: a ClientHello that drips costs its receiver a look at
// what is there, 20 KiB at most, and no memory.
#include "edge/sniff.h"

#include "base/err.h"
#include "conf/settings.h"
#include "edge/preface.h"
#include "http/client_hello.h"
#include "io/loop.h"
#include "link/resources.h"
#include "obs/counters.h"
#include "obs/log.h"

#include <stdlib.h>

struct moon_sniff {
    struct moon_sniff_args args;
    struct moon_timer timer;
    uint64_t deadline_ms;
    bool has_bytes, is_hello, is_late;
    bool has_ended; // no more bytes come
};

static struct moon_counters *counters_of(const struct moon_sniff *sniff)
{
    return sniff->args.res->counters;
}

// ---- the end

static void finish(struct moon_sniff *sniff, const struct moon_sniffed *sniffed)
{
    struct moon_sniff_args args = sniff->args;
    moon_loop_timer_del(args.res->loop, &sniff->timer);
    free(sniff);
    if (sniffed)
        moon_stream_again(args.stream); // what was peeked at
    args.done(args.owner, sniffed ? args.stream : NULL, sniffed);
}

void moon_sniff_refuse(struct moon_resources *res, struct moon_stream *stream, uint8_t alert)
{
    const char record[] = {0x15, 3, 1, 0, 2, 2, (char)alert};
    struct iovec iov = {(void *)record, sizeof record};
    moon_stream_writev(stream, &iov, 1);
    moon_preface_refuse(res, stream);
}

// `alert`: 0: without one.
static void fail(struct moon_sniff *sniff, _Atomic uint64_t *counter, uint8_t alert,
                 const char *why)
{
    struct moon_resources *res = sniff->args.res;
    struct moon_address peer;
    char text[MOON_ADDRESS_TEXT_LEN] = "a unix socket";
    moon_stream_address(sniff->args.stream, true, &peer);
    moon_address_format(&peer, text);
    moon_log_debug(res->log, "connection from %s refused: %s", text, why);
    moon_count_up(counter);
    if (alert)
        moon_sniff_refuse(res, sniff->args.stream, alert);
    else
        moon_preface_refuse(res, sniff->args.stream);
    finish(sniff, NULL);
}

static void tell(struct moon_sniff *sniff, enum moon_first first)
{
    finish(sniff, &(struct moon_sniffed){.first = first,
                                         .is_silent = !sniff->has_bytes,
                                         .sni = MOON_SLICE(""),
                                         .alpn = MOON_SLICE("")});
}

static bool is_about_tls(const struct moon_sniff *sniff)
{
    return sniff->is_hello || sniff->args.is_tls_alone;
}

static void cut(struct moon_sniff *sniff, const char *why)
{
    struct moon_counters *counters = counters_of(sniff);
    fail(sniff, is_about_tls(sniff) ? &counters->refused_hello_cut : &counters->refused_first_bytes,
         0, why);
}

// No more comes, or not in time, and it is not known what it is.
static void give_up(struct moon_sniff *sniff, bool is_late)
{
    struct moon_counters *counters = counters_of(sniff);
    if (is_about_tls(sniff))
        fail(sniff, is_late ? &counters->refused_hello_timeout : &counters->refused_hello_cut, 0,
             is_late ? "its ClientHello did not come in time" : "it ended before its ClientHello");
    else if (sniff->args.has_opaque)
        tell(sniff, MOON_FIRST_OPAQUE);
    else
        fail(sniff, &counters->refused_first_bytes, 0, "its first bytes name no protocol");
}

// ---- what comes

static void look_at_hello(struct moon_sniff *sniff, size_t len)
{
    struct moon_counters *counters = counters_of(sniff);
    struct moon_client_hello hello;
    int found = moon_client_hello_read(sniff->args.res->read_buffer, len, &hello);
    sniff->is_hello = true;
    if (found > 0)
        finish(sniff, &(struct moon_sniffed){.first = MOON_FIRST_TLS,
                                             .has_hello = true,
                                             .sni = hello.sni,
                                             .alpn = hello.alpn});
    else if (found == MOON_ELIMIT)
        fail(sniff, &counters->refused_hello_oversize, MOON_ALERT_DECODE_ERROR,
             "its ClientHello is longer than 16 KiB");
    else if (found < 0)
        fail(sniff, &counters->refused_hello_malformed, MOON_ALERT_DECODE_ERROR,
             "its ClientHello is malformed");
    else if (sniff->has_ended)
        give_up(sniff, false);
}

static void look(struct moon_sniff *sniff)
{
    struct moon_resources *res = sniff->args.res;
    ssize_t n = moon_stream_peek(sniff->args.stream, res->read_buffer, MOON_HELLO_PEEK_LEN);
    if (n < 0) {
        cut(sniff, moon_err_text((int)n));
        return;
    }
    sniff->has_bytes |= n > 0;
    enum moon_first first = moon_first_bytes((struct moon_slice){res->read_buffer, (size_t)n});
    if (first == MOON_FIRST_TLS && sniff->args.reads_hello)
        look_at_hello(sniff, (size_t)n);
    else if (first != MOON_FIRST_MORE)
        tell(sniff, first);
    else if (sniff->has_ended)
        give_up(sniff, false);
}

static void on_ready(void *owner, unsigned ready)
{
    struct moon_sniff *sniff = owner;
    sniff->has_ended |= (ready & (MOON_READY_HUP | MOON_READY_ERROR)) != 0;
    if (ready & MOON_READY_ERROR)
        cut(sniff, "it was reset");
    else
        look(sniff);
}

static void on_timer(struct moon_timer *timer)
{
    struct moon_sniff *sniff = MOON_CONTAINER(timer, struct moon_sniff, timer);
    struct moon_loop *loop = sniff->args.res->loop;
    uint64_t now_ms = moon_loop_now_ms(loop);
    bool is_silent = sniff->args.silence_ms && !sniff->has_bytes;
    if (is_silent && !sniff->is_late) { // where the worker was busy the bytes may be there, unseen
        sniff->is_late = true;
        moon_loop_timer_add(loop, timer, 1);
    } else if (is_silent) {
        tell(sniff, MOON_FIRST_OPAQUE);
    } else if (now_ms < sniff->deadline_ms) {
        moon_loop_timer_add(loop, timer, (uint32_t)(sniff->deadline_ms - now_ms));
    } else {
        give_up(sniff, true);
    }
}

struct moon_sniff *moon_sniff_new(const struct moon_sniff_args *args)
{
    struct moon_sniff *sniff = calloc(1, sizeof *sniff);
    if (!sniff)
        abort();
    uint32_t head_ms = args->res->settings->timeouts.request_head_ms,
             hello_ms = args->res->settings->timeouts.handshake_ms;
    uint32_t limit_ms = args->is_tls_alone ? hello_ms : head_ms;
    sniff->args = *args;
    sniff->timer.fn = on_timer;
    sniff->deadline_ms = moon_loop_now_ms(args->res->loop) + limit_ms;
    moon_stream_set_owner(args->stream, on_ready, sniff);
    moon_loop_timer_add(args->res->loop, &sniff->timer,
                        args->silence_ms ? args->silence_ms : limit_ms);
    moon_stream_again(args->stream); // behind a PROXY header it may be there already
    return sniff;
}

bool moon_sniff_is_silent(const struct moon_sniff *sniff)
{
    char first;
    return !sniff->has_bytes && moon_stream_peek(sniff->args.stream, &first, 1) == 0;
}

void moon_sniff_free(struct moon_sniff *sniff)
{
    if (!sniff)
        return;
    moon_loop_timer_del(sniff->args.res->loop, &sniff->timer);
    moon_stream_close(sniff->args.stream);
    free(sniff);
}
