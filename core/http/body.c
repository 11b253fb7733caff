// Body framing, read strictly (RFC 9112 6.3, 7.1): one byte class per state, CRLF everywhere,
// nothing guessed. Data is handed out as slices of the input; chunk extensions are checked and
// dropped; trailer lines are collected, bounded, in a buffer of the reader, which is the only thing
// it owns.
//
//   SIZE --digits--> EXT* --CRLF--> CHUNK --CRLF--> SIZE ...
//   size 0: TRAILER lines --CRLF--> [TRAILER_GIVEN] --> OVER
#include "http/body.h"

#include "http/chars.h"

#include <stdlib.h>

const struct moon_body_limits moon_body_limits_default = {
    .extension_bytes = 4096,
    .trailer_bytes = 8192,
    .trailer_count = 64,
};

enum {
    OVER,
    BROKEN,
    LENGTH,
    UNTIL_CLOSE,
    SIZE_LF,
    EXT_NAME_START,
    EXT_NAME,
    EXT_VALUE_START,
    EXT_VALUE,
    EXT_QUOTED,
    EXT_ESCAPED,
    EXT_END,
    CHUNK,
    CHUNK_CR,
    CHUNK_LF,
    TRAILER_START,
    TRAILER_LINE,
    TRAILER_LINE_LF,
    TRAILER_END_LF,
    TRAILER_GIVEN,
    SIZE = 64, // SIZE + n: n digits of a chunk size were read
    SIZE_MAX_DIGITS = 16,
};

void moon_body_init(struct moon_body_reader *r, enum moon_body_kind kind, uint64_t content_length)
{
    *r = (struct moon_body_reader){.kind = kind};
    switch (kind) {
    case MOON_BODY_NONE:
        r->state = OVER;
        break;
    case MOON_BODY_LENGTH:
        r->left_len = content_length;
        r->state = content_length ? LENGTH : OVER;
        break;
    case MOON_BODY_CHUNKED:
        r->state = SIZE;
        break;
    case MOON_BODY_CLOSE:
        r->state = UNTIL_CLOSE;
        break;
    }
}

void moon_body_fini(struct moon_body_reader *r)
{
    free(r->trailer);
    r->trailer = NULL;
}

static uint8_t on_size(struct moon_body_reader *r, char c)
{
    unsigned digits = r->state - (unsigned)SIZE;
    if (moon_char_is(c, MOON_CHAR_HEX)) {
        r->left_len = digits ? r->left_len << 4 | moon_char_hex(c) : moon_char_hex(c);
        bool is_sane = digits < SIZE_MAX_DIGITS && r->left_len <= INT64_MAX;
        return is_sane ? (uint8_t)(r->state + 1) : BROKEN;
    }
    if (digits == 0)
        return BROKEN;
    if (c == '\r')
        return SIZE_LF;
    return c == ';' ? EXT_NAME_START : BROKEN;
}

// What may follow a whole chunk extension.
static uint8_t after_extension(char c)
{
    if (c == '\r')
        return SIZE_LF;
    return c == ';' ? EXT_NAME_START : BROKEN;
}

static uint8_t on_extension(struct moon_body_reader *r, char c)
{
    if (++r->extension_len > moon_body_limits_default.extension_bytes)
        return BROKEN;
    bool is_token = moon_char_is(c, MOON_CHAR_TOKEN);
    switch (r->state) {
    case EXT_NAME_START:
        return is_token ? EXT_NAME : BROKEN;
    case EXT_NAME:
        if (is_token || c == '=')
            return is_token ? EXT_NAME : EXT_VALUE_START;
        return after_extension(c);
    case EXT_VALUE_START:
        if (c == '"')
            return EXT_QUOTED;
        return is_token ? EXT_VALUE : BROKEN;
    case EXT_VALUE:
        return is_token ? EXT_VALUE : after_extension(c);
    case EXT_QUOTED:
        if (c == '"' || c == '\\')
            return c == '"' ? EXT_END : EXT_ESCAPED;
        return moon_char_is(c, MOON_CHAR_VALUE) ? EXT_QUOTED : BROKEN;
    case EXT_ESCAPED:
        return moon_char_is(c, MOON_CHAR_VALUE) ? EXT_QUOTED : BROKEN;
    default:
        return after_extension(c);
    }
}

static bool keep_trailer_byte(struct moon_body_reader *r, char c)
{
    const uint32_t cap = moon_body_limits_default.trailer_bytes;
    if (r->trailer_len >= cap)
        return false;
    if (!r->trailer)
        r->trailer = malloc(cap);
    if (!r->trailer)
        return false;
    r->trailer[r->trailer_len++] = c;
    return true;
}

static uint8_t on_trailer(struct moon_body_reader *r, char c)
{
    switch (r->state) {
    case TRAILER_START:
        if (c == '\r')
            return TRAILER_END_LF;
        if (!moon_char_is(c, MOON_CHAR_TOKEN) ||
            ++r->trailer_count > moon_body_limits_default.trailer_count)
            return BROKEN;
        return keep_trailer_byte(r, c) ? TRAILER_LINE : BROKEN;
    case TRAILER_LINE:
        if (c != '\r' && !moon_char_is(c, MOON_CHAR_VALUE))
            return BROKEN;
        if (!keep_trailer_byte(r, c))
            return BROKEN;
        return c == '\r' ? TRAILER_LINE_LF : TRAILER_LINE;
    case TRAILER_LINE_LF:
        return c == '\n' && keep_trailer_byte(r, c) ? TRAILER_START : BROKEN;
    default:
        if (c != '\n')
            return BROKEN;
        return r->trailer_count ? TRAILER_GIVEN : OVER;
    }
}

// The state after a byte that is not body data.
static uint8_t step(struct moon_body_reader *r, char c)
{
    if (r->state >= SIZE)
        return on_size(r, c);
    switch (r->state) {
    case SIZE_LF:
        if (c != '\n')
            return BROKEN;
        return r->left_len ? CHUNK : TRAILER_START;
    case CHUNK_CR:
        return c == '\r' ? CHUNK_LF : BROKEN;
    case CHUNK_LF:
        return c == '\n' ? SIZE : BROKEN;
    case TRAILER_START:
    case TRAILER_LINE:
    case TRAILER_LINE_LF:
    case TRAILER_END_LF:
        return on_trailer(r, c);
    default:
        return on_extension(r, c);
    }
}

static struct moon_slice take(struct moon_slice *in, uint64_t len)
{
    struct moon_slice taken = {in->ptr, in->len < len ? in->len : (size_t)len};
    *in = moon_slice_skip(*in, taken.len);
    return taken;
}

// Body bytes of the states that have them.
static enum moon_body_event take_data(struct moon_body_reader *r, struct moon_slice *in,
                                      struct moon_slice *data)
{
    if (in->len == 0)
        return MOON_BODY_MORE;
    *data = take(in, r->state == UNTIL_CLOSE ? UINT64_MAX : r->left_len);
    if (r->state == UNTIL_CLOSE)
        return MOON_BODY_DATA;
    r->left_len -= data->len;
    if (r->left_len == 0)
        r->state = r->state == CHUNK ? CHUNK_CR : OVER;
    return MOON_BODY_DATA;
}

enum moon_body_event moon_body_next(struct moon_body_reader *r, struct moon_slice *in,
                                    struct moon_slice *data)
{
    *data = (struct moon_slice){NULL, 0};
    for (;;) {
        switch (r->state) {
        case OVER:
            return MOON_BODY_END;
        case BROKEN:
            return MOON_BODY_BAD;
        case LENGTH:
        case UNTIL_CLOSE:
        case CHUNK:
            return take_data(r, in, data);
        case TRAILER_GIVEN:
            *data = (struct moon_slice){r->trailer, r->trailer_len};
            r->state = OVER;
            return MOON_BODY_TRAILERS;
        default:
            if (in->len == 0)
                return MOON_BODY_MORE;
            r->state = step(r, in->ptr[0]);
            *in = moon_slice_skip(*in, 1);
        }
    }
}

bool moon_body_eof(struct moon_body_reader *r)
{
    if (r->state == UNTIL_CLOSE)
        r->state = OVER;
    return r->state == OVER;
}

bool moon_body_is_over(const struct moon_body_reader *r)
{
    return r->state == OVER;
}

uint64_t moon_body_skippable(const struct moon_body_reader *r)
{
    if (r->state == UNTIL_CLOSE)
        return UINT64_MAX;
    return r->state == LENGTH ? r->left_len : 0;
}

void moon_body_skip(struct moon_body_reader *r, uint64_t len)
{
    if (r->state != LENGTH)
        return;
    r->left_len -= len;
    if (r->left_len == 0)
        r->state = OVER;
}

size_t moon_chunk_head_write(uint64_t len, char to[MOON_CHUNK_HEAD_LEN])
{
    static const char digits[] = "0123456789abcdef";
    size_t count = 1, at = 0;
    while (count < SIZE_MAX_DIGITS && len >> (count * 4))
        count++;
    while (count > 0)
        to[at++] = digits[len >> (--count * 4) & 15];
    to[at++] = '\r';
    to[at++] = '\n';
    return at;
}
