// See handshake.h.
#include "edge/handshake.h"

#include "base/err.h"
#include "conf/settings.h"
#include "io/loop.h"
#include "io/tls.h"
#include "link/resources.h"
#include "obs/counters.h"
#include "obs/log.h"

#include <errno.h>
#include <stdlib.h>

enum { REFUSAL_MS = 1000, DISCARD_LEN = 65536 };

struct moon_handshake {
    struct moon_resources *res;
    struct moon_stream *stream; // TLS; the one below once it is refused
    moon_handshake_fn *done;
    void *owner;
    struct moon_timer timer;
    size_t discarded_len;
    bool is_refused;
};

static const char plain_answer[] =
    "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
    "Content-Length: 71\r\nConnection: close\r\n\r\n"
    "This port speaks HTTPS, and the request came in plain HTTP: use https.\n";

static const char opaque_answer[] =
    "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
    "Content-Length: 47\r\nConnection: close\r\n\r\n"
    "This port speaks TLS, and what came was clear.\n";

static void finish(struct moon_handshake *handshake, struct moon_stream *stream)
{
    moon_handshake_fn *done = handshake->done;
    void *owner = handshake->owner;
    moon_loop_timer_del(handshake->res->loop, &handshake->timer);
    if (!stream)
        moon_stream_close(handshake->stream);
    free(handshake);
    done(owner, stream);
}

static _Atomic uint64_t *counter_of(struct moon_counters *counters, enum moon_tls_failure failure)
{
    switch (failure) {
    case MOON_TLS_PLAINTEXT:
        return &counters->tls_failures_plaintext;
    case MOON_TLS_CLOSED:
        return &counters->tls_failures_closed;
    case MOON_TLS_REFUSED:
        return &counters->tls_failures_refused;
    case MOON_TLS_CERTIFICATE:
        return &counters->tls_failures_certificate;
    case MOON_TLS_DECLINED:
        return &counters->tls_failures_declined;
    case MOON_TLS_UNCHOSEN:
        return &counters->tls_failures_script;
    case MOON_TLS_FINE:
    case MOON_TLS_PROTOCOL:
        break;
    }
    return &counters->tls_failures_protocol;
}

static void on_timer(struct moon_timer *timer)
{
    struct moon_handshake *handshake = MOON_CONTAINER(timer, struct moon_handshake, timer);
    if (!handshake->is_refused)
        moon_count_up(&handshake->res->counters->tls_failures_timeout);
    finish(handshake, NULL);
}

// What still comes is thrown away, so that no RST takes the answer with it.
static void on_refused_ready(void *owner, unsigned ready)
{
    struct moon_handshake *handshake = owner;
    ssize_t n;
    (void)ready;
    while ((n = moon_stream_read(handshake->stream, handshake->res->read_buffer,
                                 MOON_READ_BODY_LEN)) > 0) {
        handshake->discarded_len += (size_t)n;
        if (handshake->discarded_len > DISCARD_LEN)
            break;
    }
    if (n != 0)
        finish(handshake, NULL);
}

static void answer_plain(struct moon_handshake *handshake, struct moon_stream *plain,
                         struct moon_slice answer)
{
    struct iovec iov = {(void *)answer.ptr, answer.len};
    handshake->stream = plain;
    handshake->is_refused = true;
    moon_stream_set_owner(handshake->stream, on_refused_ready, handshake);
    moon_stream_writev(handshake->stream, &iov, 1); // where it fails reading does, too
    moon_stream_shutdown(handshake->stream);
    moon_loop_timer_add(handshake->res->loop, &handshake->timer, REFUSAL_MS);
    moon_stream_again(handshake->stream);
}

static void failed(struct moon_handshake *handshake)
{
    struct moon_resources *res = handshake->res;
    enum moon_tls_failure failure = moon_tls_failure_of(handshake->stream);
    moon_count_up(counter_of(res->counters, failure));
    moon_log_debug(res->log, "a TLS handshake failed: %s",
                   moon_tls_failure_text(handshake->stream));
    if (failure == MOON_TLS_PLAINTEXT)
        answer_plain(handshake, moon_tls_strip(handshake->stream), MOON_SLICE(plain_answer));
    else
        finish(handshake, NULL);
}

static void on_ready(void *owner, unsigned ready)
{
    struct moon_handshake *handshake = owner;
    (void)ready;
    int err = moon_stream_connected(handshake->stream);
    if (err == -EINPROGRESS)
        return;
    if (err) {
        failed(handshake);
        return;
    }
    struct moon_counters *counters = handshake->res->counters;
    moon_count_up(&counters->tls_handshakes_total);
    if (moon_stream_tls(handshake->stream)->is_resumed)
        moon_count_up(&counters->tls_resumed_total);
    if (moon_stream_tls(handshake->stream)->is_stapled)
        moon_count_up(&counters->tls_stapled_total);
    finish(handshake, handshake->stream);
}

static struct moon_handshake *make(struct moon_resources *res, struct moon_stream *stream,
                                   moon_handshake_fn *done, void *owner)
{
    struct moon_handshake *handshake = calloc(1, sizeof *handshake);
    if (!handshake)
        abort();
    handshake->res = res;
    handshake->stream = stream;
    handshake->done = done;
    handshake->owner = owner;
    handshake->timer.fn = on_timer;
    return handshake;
}

struct moon_handshake *moon_handshake_new(struct moon_resources *res, struct moon_stream *stream,
                                          moon_handshake_fn *done, void *owner)
{
    struct moon_handshake *handshake = make(res, stream, done, owner);
    moon_stream_set_owner(stream, on_ready, handshake);
    moon_loop_timer_add(res->loop, &handshake->timer, res->settings->timeouts.handshake_ms);
    return handshake;
}

struct moon_handshake *moon_handshake_refuse(struct moon_resources *res, struct moon_stream *stream,
                                             moon_handshake_fn *done, void *owner)
{
    struct moon_handshake *handshake = make(res, stream, done, owner);
    moon_count_up(&res->counters->tls_failures_plaintext);
    answer_plain(handshake, stream, MOON_SLICE(opaque_answer));
    return handshake;
}

void moon_handshake_free(struct moon_handshake *handshake)
{
    if (!handshake)
        return;
    moon_loop_timer_del(handshake->res->loop, &handshake->timer);
    moon_stream_close(handshake->stream);
    free(handshake);
}

const struct moon_stream *moon_handshake_stream(const struct moon_handshake *handshake)
{
    return handshake->stream;
}
