// A link that speaks HTTP/2 to an upstream: lanes are opened by the pool, each a stream of its own.
//
//   open_lane -> attach -> send_head (the stream begins) -> head ..., body, end | fault | abort -> left
//
// Nothing is written before the connection stands, so that nothing of a request is lost with one that does not. A head is told
// from under nghttp2, for another may be right behind it; all else as in h2_link.c. When the connection is lost, responses that
// have come whole are still delivered: the link goes with the last of them.
#include "base/err.h"
#include "conf/settings.h"
#include "link/h2_link_priv.h"
#include "link/resources.h"
#include "obs/counters.h"

#include <errno.h>
#include <stdlib.h>

static uint64_t now_of(const struct moon_link *link)
{
    return moon_loop_now_ms(link->res->loop);
}

// ---- lanes

int moon_link_speak_h2(struct moon_link *link, uint32_t peer_stream_count)
{
    const struct moon_settings *settings = link->res->settings;
    struct moon_h2_args args = {.events = &h2_client_events,
                                .owner = link,
                                .buffers = link->res->buffers,
                                .now_ms = now_of(link),
                                .header_bytes = settings->limits.header_bytes,
                                .header_count = settings->limits.header_count,
                                .is_client = true,
                                .peer_stream_count = peer_stream_count};
    if (!h2_link_new(link, &args))
        return -ENOMEM;
    moon_count_up(&link->res->counters->upstream_h2_connections_total);
    if (!link->is_connecting)
        moon_link_flush_later(link);
    return 0;
}

struct moon_lane *moon_link_open_lane(struct moon_link *link)
{
    if (!link->h2)
        return &link->lane;
    struct h2_stream *stream = calloc(1, sizeof *stream);
    if (!stream)
        return NULL;
    stream->lane.is_stream = true;
    stream->link = link;
    stream->has_begun = true;
    stream->is_closed = true; // the session does not know it yet
    moon_list_add_before(&link->h2->streams, &stream->node);
    moon_count_up(&link->res->counters->upstream_streams_live);
    moon_count_up(&link->res->counters->upstream_streams_total);
    return &stream->lane;
}

uint32_t moon_link_lane_cap(const struct moon_link *link)
{
    const struct moon_h2_link *h = link->h2;
    if (!h || h->is_over || link->is_freed || link->is_broken || link->peer_ended || link->error ||
        h->drain != H2_SERVES)
        return 0;
    return moon_h2_stream_cap(h->h2);
}

void moon_h2_lane_attach(struct moon_lane *lane, const struct moon_lane_attachment *attachment)
{
    struct h2_stream *stream = h2_stream_of(lane);
    stream->response_ms = attachment->response_ms;
}

bool moon_h2_lane_has_input(const struct moon_lane *lane)
{
    const struct h2_stream *stream = (const struct h2_stream *)lane;
    return stream->has_input;
}

bool moon_h2_lane_has_output(const struct moon_lane *lane)
{
    return ((const struct h2_stream *)lane)->h2.is_begun;
}

static bool has_body(const struct moon_framing *framing)
{
    return framing->body == MOON_BODY_CHUNKED ||
           (framing->body == MOON_BODY_LENGTH && framing->content_length > 0);
}

int h2_client_send_head(struct h2_stream *stream, const struct moon_head *head,
                        const struct moon_framing *framing)
{
    struct moon_link *link = stream->link;
    bool is_tls = moon_link_tls(link) != NULL;
    struct moon_h2_request_args args = {.head = head,
                                        .framing = framing,
                                        .scheme = is_tls ? MOON_SLICE("https") : MOON_SLICE("http"),
                                        .has_body = has_body(framing)};
    int err = moon_h2_request_send(link->h2->h2, &stream->h2, &args);
    if (err) {
        stream->is_lost = true;
        stream->error = err == MOON_EPROTO ? MOON_ENOTBEGUN : err;
        h2_stream_works(stream);
        return err;
    }
    stream->is_closed = false;
    h2_client_progress(stream);
    moon_link_flush_later(link);
    return 0;
}

void h2_client_stream_lost(struct h2_stream *stream)
{
    void *owner = stream->lane.owner;
    int err = stream->error;
    stream->lane.owner = NULL;
    if (err == MOON_ENOTBEGUN || err == MOON_EGUESS)
        moon_count_up(&stream->link->res->counters->upstream_streams_refused_total);
    if (owner)
        stream->lane.events->abort(owner, err);
    h2_stream_leave(stream);
}

// ---- events of the codec

static void on_head(void *owner, struct moon_h2_stream *h2)
{
    struct moon_link *link = owner;
    struct h2_stream *stream = MOON_CONTAINER(h2, struct h2_stream, h2);
    struct moon_lane *lane = &stream->lane;
    struct moon_fault fault;
    link->h2->was_pinged = false; // it has sent HEADERS
    stream->has_input = true;
    if (!lane->owner || stream->has_fault || stream->is_lost) {
        moon_h2_stream_fini(link->h2->h2, h2);
        return;
    }
    h2_client_progress(stream);
    if (moon_h2_response_read(link->h2->h2, h2, lane->arena, lane->request_method, lane->head,
                              &fault) < 0)
        h2_stream_fault(stream, &fault);
    else
        lane->events->head(lane->owner);
}

static int error_of(const struct moon_h2_stream *h2)
{
    if (h2->is_unprocessed)
        return MOON_ENOTBEGUN;
    return h2->is_malformed ? MOON_EPROTO : MOON_ERESET;
}

// A response that is whole is as good as it was, whatever becomes of the request.
static void on_closed(void *owner, struct moon_h2_stream *h2, uint32_t code)
{
    (void)owner, (void)code;
    struct h2_stream *stream = MOON_CONTAINER(h2, struct h2_stream, h2);
    stream->is_closed = true;
    stream->has_input |= h2->is_malformed;
    if (!stream->lane.owner) {
        h2_stream_drop_input(stream);
        h2_stream_bury(stream);
        return;
    }
    if (h2->is_read && !h2->is_malformed)
        return;
    if (!stream->is_lost)
        stream->error = error_of(h2);
    stream->is_lost = true;
    h2_stream_works(stream);
}

// It was heard already.
static void on_pong(void *owner)
{
    (void)owner;
}

// Requests that wait in the session for more streams than there may be now: nothing of them was sent, so they need not wait for
// another to end. The session forgets each when its turn comes.
static void take_back(struct moon_link *link)
{
    struct moon_list *all = &link->h2->streams;
    uint32_t cap = moon_link_lane_cap(link), count = 0;
    for (struct moon_list *at = all->next; at != all; at = at->next) {
        const struct h2_stream *stream = MOON_CONTAINER(at, struct h2_stream, node);
        count += stream->h2.has_session && !moon_h2_is_queued(link->h2->h2, &stream->h2);
    }
    for (struct moon_list *at = all->next; at != all; at = at->next) {
        struct h2_stream *stream = MOON_CONTAINER(at, struct h2_stream, node);
        if (!stream->lane.owner || stream->is_lost ||
            !moon_h2_is_queued(link->h2->h2, &stream->h2) || count++ < cap)
            continue;
        moon_h2_reset(link->h2->h2, &stream->h2, MOON_H2_CANCEL);
        stream->is_lost = true;
        stream->error = MOON_ENOTBEGUN;
        h2_stream_works(stream);
    }
}

// No more lanes: those that are open go on, and the link with the last of them.
static void on_goaway(void *owner)
{
    struct moon_link *link = owner;
    link->h2->drain = H2_DRAINS;
    take_back(link);
    moon_link_flush_later(link);
}

static void on_settings(void *owner)
{
    struct moon_link *link = owner;
    take_back(link);
    link->events->recapped(link->owner);
}

const struct moon_h2_events h2_client_events = {
    .head = on_head,
    .data = h2_stream_on_data,
    .end = h2_stream_on_end,
    .closed = on_closed,
    .window = h2_link_on_window,
    .pong = on_pong,
    .goaway = on_goaway,
    .settings = on_settings,
};

// ---- the connection

void moon_h2_client_connected(struct moon_link *link)
{
    h2_link_arm(link);
    moon_link_flush_later(link);
}

static bool is_whole(const struct h2_stream *stream)
{
    return stream->h2.is_read && !stream->is_lost;
}

// The next lane that is to hear of it.
static struct h2_stream *next_lost(const struct moon_h2_link *h)
{
    for (struct moon_list *at = h->streams.next; at != &h->streams; at = at->next) {
        struct h2_stream *stream = MOON_CONTAINER(at, struct h2_stream, node);
        if (stream->lane.owner && !is_whole(stream))
            return stream;
    }
    return NULL;
}

static bool has_lanes(const struct moon_h2_link *h)
{
    for (struct moon_list *at = h->streams.next; at != &h->streams; at = at->next)
        if (MOON_CONTAINER(at, struct h2_stream, node)->lane.owner)
            return true;
    return false;
}

void moon_h2_client_lost(struct moon_link *link, int err)
{
    struct moon_h2_link *h = link->h2;
    struct h2_stream *stream;
    if (link->is_freed || h->is_over)
        return;
    h->is_over = true;
    if (err == MOON_EPROTO || err == MOON_ESILENT)
        moon_count_up(&link->res->counters->upstream_h2_ended_total);
    if (err == MOON_EPROTO && moon_h2_pump(h->h2, &link->out) == 0)
        moon_link_flush(link); // the GOAWAY says why
    link->error = 0;
    link->wants_read = false;
    link->read_state = LINK_READ_DONE;
    link->read_deadline_ms = link->write_deadline_ms = 0;
    while (!link->is_freed && (stream = next_lost(h)) != NULL) {
        if (!stream->is_lost)
            stream->error = err;
        stream->is_lost = true;
        moon_list_del(&stream->work);
        h2_client_stream_lost(stream);
    }
    if (!link->is_freed && !has_lanes(h))
        moon_link_end(link);
}

// ---- deadlines

static void sooner(uint64_t *at, uint64_t due_ms)
{
    if (due_ms && (!*at || due_ms < *at))
        *at = due_ms;
}

// A deadline that is nearer than all others.
static void hurry(struct h2_stream *stream, uint64_t due_ms)
{
    struct moon_link *link = stream->link;
    uint64_t before_ms = link->h2->tick_due_ms;
    sooner(&link->h2->tick_due_ms, due_ms);
    if (link->h2->tick_due_ms == before_ms)
        return;
    sooner(&link->read_deadline_ms, due_ms);
    moon_link_rearm(link);
}

void h2_client_progress(struct h2_stream *stream)
{
    if (!stream->response_ms || stream->was_told_end)
        return;
    stream->in_due_ms = now_of(stream->link) + stream->response_ms;
    hurry(stream, stream->in_due_ms);
}

void h2_client_sent(struct h2_stream *stream, size_t taken, bool is_full)
{
    struct moon_link *link = stream->link;
    if (taken)
        h2_client_progress(stream);
    if (taken || !is_full)
        stream->out_due_ms = 0;
    if (!is_full || stream->out_due_ms || link->is_connecting)
        return;
    stream->out_due_ms = now_of(link) + link->res->settings->timeouts.body_ms;
    hurry(stream, stream->out_due_ms);
}

void h2_client_arm(struct moon_link *link)
{
    struct moon_h2_link *h = link->h2;
    uint64_t next_ms = 0;
    if (link->is_connecting)
        return;
    if (!moon_list_is_empty(&h->streams))
        h->idle_due_ms = 0;
    else if (!h->idle_due_ms)
        h->idle_due_ms = now_of(link) + link->res->settings->timeouts.upstream_idle_ms;
    if (!moon_h2_is_in_block(h->h2))
        h->block_due_ms = 0;
    else if (!h->block_due_ms)
        h->block_due_ms = now_of(link) + link->res->settings->timeouts.request_head_ms;
    h2_silence_arm(link);
    sooner(&next_ms, h->idle_due_ms);
    sooner(&next_ms, h->tick_due_ms);
    sooner(&next_ms, h->block_due_ms);
    sooner(&next_ms, h->ping_due_ms);
    link->read_deadline_ms = next_ms;
    moon_link_rearm(link);
}

// Silence counts where the peer has to speak: not while its request is held back here, nor while we do not take what it says.
static bool is_overdue(struct h2_stream *stream, uint64_t now_ms)
{
    if (!stream->lane.owner || stream->is_lost || stream->was_told_end || stream->has_fault)
        return false;
    if (stream->out_due_ms && now_ms >= stream->out_due_ms)
        return true;
    if (!stream->in_due_ms || now_ms < stream->in_due_ms)
        return false;
    if (!stream->is_paused && !stream->is_held && !stream->h2.is_read)
        return true;
    stream->in_due_ms = now_ms + stream->response_ms;
    return false;
}

static void tick(struct moon_link *link, uint64_t now_ms)
{
    struct moon_h2_link *h = link->h2;
    h->tick_due_ms = 0;
    for (struct moon_list *at = h->streams.next; at != &h->streams; at = at->next) {
        struct h2_stream *stream = MOON_CONTAINER(at, struct h2_stream, node);
        if (is_overdue(stream, now_ms)) {
            moon_h2_reset(h->h2, &stream->h2, MOON_H2_CANCEL);
            stream->is_lost = true;
            stream->error = MOON_ETIMEOUT;
            h2_stream_works(stream);
        } else if (!stream->is_lost && stream->lane.owner) {
            sooner(&h->tick_due_ms, stream->in_due_ms);
            sooner(&h->tick_due_ms, stream->out_due_ms);
        }
    }
}

void h2_client_on_due(struct moon_link *link, uint64_t now_ms)
{
    struct moon_h2_link *h = link->h2;
    if (h->is_over)
        return;
    if (h->block_due_ms && now_ms >= h->block_due_ms) {
        moon_h2_client_lost(link, MOON_ETIMEOUT);
        return;
    }
    if (h->idle_due_ms && now_ms >= h->idle_due_ms) {
        moon_link_end(link);
        return;
    }
    if (h->tick_due_ms && now_ms >= h->tick_due_ms)
        tick(link, now_ms);
    if (!h2_silence_on_due(link, now_ms))
        return;
    moon_link_flush_later(link);
    h2_link_arm(link);
}
