// grpc-web: calls of browsers (gRPC's PROTOCOL-WEB) become gRPC for the backend, and its answers gRPC-Web again.
//
//   request    application/grpc-web[-text] -> application/grpc; base64 is decoded, frames are looked at
//   response   the other way; the trailers, or those of a trailers-only answer, become a last frame of the body
//
// Both are streamed: a piece of base64 is converted into a buffer of the exchange's, and its bytes count as taken when that buffer
// is out (`owed`). Requests that are not gRPC-Web pass as they are.
#include "base/arena.h"
#include "filter/shipped.h"
#include "http/grpc.h"
#include "http/head.h"

#include <string.h>

enum { PIECE_LEN = 4096, PIECE_BYTES_LEN = PIECE_LEN / 4 * 3 };

// A piece that was converted.
struct piece {
    char *out;        // PIECE_LEN, in the arena; NULL before the first
    uint16_t at, len; // what of it is not out yet
    uint16_t owed;    // bytes that it was made of and that were not taken yet
};

struct state {
    enum moon_grpc_kind kind; // of the request; NONE: it is not ours
    bool converts;            // the response is gRPC
    struct moon_grpc_frames frames;
    struct moon_base64 base64;
    struct piece request, response;
    struct moon_headers moved; // of a trailers-only answer
    struct moon_slice tail;    // the last frame, what of it is not out yet
    bool has_tail;
};

// Converts from the front of `bytes` into piece->out; how many it took, or -1.
typedef ssize_t convert_fn(struct state *own, struct moon_slice bytes, struct piece *piece);

// ---- the request

static int set_type(struct moon_flow *flow, struct moon_headers *headers, const char *type,
                    struct moon_slice suffix)
{
    struct moon_slice value =
        moon_arena_try_format(flow->arena, "%s%.*s", type, MOON_SLICE_ARG(suffix));
    if (!value.ptr)
        return -1;
    return moon_headers_set(headers, flow->arena, moon_header_name(MOON_H_CONTENT_TYPE), value);
}

static enum moon_verdict rewrite(struct moon_flow *flow, void *conf, void *state)
{
    struct state *own = state;
    struct moon_headers *headers = &flow->request->headers;
    struct moon_slice suffix;
    (void)conf;
    own->kind = moon_grpc_kind_of(flow->request, &suffix);
    if (own->kind == MOON_GRPC)
        own->kind = MOON_GRPC_NONE;
    if (own->kind == MOON_GRPC_NONE)
        return MOON_NEXT;
    int err = set_type(flow, headers, "application/grpc", suffix);
    if (!err)
        err = moon_headers_set(headers, flow->arena, moon_header_name(MOON_H_TE),
                               MOON_SLICE("trailers"));
    return err ? MOON_FAIL : MOON_NEXT;
}

static ssize_t refuse(struct moon_flow *flow, const char *reason)
{
    flow->refusal = reason;
    return MOON_BODY_FAIL;
}

// 0: all of the piece is out; else a MOON_BODY_ value.
static ssize_t flush(struct moon_flow *flow, enum moon_direction direction, struct piece *piece)
{
    while (piece->at < piece->len) {
        struct moon_slice rest = {piece->out + piece->at, (size_t)(piece->len - piece->at)};
        ssize_t taken = flow->ops->pass(flow, direction, rest, false);
        if (taken < 0)
            return taken;
        piece->at += (uint16_t)taken;
    }
    return 0;
}

static size_t settle(struct piece *piece, size_t len)
{
    size_t taken = piece->owed < len ? piece->owed : len;
    piece->owed -= (uint16_t)taken;
    return taken;
}

// Results as those of a body hook; the reason of a failure is told.
static ssize_t stream(struct moon_flow *flow, enum moon_direction direction, struct state *own,
                      struct moon_slice bytes, convert_fn *convert)
{
    struct piece *piece = direction == MOON_REQUEST ? &own->request : &own->response;
    size_t done = 0;
    if (!piece->out && !(piece->out = moon_arena_try_bytes(flow->arena, PIECE_LEN)))
        return MOON_BODY_FAIL;
    while (done < bytes.len) {
        ssize_t got = flush(flow, direction, piece);
        if (got < 0)
            return done && got != MOON_BODY_FAIL ? (ssize_t)done : got;
        if (piece->owed) {
            done += settle(piece, bytes.len - done);
            continue;
        }
        got = convert(own, moon_slice_skip(bytes, done), piece);
        if (got < 0)
            return refuse(flow, "the body of the gRPC-Web request is malformed");
        piece->owed = (uint16_t)got;
    }
    return (ssize_t)done;
}

static ssize_t decode(struct state *own, struct moon_slice bytes, struct piece *piece)
{
    size_t len;
    if (bytes.len > PIECE_LEN)
        bytes.len = PIECE_LEN;
    ssize_t taken = moon_base64_decode(&own->base64, bytes, piece->out, PIECE_LEN, &len);
    if (taken < 0 || !moon_grpc_frames_walk(&own->frames, (struct moon_slice){piece->out, len}))
        return -1;
    piece->at = 0;
    piece->len = (uint16_t)len;
    return taken;
}

// Frames as they are. They are looked at before they go, and count once they went.
static ssize_t pass_frames(struct moon_flow *flow, struct state *own, struct moon_slice bytes)
{
    struct moon_grpc_frames ahead = own->frames;
    if (!moon_grpc_frames_walk(&ahead, bytes))
        return refuse(flow, "the body of the gRPC-Web request is malformed");
    ssize_t taken = flow->ops->pass(flow, MOON_REQUEST, bytes, false);
    if (taken > 0)
        moon_grpc_frames_walk(&own->frames, (struct moon_slice){bytes.ptr, (size_t)taken});
    return taken;
}

static ssize_t request_body(struct moon_flow *flow, void *conf, void *state,
                            struct moon_slice bytes, bool end)
{
    struct state *own = state;
    (void)conf;
    if (own->kind == MOON_GRPC_NONE)
        return flow->ops->pass(flow, MOON_REQUEST, bytes, end);
    if (!end)
        return own->kind == MOON_GRPC_WEB_TEXT ? stream(flow, MOON_REQUEST, own, bytes, decode)
                                               : pass_frames(flow, own, bytes);
    if (moon_base64_is_open(&own->base64) || !moon_grpc_frames_are_whole(&own->frames))
        return refuse(flow, "the body of the gRPC-Web request ends within a message");
    return flow->ops->pass(flow, MOON_REQUEST, bytes, true);
}

// ---- the response

// Moves the fields by which a trailers-only answer is told from its head.
static int take_status(struct moon_flow *flow, struct state *own)
{
    static const struct moon_slice names[] = {
        {"grpc-status", 11}, {"grpc-message", 12}, {"grpc-status-details-bin", 23}};
    struct moon_headers *headers = &flow->response->headers;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        uint32_t at = 0;
        const struct moon_field *field = moon_headers_next(headers, names[i], &at);
        if (!field)
            continue;
        if (moon_headers_add(&own->moved, flow->arena, names[i], field->value) < 0)
            return -1;
        moon_headers_del(headers, names[i]);
    }
    return 0;
}

static enum moon_verdict header_filter(struct moon_flow *flow, void *conf, void *state)
{
    struct state *own = state;
    struct moon_slice suffix = {"", 0};
    bool is_text = own->kind == MOON_GRPC_WEB_TEXT;
    (void)conf;
    own->converts =
        own->kind != MOON_GRPC_NONE && moon_grpc_kind_of(flow->response, &suffix) == MOON_GRPC;
    own->has_tail = false;
    own->tail = (struct moon_slice){"", 0};
    own->moved = (struct moon_headers){0};
    if (!own->converts)
        return MOON_NEXT;
    if (suffix.len == 0)
        suffix = MOON_SLICE("+proto"); // clients compare the whole of it
    int err = set_type(flow, &flow->response->headers,
                       is_text ? "application/grpc-web-text" : "application/grpc-web", suffix);
    return err || take_status(flow, own) < 0 ? MOON_FAIL : MOON_NEXT;
}

// Padded wherever the bytes that are there end, so that a message is never held back for its successor.
static ssize_t encode(struct state *own, struct moon_slice bytes, struct piece *piece)
{
    (void)own;
    if (bytes.len > PIECE_BYTES_LEN)
        bytes.len = PIECE_BYTES_LEN;
    piece->at = 0;
    piece->len = (uint16_t)moon_base64_encode(bytes, piece->out);
    return (ssize_t)bytes.len;
}

// What the last frame says: the status that moved, the trailers, or that there are none.
static int gather(struct moon_flow *flow, struct state *own)
{
    struct moon_headers *trailers = flow->response_trailers;
    uint32_t at = 0;
    int err = 0;
    for (uint32_t i = 0; i < trailers->count && !err; i++)
        err = moon_headers_add(&own->moved, flow->arena, trailers->fields[i].name,
                               trailers->fields[i].value);
    *trailers = (struct moon_headers){0};
    if (err || moon_headers_next(&own->moved, MOON_SLICE("grpc-status"), &at))
        return err;
    err = moon_headers_add(&own->moved, flow->arena, MOON_SLICE("grpc-status"), MOON_SLICE("2"));
    return err ? err
               : moon_headers_add(&own->moved, flow->arena, MOON_SLICE("grpc-message"),
                                  MOON_SLICE("the upstream gave no status"));
}

static int make_tail(struct moon_flow *flow, struct state *own)
{
    if (gather(flow, own) < 0)
        return -1;
    own->tail = moon_grpc_web_trailers(flow->arena, &own->moved);
    if (own->tail.ptr && own->kind == MOON_GRPC_WEB_TEXT) {
        char *text = moon_arena_try_bytes(flow->arena, (own->tail.len + 2) / 3 * 4);
        own->tail = (struct moon_slice){text, text ? moon_base64_encode(own->tail, text) : 0};
    }
    own->has_tail = own->tail.ptr != NULL;
    return own->has_tail ? 0 : -1;
}

static ssize_t pass_tail(struct moon_flow *flow, struct state *own)
{
    if (!own->has_tail && make_tail(flow, own) < 0)
        return MOON_BODY_FAIL;
    while (own->tail.len) {
        ssize_t taken = flow->ops->pass(flow, MOON_RESPONSE, own->tail, false);
        if (taken < 0)
            return taken;
        own->tail = moon_slice_skip(own->tail, (size_t)taken);
    }
    return flow->ops->pass(flow, MOON_RESPONSE, MOON_SLICE(""), true);
}

static ssize_t response_body(struct moon_flow *flow, void *conf, void *state,
                             struct moon_slice bytes, bool end)
{
    struct state *own = state;
    (void)conf;
    if (own->converts && end)
        return pass_tail(flow, own);
    if (own->converts && own->kind == MOON_GRPC_WEB_TEXT)
        return stream(flow, MOON_RESPONSE, own, bytes, encode);
    return flow->ops->pass(flow, MOON_RESPONSE, bytes, end);
}

const struct moon_filter_type moon_filter_grpc_web = {
    .name = "grpc-web",
    .state_len = sizeof(struct state),
    .rewrite = rewrite,
    .header_filter = header_filter,
    .request_body = request_body,
    .response_body = response_body,
};
