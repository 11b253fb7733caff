// See preface.h.
#include "edge/preface.h"

#include "base/err.h"
#include "conf/settings.h"
#include "http/proxy_header.h"
#include "io/loop.h"
#include "link/proxied.h"
#include "link/resources.h"
#include "obs/counters.h"
#include "obs/log.h"

#include <stdlib.h>

struct moon_preface {
    struct moon_resources *res;
    struct moon_stream *stream;
    moon_preface_fn *done;
    void *owner;
    struct moon_timer timer;
    bool has_ended; // no more bytes come
};

void moon_preface_refuse(struct moon_resources *res, struct moon_stream *stream)
{
    moon_stream_read(stream, res->read_buffer, MOON_READ_BODY_LEN);
    moon_stream_close(stream);
}

static void finish(struct moon_preface *preface, struct moon_stream *stream,
                   struct moon_proxied *proxied)
{
    moon_preface_fn *done = preface->done;
    void *owner = preface->owner;
    moon_loop_timer_del(preface->res->loop, &preface->timer);
    if (!stream)
        moon_preface_refuse(preface->res, preface->stream);
    free(preface);
    done(owner, stream, proxied);
}

static void fail(struct moon_preface *preface, _Atomic uint64_t *counter, const char *why)
{
    struct moon_address peer;
    char text[MOON_ADDRESS_TEXT_LEN] = "a unix socket";
    moon_stream_address(preface->stream, true, &peer);
    moon_address_format(&peer, text);
    moon_log_debug(preface->res->log, "connection from %s refused: %s", text, why);
    moon_count_up(counter);
    finish(preface, NULL, NULL);
}

// What is kept of a header; NULL: the connection's own addresses hold, and there is nothing else.
static struct moon_proxied *keep(struct moon_preface *preface,
                                 const struct moon_proxy_header *header)
{
    struct moon_slice tlvs = header->tlvs;
    if (header->source.family == MOON_FAMILY_NONE && tlvs.len == 0)
        return NULL;
    struct moon_proxied *proxied = malloc(sizeof *proxied + tlvs.len);
    if (!proxied)
        abort();
    *proxied = (struct moon_proxied){.ref_count = 1,
                                     .version = header->version,
                                     .source = header->source,
                                     .destination = header->destination,
                                     .tlvs_len = tlvs.len};
    moon_stream_address(preface->stream, true, &proxied->proxy);
    if (tlvs.len)
        memcpy(proxied->tlvs, tlvs.ptr, tlvs.len);
    if (header->source.family != MOON_FAMILY_NONE)
        moon_stream_set_peer(preface->stream, &proxied->source);
    return proxied;
}

static void take(struct moon_preface *preface, size_t len, const struct moon_proxy_header *header)
{
    struct moon_proxied *proxied = keep(preface, header);
    size_t taken = 0;
    while (taken < len) {
        ssize_t n = moon_stream_read(preface->stream, preface->res->read_buffer, len - taken);
        if (n <= 0)
            break;
        taken += (size_t)n;
    }
    if (taken == len) {
        moon_stream_again(preface->stream); // what came with it is news to the next owner
        finish(preface, preface->stream, proxied);
        return;
    }
    moon_proxied_unref(proxied);
    fail(preface, &preface->res->counters->refused_proxy_cut, "it was reset");
}

static void on_ready(void *owner, unsigned ready)
{
    struct moon_preface *preface = owner;
    struct moon_counters *counters = preface->res->counters;
    struct moon_proxy_header header;
    preface->has_ended |= (ready & (MOON_READY_HUP | MOON_READY_ERROR)) != 0;
    ssize_t n =
        moon_stream_peek(preface->stream, preface->res->read_buffer, MOON_PROXY_READ_MAX_LEN);
    if (n < 0) {
        fail(preface, &counters->refused_proxy_cut, moon_err_text((int)n));
        return;
    }
    struct moon_slice in = {preface->res->read_buffer, (size_t)n};
    ssize_t len = moon_proxy_header_read(in, &header);
    if (len > 0)
        take(preface, (size_t)len, &header);
    else if (len < 0)
        fail(preface, &counters->refused_proxy_malformed, "no PROXY header, or a malformed one");
    else if (preface->has_ended)
        fail(preface, &counters->refused_proxy_cut, "it ended before its PROXY header");
}

static void on_timer(struct moon_timer *timer)
{
    struct moon_preface *preface = MOON_CONTAINER(timer, struct moon_preface, timer);
    fail(preface, &preface->res->counters->refused_proxy_timeout,
         "its PROXY header did not come in time");
}

struct moon_preface *moon_preface_new(struct moon_resources *res, struct moon_stream *stream,
                                      moon_preface_fn *done, void *owner)
{
    struct moon_preface *preface = calloc(1, sizeof *preface);
    if (!preface)
        abort();
    preface->res = res;
    preface->stream = stream;
    preface->done = done;
    preface->owner = owner;
    preface->timer.fn = on_timer;
    moon_stream_set_owner(stream, on_ready, preface);
    moon_loop_timer_add(res->loop, &preface->timer, res->settings->timeouts.request_head_ms);
    return preface;
}

void moon_preface_free(struct moon_preface *preface)
{
    if (!preface)
        return;
    moon_loop_timer_del(preface->res->loop, &preface->timer);
    moon_stream_close(preface->stream);
    free(preface);
}

const struct moon_stream *moon_preface_stream(const struct moon_preface *preface)
{
    return preface->stream;
}
