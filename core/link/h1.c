// The HTTP/1.1 codec of a link: takes messages off the bytes that came and tells the lane. Requests are taken one at a time
// (RFC 9112 9.3.2: answers in order), so a pipelined request waits in `in`, or in the kernel, until the lane was ended.
//
//   HEAD --head--> BODY --end--> DONE --lane ended--> HEAD      (a message without body goes to DONE at once)
//   any  --fault-> DONE, the link closes after the lane
#include "base/arena.h"
#include "base/err.h"
#include "conf/settings.h"
#include "http/h2.h"
#include "link/link_priv.h"
#include "link/resources.h"
#include "obs/counters.h"

#include <errno.h>
#include <string.h>

enum { PIPELINE_OUT_LEN = 16384 }; // answers that wait in `out` before another request is taken

static const struct moon_fault head_too_large = {431, "the request head is too large"};
static const struct moon_fault bad_request_body = {400,
                                                   "the framing of the request body is broken"};
static const struct moon_fault bad_response_body = {
    502, "the upstream's response body is framed wrongly"};
static const struct moon_fault response_too_large = {502,
                                                     "the upstream's response head is too large"};

struct moon_head_limits moon_link_limits(const struct moon_link *link)
{
    const struct moon_settings *settings = link->res->settings;
    struct moon_head_limits limits = moon_head_limits_default;
    limits.head_bytes = settings->limits.header_bytes;
    limits.field_count = settings->limits.header_count;
    limits.target_bytes = settings->limits.target_bytes;
    if (link->role == MOON_LINK_CLIENT)
        limits.allow_underscore = true;
    return limits;
}

void moon_h1_fault(struct moon_link *link, const struct moon_fault *fault)
{
    if (link->role == MOON_LINK_SERVER && !link->lane.owner)
        link->events->open(link->owner, &link->lane);
    link->read_state = LINK_READ_DONE;
    link->must_close = true;
    link->must_linger = true;
    link->is_paused = false;
    link->read_deadline_ms = 0;
    if (link->lane.owner)
        link->lane.events->fault(link->lane.owner, fault);
}

// The message is complete: says so to whoever is attached still.
static void message_end(struct moon_link *link)
{
    link->read_state = LINK_READ_DONE;
    moon_body_fini(&link->body); // its trailers were copied; the next message begins anew
    if (link->role == MOON_LINK_SERVER)
        link->read_deadline_ms = 0;
    if (link->lane.owner)
        link->lane.events->end(link->lane.owner, &link->lane.trailers);
}

// A body follows, or none. The head event must not find the link in a state that it has left.
static void head_done(struct moon_link *link, const struct moon_head *head, size_t head_len)
{
    uint64_t now_ms = moon_loop_now_ms(link->res->loop);
    link->head_len = (uint16_t)(head_len < MOON_READ_HEAD_LEN ? head_len : 0);
    link->head_cap_len = 0;
    link->scan = (struct moon_head_scan){0};
    link->lane.trailers = (struct moon_headers){0};
    link->ready_len = 0;
    moon_body_init(&link->body, head->body, head->content_length);
    link->read_state = moon_body_is_over(&link->body) ? LINK_READ_DONE : LINK_READ_BODY;
    if (link->role == MOON_LINK_CLIENT || link->read_state == LINK_READ_DONE)
        return;
    const struct moon_settings *settings = link->res->settings;
    link->window_len = 0;
    link->was_paused = false;
    link->read_deadline_ms =
        now_ms + (settings->timeouts.body_ms < 10000 ? settings->timeouts.body_ms : 10000);
    moon_link_rearm(link);
}

// Part of a head has come: from its first byte on it has a time to be complete.
static void head_incomplete(struct moon_link *link, bool is_first_part)
{
    if (link->role != MOON_LINK_SERVER || !is_first_part || link->lane_count == 0)
        return;
    link->read_deadline_ms =
        moon_loop_now_ms(link->res->loop) + link->res->settings->timeouts.request_head_ms;
    moon_link_rearm(link);
}

// A ClientHello on a port without TLS: nobody there would understand an answer.
static bool refuse_tls(struct moon_link *link, struct moon_slice *in)
{
    enum { HANDSHAKE = 0x16, VERSION = 3 };
    bool is_first = link->lane_count == 0 && link->scan.seen_len == 0;
    if (!is_first || in->ptr[0] != HANDSHAKE || (in->len > 1 && in->ptr[1] != VERSION))
        return false;
    *in = moon_slice_skip(*in, in->len);
    moon_count_up(&link->res->counters->tls_on_plain_total);
    link->is_closing = true;
    link->must_linger = true;
    moon_link_flush_later(link);
    return true;
}

// The first bytes of a connection may be the preface of HTTP/2 (RFC 9113 3.3). True: they are, or may become it.
static bool take_preface(struct moon_link *link, struct moon_slice *in)
{
    int found = moon_h2_is_preface(*in);
    if (found <= 0)
        return found == 0;
    struct moon_slice bytes = *in;
    *in = moon_slice_skip(*in, in->len);
    if (moon_h2_begin(link))
        moon_h2_take(link, bytes);
    else
        moon_link_end(link);
    return true;
}

static bool take_request(struct moon_link *link, struct moon_slice *in)
{
    struct moon_fault fault;
    struct moon_head_limits limits = moon_link_limits(link);
    if (in->len == 0 || link->is_closing)
        return false;
    if (link->lane_count == 0 && in->ptr[0] == 'P' && take_preface(link, in))
        return false;
    if (moon_buffer_len(&link->out) > PIPELINE_OUT_LEN) {
        link->awaits_flush = true;
        return false;
    }
    if (refuse_tls(link, in))
        return false;
    bool is_first_part = link->scan.seen_len == 0;
    ssize_t len = moon_head_scan(&link->scan, *in, &limits, true, &fault);
    if (len == 0) {
        head_incomplete(link, is_first_part);
        return false;
    }
    struct moon_lane *lane = &link->lane;
    if (len < 0) {
        *in = moon_slice_skip(*in, in->len);
        moon_h1_fault(link, &fault);
        return false;
    }
    link->events->open(link->owner, lane);
    if (!lane->owner)
        return false;
    struct moon_slice text =
        moon_arena_try_copy(lane->arena, (struct moon_slice){in->ptr, (size_t)len});
    *in = moon_slice_skip(*in, (size_t)len);
    if (!text.ptr || moon_request_parse(lane->arena, text, &limits, lane->head, &fault) < 0) {
        moon_h1_fault(link, text.ptr ? &fault : &head_too_large);
        return false;
    }
    head_done(link, lane->head, (size_t)len);
    bool is_whole = link->read_state == LINK_READ_DONE;
    lane->events->head(lane->owner);
    if (is_whole && !link->is_freed && lane->owner)
        message_end(link);
    return true;
}

static bool take_response(struct moon_link *link, struct moon_slice *in)
{
    struct moon_fault fault;
    struct moon_head_limits limits = moon_link_limits(link);
    struct moon_lane *lane = &link->lane;
    if (in->len == 0)
        return false;
    if (!lane->owner) { // bytes that nobody asked for: never another client's answer
        moon_link_fail(link, MOON_EPROTO);
        return false;
    }
    ssize_t len = moon_head_scan(&link->scan, *in, &limits, false, &fault);
    if (len == 0)
        return false;
    if (len < 0) {
        moon_h1_fault(link, &fault);
        return false;
    }
    struct moon_slice text =
        moon_arena_try_copy(lane->arena, (struct moon_slice){in->ptr, (size_t)len});
    *in = moon_slice_skip(*in, (size_t)len);
    if (!text.ptr || moon_response_parse(lane->arena, text, &limits, lane->request_method,
                                         lane->head, &fault) < 0) {
        moon_h1_fault(link, text.ptr ? &fault : &response_too_large);
        return false;
    }
    uint16_t status = lane->head->status;
    if (status < 200 && status != 101) {
        link->scan = (struct moon_head_scan){0};
        lane->events->head(lane->owner);
        return true;
    }
    head_done(link, lane->head, (size_t)len);
    bool is_whole = link->read_state == LINK_READ_DONE && status != 101;
    if (is_whole && in->len)
        link->must_close = true; // more than one answer to one request (A08)
    lane->events->head(lane->owner);
    if (is_whole && !link->is_freed && lane->owner)
        message_end(link);
    return true;
}

// Delivers body bytes; what is not taken stays at the front of *in, marked as body already.
static bool deliver(struct moon_link *link, struct moon_slice *in, struct moon_slice data)
{
    struct moon_lane *lane = &link->lane;
    size_t taken = lane->owner ? lane->events->body(lane->owner, data) : data.len;
    size_t rest = data.len - taken;
    link->ready_len = (uint32_t)rest;
    if (link->is_freed || rest == 0)
        return !link->is_freed;
    in->ptr -= rest;
    in->len += rest;
    link->is_paused = true;
    link->was_paused = true;
    return false;
}

static void bad_body(struct moon_link *link)
{
    moon_h1_fault(link, link->role == MOON_LINK_SERVER ? &bad_request_body : &bad_response_body);
}

static bool take_trailers(struct moon_link *link, struct moon_slice lines)
{
    struct moon_lane *lane = &link->lane;
    if (!lane->owner)
        return true;
    struct moon_slice text = moon_arena_try_copy(lane->arena, lines);
    if (text.ptr && moon_trailers_parse(lane->arena, text, &lane->trailers) == 0)
        return true;
    bad_body(link);
    return false;
}

static bool take_body(struct moon_link *link, struct moon_slice *in)
{
    struct moon_slice data;
    if (link->ready_len) {
        data = (struct moon_slice){in->ptr, link->ready_len};
        *in = moon_slice_skip(*in, data.len);
        return deliver(link, in, data);
    }
    switch (moon_body_next(&link->body, in, &data)) {
    case MOON_BODY_MORE:
        return false;
    case MOON_BODY_DATA:
        return deliver(link, in, data);
    case MOON_BODY_TRAILERS:
        return take_trailers(link, data);
    case MOON_BODY_END:
        if (link->role == MOON_LINK_CLIENT && in->len)
            link->must_close = true;
        message_end(link);
        return true;
    case MOON_BODY_BAD:
        bad_body(link);
        return false;
    }
    return false;
}

void moon_h1_process(struct moon_link *link, struct moon_slice *in)
{
    bool goes_on = true;
    while (goes_on && !link->is_freed && !link->is_paused && !link->splice_out) {
        switch ((enum link_read)link->read_state) {
        case LINK_READ_HEAD:
            goes_on =
                link->role == MOON_LINK_SERVER ? take_request(link, in) : take_response(link, in);
            break;
        case LINK_READ_BODY:
            goes_on = take_body(link, in);
            break;
        case LINK_READ_DONE:
            return;
        case LINK_READ_DISCARD:
            *in = moon_slice_skip(*in, in->len);
            return;
        }
    }
}

static void server_eof(struct moon_link *link)
{
    if (link->read_state == LINK_READ_BODY) {
        moon_link_fail(link, MOON_EOF);
        return;
    }
    link->is_closing = true; // what is queued still goes out: the peer ended its side only
    link->must_linger = false;
    moon_link_flush_later(link);
}

void moon_h1_eof(struct moon_link *link)
{
    if (link->role == MOON_LINK_SERVER) {
        server_eof(link);
        return;
    }
    if (link->was_reset) { // a body until the end of the connection must not look whole
        moon_link_fail(link, -ECONNRESET);
        return;
    }
    if (link->lane.owner && link->read_state == LINK_READ_BODY && moon_body_eof(&link->body)) {
        link->must_close = true;
        message_end(link);
        return;
    }
    moon_link_fail(link, MOON_EOF);
}
