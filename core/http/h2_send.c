// The sending side of an HTTP/2 connection. nghttp2 asks for a body when its turn has come; what it may have lies in
// `stream->source` only while moon_h2_send_body runs, so that bytes are copied once, into `out`, and never kept.
#include "http/h2_priv.h"

#include "base/err.h"

#include <errno.h>
#include <stdlib.h>

enum { NV_COUNT = 64, FRAME_HEAD_LEN = 9 };

#define BIT(id) (UINT64_C(1) << MOON_H_##id)
// Of one hop, or written from struct moon_framing.
static const uint64_t skipped_ids = BIT(CONNECTION) | BIT(KEEP_ALIVE) | BIT(PROXY_CONNECTION) |
                                    BIT(TRANSFER_ENCODING) | BIT(UPGRADE) | BIT(CONTENT_LENGTH) |
                                    BIT(TE) | BIT(TRAILER);
#undef BIT

// ---- nghttp2's callbacks

ssize_t moon_h2_on_send(nghttp2_session *session, const uint8_t *bytes, size_t len, int flags,
                        void *owner)
{
    (void)session, (void)flags;
    struct moon_h2 *h2 = owner;
    if (len > moon_buffer_room(h2->out))
        return NGHTTP2_ERR_WOULDBLOCK;
    if (moon_buffer_append(h2->out, h2->args.buffers,
                           (struct moon_slice){(const char *)bytes, len}) < 0) {
        h2->error = -ENOBUFS;
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    return (ssize_t)len;
}

int moon_h2_on_send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head,
                         size_t len, nghttp2_data_source *source, void *owner)
{
    (void)session, (void)frame;
    struct moon_h2 *h2 = owner;
    struct moon_h2_stream *stream = source->ptr;
    char *to = moon_buffer_reserve(h2->out, h2->args.buffers, FRAME_HEAD_LEN + len);
    if (!to) {
        h2->error = -ENOBUFS;
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    memcpy(to, head, FRAME_HEAD_LEN);
    if (len) {
        memcpy(to + FRAME_HEAD_LEN, stream->source.ptr, len);
        stream->source = moon_slice_skip(stream->source, len);
    }
    moon_buffer_commit(h2->out, FRAME_HEAD_LEN + len);
    stream->left_len -= stream->has_left ? len : 0;
    moon_h2_guard_sent_data(h2);
    return 0;
}

static nghttp2_nv nv_of(struct moon_slice name, struct moon_slice value)
{
    return (nghttp2_nv){(uint8_t *)name.ptr, (uint8_t *)value.ptr, name.len, value.len,
                        NGHTTP2_NV_FLAG_NONE};
}

// Room for `count` of them: `local`, or on the heap.
static nghttp2_nv *nv_room(nghttp2_nv local[NV_COUNT], size_t count)
{
    return count <= NV_COUNT ? local : malloc(count * sizeof *local);
}

static ssize_t on_read(nghttp2_session *session, int32_t id, uint8_t *to, size_t len,
                       uint32_t *flags, nghttp2_data_source *source, void *owner)
{
    (void)id, (void)to;
    struct moon_h2 *h2 = owner;
    struct moon_h2_stream *stream = source->ptr;
    size_t room = moon_buffer_room(h2->out);
    room = room > FRAME_HEAD_LEN ? room - FRAME_HEAD_LEN : 0;
    if (len > stream->source.len)
        len = stream->source.len;
    if (len > room)
        len = room;
    if (stream->has_left && len > stream->left_len)
        len = (size_t)stream->left_len;
    bool is_counted = stream->has_left && !stream->may_trail;
    bool is_last =
        is_counted ? len == stream->left_len : stream->has_ended && len == stream->source.len;
    if (len == 0 && (!is_last || room == 0)) {
        stream->is_deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (!is_last)
        return (ssize_t)len;
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    if (stream->trailers) {
        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
        nghttp2_submit_trailer(session, stream->id, stream->trailers, stream->trailer_count);
    }
    return (ssize_t)len;
}

// Our side of a stream has ended. A request that is not read whole is not wanted any more (RFC 9113 8.1), unless it is a tunnel.
static void stream_sent(nghttp2_session *session, int32_t id)
{
    struct moon_h2_stream *stream = nghttp2_session_get_stream_user_data(session, id);
    if (!stream)
        return;
    stream->is_sent = true;
    if (!stream->is_read && !stream->is_response && !stream->is_tunnel)
        nghttp2_submit_rst_stream(session, 0, id, NGHTTP2_NO_ERROR);
}

// Our request has gone out; or a stream of ours has been reset, for what came unless we did not want it any more.
static void note_of_client(struct moon_h2 *h2, const nghttp2_frame *frame)
{
    struct moon_h2_stream *stream = moon_h2_stream_at(h2, frame->hd.stream_id);
    bool is_reset = frame->hd.type == NGHTTP2_RST_STREAM;
    if (!stream)
        return;
    if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
        stream->is_begun = true;
        if (stream->id > h2->seen_id)
            h2->seen_id = stream->id;
    }
    if (is_reset && frame->rst_stream.error_code != NGHTTP2_CANCEL &&
        frame->rst_stream.error_code != NGHTTP2_NO_ERROR)
        stream->is_malformed = true;
}

int moon_h2_on_frame_sent(nghttp2_session *session, const nghttp2_frame *frame, void *owner)
{
    struct moon_h2 *h2 = owner;
    if (h2->args.is_client)
        note_of_client(h2, frame);
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
    case NGHTTP2_DATA:
        if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM)
            stream_sent(session, frame->hd.stream_id);
        break;
    case NGHTTP2_RST_STREAM: // provoked ones count like the client's own (A42)
        moon_h2_note_reset(h2, frame->hd.stream_id);
        if (!h2->args.is_client && frame->rst_stream.error_code != NGHTTP2_NO_ERROR &&
            frame->rst_stream.error_code != NGHTTP2_INTERNAL_ERROR &&
            frame->rst_stream.error_code != NGHTTP2_CANCEL)
            moon_h2_guard_reset(h2);
        break;
    case NGHTTP2_GOAWAY:
        if (h2->wants_ping)
            nghttp2_submit_ping(session, NGHTTP2_FLAG_NONE, NULL);
        h2->wants_ping = false;
        if (!h2->has_terminated && frame->goaway.error_code != NGHTTP2_NO_ERROR) {
            h2->has_terminated = true;
            h2->cause = MOON_H2_PROTOCOL; // nghttp2 has found a connection error
        }
        break;
    default:
        break;
    }
    return 0;
}

// ---- public

int moon_h2_pump(struct moon_h2 *h2, struct moon_buffer *out)
{
    if (h2->is_receiving || h2->is_pumping || h2->image) // asleep: nothing waits
        return 0;
    h2->out = out;
    h2->is_pumping = true;
    int err = nghttp2_session_send(h2->session);
    h2->is_pumping = false;
    h2->out = NULL;
    if (h2->error)
        return h2->error;
    return err ? MOON_EPROTO : 0;
}

static int submit_head(struct moon_h2 *h2, struct moon_h2_stream *stream, uint16_t status,
                       const nghttp2_nv *nv, size_t count, bool has_body)
{
    nghttp2_data_provider body = {.source.ptr = stream, .read_callback = on_read};
    if (status < 200)
        return nghttp2_submit_headers(h2->session, NGHTTP2_FLAG_NONE, stream->id, NULL, nv, count,
                                      NULL);
    return nghttp2_submit_response(h2->session, stream->id, nv, count, has_body ? &body : NULL);
}

int moon_h2_send_head(struct moon_h2 *h2, struct moon_h2_stream *stream,
                      const struct moon_head *head, const struct moon_framing *framing,
                      bool has_body)
{
    uint16_t code = head->status == 101 ? 200 : head->status;
    char status[3] = {(char)('0' + code / 100), (char)('0' + code / 10 % 10),
                      (char)('0' + code % 10)};
    char digits[MOON_U64_DIGITS];
    nghttp2_nv local[NV_COUNT], *nv = nv_room(local, head->headers.count + 2);
    size_t count = 0;
    if (!nv)
        return -ENOMEM;
    nv[count++] = nv_of(MOON_SLICE(":status"), (struct moon_slice){status, sizeof status});
    for (uint32_t i = 0; i < head->headers.count; i++) {
        const struct moon_field *field = &head->headers.fields[i];
        if (!(skipped_ids >> field->id & 1))
            nv[count++] = nv_of(field->name, field->value);
    }
    if (framing->body == MOON_BODY_LENGTH)
        nv[count++] = nv_of(MOON_SLICE("content-length"),
                            moon_slice_from_u64(framing->content_length, digits));
    stream->has_left = has_body && framing->body == MOON_BODY_LENGTH;
    stream->may_trail = framing->may_trail;
    stream->left_len = stream->has_left ? framing->content_length : 0;
    int err = submit_head(h2, stream, code, nv, count, has_body);
    if (nv != local)
        free(nv);
    return err ? -ENOMEM : 0;
}

// The fields of a request (RFC 9113 8.3.1). Returns how many; `digits` has room for a length.
static size_t request_fields(nghttp2_nv *nv, const struct moon_h2_request_args *args,
                             struct moon_slice path, char *digits)
{
    const struct moon_head *head = args->head;
    size_t count = 0;
    nv[count++] = nv_of(MOON_SLICE(":method"), head->method);
    nv[count++] = nv_of(MOON_SLICE(":scheme"), args->scheme);
    if (head->host_text.len)
        nv[count++] = nv_of(MOON_SLICE(":authority"), head->host_text);
    nv[count++] = nv_of(MOON_SLICE(":path"), path);
    for (uint32_t i = 0; i < head->headers.count; i++) {
        const struct moon_field *field = &head->headers.fields[i];
        if (field->id != MOON_H_HOST && !(skipped_ids >> field->id & 1))
            nv[count++] = nv_of(field->name, field->value);
    }
    if (args->framing->body == MOON_BODY_LENGTH)
        nv[count++] = nv_of(MOON_SLICE("content-length"),
                            moon_slice_from_u64(args->framing->content_length, digits));
    if (args->framing->te_trailers)
        nv[count++] = nv_of(MOON_SLICE("te"), MOON_SLICE("trailers"));
    return count;
}

// Path and query as one, which they are not in a head that was edited: malloc'd where there is a query.
static struct moon_slice join_path(const struct moon_target *target)
{
    if (!target->has_query)
        return target->path;
    struct moon_slice path = {NULL, target->path.len + 1 + target->query.len};
    char *text = malloc(path.len);
    if (!text)
        return path;
    memcpy(text, target->path.ptr, target->path.len);
    text[target->path.len] = '?';
    if (target->query.len)
        memcpy(text + target->path.len + 1, target->query.ptr, target->query.len);
    path.ptr = text;
    return path;
}

int moon_h2_request_send(struct moon_h2 *h2, struct moon_h2_stream *stream,
                         const struct moon_h2_request_args *args)
{
    enum { SPARE_COUNT = 6 };
    char digits[MOON_U64_DIGITS];
    nghttp2_data_provider body = {.source.ptr = stream, .read_callback = on_read};
    nghttp2_nv local[NV_COUNT], *nv = nv_room(local, args->head->headers.count + SPARE_COUNT);
    struct moon_slice path = join_path(&args->head->target);
    int32_t id = NGHTTP2_ERR_NOMEM;
    stream->is_response = true;
    stream->has_left = args->has_body && args->framing->body == MOON_BODY_LENGTH;
    stream->left_len = stream->has_left ? args->framing->content_length : 0;
    if (nv && path.ptr)
        id = nghttp2_submit_request(h2->session, NULL, nv, request_fields(nv, args, path, digits),
                                    args->has_body ? &body : NULL, stream);
    if (path.ptr != args->head->target.path.ptr)
        free((void *)path.ptr);
    if (nv != local)
        free(nv);
    if (id < 0)
        return id == NGHTTP2_ERR_NOMEM ? -ENOMEM : MOON_EPROTO;
    stream->id = id;
    stream->has_session = true;
    stream->has_ended = !args->has_body;
    return 0;
}

// One that waits for room alone is a stream already, and goes out when there is some.
bool moon_h2_is_queued(const struct moon_h2 *h2, const struct moon_h2_stream *stream)
{
    return stream->has_session && !nghttp2_session_find_stream(h2->session, stream->id);
}

uint32_t moon_h2_stream_cap(const struct moon_h2 *h2)
{
    if (h2->has_terminated || h2->error || h2->was_sent_away ||
        !nghttp2_session_check_request_allowed(h2->session))
        return 0;
    return nghttp2_session_get_remote_settings(h2->session,
                                               NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
}

static void resume(struct moon_h2 *h2, struct moon_h2_stream *stream)
{
    if (!stream->is_deferred)
        return;
    stream->is_deferred = false;
    nghttp2_session_resume_data(h2->session, stream->id);
}

size_t moon_h2_send_body(struct moon_h2 *h2, struct moon_h2_stream *stream, struct moon_slice bytes,
                         struct moon_buffer *out)
{
    if (moon_h2_is_busy(h2) || !stream->has_session)
        return 0;
    stream->source = bytes;
    resume(h2, stream);
    moon_h2_pump(h2, out); // an error comes again
    size_t taken = bytes.len - stream->source.len;
    stream->source = (struct moon_slice){NULL, 0};
    return taken;
}

// Fields and their text in one block, because the exchange may be gone when their turn comes.
static void keep_trailers(struct moon_h2_stream *stream, const struct moon_headers *trailers)
{
    size_t len = 0, count = trailers->count;
    for (size_t i = 0; i < count; i++)
        len += trailers->fields[i].name.len + trailers->fields[i].value.len;
    nghttp2_nv *nv = malloc(count * sizeof *nv + len);
    if (!nv)
        return;
    char *to = (char *)(nv + count);
    for (size_t i = 0; i < count; i++) {
        struct moon_slice name = trailers->fields[i].name, value = trailers->fields[i].value;
        memcpy(to, name.ptr, name.len);
        memcpy(to + name.len, value.ptr, value.len);
        nv[i] =
            nv_of((struct moon_slice){to, name.len}, (struct moon_slice){to + name.len, value.len});
        to += name.len + value.len;
    }
    stream->trailers = nv;
    stream->trailer_count = (uint32_t)count;
}

void moon_h2_send_end(struct moon_h2 *h2, struct moon_h2_stream *stream,
                      const struct moon_headers *trailers)
{
    stream->has_ended = true;
    if (trailers && trailers->count && !stream->trailers)
        keep_trailers(stream, trailers);
    if (!stream->has_session)
        return;
    // nghttp2 asks for no DATA while a window is closed, not even for its end; trailers need none
    bool is_open = stream->is_begun || !stream->is_response;
    if (stream->trailers && is_open && moon_h2_window(h2, stream) == 0)
        nghttp2_submit_trailer(h2->session, stream->id, stream->trailers, stream->trailer_count);
    else
        resume(h2, stream);
}

size_t moon_h2_window(const struct moon_h2 *h2, const struct moon_h2_stream *stream)
{
    int32_t own = nghttp2_session_get_stream_remote_window_size(h2->session, stream->id);
    int32_t all = nghttp2_session_get_remote_window_size(h2->session);
    int32_t least = own < all ? own : all;
    return least > 0 ? (size_t)least : 0;
}

void moon_h2_reset(struct moon_h2 *h2, struct moon_h2_stream *stream, enum moon_h2_code code)
{
    if (stream->has_session)
        nghttp2_submit_rst_stream(h2->session, NGHTTP2_FLAG_NONE, stream->id, code);
}
