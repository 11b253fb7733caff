// Splice: the rest of a body moves from one link's socket to another's through a pipe, without being copied into the process.
// Only for length-delimited bodies of which a good deal is left, when nothing of either side is queued in memory.
//
//   from socket --pipe_in--> pipe --pipe_out--> to socket
//
// Owned by the `from` link; both links point to it, and whichever closes first cuts it. The pipe comes from the loop's pool.
#include "base/err.h"
#include "conf/settings.h"
#include "link/link_priv.h"
#include "link/resources.h"
#include "obs/counters.h"

#include <errno.h>
#include <stdlib.h>

enum {
    SPLICE_MIN_LEN = 32768,
    HEAD_SLACK_LEN = 128, // by how much the next head may be longer
};

struct moon_splice {
    struct moon_link *from, *to;
    struct moon_pipe *pipe;
    uint64_t pipe_len; // bytes in the pipe now
};

void moon_lane_splice(struct moon_lane *from, struct moon_lane *to)
{
    if (from->is_stream || to->is_stream)
        return;
    struct moon_link *source = moon_lane_link(from), *target = moon_lane_link(to);
    if (!source->res->settings->splice || !moon_stream_has_pipe(source->stream) ||
        !moon_stream_has_pipe(target->stream))
        return;
    moon_splice_unwish(source);
    source->splice_wish = target;
    target->wished_by = source;
}

void moon_splice_unwish(struct moon_link *link)
{
    if (link->splice_wish)
        link->splice_wish->wished_by = NULL;
    if (link->wished_by)
        link->wished_by->splice_wish = NULL;
    link->splice_wish = link->wished_by = NULL;
}

bool moon_splice_begin(struct moon_link *from)
{
    struct moon_link *to = from->splice_wish;
    uint64_t left = moon_body_skippable(&from->body);
    if (from->read_state != LINK_READ_BODY || left < SPLICE_MIN_LEN || left == UINT64_MAX) {
        moon_splice_unwish(from);
        return false;
    }
    if (moon_buffer_len(&from->in) || to->is_freed || to->splice_in || to->is_broken)
        return false;
    struct moon_pipe *pipe;
    struct moon_splice *splice = malloc(sizeof *splice);
    if (!splice || moon_loop_pipe_open(from->res->loop, &pipe) < 0) {
        free(splice);
        moon_splice_unwish(from);
        return false;
    }
    *splice = (struct moon_splice){from, to, pipe, 0};
    moon_count_up(&from->res->counters->pipes_live);
    moon_splice_unwish(from);
    from->splice_out = splice;
    to->splice_in = splice;
    if (from->head_len && left <= MOON_TURN_LEN)
        from->head_cap_len = (uint16_t)(from->head_len + HEAD_SLACK_LEN);
    moon_link_flush(to); // a head without much body is queued still; pipes are too few to wait
    moon_splice_run(splice);
    return true;
}

static void splice_free(struct moon_splice *splice)
{
    splice->from->splice_out = NULL;
    splice->to->splice_in = NULL;
    moon_loop_pipe_close(splice->from->res->loop, splice->pipe);
    moon_count_down(&splice->from->res->counters->pipes_live);
    free(splice);
}

void moon_splice_cut(struct moon_link *link)
{
    if (link->splice_out)
        splice_free(link->splice_out);
    if (link->splice_in)
        splice_free(link->splice_in);
    moon_splice_unwish(link);
}

// The body is through: the reader goes on behind it.
static void splice_end(struct moon_splice *splice)
{
    struct moon_link *from = splice->from;
    splice_free(splice);
    from->wants_read = true;
    moon_link_flush_later(from);
    struct moon_slice none = {NULL, 0};
    moon_h1_process(from, &none);
}

static void target_broken(struct moon_splice *splice, int err)
{
    struct moon_link *to = splice->to, *from = splice->from;
    splice_free(splice);
    if (to->role == MOON_LINK_SERVER) {
        moon_link_fail(to, err);
        return;
    }
    if (moon_link_is_alive_after(err)) {
        moon_link_fail(to, err);
        if (from->is_freed)
            return;
    } else {
        moon_link_broken(to, err); // what the client still sends is dropped
        moon_link_flush_later(to);
    }
    from->wants_read = true;
    moon_link_flush_later(from);
}

static void source_ended(struct moon_link *from, int err)
{
    from->peer_ended = true;
    if (err == MOON_EOF)
        moon_h1_eof(from);
    else
        moon_link_fail(from, err);
}

// True when bytes moved into the pipe. *err: the source's end or failure.
static bool fill(struct moon_splice *splice, int *err)
{
    struct moon_link *from = splice->from;
    uint64_t left = moon_body_skippable(&from->body);
    if (left == 0)
        return false;
    size_t want = left < MOON_TURN_LEN ? (size_t)left : MOON_TURN_LEN;
    ssize_t n = moon_stream_pipe_in(from->stream, splice->pipe, want);
    if (n < 0)
        *err = (int)n;
    if (n <= 0)
        return false;
    moon_body_skip(&from->body, (uint64_t)n);
    splice->pipe_len += (uint64_t)n;
    from->window_len += (uint32_t)n;
    moon_count_add(&from->res->counters->spliced_bytes_total, (uint64_t)n);
    from->was_paused = from->role == MOON_LINK_SERVER && from->was_paused;
    moon_link_progress(from);
    return true;
}

// True when bytes left the pipe. *err: the target's failure.
static bool drain(struct moon_splice *splice, int *err)
{
    struct moon_link *to = splice->to;
    ssize_t n = moon_stream_pipe_out(to->stream, splice->pipe, (size_t)splice->pipe_len);
    if (n < 0)
        *err = (int)n;
    if (n <= 0)
        return false;
    splice->pipe_len -= (uint64_t)n;
    to->write_deadline_ms = 0;
    moon_link_progress(to);
    return true;
}

// A target that takes nothing for too long is given up, a source that waits for it is not.
static void wait_for_target(struct moon_splice *splice)
{
    struct moon_link *to = splice->to;
    splice->from->was_paused = true;
    if (to->write_deadline_ms)
        return;
    to->write_deadline_ms = moon_loop_now_ms(to->res->loop) + to->res->settings->timeouts.body_ms;
    moon_link_rearm(to);
}

bool moon_splice_is_stuck(const struct moon_splice *splice)
{
    return splice->pipe_len > 0;
}

void moon_splice_run(struct moon_splice *splice)
{
    struct moon_link *from = splice->from, *to = splice->to;
    uint64_t turn_len = 0;
    int in_err = 0, out_err = 0;
    if (moon_buffer_len(&to->out) || to->is_connecting)
        return;
    for (;;) {
        bool filled = splice->pipe_len == 0 && !in_err && fill(splice, &in_err);
        turn_len += filled ? splice->pipe_len : 0;
        bool drained = splice->pipe_len && drain(splice, &out_err);
        if (out_err) {
            target_broken(splice, out_err);
            return;
        }
        if (splice->pipe_len == 0 && moon_body_skippable(&from->body) == 0) {
            splice_end(splice);
            return;
        }
        if (!filled && !drained)
            break;
        if (turn_len >= MOON_TURN_LEN) {
            moon_stream_again(from->stream);
            break;
        }
    }
    if (splice->pipe_len)
        wait_for_target(splice);
    else if (in_err)
        source_ended(from, in_err);
}
