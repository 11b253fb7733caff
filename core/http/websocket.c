// See websocket.h. A head is collected byte by byte, because it may come in any pieces; payload is passed on as it lies.
//
//   head --complete--> payload --left_len 0--> end --> head        any --rule broken--> bad
#include "http/websocket.h"

enum { STATE_HEAD, STATE_PAYLOAD, STATE_BAD };

enum { FINAL_BIT = 0x80, RESERVED_BITS = 0x70, OPCODE_BITS = 0x0f, MASK_BIT = 0x80 };

void moon_websocket_init(struct moon_websocket_reader *r, unsigned flags)
{
    *r = (struct moon_websocket_reader){.state = STATE_HEAD, .flags = (uint8_t)flags};
}

static unsigned length_bytes(unsigned short_len)
{
    return short_len == 126 ? 2 : short_len == 127 ? 8 : 0;
}

// Bytes that the head has, as far as it is known.
static unsigned head_needs(const struct moon_websocket_reader *r)
{
    if (r->head_len < 2)
        return 2;
    return 2 + length_bytes(r->head[1] & 0x7fu) + (r->head[1] & MASK_BIT ? 4 : 0);
}

// The first two bytes. False: they cannot begin a frame.
static bool check_start(const struct moon_websocket_reader *r)
{
    unsigned opcode = r->head[0] & OPCODE_BITS, short_len = r->head[1] & 0x7fu;
    bool is_masked = r->head[1] & MASK_BIT, is_final = r->head[0] & FINAL_BIT;
    bool is_known = opcode <= MOON_WEBSOCKET_BINARY ||
                    (opcode >= MOON_WEBSOCKET_CLOSE && opcode <= MOON_WEBSOCKET_PONG);
    if (is_masked != !!(r->flags & MOON_WEBSOCKET_IS_MASKED))
        return false;
    if (!(r->flags & MOON_WEBSOCKET_IS_EXTENDED) && (r->head[0] & RESERVED_BITS || !is_known))
        return false;
    if (moon_websocket_is_control(opcode))
        return is_final && short_len <= MOON_WEBSOCKET_CONTROL_MAX_LEN;
    if (!is_known)
        return true;
    return (opcode == MOON_WEBSOCKET_CONTINUATION) == r->is_in_message;
}

// The length, in as few bytes as it takes (RFC 6455 5.2).
static bool read_length(struct moon_websocket_reader *r)
{
    unsigned short_len = r->head[1] & 0x7fu, count = length_bytes(short_len);
    uint64_t len = 0;
    for (unsigned i = 0; i < count; i++)
        len = len << 8 | r->head[2 + i];
    r->left_len = count ? len : short_len;
    if (count == 2)
        return len > 125;
    return count == 0 || (len > 65535 && !(len >> 63));
}

static enum moon_websocket_event bad(struct moon_websocket_reader *r)
{
    r->state = STATE_BAD;
    return MOON_WEBSOCKET_BAD;
}

static enum moon_websocket_event begin_frame(struct moon_websocket_reader *r)
{
    if (!read_length(r))
        return bad(r);
    unsigned mask_at = r->head_len - 4u;
    if (r->head[1] & MASK_BIT)
        memcpy(r->mask, r->head + mask_at, 4);
    r->opcode = r->head[0] & OPCODE_BITS;
    r->is_final = r->head[0] & FINAL_BIT;
    if (r->opcode <= MOON_WEBSOCKET_BINARY)
        r->is_in_message = !r->is_final;
    r->told_len = 0;
    r->head_len = 0;
    r->state = STATE_PAYLOAD;
    return MOON_WEBSOCKET_FRAME;
}

static enum moon_websocket_event read_head(struct moon_websocket_reader *r, struct moon_slice *in)
{
    while (in->len) {
        r->head[r->head_len++] = (uint8_t)in->ptr[0];
        *in = moon_slice_skip(*in, 1);
        if (r->head_len == 2 && !check_start(r))
            return bad(r);
        if (r->head_len == head_needs(r))
            return begin_frame(r);
    }
    return MOON_WEBSOCKET_MORE;
}

enum moon_websocket_event moon_websocket_next(struct moon_websocket_reader *r,
                                              struct moon_slice *in, struct moon_slice *data)
{
    *data = (struct moon_slice){in->ptr, 0};
    if (r->state == STATE_BAD)
        return MOON_WEBSOCKET_BAD;
    if (r->state == STATE_HEAD)
        return read_head(r, in);
    if (r->left_len == 0) {
        r->state = STATE_HEAD;
        return MOON_WEBSOCKET_END;
    }
    if (in->len == 0)
        return MOON_WEBSOCKET_MORE;
    data->len = in->len < r->left_len ? in->len : (size_t)r->left_len;
    *in = moon_slice_skip(*in, data->len);
    r->left_len -= data->len;
    r->told_len += data->len;
    return MOON_WEBSOCKET_DATA;
}

void moon_websocket_copy(const struct moon_websocket_reader *r, struct moon_slice data, char *to)
{
    if (data.len == 0)
        return;
    memmove(to, data.ptr, data.len);
    if (r->flags & MOON_WEBSOCKET_IS_MASKED)
        moon_websocket_mask(r->mask, r->told_len - data.len, to, data.len);
}

bool moon_websocket_is_at_border(const struct moon_websocket_reader *r)
{
    return (r->state == STATE_HEAD && r->head_len == 0) ||
           (r->state == STATE_PAYLOAD && r->left_len == 0);
}

uint64_t moon_websocket_skippable(const struct moon_websocket_reader *r)
{
    return r->state == STATE_PAYLOAD ? r->left_len : 0;
}

void moon_websocket_skip(struct moon_websocket_reader *r, uint64_t len)
{
    r->left_len -= len;
    r->told_len += len;
}

// ---- writing

size_t moon_websocket_head_write(const struct moon_websocket_frame *frame,
                                 char to[static MOON_WEBSOCKET_HEAD_MAX_LEN])
{
    unsigned count = frame->len > 65535 ? 8 : frame->len > 125 ? 2 : 0;
    size_t len = 0;
    to[len++] = (char)((frame->is_final ? FINAL_BIT : 0u) | frame->opcode);
    to[len++] = (char)((frame->mask ? MASK_BIT : 0u) | (count == 8   ? 127u
                                                        : count == 2 ? 126u
                                                                     : (unsigned)frame->len));
    for (unsigned i = count; i > 0; i--)
        to[len++] = (char)(frame->len >> (8 * (i - 1)));
    if (frame->mask) {
        memcpy(to + len, frame->mask, 4);
        len += 4;
    }
    return len;
}

void moon_websocket_mask(const uint8_t mask[static 4], uint64_t offset, char *bytes, size_t len)
{
    uint8_t turned[8];
    uint64_t word, eight;
    size_t i = 0;
    for (unsigned k = 0; k < 8; k++)
        turned[k] = mask[(offset + k) & 3];
    memcpy(&word, turned, 8);
    for (; i + 8 <= len; i += 8) {
        memcpy(&eight, bytes + i, 8);
        eight ^= word;
        memcpy(bytes + i, &eight, 8);
    }
    for (; i < len; i++)
        bytes[i] = (char)((uint8_t)bytes[i] ^ turned[i & 7]);
}

size_t moon_websocket_close_write(uint16_t code, struct moon_slice reason, const uint8_t *mask,
                                  char to[static MOON_WEBSOCKET_CLOSE_MAX_LEN])
{
    if (reason.len > MOON_WEBSOCKET_REASON_MAX_LEN)
        reason.len = MOON_WEBSOCKET_REASON_MAX_LEN;
    while (reason.len && !moon_websocket_text_is_valid(reason)) // cut inside of a character
        reason.len--;
    size_t payload_len = code == MOON_WEBSOCKET_NO_CODE ? 0 : 2 + reason.len;
    struct moon_websocket_frame frame = {MOON_WEBSOCKET_CLOSE, true, payload_len, mask};
    size_t len = moon_websocket_head_write(&frame, to);
    if (payload_len == 0)
        return len;
    to[len] = (char)(code >> 8);
    to[len + 1] = (char)code;
    if (reason.len)
        memcpy(to + len + 2, reason.ptr, reason.len);
    if (mask)
        moon_websocket_mask(mask, 0, to + len, payload_len);
    return len + payload_len;
}

// ---- Close, and text

bool moon_websocket_code_is_valid(unsigned code)
{
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
           (code >= 3000 && code <= 4999);
}

bool moon_websocket_close_parse(struct moon_slice payload, uint16_t *code,
                                struct moon_slice *reason)
{
    *code = MOON_WEBSOCKET_NO_CODE;
    *reason = (struct moon_slice){"", 0};
    if (payload.len == 0)
        return true;
    if (payload.len < 2)
        return false;
    *code = (uint16_t)((uint8_t)payload.ptr[0] << 8 | (uint8_t)payload.ptr[1]);
    *reason = moon_slice_skip(payload, 2);
    return moon_websocket_code_is_valid(*code) && moon_websocket_text_is_valid(*reason);
}

// The length of the character at the start of `s`, 0: there is none.
static size_t character_len(struct moon_slice s)
{
    uint8_t first = (uint8_t)s.ptr[0], second = s.len > 1 ? (uint8_t)s.ptr[1] : 0;
    size_t len = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    if (len == 0 || len > s.len || first > 0xf4)
        return 0;
    if ((first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f) ||
        (first == 0xf0 && second < 0x90) || (first == 0xf4 && second > 0x8f))
        return 0;
    for (size_t i = 1; i < len; i++)
        if (((uint8_t)s.ptr[i] & 0xc0) != 0x80)
            return 0;
    return len;
}

bool moon_websocket_text_is_valid(struct moon_slice text)
{
    while (text.len) {
        uint64_t eight;
        if (text.len >= 8) {
            memcpy(&eight, text.ptr, 8);
            if (!(eight & UINT64_C(0x8080808080808080))) {
                text = moon_slice_skip(text, 8);
                continue;
            }
        }
        size_t len = character_len(text);
        if (len == 0)
            return false;
        text = moon_slice_skip(text, len);
    }
    return true;
}
