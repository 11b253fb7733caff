// A link that speaks HTTP/2: streams come and go, each of them a lane.
//
//   take -> moon_h2_receive -> (open, head, data, end, closed: noted) -> work: open, head, body, end, abort of each lane
//   lane sends -> moon_h2_send_* -> `out` -> flush;  room and windows again -> full: writable of each lane
//
// Events come from under nghttp2, so most of them only put the stream into `work`, which is gone through when nghttp2 has
// returned. A request that was cancelled in the same read is never heard of: resets cost next to nothing (A40).
// Deadlines are the connection's: one timer, and while streams are open a tick that looks at each.
#include "base/err.h"
#include "conf/settings.h"
#include "link/h2_link_priv.h"
#include "link/resources.h"
#include "obs/counters.h"

#include <errno.h>
#include <stdlib.h>

enum {
    NOTICE_MS = 1000, // longest wait for the answer to the first GOAWAY
    FULL_LEN = 16384, // of `out`: more waits already
};

static uint64_t now_of(const struct moon_link *link)
{
    return moon_loop_now_ms(link->res->loop);
}

static const struct moon_settings *settings_of(const struct moon_link *link)
{
    return link->res->settings;
}

// ---- the end of a connection

// Who did what no mistake does may come back, but is watched.
static void suspect(struct moon_link *link)
{
    struct moon_address client;
    if (link->role != MOON_LINK_SERVER)
        return;
    moon_link_address(link, true, &client);
    moon_suspects_add(&link->res->suspects, &client, now_of(link));
}

static void count_cause(struct moon_link *link)
{
    struct moon_counters *counters = link->res->counters;
    switch (moon_h2_cause(link->h2->h2)) {
    case MOON_H2_FINE:
        return;
    case MOON_H2_PROTOCOL:
        moon_count_up(&counters->h2_ended_protocol);
        return;
    case MOON_H2_RESETS:
        moon_count_up(&counters->h2_ended_resets);
        break;
    case MOON_H2_CONTROL:
        moon_count_up(&counters->h2_ended_control);
        break;
    case MOON_H2_FIELDS:
        moon_count_up(&counters->h2_ended_fields);
        break;
    case MOON_H2_CONTINUATIONS:
        moon_count_up(&counters->h2_ended_continuations);
        break;
    }
    suspect(link);
}

// Nothing more is taken; the GOAWAY that is queued goes out, then the connection ends.
void h2_link_end(struct moon_link *link, int err)
{
    struct moon_h2_link *h = link->h2;
    if (h->is_over)
        return;
    h->is_over = true;
    count_cause(link);
    moon_h2_abort_all(link, err);
    if (link->is_freed)
        return;
    while (!moon_list_is_empty(&h->work)) // requests that were never heard of stay so
        moon_list_del(h->work.next);
    link->is_closing = true;
    link->must_linger = err != MOON_EOF;
    link->may_linger = true;
    link->read_deadline_ms = 0;
    moon_link_flush_later(link);
}

static void end_when_empty(struct moon_link *link)
{
    struct moon_h2_link *h = link->h2;
    if (h->drain != H2_DRAINS || !moon_list_is_empty(&h->streams) || link->is_freed)
        return;
    if (link->role == MOON_LINK_CLIENT)
        moon_link_end(link);
    else
        h2_link_end(link, MOON_EOF);
}

// ---- streams

void h2_stream_bury(struct h2_stream *stream)
{
    struct moon_link *link = stream->link;
    moon_list_del(&stream->work);
    moon_list_del(&stream->full);
    moon_list_del(&stream->node);
    moon_list_add_before(&link->h2->dead, &stream->node);
    moon_h2_stream_fini(link->h2->h2, &stream->h2);
    moon_count_down(link->role == MOON_LINK_CLIENT ? &link->res->counters->upstream_streams_live
                                                   : &link->res->counters->h2_streams_live);
    moon_link_flush_later(link);
}

void h2_stream_drop_input(struct h2_stream *stream)
{
    size_t len = moon_buffer_len(&stream->in);
    if (len)
        moon_h2_consumed(stream->link->h2->h2, &stream->h2, len);
    moon_buffer_fini(&stream->in, stream->link->res->buffers);
}

void h2_stream_leave(struct h2_stream *stream)
{
    struct moon_link *link = stream->link;
    stream->lane.owner = NULL;
    moon_list_del(&stream->full);
    h2_stream_drop_input(stream);
    if (stream->is_closed)
        h2_stream_bury(stream);
    if (link->role == MOON_LINK_CLIENT && !link->is_freed)
        link->events->left(link->owner, &stream->lane);
}

void h2_stream_works(struct h2_stream *stream)
{
    if (moon_list_is_empty(&stream->work))
        moon_list_add_before(&stream->link->h2->work, &stream->work);
    moon_link_flush_later(stream->link);
}

static void stream_lost(struct h2_stream *stream)
{
    if (stream->link->role == MOON_LINK_CLIENT) {
        h2_client_stream_lost(stream);
        return;
    }
    void *owner = stream->lane.owner;
    int err = stream->error;
    h2_stream_leave(stream);
    if (owner)
        stream->lane.events->abort(owner, err);
}

void h2_stream_fault(struct h2_stream *stream, const struct moon_fault *fault)
{
    stream->has_fault = true;
    stream->is_paused = false;
    h2_stream_drop_input(stream);
    stream->lane.events->fault(stream->lane.owner, fault);
}

static void stream_begin(struct h2_stream *stream)
{
    struct moon_link *link = stream->link;
    struct moon_head_limits limits = moon_link_limits(link);
    struct moon_lane *lane = &stream->lane;
    struct moon_fault fault;
    uint32_t bound = settings_of(link)->keepalive_requests;
    stream->has_begun = true;
    link->events->open(link->owner, lane);
    if (!lane->owner) {
        moon_h2_reset(link->h2->h2, &stream->h2, MOON_H2_REFUSED_STREAM);
        return;
    }
    if ((bound && link->lane_count >= bound) || link->is_draining)
        moon_h2_drain_link(link);
    if (moon_h2_request_read(link->h2->h2, &stream->h2, lane->arena, &limits, lane->head, &fault) <
        0) {
        h2_stream_fault(stream, &fault);
        return;
    }
    if (lane->head->is_h2_upgrade) {
        stream->is_upgrade = stream->is_paused = true;
    } else if (!stream->has_end) {
        stream->in_due_ms = now_of(link) + h2_body_window_ms(link);
        stream->in_len = 0;
    }
    lane->events->head(lane->owner);
}

// Out of the stream while it is offered: who ends the lane meanwhile must not take it away.
static void deliver(struct h2_stream *stream)
{
    struct moon_link *link = stream->link;
    struct moon_lane *lane = &stream->lane;
    struct moon_buffer in = stream->in;
    stream->in = (struct moon_buffer){0};
    while (moon_buffer_len(&in) && lane->owner && !stream->is_paused && !stream->has_fault) {
        struct moon_slice bytes = moon_buffer_bytes(&in);
        size_t taken = lane->events->body(lane->owner, bytes);
        if (taken < bytes.len)
            stream->is_paused = stream->was_paused = true;
        moon_buffer_consume(&in, link->res->buffers, taken);
        moon_h2_consumed(link->h2->h2, &stream->h2, taken);
    }
    stream->in = in;
    if (!lane->owner || stream->has_fault)
        h2_stream_drop_input(stream);
}

static void tell_end(struct h2_stream *stream)
{
    static const struct moon_fault bad_trailers = {400, "malformed trailers"};
    static const struct moon_fault bad_response = {502, "the upstream's trailers are malformed"};
    struct moon_lane *lane = &stream->lane;
    bool is_client = stream->link->role == MOON_LINK_CLIENT;
    stream->was_told_end = true;
    stream->in_due_ms = 0;
    if (moon_h2_trailers_read(stream->link->h2->h2, &stream->h2, lane->arena, &lane->trailers) <
            0 ||
        (is_client && stream->h2.is_too_large))
        h2_stream_fault(stream, is_client ? &bad_response : &bad_trailers);
    else
        lane->events->end(lane->owner, &lane->trailers);
}

static void stream_run(struct h2_stream *stream)
{
    if (stream->is_lost) {
        stream_lost(stream);
        return;
    }
    if (!stream->has_begun)
        stream_begin(stream);
    if (moon_buffer_len(&stream->in))
        deliver(stream);
    if (stream->was_told_end || stream->has_fault || !stream->lane.owner)
        return;
    if (stream->is_upgrade || (stream->has_end && moon_buffer_len(&stream->in) == 0))
        tell_end(stream);
}

static void run_work(struct moon_link *link)
{
    struct moon_list *work = &link->h2->work;
    while (!link->is_freed && !moon_list_is_empty(work)) {
        struct h2_stream *stream = MOON_CONTAINER(work->next, struct h2_stream, work);
        moon_list_del(&stream->work);
        stream_run(stream);
    }
}

// ---- events of the codec

static struct moon_h2_stream *on_open(void *owner)
{
    struct moon_link *link = owner;
    struct h2_stream *stream = calloc(1, sizeof *stream);
    if (!stream)
        return NULL;
    stream->lane.is_stream = true;
    stream->link = link;
    moon_list_add_before(&link->h2->streams, &stream->node);
    moon_count_up(&link->res->counters->h2_streams_live);
    moon_count_up(&link->res->counters->h2_streams_total);
    return &stream->h2;
}

static void on_head(void *owner, struct moon_h2_stream *h2)
{
    (void)owner;
    h2_stream_works(MOON_CONTAINER(h2, struct h2_stream, h2));
}

void h2_stream_on_end(void *owner, struct moon_h2_stream *h2)
{
    (void)owner;
    struct h2_stream *stream = MOON_CONTAINER(h2, struct h2_stream, h2);
    stream->has_end = true;
    if (stream->is_taken && stream->lane.owner)
        h2_tunnel_has_input(stream);
    else
        h2_stream_works(stream);
}

void h2_stream_on_data(void *owner, struct moon_h2_stream *h2, struct moon_slice bytes)
{
    struct moon_link *link = owner;
    struct h2_stream *stream = MOON_CONTAINER(h2, struct h2_stream, h2);
    size_t taken = 0;
    stream->in_len += (uint32_t)bytes.len;
    if (link->role == MOON_LINK_CLIENT) {
        link->h2->was_pinged = false;
        h2_client_progress(stream);
    }
    bool is_wanted = !stream->has_fault && (!stream->has_begun || stream->lane.owner);
    bool waits = !stream->has_begun || stream->is_paused || moon_buffer_len(&stream->in);
    if (!is_wanted)
        taken = bytes.len;
    else if (!waits)
        taken = stream->lane.events->body(stream->lane.owner, bytes);
    if (taken)
        moon_h2_consumed(link->h2->h2, h2, taken);
    if (taken == bytes.len)
        return;
    if (!waits)
        stream->is_paused = stream->was_paused = true;
    if (stream->has_begun && !stream->lane.owner) { // it has ended under body
        moon_h2_consumed(link->h2->h2, h2, bytes.len - taken);
        return;
    }
    if (moon_buffer_append(&stream->in, link->res->buffers, moon_slice_skip(bytes, taken)) == 0) {
        if (stream->is_taken)
            h2_tunnel_has_input(stream);
        return;
    }
    moon_h2_consumed(link->h2->h2, h2, bytes.len - taken);
    moon_h2_reset(link->h2->h2, h2, MOON_H2_INTERNAL_ERROR);
    stream->is_lost = true;
    stream->error = -ENOBUFS;
    h2_stream_works(stream);
}

static void on_closed(void *owner, struct moon_h2_stream *h2, uint32_t code)
{
    (void)owner;
    struct h2_stream *stream = MOON_CONTAINER(h2, struct h2_stream, h2);
    stream->is_closed = true;
    if (!stream->lane.owner) {
        h2_stream_drop_input(stream);
        h2_stream_bury(stream);
        return;
    }
    if (h2->is_sent && (h2->is_read || (code == MOON_H2_NO_ERROR && !h2->is_tunnel)))
        return;
    if (!stream->is_lost)
        stream->error = -ECONNRESET;
    stream->is_lost = true;
    h2_stream_works(stream);
}

void h2_link_on_window(void *owner)
{
    moon_link_flush_later(owner);
}

void h2_link_drain_now(struct moon_link *link)
{
    struct moon_h2_link *h = link->h2;
    if (h->drain == H2_DRAINS)
        return;
    h->drain = H2_DRAINS;
    h->drain_due_ms = 0;
    moon_h2_drain(h->h2);
    moon_link_flush_later(link);
}

static void on_pong(void *owner)
{
    struct moon_link *link = owner;
    if (link->h2->drain == H2_NOTICED)
        h2_link_drain_now(link);
}

static const struct moon_h2_events events = {
    .open = on_open,
    .head = on_head,
    .data = h2_stream_on_data,
    .end = h2_stream_on_end,
    .closed = on_closed,
    .window = h2_link_on_window,
    .pong = on_pong,
};

// ---- what link.c asks for

struct moon_h2_link *h2_link_new(struct moon_link *link, const struct moon_h2_args *args)
{
    struct moon_h2_link *h = calloc(1, sizeof *h);
    if (!h)
        return NULL;
    h->h2 = moon_h2_new(args);
    if (!h->h2) {
        free(h);
        return NULL;
    }
    moon_list_init(&h->streams);
    moon_list_init(&h->work);
    moon_list_init(&h->full);
    moon_list_init(&h->dead);
    link->h2 = h;
    link->read_state = LINK_READ_BODY;
    return h;
}

bool moon_h2_begin(struct moon_link *link)
{
    const struct moon_settings *settings = settings_of(link);
    struct moon_address client;
    moon_link_address(link, true, &client);
    if (!link->res->h2_shape)
        link->res->h2_shape = moon_h2_shape_new();
    struct moon_h2_args args = {.events = &events,
                                .owner = link,
                                .buffers = link->res->buffers,
                                .now_ms = now_of(link),
                                .is_suspect =
                                    moon_suspects_has(&link->res->suspects, &client, now_of(link)),
                                .shape = link->res->h2_shape,
                                .header_bytes = settings->limits.header_bytes,
                                .header_count = settings->limits.header_count};
    if (!h2_link_new(link, &args))
        return false;
    moon_count_up(&link->res->counters->h2_connections_total);
    h2_link_arm(link);
    return true;
}

static void free_dead(struct moon_h2_link *h)
{
    while (!moon_list_is_empty(&h->dead)) {
        struct h2_stream *stream = MOON_CONTAINER(h->dead.next, struct h2_stream, node);
        moon_list_del(&stream->node);
        free(stream);
    }
}

void moon_h2_link_free(struct moon_link *link)
{
    struct moon_h2_link *h = link->h2;
    if (!h)
        return;
    while (!moon_list_is_empty(&h->streams)) {
        struct h2_stream *stream = MOON_CONTAINER(h->streams.next, struct h2_stream, node);
        moon_buffer_fini(&stream->in, link->res->buffers);
        h2_stream_bury(stream);
    }
    moon_task_cancel(&link->task);
    free_dead(h);
    moon_h2_free(h->h2);
    free(h);
    link->h2 = NULL;
}

void moon_h2_take(struct moon_link *link, struct moon_slice bytes)
{
    if (link->h2->is_over)
        return;
    link->h2->heard_ms = now_of(link);
    int err = moon_h2_receive(link->h2->h2, bytes, link->h2->heard_ms);
    if (err && link->role == MOON_LINK_CLIENT) {
        run_work(link); // what came whole before it is good
        moon_h2_client_lost(link, err);
        return;
    }
    if (err) {
        h2_link_end(link, err);
        return;
    }
    run_work(link);
    if (link->is_freed)
        return;
    h2_link_arm(link);
    moon_link_flush_later(link);
}

void moon_h2_run(struct moon_link *link)
{
    run_work(link);
    if (link->is_freed)
        return;
    bool is_client = link->role == MOON_LINK_CLIENT;
    if (is_client && (link->is_connecting || link->h2->is_over))
        return;
    int err = moon_h2_pump(link->h2->h2, &link->out);
    if (err == -ENOBUFS)
        moon_link_fail(link, err);
    else if (is_client && (err || moon_h2_cause(link->h2->h2) != MOON_H2_FINE))
        moon_h2_client_lost(link, MOON_EPROTO);
    else if (err || moon_h2_cause(link->h2->h2) != MOON_H2_FINE)
        h2_link_end(link, MOON_EPROTO);
}

// Room again: those who wait for some that their windows allow are told, each once.
static void tell_full(struct moon_link *link)
{
    struct moon_list *full = &link->h2->full, waits;
    moon_list_init(&waits);
    while (!moon_list_is_empty(full)) {
        struct moon_list *node = full->next;
        moon_list_del(node);
        moon_list_add_before(&waits, node);
    }
    while (!moon_list_is_empty(&waits)) {
        struct h2_stream *stream = MOON_CONTAINER(waits.next, struct h2_stream, full);
        moon_list_del(&stream->full);
        if (link->is_freed)
            continue;
        if (moon_buffer_len(&link->out) > FULL_LEN ||
            moon_h2_window(link->h2->h2, &stream->h2) == 0)
            moon_list_add_before(full, &stream->full);
        else if (stream->lane.owner)
            stream->lane.events->writable(stream->lane.owner);
    }
}

void moon_h2_flushed(struct moon_link *link)
{
    struct moon_h2_link *h = link->h2;
    if (link->is_freed)
        return;
    size_t before = moon_buffer_len(&link->out);
    if (!h->is_over && !link->is_connecting && before <= FULL_LEN) {
        moon_h2_pump(h->h2, &link->out); // what did not fit before; an error comes again
        tell_full(link);
    }
    if (link->is_freed)
        return;
    if (moon_buffer_len(&link->out) > before)
        moon_link_flush_later(link);
    free_dead(h);
    end_when_empty(link);
    h2_link_arm(link);
}

void moon_h2_eof(struct moon_link *link)
{
    if (link->h2->is_over) {
        moon_link_flush_later(link);
        return;
    }
    moon_link_fail(link, link->was_reset ? -ECONNRESET : MOON_EOF);
}

void moon_h2_abort_all(struct moon_link *link, int err)
{
    struct moon_list *all = &link->h2->streams;
    for (;;) {
        struct moon_list *at = all->next;
        while (at != all && !MOON_CONTAINER(at, struct h2_stream, node)->lane.owner)
            at = at->next;
        if (at == all || link->is_freed)
            return;
        struct h2_stream *stream = MOON_CONTAINER(at, struct h2_stream, node);
        stream->error = err;
        stream_lost(stream);
    }
}

void moon_h2_detach_all(struct moon_link *link)
{
    struct moon_list *all = &link->h2->streams;
    for (struct moon_list *at = all->next; at != all; at = at->next) {
        struct h2_stream *stream = MOON_CONTAINER(at, struct h2_stream, node);
        if (stream->is_taken && stream->lane.owner)
            h2_tunnel_cut(stream);
        stream->lane.owner = NULL;
        moon_list_del(&stream->full);
        moon_list_del(&stream->work);
    }
}

void moon_h2_drain_link(struct moon_link *link)
{
    struct moon_h2_link *h = link->h2;
    link->is_draining = true;
    if (h->drain != H2_SERVES)
        return;
    h->drain = H2_NOTICED;
    h->drain_due_ms = now_of(link) + NOTICE_MS;
    moon_h2_drain_notice(h->h2);
    moon_link_flush_later(link);
}

bool moon_h2_is_busy_link(const struct moon_link *link)
{
    return !moon_list_is_empty(&link->h2->streams);
}
