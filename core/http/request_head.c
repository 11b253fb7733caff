// Request heads: the request line is read here, so that its faults are told apart and the log knows
// what was asked; the fields by fields.c; then the rules of RFC 9112 3.2 (Host), 6 (framing) and
// RFC 9110 10.1.1 (Expect), each in its strict reading.
#include "http/head.h"

#include "http/chars.h"
#include "http/head_priv.h"

const struct moon_head_limits moon_head_limits_default = {
    .head_bytes = 32768,
    .field_count = 100,
    .target_bytes = 16384,
    .escaped_slash = MOON_SLASH_REJECT,
    .allow_underscore = false,
};

#define BIT(id) (UINT64_C(1) << MOON_H_##id)
const uint64_t moon_request_singletons =
    BIT(HOST) | BIT(CONTENT_LENGTH) | BIT(TRANSFER_ENCODING) | BIT(EXPECT) | BIT(AUTHORIZATION) |
    BIT(PROXY_AUTHORIZATION) | BIT(CONTENT_TYPE) | BIT(CONTENT_RANGE) | BIT(FROM) |
    BIT(IF_MODIFIED_SINCE) | BIT(MAX_FORWARDS) | BIT(REFERER) | BIT(USER_AGENT) | BIT(LOCATION) |
    BIT(ORIGIN) | BIT(DATE) | BIT(RETRY_AFTER) | BIT(ETAG) | BIT(LAST_MODIFIED);
#undef BIT

struct known_method {
    struct moon_slice name;
    enum moon_method id;
};

static const struct known_method common[] = {
    {{"GET", 3}, MOON_METHOD_GET},         {{"POST", 4}, MOON_METHOD_POST},
    {{"HEAD", 4}, MOON_METHOD_HEAD},       {{"PUT", 3}, MOON_METHOD_PUT},
    {{"PATCH", 5}, MOON_METHOD_PATCH},     {{"DELETE", 6}, MOON_METHOD_DELETE},
    {{"OPTIONS", 7}, MOON_METHOD_OPTIONS}, {{"TRACE", 5}, MOON_METHOD_TRACE},
    {{"CONNECT", 7}, MOON_METHOD_CONNECT},
};

// WebDAV and its kin (RFC 3253, 3648, 3744, 4791, 4918, 5323, 5789, 5842), UPnP, Subversion, caches. Not RTSP, ICE or PRI.
static const struct moon_slice extensions[] = {
    {"COPY", 4},      {"LOCK", 4},        {"MKCOL", 5},  {"MOVE", 4},        {"PROPFIND", 8},
    {"PROPPATCH", 9}, {"SEARCH", 6},      {"UNLOCK", 6}, {"BIND", 4},        {"REBIND", 6},
    {"UNBIND", 6},    {"ACL", 3},         {"REPORT", 6}, {"MKACTIVITY", 10}, {"CHECKOUT", 8},
    {"MERGE", 5},     {"M-SEARCH", 8},    {"NOTIFY", 6}, {"SUBSCRIBE", 9},   {"UNSUBSCRIBE", 11},
    {"PURGE", 5},     {"MKCALENDAR", 10}, {"LINK", 4},   {"UNLINK", 6},      {"SOURCE", 6},
};

static int refuse(struct moon_fault *fault, uint16_t status, const char *reason)
{
    *fault = (struct moon_fault){status, reason};
    return -1;
}

enum moon_method moon_method_from(struct moon_slice name)
{
    for (size_t i = 0; i < sizeof common / sizeof common[0]; i++) {
        if (moon_slice_equal(name, common[i].name))
            return common[i].id;
    }
    for (size_t i = 0; i < sizeof extensions / sizeof extensions[0]; i++) {
        if (moon_slice_equal(name, extensions[i]))
            return MOON_METHOD_EXTENSION;
    }
    return MOON_METHOD_OTHER;
}

static int check_version(struct moon_slice text, struct moon_head *out, struct moon_fault *fault)
{
    unsigned major, minor;
    if (!moon_version_parse(text, &major, &minor))
        return refuse(fault, 400, "malformed HTTP version");
    if (major != 1 || minor > 1)
        return refuse(fault, 505, "HTTP version not supported");
    out->minor = (uint8_t)minor;
    return 0;
}

int moon_request_check_method(struct moon_head *out, struct moon_fault *fault)
{
    if (!moon_header_name_is_valid(out->method))
        return refuse(fault, 400, "malformed method");
    out->method_id = moon_method_from(out->method);
    if (out->method_id == MOON_METHOD_OTHER)
        return refuse(fault, 501, "unknown method");
    if (out->method_id == MOON_METHOD_CONNECT)
        return refuse(fault, 501, "CONNECT is not offered here");
    return 0;
}

// method SP target SP version, single spaces. *target is what was received.
static int read_line(struct moon_slice line, const struct moon_head_limits *limits,
                     struct moon_head *out, struct moon_fault *fault)
{
    const char *first = line.len ? memchr(line.ptr, ' ', line.len) : NULL;
    if (!first || first == line.ptr)
        return refuse(fault, 400, "malformed request line");
    out->method = (struct moon_slice){line.ptr, (size_t)(first - line.ptr)};
    struct moon_slice rest = moon_slice_skip(line, out->method.len + 1);
    const char *second = rest.len ? memchr(rest.ptr, ' ', rest.len) : NULL;
    out->target.path =
        (struct moon_slice){rest.ptr, second ? (size_t)(second - rest.ptr) : rest.len};
    if (!second)
        return refuse(fault, 400, "request line without a version");
    if (out->target.path.len == 0)
        return refuse(fault, 400, "malformed request line");
    if (out->target.path.len > limits->target_bytes)
        return refuse(fault, 414, "request target too long");
    if (check_version(moon_slice_skip(rest, out->target.path.len + 1), out, fault) != 0)
        return -1;
    return moon_request_check_method(out, fault);
}

int moon_request_check_target(struct moon_arena *arena, const struct moon_head_limits *limits,
                              struct moon_head *out, struct moon_fault *fault)
{
    struct moon_slice received = out->target.path;
    if (!moon_target_parse(arena, received, limits->escaped_slash, &out->target, fault)) {
        out->target = (struct moon_target){.path = received};
        return -1;
    }
    const struct moon_slice authority = out->target.authority_text;
    bool is_bare = authority.ptr && authority.ptr + authority.len == received.ptr + received.len;
    if (out->method_id == MOON_METHOD_OPTIONS && is_bare) { // RFC 9112 3.2.4
        out->target.path = MOON_SLICE("*");
        return 0;
    }
    if (out->target.form == MOON_TARGET_ASTERISK && out->method_id != MOON_METHOD_OPTIONS)
        return refuse(fault, 400, "asterisk target without OPTIONS");
    return 0;
}

bool moon_authority_is_same(const struct moon_authority *a, const struct moon_authority *b,
                            uint16_t default_port)
{
    uint16_t a_port = a->port ? a->port : default_port, b_port = b->port ? b->port : default_port;
    return a_port == b_port && moon_slice_equal_fold(a->host, b->host);
}

// `received` is the target, which tells the scheme of an absolute form.
static int check_host(struct moon_slice received, struct moon_head *out, struct moon_fault *fault)
{
    const struct moon_field *field = moon_headers_get(&out->headers, MOON_H_HOST);
    bool is_absolute = out->target.form == MOON_TARGET_ABSOLUTE;
    if (!field && out->minor == 1)
        return refuse(fault, 400, "missing Host");
    if (field && !moon_authority_parse(field->value, &out->host))
        return refuse(fault, 400, "malformed Host");
    out->host_text = field ? field->value : MOON_SLICE("");
    if (!is_absolute)
        return 0;
    uint16_t default_port = (received.ptr[4] | 0x20) == 's' ? 443 : 80;
    if (field && !moon_authority_is_same(&out->host, &out->target.authority, default_port))
        return refuse(fault, 400, "Host differs from the request target");
    out->host = out->target.authority;
    out->host_text = out->target.authority_text;
    return 0;
}

static int check_coding(struct moon_slice value, struct moon_head *out, struct moon_fault *fault)
{
    if (out->minor == 0)
        return refuse(fault, 400, "Transfer-Encoding in HTTP/1.0");
    if (moon_headers_has(&out->headers, MOON_H_CONTENT_LENGTH))
        return refuse(fault, 400, "Content-Length with Transfer-Encoding");
    if (moon_slice_equal_fold(value, MOON_SLICE("chunked"))) {
        out->body = MOON_BODY_CHUNKED;
        return 0;
    }
    if (!moon_header_name_is_valid(value) || moon_slice_equal_fold(value, MOON_SLICE("identity")))
        return refuse(fault, 400, "malformed Transfer-Encoding");
    return refuse(fault, 501, "unknown Transfer-Encoding");
}

static int check_framing(struct moon_head *out, struct moon_fault *fault)
{
    const struct moon_field *coding = moon_headers_get(&out->headers, MOON_H_TRANSFER_ENCODING);
    const struct moon_field *length = moon_headers_get(&out->headers, MOON_H_CONTENT_LENGTH);
    if (coding && check_coding(coding->value, out, fault) != 0)
        return -1;
    if (length && !moon_content_length_parse(length->value, &out->content_length))
        return refuse(fault, 400, "malformed Content-Length");
    if (length)
        out->body = MOON_BODY_LENGTH;
    if (out->method_id == MOON_METHOD_TRACE && (coding || out->content_length))
        return refuse(fault, 400, "TRACE with a body");
    return 0;
}

static int check_expect(struct moon_head *out, struct moon_fault *fault)
{
    const struct moon_field *expect = moon_headers_get(&out->headers, MOON_H_EXPECT);
    if (!expect)
        return 0;
    if (!moon_slice_equal_fold(expect->value, MOON_SLICE("100-continue")))
        return refuse(fault, 417, "unknown expectation");
    out->expects_continue = out->minor == 1;
    return 0;
}

int moon_request_check_body(struct moon_head *out, struct moon_fault *fault)
{
    return check_framing(out, fault) != 0 ? -1 : check_expect(out, fault);
}

int moon_request_parse(struct moon_arena *arena, struct moon_slice text,
                       const struct moon_head_limits *limits, struct moon_head *out,
                       struct moon_fault *fault)
{
    *out = (struct moon_head){0};
    if (moon_slice_starts(text, MOON_SLICE("\r\n")))
        text = moon_slice_skip(text, 2);
    const char *lf = text.len ? memchr(text.ptr, '\n', text.len) : NULL;
    if (!lf || lf == text.ptr || lf[-1] != '\r')
        return refuse(fault, 400, "malformed request line");
    struct moon_slice line = {text.ptr, (size_t)(lf - text.ptr) - 1};
    if (read_line(line, limits, out, fault) != 0)
        return -1;
    struct moon_slice received = out->target.path;
    if (moon_request_check_target(arena, limits, out, fault) != 0)
        return -1;
    const struct moon_fields_args args = {
        arena, limits, moon_slice_skip(text, line.len + 2), true, moon_request_singletons, fault};
    if (moon_fields_read(&args, &out->headers) != 0)
        return -1;
    if (!moon_head_read_connection(out))
        return refuse(fault, 400, "too many Connection options");
    if (check_host(received, out, fault) != 0)
        return -1;
    return moon_request_check_body(out, fault);
}
