// What a client may do that costs us more than it. Two buckets of tokens a connection (A40-A44): one for streams that end in a
// reset, one for frames that carry nothing. Work that is worth something fills the second: who moves data may ping.
#include "http/h2_priv.h"

enum {
    RESET_BURST_COUNT = 100,
    RESET_SUSPECT_COUNT = 10, // of one who was ended a moment ago, at the beginning
    RESET_REFILL_COUNT = 50,  // a second
    CONTROL_BURST_COUNT = 1000,
    CONTROL_SUSPECT_COUNT = 100,
    CONTROL_REFILL_COUNT = 100,
    CREDIT_COUNT = 4, // a request or a DATA frame: a PING and a WINDOW_UPDATE or two are in order
    CONTINUATION_COUNT = 8,
    REFILL_MS = 100, // at most so often
};

void moon_h2_guard_init(struct moon_h2 *h2)
{
    bool is_suspect = h2->args.is_suspect;
    h2->resets.left = is_suspect ? RESET_SUSPECT_COUNT : RESET_BURST_COUNT;
    h2->control.left = is_suspect ? CONTROL_SUSPECT_COUNT : CONTROL_BURST_COUNT;
    h2->resets.filled_ms = h2->control.filled_ms = h2->args.now_ms;
    h2->payload_len = h2->args.is_client ? 0 : MOON_H2_PREFACE_LEN; // it is no frame
}

void moon_h2_end(struct moon_h2 *h2, enum moon_h2_cause cause, uint32_t code)
{
    if (h2->has_terminated)
        return;
    h2->has_terminated = true;
    h2->cause = (uint8_t)cause;
    nghttp2_session_terminate_session(h2->session, code);
}

// Takes one token; false when there is none. It fills with time, up to `burst`.
static bool take(struct moon_h2_bucket *bucket, uint64_t now_ms, int32_t refill, int32_t burst)
{
    uint64_t gone_ms = now_ms - bucket->filled_ms;
    if (gone_ms >= REFILL_MS) {
        uint64_t left = (uint64_t)bucket->left + gone_ms * (uint64_t)refill / 1000;
        bucket->left = left < (uint64_t)burst ? (int32_t)left : burst;
        bucket->filled_ms = now_ms;
    }
    if (bucket->left <= 0)
        return false;
    bucket->left--;
    return true;
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

static bool was_reset(const struct moon_h2 *h2, int32_t id)
{
    if (h2->reset_count > MOON_H2_RESET_COUNT) // some are forgotten
        return true;
    for (uint32_t i = 0; i < h2->reset_count; i++)
        if (h2->reset_ids[i] == id)
            return true;
    return false;
}

// nghttp2 keeps no closed streams, so it does not know these (RFC 9113 5.1, 5.1.1).
static void check_closed(struct moon_h2 *h2, int32_t id)
{
    if (!nghttp2_session_get_stream_user_data(h2->session, id) && !was_reset(h2, id))
        moon_h2_end(h2, MOON_H2_PROTOCOL, NGHTTP2_STREAM_CLOSED);
}

struct frame {
    uint32_t len;
    int32_t id;
    uint8_t type;
};

static struct frame parse(const uint8_t head[9]) // RFC 9113 4.1
{
    return (struct frame){.len = (uint32_t)head[0] << 16 | (uint32_t)head[1] << 8 | head[2],
                          .type = head[3],
                          .id = (int32_t)((head[5] & 0x7fu) << 24 | (uint32_t)head[6] << 16 |
                                          (uint32_t)head[7] << 8 | head[8])};
}

static bool is_message(const struct frame *frame)
{
    return frame->type == NGHTTP2_DATA || frame->type == NGHTTP2_HEADERS;
}

// Part of a message that began earlier, or should have.
static bool is_further(const struct moon_h2 *h2, const struct frame *frame)
{
    return is_message(frame) && frame->id <= h2->seen_id && frame->id % 2 == 1;
}

static void check_frame(struct moon_h2 *h2, const struct frame *frame)
{
    if (is_further(h2, frame))
        check_closed(h2, frame->id);
    switch (frame->type) {
    case NGHTTP2_HEADERS:
        if (frame->id > h2->seen_id)
            h2->seen_id = frame->id;
        h2->continuation_count = 0;
        give(&h2->control, CREDIT_COUNT, CONTROL_BURST_COUNT);
        return;
    case NGHTTP2_DATA:       // judged when its padding is known
    case NGHTTP2_RST_STREAM: // when it has met its stream
        return;
    case NGHTTP2_CONTINUATION:
        if (++h2->continuation_count > CONTINUATION_COUNT)
            moon_h2_end(h2, MOON_H2_CONTINUATIONS, NGHTTP2_ENHANCE_YOUR_CALM);
        return;
    default:
        take_control(h2);
    }
}

size_t moon_h2_guard_walk(struct moon_h2 *h2, struct moon_slice bytes)
{
    size_t at = 0;
    while (at < bytes.len && !h2->has_terminated) {
        size_t left = bytes.len - at;
        size_t len = left < h2->payload_len ? left : h2->payload_len;
        h2->payload_len -= (uint32_t)len;
        at += len;
        size_t need = sizeof h2->frame_head - h2->frame_head_len, start = at;
        len = bytes.len - at < need ? bytes.len - at : need;
        if (len)
            memcpy(h2->frame_head + h2->frame_head_len, bytes.ptr + at, len);
        h2->frame_head_len += (uint8_t)len;
        at += len;
        if (len < need)
            break;
        struct frame frame = parse(h2->frame_head);
        h2->frame_head_len = 0;
        if (is_further(h2, &frame) && start > 0) // when nghttp2 knows all that came before it
            return start;
        h2->payload_len = frame.len;
        check_frame(h2, &frame);
    }
    return at;
}
