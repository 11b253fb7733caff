// What a client may do that costs us more than it. Two buckets of tokens a connection (A40-A44): one for streams that end in a
// reset, one for frames that carry nothing. Work that is worth something fills the second: who moves data may ping.
#include "http/h2_priv.h"

enum {
    RESET_BURST_COUNT = 100,
    RESET_REFILL_COUNT = 50, // a second
    CONTROL_BURST_COUNT = 1000,
    CONTROL_REFILL_COUNT = 100,
    CREDIT_COUNT = 4, // a request or a DATA frame: a PING and a WINDOW_UPDATE or two are in order
    CONTINUATION_COUNT = 8,
};

void moon_h2_guard_init(struct moon_h2 *h2)
{
    h2->resets.left = RESET_BURST_COUNT;
    h2->control.left = CONTROL_BURST_COUNT;
}

void moon_h2_end(struct moon_h2 *h2, enum moon_h2_cause cause, uint32_t code)
{
    if (h2->has_terminated)
        return;
    h2->has_terminated = true;
    h2->cause = (uint8_t)cause;
    nghttp2_session_terminate_session(h2->session, code);
}

// Takes one token; false when there is none.
static bool take(struct moon_h2_bucket *bucket, uint64_t now_ms, int32_t refill, int32_t burst)
{
    if (bucket->left > 0) {
        bucket->left--;
        return true;
    }
    uint64_t gone_ms = now_ms - bucket->filled_ms;
    if (gone_ms < 100)
        return false;
    uint64_t more = gone_ms * (uint64_t)refill / 1000;
    bucket->filled_ms = now_ms;
    bucket->left = more < (uint64_t)burst ? (int32_t)more : burst;
    return bucket->left-- > 0;
}

static void give(struct moon_h2_bucket *bucket, int32_t count, int32_t burst)
{
    bucket->left = bucket->left + count < burst ? bucket->left + count : burst;
}

void moon_h2_guard_reset(struct moon_h2 *h2)
{
    if (!take(&h2->resets, h2->now_ms, RESET_REFILL_COUNT, RESET_BURST_COUNT))
        moon_h2_end(h2, MOON_H2_RESETS, NGHTTP2_ENHANCE_YOUR_CALM);
}

static void take_control(struct moon_h2 *h2)
{
    if (!take(&h2->control, h2->now_ms, CONTROL_REFILL_COUNT, CONTROL_BURST_COUNT))
        moon_h2_end(h2, MOON_H2_CONTROL, NGHTTP2_ENHANCE_YOUR_CALM);
}

void moon_h2_guard_sent_data(struct moon_h2 *h2)
{
    give(&h2->control, CREDIT_COUNT, CONTROL_BURST_COUNT);
}

void moon_h2_guard_data(struct moon_h2 *h2, const nghttp2_frame *frame)
{
    size_t len = frame->hd.length -
                 (frame->data.padlen < frame->hd.length ? frame->data.padlen : frame->hd.length);
    if (len > 0)
        give(&h2->control, CREDIT_COUNT, CONTROL_BURST_COUNT);
    else if (!(frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
        take_control(h2);
}

void moon_h2_guard_frame(struct moon_h2 *h2, const nghttp2_frame_hd *hd)
{
    switch (hd->type) {
    case NGHTTP2_DATA:
    case NGHTTP2_RST_STREAM:
        return; // judged when they are whole
    case NGHTTP2_HEADERS:
        h2->continuation_count = 0;
        give(&h2->control, CREDIT_COUNT, CONTROL_BURST_COUNT);
        return;
    case NGHTTP2_CONTINUATION:
        if (++h2->continuation_count > CONTINUATION_COUNT)
            moon_h2_end(h2, MOON_H2_CONTINUATIONS, NGHTTP2_ENHANCE_YOUR_CALM);
        return;
    default:
        take_control(h2);
    }
}
