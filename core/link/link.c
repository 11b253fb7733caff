// A link's life: reading, flushing, closing. What the bytes mean is h1.c's business, how they are sent send.c's, what takes too
// long deadlines.c's.
//
//   on_ready -> link_read -> moon_h1_process -> lane events -> (sends queue into `out` of this and other links)
//            -> deferred task of each touched link: flush `out` in one write, go on reading, free
//
// Invariant: only link_read, called from on_ready or from the task, reads into the worker's shared buffer, and when it returns
// nothing refers to that buffer: what was not taken has moved to `in`.
#include "link/link.h"

#include "base/err.h"
#include "conf/settings.h"
#include "io/tls.h"
#include "link/link_priv.h"
#include "link/proxied.h"
#include "link/resources.h"
#include "obs/counters.h"
#include "obs/log.h"

#include <errno.h>
#include <stdlib.h>

enum {
    DISCARD_LEN = 262144,
    READ_MIN_LEN = 4096,   // the smallest block of a buffer
    LINGER_GUESS_MS = 500, // for what may be on its way: a round trip, and no burden on a drain
};

static const struct moon_settings *settings_of(const struct moon_link *link)
{
    return link->res->settings;
}

static uint64_t now_of(const struct moon_link *link)
{
    return moon_loop_now_ms(link->res->loop);
}

void moon_link_flush_later(struct moon_link *link)
{
    moon_loop_defer(link->res->loop, &link->task);
}

void moon_link_close(struct moon_link *link)
{
    if (!link || link->is_freed)
        return;
    link->is_freed = true;
    link->lane.owner = NULL;
    if (link->h2)
        moon_h2_detach_all(link);
    moon_splice_cut(link);
    moon_stream_close(link->stream);
    link->stream = NULL;
    moon_loop_timer_del(link->res->loop, &link->timer);
    if (link->role == MOON_LINK_CLIENT)
        moon_count_down(&link->res->counters->upstream_connections_live);
    moon_link_flush_later(link);
}

void moon_link_abort(struct moon_link *link)
{
    if (!link || link->is_freed)
        return;
    moon_splice_cut(link);
    moon_stream_abort(link->stream);
    link->stream = NULL;
    moon_link_close(link);
}

static void link_free(struct moon_link *link)
{
    moon_h2_link_free(link);
    moon_buffer_fini(&link->in, link->res->buffers);
    moon_buffer_fini(&link->out, link->res->buffers);
    moon_body_fini(&link->body);
    moon_proxied_unref(link->proxied);
    free(link);
}

void moon_link_end(struct moon_link *link)
{
    if (link->is_freed)
        return;
    moon_link_close(link);
    link->events->closed(link->owner);
}

void moon_link_fail(struct moon_link *link, int err)
{
    if (link->is_freed)
        return;
    void *owner = link->lane.owner;
    if (link->h2 && link->role == MOON_LINK_CLIENT) {
        moon_h2_client_lost(link, err);
        return;
    }
    link->lane.owner = NULL;
    if (link->h2)
        moon_h2_abort_all(link, err);
    moon_link_close(link);
    if (owner)
        link->lane.events->abort(owner, err);
    link->events->closed(link->owner);
}

// ---- what follows writing

// All that is queued has gone out and the link is to close: at once where the peer has nothing unread of ours to lose,
// else our side ends first and what still comes is discarded, so that no RST destroys the answer (RFC 9112 9.6).
static void finish_closing(struct moon_link *link)
{
    uint32_t linger_ms = settings_of(link)->timeouts.linger_ms;
    if ((!link->must_linger && !link->may_linger) || link->peer_ended) {
        moon_link_end(link);
        return;
    }
    if (link->read_state == LINK_READ_DISCARD)
        return;
    moon_stream_shutdown(link->stream);
    link->read_state = LINK_READ_DISCARD;
    link->is_paused = false;
    link->window_len = 0;
    if (!link->must_linger && linger_ms > LINGER_GUESS_MS)
        linger_ms = LINGER_GUESS_MS;
    link->read_deadline_ms = now_of(link) + linger_ms;
    moon_link_rearm(link);
    link->wants_read = true;
    moon_link_flush_later(link);
}

// Tells a sender that had been refused, once the queue is short again.
static void tell_writable(struct moon_link *link)
{
    if (!link->is_full || moon_buffer_len(&link->out) > MOON_BUFFER_MAX_LEN / 4)
        return;
    link->is_full = false;
    if (link->lane.owner)
        link->lane.events->writable(link->lane.owner);
}

// ---- reading

static bool may_read(const struct moon_link *link)
{
    return !link->is_freed && !link->is_paused && !link->splice_out && !link->is_connecting &&
           !link->awaits_flush && link->read_state != LINK_READ_DONE;
}

static void take(struct moon_link *link, struct moon_slice bytes)
{
    if (link->h2) {
        moon_h2_take(link, bytes);
        return;
    }
    if (moon_buffer_len(&link->in) == 0) {
        moon_h1_process(link, &bytes);
        if (!link->is_freed && bytes.len &&
            moon_buffer_append(&link->in, link->res->buffers, bytes) < 0)
            moon_link_fail(link, -ENOBUFS);
        return;
    }
    if (bytes.len && moon_buffer_append(&link->in, link->res->buffers, bytes) < 0) {
        moon_link_fail(link, -ENOBUFS);
        return;
    }
    // Out of the link while it is taken apart: a lane that ends within must find what is left, not what was its own.
    struct moon_buffer in = link->in;
    struct moon_slice rest = moon_buffer_bytes(&in);
    size_t before = rest.len;
    link->in = (struct moon_buffer){0};
    moon_h1_process(link, &rest);
    moon_buffer_consume(&in, link->res->buffers, before - rest.len);
    link->in = in;
}

void moon_link_progress(struct moon_link *link)
{
    if (link->role == MOON_LINK_CLIENT && link->lane.owner)
        link->read_deadline_ms = now_of(link) + link->response_ms;
}

// Why TLS with an upstream failed is nobody's secret, and nobody's guess; a line a second is enough.
static void warn_of_tls(const struct moon_link *link)
{
    enum { PAUSE_MS = 1000 };
    char text[MOON_ADDRESS_TEXT_LEN];
    struct moon_address address;
    const char *why = moon_tls_why(link->stream);
    if (!why || link->role != MOON_LINK_CLIENT ||
        (link->res->tls_warned_ms && now_of(link) - link->res->tls_warned_ms < PAUSE_MS))
        return;
    link->res->tls_warned_ms = now_of(link);
    moon_stream_address(link->stream, true, &address);
    moon_address_format(&address, text);
    moon_log_warn(link->res->log, "TLS with %s failed: %s", text, why);
}

static void discard(struct moon_link *link, size_t len)
{
    link->window_len += (uint32_t)len;
    if (link->window_len > DISCARD_LEN) {
        moon_link_end(link);
        return;
    }
    if (!link->must_linger) { // guessed rightly
        link->must_linger = true;
        link->read_deadline_ms = now_of(link) + settings_of(link)->timeouts.linger_ms;
    }
}

// A head's first read takes little more than the head where the body before was spliced: what it takes of a body is copied.
static size_t read_cap_of(const struct moon_link *link)
{
    if (link->read_state != LINK_READ_HEAD)
        return MOON_READ_BODY_LEN;
    return link->head_cap_len && link->scan.seen_len == 0 ? link->head_cap_len : MOON_READ_HEAD_LEN;
}

// No more than those who get it can pass on: the rest would be kept, for each of a hundred streams without a window.
static size_t read_len_of(const struct moon_link *link)
{
    const struct moon_lane *lane = &link->lane;
    size_t cap = read_cap_of(link), room = moon_buffer_room(&link->in);
    if (lane->owner && lane->events->room) {
        size_t wanted = lane->events->room(lane->owner);
        wanted = wanted < READ_MIN_LEN ? READ_MIN_LEN : wanted;
        room = wanted < room ? wanted : room;
    }
    return cap < room ? cap : room;
}

static void link_read(struct moon_link *link)
{
    size_t turn_len = 0;
    while (may_read(link)) {
        if (turn_len >= MOON_TURN_LEN) {
            moon_stream_again(link->stream);
            return;
        }
        if (link->splice_wish && moon_splice_begin(link))
            return;
        ssize_t n = moon_stream_read(link->stream, link->res->read_buffer, read_len_of(link));
        if (n == 0)
            return;
        if (n < 0) {
            link->peer_ended = true;
            if (n == MOON_EOF) {
                if (link->h2)
                    moon_h2_eof(link);
                else
                    moon_h1_eof(link);
                return;
            }
            if (n == MOON_ETLS || n == MOON_ECERT)
                warn_of_tls(link);
            moon_link_fail(link, (int)n);
            return;
        }
        turn_len += (size_t)n;
        link->has_input = true;
        moon_link_progress(link);
        if (link->read_state == LINK_READ_DISCARD) {
            discard(link, (size_t)n);
            continue;
        }
        link->window_len += (uint32_t)n;
        take(link, (struct moon_slice){link->res->read_buffer, (size_t)n});
    }
}

static void go_on_reading(struct moon_link *link)
{
    link->wants_read = false;
    if (link->is_paused || link->splice_out)
        return;
    if (link->read_state == LINK_READ_DISCARD)
        moon_buffer_fini(&link->in, link->res->buffers);
    if (moon_buffer_len(&link->in) && link->read_state != LINK_READ_DONE)
        take(link, (struct moon_slice){NULL, 0});
    link_read(link);
}

// The end of a dispatch in which this link was touched.
static void link_task(struct moon_task *task)
{
    struct moon_link *link = MOON_CONTAINER(task, struct moon_link, task);
    if (link->is_freed) {
        link_free(link);
        return;
    }
    if (link->error) {
        moon_link_fail(link, link->error);
        return;
    }
    if (link->h2)
        moon_h2_run(link);
    moon_link_flush(link);
    if (link->h2)
        moon_h2_flushed(link);
    else if (link->splice_in && moon_buffer_len(&link->out) == 0)
        moon_splice_run(link->splice_in);
    else
        tell_writable(link);
    if (link->awaits_flush && moon_buffer_len(&link->out) == 0) {
        link->awaits_flush = false;
        link->wants_read = true;
    }
    if (!link->is_freed && link->is_closing && moon_buffer_len(&link->out) == 0)
        finish_closing(link);
    if (!link->is_freed && link->wants_read)
        go_on_reading(link);
}

static void on_connected(struct moon_link *link)
{
    int err = moon_stream_connected(link->stream);
    if (err == -EINPROGRESS)
        return;
    if (err) {
        warn_of_tls(link);
        moon_link_fail(link, err);
        return;
    }
    link->is_connecting = false;
    link->write_deadline_ms = 0;
    if (moon_link_has_agreed(link, MOON_SLICE("h2")) != (link->h2 != NULL) && moon_link_tls(link)) {
        moon_link_fail(link, link->events->mismatch(link->owner, !link->h2));
        return;
    }
    if (link->h2)
        moon_h2_client_connected(link);
    if (link->lane.owner && link->lane.events->connected) {
        link->lane.events->connected(link->lane.owner);
        return;
    }
    link->wants_read = true;
    moon_link_flush_later(link);
}

// The client is gone, or has ended its side, while its answer is being made: the work is withdrawn, as nginx does.
static bool is_abandoned(const struct moon_link *link, unsigned ready)
{
    if (link->role != MOON_LINK_SERVER || !link->lane.owner)
        return false;
    if (ready & MOON_READY_ERROR)
        return true;
    bool is_unheard = link->read_state == LINK_READ_DONE || link->is_held;
    return (ready & MOON_READY_HUP) && is_unheard && !link->is_sent;
}

static void on_ready(void *owner, unsigned ready)
{
    struct moon_link *link = owner;
    if (link->is_freed)
        return;
    if (link->is_connecting) {
        on_connected(link);
        return;
    }
    if (ready & MOON_READY_HUP && link->role == MOON_LINK_CLIENT)
        link->peer_ended = true;
    if (link->splice_out && ready & ~(unsigned)MOON_READY_WRITE)
        moon_splice_run(link->splice_out);
    else if (ready & ~(unsigned)MOON_READY_WRITE)
        link_read(link);
    if (link->is_freed)
        return;
    if (is_abandoned(link, ready)) {
        moon_link_fail(link, ready & MOON_READY_ERROR ? -ECONNRESET : MOON_EOF);
        return;
    }
    if (!(ready & MOON_READY_WRITE))
        return;
    moon_link_flush_later(link);
}

// ---- public

struct moon_link *moon_link_new(struct moon_resources *res, enum moon_link_role role,
                                struct moon_stream *stream, const struct moon_link_events *events,
                                void *owner)
{
    struct moon_link *link = calloc(1, sizeof *link);
    if (!link)
        abort();
    link->stream = stream;
    link->res = res;
    link->role = (uint8_t)role;
    link->events = events;
    link->owner = owner;
    link->timer.fn = moon_link_on_timer;
    link->task.fn = link_task;
    link->start_ms = moon_loop_now_ms(res->loop);
    link->number = ++res->link_count;
    moon_stream_set_owner(stream, on_ready, link);
    if (role == MOON_LINK_SERVER) {
        link->read_deadline_ms = link->start_ms + res->settings->timeouts.request_head_ms;
    } else {
        moon_count_up(&res->counters->upstream_connections_live);
        link->is_connecting = moon_stream_connected(stream) == -EINPROGRESS;
        if (link->is_connecting)
            link->write_deadline_ms = link->start_ms + res->settings->timeouts.connect_ms;
    }
    moon_link_rearm(link);
    return link;
}

void moon_link_set_owner(struct moon_link *link, const struct moon_link_events *events, void *owner)
{
    link->events = events;
    link->owner = owner;
}

bool moon_link_has_agreed(const struct moon_link *link, struct moon_slice protocol)
{
    const struct moon_tls_facts *tls = moon_link_tls(link);
    return tls && moon_slice_equal(tls->alpn, protocol);
}

void moon_link_start(struct moon_link *link)
{
    if (!moon_link_has_agreed(link, MOON_SLICE("h2"))) {
        link_read(link);
        return;
    }
    if (!moon_h2_begin(link)) {
        moon_link_end(link);
        return;
    }
    moon_link_flush_later(link); // SETTINGS
    link_read(link);
}

void moon_link_drain(struct moon_link *link)
{
    link->is_draining = true;
    if (link->h2) {
        moon_h2_drain_link(link);
        return;
    }
    if (!link->lane.owner && link->role == MOON_LINK_SERVER && !link->is_closing &&
        moon_buffer_len(&link->in) == 0)
        moon_link_end(link);
}

void moon_link_drain_next(struct moon_link *link)
{
    link->is_draining = true;
}

bool moon_link_is_draining(const struct moon_link *link)
{
    return link->is_draining;
}

uint32_t moon_link_lane_count(const struct moon_link *link)
{
    return link->lane_count;
}

uint64_t moon_link_start_ms(const struct moon_link *link)
{
    return link->start_ms;
}

uint64_t moon_link_number(const struct moon_link *link)
{
    return link->number;
}

bool moon_link_is_in_head(const struct moon_link *link)
{
    return link->read_state == LINK_READ_HEAD && moon_buffer_len(&link->in) > 0;
}

bool moon_link_is_connecting(const struct moon_link *link)
{
    return link->is_connecting;
}

bool moon_link_is_busy(const struct moon_link *link)
{
    return link->h2 ? moon_h2_is_busy_link(link) : link->lane.owner != NULL;
}

bool moon_link_is_ending(const struct moon_link *link)
{
    return link->is_closing || link->read_state == LINK_READ_DISCARD;
}

void moon_link_address(const struct moon_link *link, bool peer, struct moon_address *out)
{
    moon_stream_address(link->stream, peer, out);
}

void moon_link_set_proxied(struct moon_link *link, struct moon_proxied *proxied)
{
    link->proxied = proxied;
}

struct moon_proxied *moon_link_proxied(const struct moon_link *link)
{
    return link->proxied;
}

const struct moon_stream *moon_link_stream(const struct moon_link *link)
{
    return link->stream;
}

struct moon_tls_facts *moon_link_tls(const struct moon_link *link)
{
    return moon_stream_tls(link->stream);
}
