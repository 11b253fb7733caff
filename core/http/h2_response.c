// Heads of responses that came by HTTP/2: the block that h2_head.c collects becomes a head under the rules of response_head.c and
// those of RFC 9113 8.3.2. Whatever an upstream gets wrong is a 502 that names the cause.
#include "http/h2_priv.h"

#include "base/arena.h"
#include "http/chars.h"
#include "http/head_priv.h"

enum {
    FIELD_SPARE_COUNT = 8, // fields that the gateway adds
    STATUS_LEN = 3,
};

#define BIT(id) (UINT64_C(1) << MOON_H_##id)
static const uint64_t connection_ids = BIT(CONNECTION) | BIT(KEEP_ALIVE) | BIT(PROXY_CONNECTION) |
                                       BIT(TRANSFER_ENCODING) | BIT(UPGRADE) | BIT(TE);
#undef BIT

static int refuse(struct moon_fault *fault, const char *reason)
{
    *fault = (struct moon_fault){502, reason};
    return -1;
}

bool moon_h2_is_final(const struct moon_h2_stream *stream)
{
    struct moon_slice block = moon_buffer_bytes(&stream->block);
    return stream->is_response && stream->status.len && stream->status.at < block.len &&
           block.ptr[stream->status.at] != '1';
}

static int read_status(struct moon_slice text, struct moon_head *out, struct moon_fault *fault)
{
    for (size_t i = 0; i < text.len && i < STATUS_LEN; i++) {
        if (!moon_char_is_digit(text.ptr[i]))
            return refuse(fault, "malformed status in the response");
        out->status = (uint16_t)(out->status * 10 + (text.ptr[i] - '0'));
    }
    if (text.len != STATUS_LEN)
        return refuse(fault, "malformed status in the response");
    if (out->status < 100 || out->status > 599 || out->status == 101) // RFC 9113 8.6
        return refuse(fault, "status out of range in the response");
    return 0;
}

static int add_field(struct moon_arena *arena, struct moon_head *out, struct moon_slice line,
                     struct moon_fault *fault)
{
    struct moon_headers *headers = &out->headers;
    uint64_t before = headers->present;
    const char *colon = memchr(line.ptr, ':', line.len);
    struct moon_slice name = {line.ptr, (size_t)(colon - line.ptr)};
    if (moon_headers_add_received(headers, arena, name, moon_slice_skip(line, name.len + 2),
                                  true) != 0)
        return refuse(fault, "the upstream's response head is too large");
    enum moon_header_id id = headers->fields[headers->count - 1].id;
    if ((before & moon_response_singletons) >> id & 1)
        return refuse(fault, moon_header_repeated(id));
    if (connection_ids >> id & 1)
        return refuse(fault, "a field of HTTP/1.1 connections in a response of HTTP/2");
    return 0;
}

static int read_fields(struct moon_arena *arena, struct moon_head *out, struct moon_slice lines,
                       struct moon_fault *fault)
{
    while (lines.len) {
        const char *cr = memchr(lines.ptr, '\r', lines.len);
        struct moon_slice line = {lines.ptr, (size_t)(cr - lines.ptr)};
        if (add_field(arena, out, line, fault) != 0)
            return -1;
        lines = moon_slice_skip(lines, line.len + 2);
    }
    return 0;
}

// END_STREAM with the head: no body. Else one follows, of the length that is said, or until END_STREAM.
static int check_body(struct moon_head *out, const struct moon_h2_stream *stream,
                      enum moon_method request_method, struct moon_fault *fault)
{
    const struct moon_field *length = moon_headers_get(&out->headers, MOON_H_CONTENT_LENGTH);
    bool has_none = request_method == MOON_METHOD_HEAD || out->status < 200 || out->status == 204 ||
                    out->status == 304;
    if (length && !moon_content_length_parse(length->value, &out->content_length))
        return refuse(fault, "malformed Content-Length in the response");
    out->body = MOON_BODY_NONE;
    if (has_none)
        return 0;
    if (stream->is_bodiless && out->content_length > 0)
        return refuse(fault, "Content-Length without a body in the response");
    if (!stream->is_bodiless)
        out->body = length ? MOON_BODY_LENGTH : MOON_BODY_CHUNKED;
    return 0;
}

int moon_h2_response_read(struct moon_h2 *h2, struct moon_h2_stream *stream,
                          struct moon_arena *arena, enum moon_method request_method,
                          struct moon_head *out, struct moon_fault *fault)
{
    *out = (struct moon_head){.minor = 1, .is_h2 = true, .keep_alive = true};
    struct moon_slice text = moon_arena_try_copy(arena, moon_buffer_bytes(&stream->block));
    moon_buffer_fini(&stream->block, h2->args.buffers);
    if (!text.ptr || stream->is_too_large)
        return refuse(fault, "the upstream's response head is too large");
    struct moon_slice status = {text.ptr + stream->status.at, stream->status.len};
    struct moon_slice lines =
        moon_slice_skip(text, stream->has_fields ? stream->fields_at : text.len);
    if (read_status(status, out, fault) != 0)
        return -1;
    if (moon_headers_init(&out->headers, arena,
                          stream->field_count + stream->crumb_count + FIELD_SPARE_COUNT) != 0)
        return refuse(fault, "the upstream's response head is too large");
    if (read_fields(arena, out, lines, fault) != 0)
        return -1;
    return check_body(out, stream, request_method, fault);
}
