// The silence of a whole connection to an upstream of HTTP/2, while streams are open: whoever has said nothing for a while is asked
// by PING, and who says nothing then either is gone (A49).
//
//   streams open -> silent for upstream_ping -> PING -> anything comes: it lives
//                                                    -> silent for as long again: lost, MOON_ESILENT
//
// Costs a store for each read, and no timer of its own. Servers of gRPC send away who pings several times in five minutes in which
// they send no response, so it is asked once, and then at that distance, until one comes.
#include "base/err.h"
#include "conf/settings.h"
#include "link/h2_link_priv.h"
#include "link/resources.h"

enum {
    REST_MS = 310000,
    LATE_MS = 500, // of a timer: this worker stood still, and what came lies unread
};

static uint32_t wait_ms(const struct moon_link *link)
{
    return link->res->settings->timeouts.upstream_ping_ms;
}

void h2_silence_arm(struct moon_link *link)
{
    struct moon_h2_link *h = link->h2;
    if (moon_list_is_empty(&h->streams)) {
        h->ping_due_ms = h->pinged_ms = 0;
        return;
    }
    if (h->ping_due_ms)
        return;
    h->heard_ms = moon_loop_now_ms(link->res->loop);
    h->ping_due_ms = h->heard_ms + wait_ms(link);
}

// It has been asked: true, it is gone.
static bool is_gone(struct moon_link *link, uint64_t now_ms)
{
    struct moon_h2_link *h = link->h2;
    bool is_late = now_ms - h->ping_due_ms > LATE_MS;
    if (h->heard_ms >= h->pinged_ms) {
        h->pinged_ms = 0;
        return false;
    }
    h->ping_due_ms = now_ms + wait_ms(link);
    // what is not taken off us has a deadline of its own, and the PING may be behind it
    return !is_late && moon_buffer_len(&link->out) == 0;
}

bool h2_silence_on_due(struct moon_link *link, uint64_t now_ms)
{
    struct moon_h2_link *h = link->h2;
    if (!h->ping_due_ms || now_ms < h->ping_due_ms)
        return true;
    if (h->pinged_ms && is_gone(link, now_ms)) {
        moon_h2_client_lost(link, MOON_ESILENT);
        return false;
    }
    if (h->pinged_ms)
        return true;
    uint32_t rest_ms = h->was_pinged && wait_ms(link) < REST_MS ? REST_MS : wait_ms(link);
    h->ping_due_ms = h->heard_ms + rest_ms;
    if (now_ms < h->ping_due_ms)
        return true;
    moon_h2_ping(h->h2);
    h->was_pinged = true;
    h->pinged_ms = now_ms;
    h->ping_due_ms = now_ms + wait_ms(link);
    return true;
}
