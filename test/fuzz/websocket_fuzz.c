// WebSocket frames: one piece and many give the same frames; what was read and written again reads the same; the reader never
// passes more than a frame has. Input: one byte of choices, one of seed, the frames.
#include "fuzz.h"

#include "http/websocket.h"

enum { MAX_FRAMES = 4096 };

struct frame {
    size_t payload_at, payload_len;
    uint8_t opcode;
    bool is_final, is_whole;
};

struct outcome {
    struct frame *frames;
    size_t frame_count;
    char *payload; // of all frames, unmasked
    size_t payload_len, taken_len;
    bool is_bad, is_at_border;
};

static void note(struct outcome *o, const struct moon_websocket_reader *r,
                 enum moon_websocket_event event, struct moon_slice data)
{
    struct frame *last = o->frame_count ? &o->frames[o->frame_count - 1] : NULL;
    if (event == MOON_WEBSOCKET_FRAME)
        o->frames[o->frame_count++] =
            (struct frame){o->payload_len, 0, r->opcode, r->is_final, false};
    HOLDS(event != MOON_WEBSOCKET_DATA || (last && !last->is_whole && data.len > 0));
    if (event == MOON_WEBSOCKET_DATA) {
        moon_websocket_copy(r, data, o->payload + o->payload_len);
        o->payload_len += data.len;
        last->payload_len += data.len;
        HOLDS(last->payload_len == r->told_len);
        HOLDS(!moon_websocket_is_control(last->opcode) ||
              last->payload_len + r->left_len <= MOON_WEBSOCKET_CONTROL_MAX_LEN);
    }
    if (event == MOON_WEBSOCKET_END) {
        HOLDS(last && !last->is_whole);
        last->is_whole = true;
    }
}

// `seed` 0: one piece.
static struct outcome read_all(struct moon_slice bytes, unsigned flags, uint32_t seed)
{
    struct outcome o = {.frames = malloc(MAX_FRAMES * sizeof(struct frame)),
                        .payload = malloc(bytes.len + 1)};
    struct moon_websocket_reader r;
    moon_websocket_init(&r, flags);
    for (bool is_going = true; is_going && o.frame_count < MAX_FRAMES;) {
        size_t left = bytes.len - o.taken_len, piece = left;
        if (seed) {
            seed = seed * 1103515245 + 12345;
            piece = left < (seed >> 16) % 7 ? left : (seed >> 16) % 7;
        }
        char *copy = malloc(piece + 1);
        if (piece)
            memcpy(copy, bytes.ptr + o.taken_len, piece);
        struct moon_slice in = {copy, piece}, data;
        enum moon_websocket_event event = moon_websocket_next(&r, &in, &data);
        HOLDS(in.len <= piece);
        o.taken_len += piece - in.len;
        HOLDS(event != MOON_WEBSOCKET_MORE || in.len == 0);
        note(&o, &r, event, data);
        free(copy);
        o.is_bad = event == MOON_WEBSOCKET_BAD;
        is_going = !o.is_bad && (event != MOON_WEBSOCKET_MORE || o.taken_len < bytes.len);
    }
    o.is_at_border = moon_websocket_is_at_border(&r);
    return o;
}

static void outcome_free(struct outcome *o)
{
    free(o->frames);
    free(o->payload);
}

static void check_same(const struct outcome *a, const struct outcome *b)
{
    HOLDS(a->is_bad == b->is_bad && a->frame_count == b->frame_count);
    HOLDS(a->payload_len == b->payload_len && memcmp(a->payload, b->payload, a->payload_len) == 0);
    for (size_t i = 0; i < a->frame_count; i++)
        HOLDS(a->frames[i].opcode == b->frames[i].opcode &&
              a->frames[i].payload_len == b->frames[i].payload_len);
}

// Whole frames, written for the other role.
static void write_again(const struct outcome *o, bool to_server, uint32_t seed)
{
    size_t len = 0, count = 0;
    char *bytes = malloc(o->payload_len + (o->frame_count + 1) * MOON_WEBSOCKET_HEAD_MAX_LEN);
    for (; count < o->frame_count && o->frames[count].is_whole; count++) {
        const struct frame *frame = &o->frames[count];
        uint8_t mask[4] = {(uint8_t)seed, (uint8_t)(seed >> 3), (uint8_t)count, 7};
        struct moon_websocket_frame head = {(enum moon_websocket_opcode)frame->opcode,
                                            frame->is_final, frame->payload_len,
                                            to_server ? mask : NULL};
        len += moon_websocket_head_write(&head, bytes + len);
        if (frame->payload_len)
            memcpy(bytes + len, o->payload + frame->payload_at, frame->payload_len);
        if (to_server)
            moon_websocket_mask(mask, 0, bytes + len, frame->payload_len);
        len += frame->payload_len;
    }
    struct outcome again =
        read_all((struct moon_slice){bytes, len}, to_server ? MOON_WEBSOCKET_IS_MASKED : 0, 0);
    HOLDS(!again.is_bad && again.is_at_border && again.frame_count == count);
    HOLDS(memcmp(again.payload, o->payload, again.payload_len) == 0);
    outcome_free(&again);
    free(bytes);
}

static void check_close(struct moon_slice in)
{
    char frame[MOON_WEBSOCKET_CLOSE_MAX_LEN];
    struct moon_slice reason;
    uint16_t code;
    if (!moon_websocket_close_parse(in, &code, &reason) ||
        reason.len > MOON_WEBSOCKET_REASON_MAX_LEN)
        return;
    size_t len = moon_websocket_close_write(code, reason, NULL, frame);
    HOLDS(len == 2 + in.len && memcmp(frame + 2, in.ptr, in.len) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct moon_slice in = {(const char *)bytes, len};
    uint8_t choice = fuzz_choice(&in), seed = fuzz_choice(&in);
    unsigned flags = choice & (MOON_WEBSOCKET_IS_MASKED | MOON_WEBSOCKET_IS_EXTENDED);
    struct outcome whole = read_all(in, flags, 0), pieces = read_all(in, flags, seed + 1u);
    check_same(&whole, &pieces);
    if (!(flags & MOON_WEBSOCKET_IS_EXTENDED))
        write_again(&whole, choice & 4, seed);
    check_close(in);
    outcome_free(&whole);
    outcome_free(&pieces);
    return 0;
}
