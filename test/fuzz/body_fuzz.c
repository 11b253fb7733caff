// Body framing: a body in one piece and in many gives the same bytes, trailers and end; what is
// read and chunked again reads the same. Input: one byte of choices, one of seed, the body.
#include "fuzz.h"

#include "http/body.h"

struct outcome {
    char *body;
    size_t body_len, taken_len;
    char *trailer;
    size_t trailer_len;
    enum moon_body_event last;
};

static void keep(char *to, size_t *len, struct moon_slice data)
{
    if (data.len)
        memcpy(to + *len, data.ptr, data.len);
    *len += data.len;
}

// `seed` 0: one piece.
static struct outcome read_all(struct moon_slice bytes, enum moon_body_kind kind, uint64_t length,
                               uint32_t seed)
{
    struct outcome o = {
        .body = malloc(bytes.len + 1), .trailer = malloc(bytes.len + 1), .last = MOON_BODY_MORE};
    struct moon_body_reader r;
    moon_body_init(&r, kind, length);
    for (bool is_going = true; is_going;) {
        size_t left = bytes.len - o.taken_len, piece = left;
        if (seed) {
            seed = seed * 1103515245 + 12345;
            piece = left < (seed >> 16) % 7 ? left : (seed >> 16) % 7;
        }
        char *copy = malloc(piece + 1);
        memcpy(copy, bytes.ptr + o.taken_len, piece);
        struct moon_slice in = {copy, piece}, data;
        o.last = moon_body_next(&r, &in, &data);
        HOLDS(in.len <= piece);
        o.taken_len += piece - in.len;
        HOLDS(o.last != MOON_BODY_MORE || in.len == 0);
        HOLDS(o.last != MOON_BODY_DATA ||
              (data.len > 0 && data.ptr >= copy && data.ptr + data.len <= copy + piece));
        if (o.last == MOON_BODY_DATA)
            keep(o.body, &o.body_len, data);
        if (o.last == MOON_BODY_TRAILERS)
            keep(o.trailer, &o.trailer_len, data);
        free(copy);
        is_going = o.last == MOON_BODY_DATA || o.last == MOON_BODY_TRAILERS ||
                   (o.last == MOON_BODY_MORE && o.taken_len < bytes.len);
    }
    HOLDS(moon_body_is_over(&r) == (o.last == MOON_BODY_END) || o.last == MOON_BODY_MORE);
    moon_body_fini(&r);
    return o;
}

static void outcome_free(struct outcome *o)
{
    free(o->body);
    free(o->trailer);
}

static void check_same(const struct outcome *a, const struct outcome *b)
{
    HOLDS(a->last == b->last && a->taken_len == b->taken_len);
    HOLDS(a->body_len == b->body_len && memcmp(a->body, b->body, a->body_len) == 0);
    HOLDS(a->trailer_len == b->trailer_len && memcmp(a->trailer, b->trailer, a->trailer_len) == 0);
}

static void check_trailers(struct moon_slice lines)
{
    struct fuzz_arena f = fuzz_arena_new();
    struct moon_headers h;
    if (moon_trailers_parse(f.arena, lines, &h) == 0) {
        for (uint32_t i = 0; i < h.count; i++) {
            HOLDS(moon_header_name_is_valid(h.fields[i].name) &&
                  moon_header_value_is_valid(h.fields[i].value));
            HOLDS(h.fields[i].id != MOON_H_CONTENT_LENGTH &&
                  h.fields[i].id != MOON_H_TRANSFER_ENCODING);
        }
    }
    fuzz_arena_free(&f);
}

static void chunk_again(const struct outcome *o)
{
    char *text = malloc(o->body_len + MOON_CHUNK_HEAD_LEN + 16);
    size_t len = 0;
    if (o->body_len) {
        len = moon_chunk_head_write(o->body_len, text);
        memcpy(text + len, o->body, o->body_len);
        len += o->body_len;
        memcpy(text + len, "\r\n", 2);
        len += 2;
    }
    memcpy(text + len, "0\r\n\r\n", 5);
    struct outcome again = read_all((struct moon_slice){text, len + 5}, MOON_BODY_CHUNKED, 0, 0);
    HOLDS(again.last == MOON_BODY_END && again.body_len == o->body_len);
    HOLDS(memcmp(again.body, o->body, o->body_len) == 0);
    outcome_free(&again);
    free(text);
}

static void check_skip(uint64_t length)
{
    struct moon_body_reader r;
    moon_body_init(&r, MOON_BODY_LENGTH, length);
    moon_body_skip(&r, moon_body_skippable(&r));
    HOLDS(moon_body_is_over(&r) && moon_body_eof(&r));
    moon_body_init(&r, MOON_BODY_CLOSE, 0);
    HOLDS(moon_body_skippable(&r) == UINT64_MAX);
    moon_body_skip(&r, length);
    HOLDS(!moon_body_is_over(&r) && moon_body_eof(&r));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct moon_slice in = {(const char *)bytes, len};
    uint8_t choice = fuzz_choice(&in), seed = fuzz_choice(&in);
    enum moon_body_kind kind = choice & 4 ? (enum moon_body_kind)(choice & 3) : MOON_BODY_CHUNKED;
    uint64_t length = choice >> 3;
    struct outcome whole = read_all(in, kind, length, 0),
                   pieces = read_all(in, kind, length, seed + 1u);
    check_same(&whole, &pieces);
    check_trailers(whole.trailer_len ? (struct moon_slice){whole.trailer, whole.trailer_len} : in);
    chunk_again(&whole);
    check_skip(length);
    outcome_free(&whole);
    outcome_free(&pieces);
    return 0;
}
