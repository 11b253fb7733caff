// The deadlines of a link that speaks HTTP/2: those of the connection, and while streams are open a tick that looks at each. A
// stream must move by bytes, however many frames come (A43, A45).
#include "base/err.h"
#include "conf/settings.h"
#include "link/h2_link_priv.h"
#include "link/resources.h"
#include "obs/counters.h"

enum {
    WINDOW_MS = 10000, // of a request body's rate
    TICK_MIN_MS = 20,
    TICK_MAX_MS = 2500,
};

static const struct moon_fault body_too_slow = {408, "the request body came too slowly"};

static const struct moon_settings *settings_of(const struct moon_link *link)
{
    return link->res->settings;
}

uint32_t h2_body_window_ms(const struct moon_link *link)
{
    uint32_t ms = settings_of(link)->timeouts.body_ms;
    return ms < WINDOW_MS ? ms : WINDOW_MS;
}

static void sooner(uint64_t *at, uint64_t due_ms)
{
    if (due_ms && (!*at || due_ms < *at))
        *at = due_ms;
}

void h2_link_arm(struct moon_link *link)
{
    struct moon_h2_link *h = link->h2;
    uint64_t now_ms = moon_loop_now_ms(link->res->loop), next_ms = 0;
    if (link->is_freed || h->is_over)
        return;
    if (link->role == MOON_LINK_CLIENT) {
        h2_client_arm(link);
        return;
    }
    if (moon_list_is_empty(&h->streams)) {
        h->tick_due_ms = 0;
        if (!h->idle_due_ms)
            h->idle_due_ms = now_ms + settings_of(link)->timeouts.idle_ms;
    } else {
        uint32_t tick_ms = h2_body_window_ms(link) / 4;
        tick_ms = tick_ms < TICK_MIN_MS   ? TICK_MIN_MS
                  : tick_ms > TICK_MAX_MS ? TICK_MAX_MS
                                          : tick_ms;
        h->idle_due_ms = 0;
        if (!h->tick_due_ms)
            h->tick_due_ms = now_ms + tick_ms;
    }
    if (!moon_h2_is_in_block(h->h2))
        h->block_due_ms = 0;
    else if (!h->block_due_ms)
        h->block_due_ms = now_ms + settings_of(link)->timeouts.request_head_ms;
    sooner(&next_ms, h->idle_due_ms);
    sooner(&next_ms, h->tick_due_ms);
    sooner(&next_ms, h->block_due_ms);
    sooner(&next_ms, h->drain_due_ms);
    link->read_deadline_ms = next_ms;
    moon_link_rearm(link);
}

// A request's body: as in HTTP/1.1, so many bytes a second on average, unless it is we who do not take them.
static void judge_request(struct h2_stream *stream, uint64_t now_ms)
{
    struct moon_link *link = stream->link;
    uint32_t window_ms = h2_body_window_ms(link), rate = settings_of(link)->body_rate;
    if (!stream->in_due_ms || now_ms < stream->in_due_ms || !stream->lane.owner ||
        stream->has_fault || stream->has_end)
        return;
    uint64_t due_len = rate ? (uint64_t)rate * window_ms / 1000 : 1;
    bool is_ours = stream->was_paused || stream->is_held;
    if (!is_ours && stream->in_len < due_len) {
        h2_stream_fault(stream, &body_too_slow);
        return;
    }
    stream->was_paused = stream->is_paused;
    stream->in_len = 0;
    stream->in_due_ms = now_ms + window_ms;
}

// A response: while the client's windows hold it back it must move by bytes, however many frames come (A43, A45).
static void judge_response(struct h2_stream *stream, uint64_t now_ms)
{
    struct moon_link *link = stream->link;
    uint32_t window_ms = settings_of(link)->timeouts.body_ms, rate = settings_of(link)->body_rate;
    bool waits = !moon_list_is_empty(&stream->full) ||
                 (stream->h2.has_ended && !stream->h2.is_sent && !stream->is_closed);
    if (!waits) {
        stream->out_due_ms = 0;
        return;
    }
    if (!stream->out_due_ms) {
        stream->out_due_ms = now_ms + window_ms;
        stream->out_len = 0;
        return;
    }
    if (now_ms < stream->out_due_ms)
        return;
    if (stream->out_len < (rate ? (uint64_t)rate * window_ms / 1000 : 1)) {
        moon_count_up(&link->res->counters->h2_streams_stalled_total);
        moon_h2_reset(link->h2->h2, &stream->h2, MOON_H2_CANCEL);
        stream->is_lost = true;
        stream->error = MOON_ETIMEOUT;
        h2_stream_works(stream);
        return;
    }
    stream->out_due_ms = now_ms + window_ms;
    stream->out_len = 0;
}

static void tick(struct moon_link *link, uint64_t now_ms)
{
    struct moon_list *all = &link->h2->streams;
    link->h2->tick_due_ms = 0;
    for (struct moon_list *at = all->next, *next; at != all && !link->is_freed; at = next) {
        struct h2_stream *stream = MOON_CONTAINER(at, struct h2_stream, node);
        next = at->next; // a fault ends no other stream
        if (stream->is_lost)
            continue;
        judge_response(stream, now_ms);
        judge_request(stream, now_ms);
    }
}

static bool is_due(uint64_t *at, uint64_t now_ms)
{
    if (!*at || now_ms < *at)
        return false;
    *at = 0;
    return true;
}

void moon_h2_on_due(struct moon_link *link, uint64_t now_ms)
{
    struct moon_h2_link *h = link->h2;
    if (link->role == MOON_LINK_CLIENT) {
        h2_client_on_due(link, now_ms);
        return;
    }
    if (is_due(&h->block_due_ms, now_ms)) {
        moon_h2_terminate(h->h2, MOON_H2_ENHANCE_YOUR_CALM);
        h2_link_end(link, MOON_ETIMEOUT);
        return;
    }
    if (is_due(&h->drain_due_ms, now_ms) || is_due(&h->idle_due_ms, now_ms))
        h2_link_drain_now(link);
    if (is_due(&h->tick_due_ms, now_ms))
        tick(link, now_ms);
    if (link->is_freed)
        return;
    moon_link_flush_later(link);
    h2_link_arm(link);
}
