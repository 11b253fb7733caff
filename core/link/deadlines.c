// The deadlines of a link: one timer, moved only when a nearer deadline appears, so that a busy connection hardly touches the
// wheel. Which deadlines there are: core/README.md.
#include "base/err.h"
#include "conf/settings.h"
#include "link/link_priv.h"
#include "link/resources.h"

#include <errno.h>

enum { WINDOW_MS = 10000 };

static const struct moon_fault head_too_slow = {408, "the request head did not come in time"};
static const struct moon_fault body_too_slow = {408, "the request body came too slowly"};

// The timer is moved only when the nearest deadline comes closer; a later one is noticed when the timer fires.
void moon_link_rearm(struct moon_link *link)
{
    uint64_t read_ms = link->read_deadline_ms, write_ms = link->write_deadline_ms;
    uint64_t next_ms = read_ms && (!write_ms || read_ms < write_ms) ? read_ms : write_ms;
    if (!next_ms || (moon_timer_is_armed(&link->timer) && link->timer.deadline_ms <= next_ms))
        return;
    moon_wheel_add(link->res->loop->wheel, &link->timer, next_ms);
}

static void window_over(struct moon_link *link)
{
    const struct moon_settings *settings = link->res->settings;
    uint32_t window_ms =
        settings->timeouts.body_ms < WINDOW_MS ? settings->timeouts.body_ms : WINDOW_MS;
    uint64_t due_len = settings->body_rate ? (uint64_t)settings->body_rate * window_ms / 1000 : 1;
    if (!link->was_paused && !link->is_held && link->window_len < due_len) {
        moon_h1_fault(link, &body_too_slow);
        return;
    }
    link->was_paused =
        link->is_paused || (link->splice_out && moon_splice_is_stuck(link->splice_out));
    link->window_len = 0;
    link->read_deadline_ms = moon_loop_now_ms(link->res->loop) + window_ms;
}

static void server_read_due(struct moon_link *link)
{
    switch ((enum link_read)link->read_state) {
    case LINK_READ_HEAD:
        if (moon_buffer_len(&link->in) == 0)
            moon_link_end(link);
        else
            moon_h1_fault(link, &head_too_slow);
        return;
    case LINK_READ_BODY:
        window_over(link);
        return;
    case LINK_READ_DONE:
        return;
    case LINK_READ_DISCARD:
        moon_link_end(link);
        return;
    }
}

// Silence counts where the peer has to speak: not while its request is held back here, nor after its whole response.
static void client_read_due(struct moon_link *link)
{
    if (!link->lane.owner)
        moon_link_end(link);
    else if (link->is_paused || (link->splice_out && link->was_paused) || link->is_held ||
             link->read_state == LINK_READ_DONE)
        moon_link_progress(link);
    else
        moon_link_fail(link, MOON_ETIMEOUT);
}

void moon_link_on_timer(struct moon_timer *timer)
{
    struct moon_link *link = MOON_CONTAINER(timer, struct moon_link, timer);
    uint64_t now_ms = moon_loop_now_ms(link->res->loop);
    if (link->write_deadline_ms && now_ms >= link->write_deadline_ms) {
        moon_link_fail(link, link->is_connecting ? -ETIMEDOUT : MOON_ETIMEOUT);
        return;
    }
    if (link->read_deadline_ms && now_ms >= link->read_deadline_ms) {
        link->read_deadline_ms = 0;
        if (link->h2 && link->read_state != LINK_READ_DISCARD)
            moon_h2_on_due(link, now_ms);
        else if (link->role == MOON_LINK_SERVER)
            server_read_due(link);
        else
            client_read_due(link);
    }
    if (!link->is_freed)
        moon_link_rearm(link);
}
