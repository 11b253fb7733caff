// Lanes: attaching to a link for one request and its response, and giving it back.
#include "link/link.h"

#include "base/err.h"
#include "conf/settings.h"
#include "link/link_priv.h"
#include "link/resources.h"

#include <errno.h>
#include <stdlib.h>

struct moon_link *moon_lane_link(struct moon_lane *lane)
{
    return lane->is_stream ? moon_h2_lane_link(lane) : MOON_CONTAINER(lane, struct moon_link, lane);
}

void moon_lane_attach(struct moon_lane *lane, const struct moon_lane_attachment *attachment)
{
    struct moon_link *link = moon_lane_link(lane);
    lane->events = attachment->events;
    lane->owner = attachment->owner;
    lane->arena = attachment->arena;
    lane->head = attachment->head;
    lane->request_method = attachment->request_method;
    if (lane->is_stream) {
        link->lane_count++;
        moon_h2_lane_attach(lane, attachment);
        return;
    }
    link->is_sent = false;
    link->has_input = false;
    link->has_output = false;
    link->is_held = false;
    link->lane_count++;
    if (link->role == MOON_LINK_CLIENT) {
        link->read_state = LINK_READ_HEAD;
        link->scan = (struct moon_head_scan){0};
        link->response_ms = attachment->response_ms;
        moon_link_progress(link);
        moon_link_rearm(link);
    }
}

void moon_lane_resume(struct moon_lane *lane)
{
    if (lane->is_stream) {
        moon_h2_lane_resume(lane);
        return;
    }
    struct moon_link *link = moon_lane_link(lane);
    if (!link->is_paused)
        return;
    link->is_paused = false;
    link->wants_read = true;
    moon_link_progress(link);
    moon_link_flush_later(link);
}

void moon_lane_hold(struct moon_lane *lane, bool is_held)
{
    if (lane->is_stream) {
        moon_h2_lane_hold(lane, is_held);
        return;
    }
    struct moon_link *link = moon_lane_link(lane);
    if (link->is_held == is_held)
        return;
    link->is_held = is_held;
    link->was_paused = true; // for a part of this window at least
    moon_link_progress(link);
}

size_t moon_lane_room(const struct moon_lane *lane)
{
    return lane->is_stream ? moon_h2_lane_room(lane) : SIZE_MAX;
}

bool moon_lane_is_read(const struct moon_lane *lane)
{
    if (lane->is_stream)
        return moon_h2_lane_is_read(lane);
    return MOON_CONTAINER(lane, const struct moon_link, lane)->read_state == LINK_READ_DONE;
}

bool moon_lane_has_input(const struct moon_lane *lane)
{
    if (lane->is_stream)
        return moon_h2_lane_has_input(lane);
    return MOON_CONTAINER(lane, const struct moon_link, lane)->has_input;
}

bool moon_lane_has_output(const struct moon_lane *lane)
{
    if (lane->is_stream)
        return moon_h2_lane_has_output(lane);
    return MOON_CONTAINER(lane, const struct moon_link, lane)->has_output;
}

void moon_lane_connect_within(struct moon_lane *lane, uint32_t ms)
{
    struct moon_link *link = moon_lane_link(lane);
    if (!link->is_connecting)
        return;
    link->write_deadline_ms = link->start_ms + ms;
    moon_link_rearm(link);
}

bool moon_lane_is_connected(const struct moon_lane *lane)
{
    return !moon_lane_link((struct moon_lane *)lane)->is_connecting;
}

static void server_lane_end(struct moon_link *link, bool reuse)
{
    bool is_read = link->read_state == LINK_READ_DONE;
    if (!is_read)
        link->must_linger = true;
    if (!reuse || !is_read || link->must_close || link->is_draining) {
        link->is_closing = true;
        // Requests that nobody will answer must not turn into a reset of the answer before them: some may lie here, or in the
        // socket, or be on their way, unless the client has said that there are none.
        if (moon_buffer_len(&link->in))
            link->must_linger = true;
        link->may_linger = link->lane.head->keep_alive;
        link->is_paused = !is_read;
        return;
    }
    link->read_state = LINK_READ_HEAD;
    link->scan = (struct moon_head_scan){0};
    link->is_paused = false;
    link->wants_read = true;
    link->read_deadline_ms =
        moon_loop_now_ms(link->res->loop) + link->res->settings->timeouts.idle_ms;
    moon_link_rearm(link);
    link->events->idle(link->owner);
}

static void client_lane_end(struct moon_link *link, bool reuse)
{
    bool is_fit = reuse && link->is_sent && link->read_state == LINK_READ_DONE &&
                  link->lane.head->keep_alive && !link->must_close && !link->peer_ended &&
                  !link->is_broken && !link->error && !link->splice_in && !link->splice_out &&
                  moon_buffer_len(&link->in) == 0 && moon_buffer_len(&link->out) == 0;
    if (!is_fit) {
        moon_link_close(link);
        link->events->closed(link->owner);
        return;
    }
    link->read_state = LINK_READ_HEAD;
    link->is_paused = false;
    link->lane.head = NULL;
    link->read_deadline_ms =
        moon_loop_now_ms(link->res->loop) + link->res->settings->timeouts.upstream_idle_ms;
    moon_link_rearm(link);
    link->events->idle(link->owner);
}

void moon_lane_end(struct moon_lane *lane, bool reuse)
{
    if (lane->is_stream) {
        moon_h2_lane_end(lane);
        return;
    }
    struct moon_link *link = moon_lane_link(lane);
    lane->owner = NULL;
    if (link->is_freed)
        return;
    moon_splice_unwish(link);
    link->is_full = false;
    if (link->role == MOON_LINK_CLIENT) {
        client_lane_end(link, reuse);
        return;
    }
    server_lane_end(link, reuse);
    moon_link_flush_later(link);
}

void moon_lane_abort(struct moon_lane *lane)
{
    if (lane->is_stream) {
        moon_h2_lane_abort(lane);
        return;
    }
    struct moon_link *link = moon_lane_link(lane);
    lane->owner = NULL;
    if (link->is_freed)
        return;
    moon_link_flush(link);
    bool looks_whole = link->role == MOON_LINK_SERVER && link->write_kind == MOON_BODY_CLOSE;
    if (looks_whole || moon_buffer_len(&link->out))
        moon_link_abort(link);
    else
        moon_link_close(link);
    link->events->closed(link->owner);
}

int moon_lane_take_stream(struct moon_lane *lane, struct moon_stream **stream,
                          struct moon_buffer *in, struct moon_buffer *out)
{
    if (lane->is_stream)
        return moon_h2_lane_take_stream(lane, stream);
    struct moon_link *link = moon_lane_link(lane);
    lane->owner = NULL;
    if (link->is_freed)
        return -EPIPE;
    bool is_fit = !link->error && !link->is_broken && !link->splice_in && !link->splice_out;
    if (is_fit) {
        *stream = link->stream;
        *in = link->in;
        *out = link->out;
        moon_stream_set_owner(link->stream, NULL, NULL);
        link->stream = NULL;
        link->in = link->out = (struct moon_buffer){0};
    }
    moon_link_close(link);
    link->events->closed(link->owner);
    return is_fit ? 0 : -EPIPE;
}
