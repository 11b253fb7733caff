// A lane that is a stream of an HTTP/2 link: what lane.c and link.c do for the one lane of HTTP/1.1.
#include "link/h2_link_priv.h"

#include "base/err.h"

#include <errno.h>

struct moon_link *moon_h2_lane_link(struct moon_lane *lane)
{
    return h2_stream_of(lane)->link;
}

// No body follows this response head, whatever its fields say.
static bool has_body(const struct moon_lane *lane, const struct moon_head *head,
                     const struct moon_framing *framing)
{
    if (head->status == 101) // a tunnel
        return true;
    if (head->status < 200 || head->status == 204 || head->status == 304 ||
        lane->head->method_id == MOON_METHOD_HEAD)
        return false;
    return framing->body == MOON_BODY_CHUNKED || framing->body == MOON_BODY_CLOSE ||
           (framing->body == MOON_BODY_LENGTH &&
            (framing->content_length > 0 || framing->may_trail));
}

int moon_h2_lane_send_head(struct moon_lane *lane, const struct moon_head *head,
                           const struct moon_framing *framing)
{
    struct h2_stream *stream = h2_stream_of(lane);
    struct moon_link *link = stream->link;
    if (link->role == MOON_LINK_CLIENT)
        return h2_client_send_head(stream, head, framing);
    if (stream->is_lost || stream->is_closed) // abort follows
        return 0;
    bool follows = has_body(lane, head, framing);
    stream->h2.is_tunnel = head->status == 101;
    int err = moon_h2_send_head(link->h2->h2, &stream->h2, head, framing, follows);
    if (err) {
        moon_h2_reset(link->h2->h2, &stream->h2, MOON_H2_INTERNAL_ERROR);
        stream->is_lost = true;
        stream->error = err;
        h2_stream_works(stream);
        return err;
    }
    if (head->status >= 200 && !follows)
        stream->h2.has_ended = true;
    moon_link_flush_later(link);
    return 0;
}

size_t moon_h2_lane_send_body(struct moon_lane *lane, struct moon_slice bytes)
{
    struct h2_stream *stream = h2_stream_of(lane);
    struct moon_link *link = stream->link;
    if (stream->is_lost || stream->is_closed)
        return bytes.len;
    size_t taken = 0;
    if (!link->is_connecting)
        taken = moon_h2_send_body(link->h2->h2, &stream->h2, bytes, &link->out);
    stream->out_len += (uint32_t)taken;
    if (taken < bytes.len && moon_list_is_empty(&stream->full))
        moon_list_add_before(&link->h2->full, &stream->full);
    if (link->role == MOON_LINK_CLIENT)
        h2_client_sent(stream, taken, taken < bytes.len);
    moon_link_flush_later(link);
    return taken;
}

size_t moon_h2_lane_room(const struct moon_lane *lane)
{
    const struct h2_stream *stream = (const struct h2_stream *)lane;
    if (stream->is_lost || stream->is_closed) // it is thrown away
        return SIZE_MAX;
    return moon_h2_window(stream->link->h2->h2, &stream->h2);
}

void moon_h2_lane_send_end(struct moon_lane *lane, const struct moon_headers *trailers)
{
    struct h2_stream *stream = h2_stream_of(lane);
    if (!stream->h2.has_ended && !stream->is_lost && !stream->is_closed)
        moon_h2_send_end(stream->link->h2->h2, &stream->h2, trailers);
    stream->h2.has_ended = true;
    moon_link_flush_later(stream->link);
}

void moon_h2_lane_resume(struct moon_lane *lane)
{
    struct h2_stream *stream = h2_stream_of(lane);
    if (!stream->is_paused || stream->is_upgrade)
        return;
    stream->is_paused = false;
    h2_stream_works(stream);
}

void moon_h2_lane_hold(struct moon_lane *lane, bool is_held)
{
    struct h2_stream *stream = h2_stream_of(lane);
    stream->is_held = is_held;
    stream->was_paused |= is_held;
}

bool moon_h2_lane_is_read(const struct moon_lane *lane)
{
    const struct h2_stream *stream = (const struct h2_stream *)lane;
    return stream->has_end || stream->is_upgrade;
}

// The response went through whole, or whoever made it gives up.
void moon_h2_lane_end(struct moon_lane *lane)
{
    struct h2_stream *stream = h2_stream_of(lane);
    struct moon_link *link = stream->link;
    bool is_client = link->role == MOON_LINK_CLIENT;
    bool is_done = is_client ? stream->h2.is_read && stream->h2.has_ended : stream->h2.has_ended;
    if (!is_done && !link->is_freed)
        moon_h2_reset(link->h2->h2, &stream->h2,
                      is_client ? MOON_H2_CANCEL : MOON_H2_INTERNAL_ERROR);
    h2_stream_leave(stream);
    moon_link_flush_later(link);
}

// The client can tell that the message is cut short, and goes on with its other streams.
void moon_h2_lane_abort(struct moon_lane *lane)
{
    struct h2_stream *stream = h2_stream_of(lane);
    struct moon_link *link = stream->link;
    if (link->role == MOON_LINK_CLIENT) {
        moon_h2_lane_end(lane);
        return;
    }
    if (!stream->h2.is_sent && !link->is_freed)
        moon_h2_reset(link->h2->h2, &stream->h2, MOON_H2_INTERNAL_ERROR);
    h2_stream_leave(stream);
    moon_link_flush_later(link);
}
