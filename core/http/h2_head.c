// Header blocks of HTTP/2 become heads. Fields are put one behind the other as lines, so that what goes on to an HTTP/1.1 peer
// goes in one copy; the rules are those of request_head.c, and RFC 9113 8.2 and 8.3 on top, each in its strict reading.
// Nothing that could end a line, or a name, gets into the block.
#include "http/h2_priv.h"

#include "base/arena.h"
#include "http/body.h"
#include "http/chars.h"
#include "http/head_priv.h"

#include <errno.h>

enum {
    FIELD_OVERHEAD_LEN = 32, // RFC 9113 6.5.2
    CRUMB_COUNT = 256,       // more than browsers keep for a host
    FIELD_SPARE_COUNT = 10,  // fields that the gateway adds
    FAR_FACTOR = 4,          // so many times a limit is no mistake, but an attack
    INFLATED_LEN = 6144,     // the dynamic table, which is 4,096 bytes, and some of the static one
    INFLATED_FACTOR = 4,     // Huffman's code, and names by reference
};

#define BIT(id) (UINT64_C(1) << MOON_H_##id)
static const uint64_t connection_ids = BIT(CONNECTION) | BIT(KEEP_ALIVE) | BIT(PROXY_CONNECTION) |
                                       BIT(TRANSFER_ENCODING) | BIT(UPGRADE);
#undef BIT

static int refuse(struct moon_fault *fault, uint16_t status, const char *reason)
{
    *fault = (struct moon_fault){status, reason};
    return -1;
}

// ---- collecting

static bool append(struct moon_h2 *h2, struct moon_h2_stream *stream, struct moon_slice bytes)
{
    struct moon_buffer *to = stream->is_in_trailers ? &stream->trailer_block : &stream->block;
    if (bytes.len == 0 || moon_buffer_append(to, h2->args.buffers, bytes) == 0)
        return true;
    stream->is_too_large = true;
    return false;
}

// A second one of the same name is malformed, and so is one that no request has.
static struct moon_h2_part *part_of(struct moon_h2_stream *stream, struct moon_slice name)
{
    const struct {
        struct moon_slice name;
        struct moon_h2_part *part;
    } parts[] = {
        {MOON_SLICE(":method"), &stream->method},
        {MOON_SLICE(":scheme"), &stream->scheme},
        {MOON_SLICE(":path"), &stream->path},
        {MOON_SLICE(":authority"), &stream->authority},
        {MOON_SLICE(":protocol"), &stream->protocol},
        {MOON_SLICE(":status"), &stream->status},
    };
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        if (moon_slice_equal(name, parts[i].name) &&
            stream->is_response == (parts[i].part == &stream->status))
            return parts[i].part->len ? NULL : parts[i].part;
    return NULL;
}

static bool add_pseudo(struct moon_h2 *h2, struct moon_h2_stream *stream, struct moon_slice name,
                       struct moon_slice value)
{
    struct moon_h2_part *part = part_of(stream, name);
    if (!part || value.len == 0 || stream->has_fields || stream->is_in_trailers)
        return false;
    bool is_host = part == &stream->authority; // a line of its own, as it would come by HTTP/1.1
    if (is_host)
        append(h2, stream, MOON_SLICE("host: "));
    part->at = (uint32_t)moon_buffer_len(&stream->block);
    part->len = (uint32_t)value.len;
    append(h2, stream, value);
    if (is_host)
        append(h2, stream, MOON_SLICE("\r\n"));
    return true;
}

static bool is_field_name(struct moon_slice name)
{
    for (size_t i = 0; i < name.len; i++)
        if (name.ptr[i] >= 'A' && name.ptr[i] <= 'Z')
            return false;
    return moon_header_name_is_valid(name);
}

static bool is_field_value(struct moon_slice value)
{
    return moon_header_value_is_valid(value) && moon_slice_trim(value).len == value.len;
}

// Counts before it keeps: what a reference of one byte can stand for must not become memory (A43).
// A block may stand for more than it is: both tables once, and literals with names from them. What is longer refers to a long
// field again and again, and would be kept for a few bytes while its response lasts (A43).
static bool is_inflated(const struct moon_h2 *h2, const struct moon_h2_stream *stream)
{
    return stream->list_len > INFLATED_LEN + INFLATED_FACTOR * h2->block_len;
}

static bool is_within(const struct moon_h2 *h2, struct moon_h2_stream *stream, bool is_crumb,
                      size_t len)
{
    stream->list_len += (uint32_t)len + FIELD_OVERHEAD_LEN;
    if (is_crumb)
        stream->crumb_count++;
    else
        stream->field_count++;
    return stream->list_len <= h2->args.header_bytes && !is_inflated(h2, stream) &&
           stream->field_count <= h2->args.header_count && stream->crumb_count <= CRUMB_COUNT;
}

// Over the limits already: a mistake is answered by 431, so the rest is decoded, but not without end, for a byte may stand for
// a field.
static void count_more(struct moon_h2 *h2, struct moon_h2_stream *stream, size_t len)
{
    stream->list_len += (uint32_t)len + FIELD_OVERHEAD_LEN;
    stream->field_count++;
    if (stream->list_len > FAR_FACTOR * h2->args.header_bytes ||
        stream->field_count > FAR_FACTOR * (h2->args.header_count + CRUMB_COUNT))
        moon_h2_end(h2, MOON_H2_FIELDS, NGHTTP2_ENHANCE_YOUR_CALM);
}

bool moon_h2_field_add(struct moon_h2 *h2, struct moon_h2_stream *stream, struct moon_slice name,
                       struct moon_slice value)
{
    if (stream->is_too_large) {
        count_more(h2, stream, name.len + value.len);
        return true;
    }
    bool is_pseudo = name.len > 0 && name.ptr[0] == ':';
    bool is_crumb = moon_slice_equal(name, MOON_SLICE("cookie"));
    if ((!is_pseudo && !is_field_name(name)) || !is_field_value(value))
        return false;
    if (!is_within(h2, stream, is_crumb, name.len + value.len)) {
        stream->is_too_large = true;
        return true;
    }
    if (is_pseudo)
        return add_pseudo(h2, stream, name, value);
    if (!stream->has_fields && !stream->is_in_trailers) {
        stream->fields_at = (uint32_t)moon_buffer_len(&stream->block);
        stream->has_fields = true;
    }
    append(h2, stream, name);
    append(h2, stream, MOON_SLICE(": "));
    append(h2, stream, value);
    append(h2, stream, MOON_SLICE("\r\n"));
    return true;
}

// ---- reading

struct reading {
    struct moon_arena *arena;
    const struct moon_head_limits *limits;
    struct moon_head *out;
    struct moon_fault *fault;
    struct moon_field *cookie; // the first
    struct moon_slice host;    // of the field
    uint32_t crumb_count;
    size_t crumb_len;
};

static int add_field(struct reading *r, struct moon_slice name, struct moon_slice value)
{
    struct moon_headers *headers = &r->out->headers;
    uint64_t before = headers->present;
    if (moon_headers_add_received(headers, r->arena, name, value, true) != 0)
        return refuse(r->fault, 431, "head too large");
    enum moon_header_id id = headers->fields[headers->count - 1].id;
    if ((before & moon_request_singletons) >> id & 1)
        return refuse(r->fault, 400, moon_header_repeated(id));
    if (connection_ids >> id & 1)
        return refuse(r->fault, 400, "a field of HTTP/1.1 connections in HTTP/2");
    if (id == MOON_H_TE && !moon_slice_equal_fold(value, MOON_SLICE("trailers")))
        return refuse(r->fault, 400, "TE other than trailers in HTTP/2");
    if (id == MOON_H_OTHER && !r->limits->allow_underscore && memchr(name.ptr, '_', name.len))
        return refuse(r->fault, 400, "underscore in a header name");
    return 0;
}

// Cookie may come in crumbs (RFC 9113 8.2.3): the first stands for all.
static int read_field(struct reading *r, struct moon_slice name, struct moon_slice value)
{
    if (moon_slice_equal(name, MOON_SLICE("host"))) {
        if (r->host.ptr)
            return refuse(r->fault, 400, "repeated Host");
        r->host = value;
        if (r->out->host_text.len) // :authority is there, and says the same
            return 0;
    }
    if (moon_slice_equal(name, MOON_SLICE("cookie"))) {
        r->crumb_len += value.len + 2;
        if (r->crumb_count++)
            return 0;
    }
    return add_field(r, name, value);
}

static int read_fields(struct reading *r, struct moon_slice lines)
{
    while (lines.len) {
        const char *cr = memchr(lines.ptr, '\r', lines.len);
        const char *colon = memchr(lines.ptr, ':', lines.len);
        struct moon_slice name = {lines.ptr, (size_t)(colon - lines.ptr)};
        struct moon_slice value = {colon + 2, (size_t)(cr - colon) - 2};
        if (read_field(r, name, value) != 0)
            return -1;
        lines = moon_slice_skip(lines, (size_t)(cr - lines.ptr) + 2);
    }
    return 0;
}

static int join_crumbs(struct reading *r, struct moon_slice lines)
{
    static const struct moon_slice start = {"cookie: ", 8};
    char *to = moon_arena_try_bytes(r->arena, r->crumb_len), *text = to;
    if (!to)
        return refuse(r->fault, 431, "head too large");
    while (lines.len) {
        const char *cr = memchr(lines.ptr, '\r', lines.len);
        struct moon_slice line = {lines.ptr, (size_t)(cr - lines.ptr)};
        lines = moon_slice_skip(lines, line.len + 2);
        if (!moon_slice_starts(line, start))
            continue;
        line = moon_slice_skip(line, start.len);
        if (line.len == 0)
            continue; // or the value would end in a space
        if (to > text) {
            *to++ = ';';
            *to++ = ' ';
        }
        memcpy(to, line.ptr, line.len);
        to += line.len;
    }
    for (uint32_t i = 0; i < r->out->headers.count; i++) {
        struct moon_field *field = &r->out->headers.fields[i];
        if (field->id != MOON_H_COOKIE)
            continue;
        field->value = (struct moon_slice){text, (size_t)(to - text)};
        field->is_verbatim = false;
    }
    return 0;
}

// :authority, or Host where there is none; both must say the same (RFC 9113 8.3.1).
static int check_host(struct reading *r, uint16_t default_port)
{
    struct moon_head *out = r->out;
    struct moon_authority host;
    if (!out->host_text.len) {
        if (!r->host.ptr)
            return refuse(r->fault, 400, "missing Host");
        out->host_text = r->host;
    }
    if (!moon_authority_parse(out->host_text, &out->host))
        return refuse(r->fault, 400, "malformed Host");
    if (!r->host.ptr || r->host.ptr == out->host_text.ptr)
        return 0;
    if (!moon_authority_parse(r->host, &host))
        return refuse(r->fault, 400, "malformed Host");
    if (!moon_authority_is_same(&host, &out->host, default_port))
        return refuse(r->fault, 400, "Host differs from :authority");
    return 0;
}

// CONNECT with :protocol (RFC 8441) is read as the GET that asks for the same in HTTP/1.1, so that routes, filters and backends
// have one kind of WebSocket to know.
static int check_method(struct reading *r, struct moon_slice protocol)
{
    struct moon_head *out = r->out;
    if (!protocol.len)
        return moon_request_check_method(out, r->fault);
    out->method_id = moon_method_from(out->method);
    if (out->method_id != MOON_METHOD_CONNECT)
        return refuse(r->fault, 400, ":protocol without CONNECT");
    if (!moon_slice_equal_fold(protocol, MOON_SLICE("websocket")))
        return refuse(r->fault, 501, "no :protocol but websocket is offered here");
    out->method = MOON_SLICE("GET");
    out->method_id = MOON_METHOD_GET;
    out->is_h2_upgrade = out->has_upgrade = true;
    return 0;
}

// The path is a target in origin form, or the asterisk: no other form comes this way.
static int check_target(struct reading *r)
{
    struct moon_slice path = r->out->target.path;
    if (path.len > r->limits->target_bytes)
        return refuse(r->fault, 414, "request target too long");
    if (path.ptr[0] != '/' && !moon_slice_equal(path, MOON_SLICE("*")))
        return refuse(r->fault, 400, "malformed :path");
    return moon_request_check_target(r->arena, r->limits, r->out, r->fault);
}

// END_STREAM with the head: no body. Else one follows, of the length that is said, or until END_STREAM.
static int check_body(struct reading *r, bool is_bodiless)
{
    struct moon_head *out = r->out;
    if (moon_request_check_body(out, r->fault) != 0)
        return -1;
    if (out->is_h2_upgrade && out->body != MOON_BODY_NONE)
        return refuse(r->fault, 400, "Content-Length on a CONNECT");
    if (out->is_h2_upgrade) // what follows is the tunnel's
        return moon_headers_add_id(&out->headers, r->arena, MOON_H_UPGRADE,
                                   MOON_SLICE("websocket")) == 0
                   ? 0
                   : refuse(r->fault, 431, "head too large");
    if (is_bodiless && out->content_length > 0)
        return refuse(r->fault, 400, "Content-Length without a body");
    if (!is_bodiless && out->body == MOON_BODY_NONE)
        out->body = MOON_BODY_CHUNKED;
    if (!is_bodiless && out->method_id == MOON_METHOD_TRACE)
        return refuse(r->fault, 400, "TRACE with a body");
    return 0;
}

static struct moon_slice part_text(struct moon_slice text, struct moon_h2_part part)
{
    return (struct moon_slice){text.ptr + part.at, part.len};
}

static int read_block(struct reading *r, const struct moon_h2_stream *stream,
                      struct moon_slice text)
{
    struct moon_head *out = r->out;
    struct moon_slice scheme = part_text(text, stream->scheme);
    struct moon_slice lines =
        moon_slice_skip(text, stream->has_fields ? stream->fields_at : text.len);
    bool is_tls = moon_slice_equal_fold(scheme, MOON_SLICE("https"));
    out->method = part_text(text, stream->method);
    out->target.path = part_text(text, stream->path);
    if (stream->is_too_large)
        return refuse(r->fault, 431, "the request head is too large");
    if (check_method(r, part_text(text, stream->protocol)) !=
        0) // plain CONNECT has no more than that
        return -1;
    if (!out->target.path.len || !scheme.len)
        return refuse(r->fault, 400, "missing pseudo-header");
    if (!is_tls && !moon_slice_equal_fold(scheme, MOON_SLICE("http")))
        return refuse(r->fault, 400, "foreign :scheme");
    if (check_target(r) != 0)
        return -1;
    if (moon_headers_init(&out->headers, r->arena,
                          stream->field_count + FIELD_SPARE_COUNT + (stream->crumb_count > 0)) != 0)
        return refuse(r->fault, 431, "head too large");
    if (stream->authority.len) {
        out->host_text = part_text(text, stream->authority);
        if (add_field(r, (struct moon_slice){out->host_text.ptr - 6, 4}, out->host_text) != 0)
            return -1;
    }
    if (read_fields(r, lines) != 0 || check_host(r, is_tls ? 443 : 80) != 0)
        return -1;
    if (r->crumb_count > 1 && join_crumbs(r, lines) != 0)
        return -1;
    return check_body(r, stream->is_bodiless);
}

int moon_h2_request_read(struct moon_h2 *h2, struct moon_h2_stream *stream,
                         struct moon_arena *arena, const struct moon_head_limits *limits,
                         struct moon_head *out, struct moon_fault *fault)
{
    struct reading r = {.arena = arena, .limits = limits, .out = out, .fault = fault};
    *out = (struct moon_head){.minor = 1, .is_h2 = true, .keep_alive = true};
    struct moon_slice text = moon_arena_try_copy(arena, moon_buffer_bytes(&stream->block));
    moon_buffer_fini(&stream->block, h2->args.buffers);
    return text.ptr ? read_block(&r, stream, text) : refuse(fault, 431, "head too large");
}

int moon_h2_trailers_read(struct moon_h2 *h2, struct moon_h2_stream *stream,
                          struct moon_arena *arena, struct moon_headers *out)
{
    int err = 0;
    if (moon_buffer_len(&stream->trailer_block))
        err = moon_trailers_parse(arena, moon_buffer_bytes(&stream->trailer_block), out);
    moon_buffer_fini(&stream->trailer_block, h2->args.buffers);
    return err;
}
