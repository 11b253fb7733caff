// Response heads: status line here, fields by fields.c, then which body follows (RFC 9112 6.3).
// Whatever an upstream gets wrong is a 502 that names the cause, and its connection is not used
// again.
#include "http/head.h"

#include "http/chars.h"
#include "http/head_priv.h"

#define BIT(id) (UINT64_C(1) << MOON_H_##id)
const uint64_t moon_response_singletons =
    BIT(CONTENT_LENGTH) | BIT(TRANSFER_ENCODING) | BIT(LOCATION) | BIT(CONTENT_RANGE);
#undef BIT

enum { VERSION_LEN = 8, STATUS_LEN = 3 };

static int refuse(struct moon_fault *fault, const char *reason)
{
    *fault = (struct moon_fault){502, reason};
    return -1;
}

static int read_status(struct moon_slice text, struct moon_head *out, struct moon_fault *fault)
{
    if (text.len < STATUS_LEN || (text.len > STATUS_LEN && text.ptr[STATUS_LEN] != ' '))
        return refuse(fault, "malformed status in the response");
    for (size_t i = 0; i < STATUS_LEN; i++) {
        if (!moon_char_is_digit(text.ptr[i]))
            return refuse(fault, "malformed status in the response");
        out->status = (uint16_t)(out->status * 10 + (text.ptr[i] - '0'));
    }
    if (out->status < 100 || out->status > 599)
        return refuse(fault, "status out of range in the response");
    out->reason = moon_slice_skip(text, text.len > STATUS_LEN ? STATUS_LEN + 1 : STATUS_LEN);
    if (!moon_header_value_is_valid(out->reason))
        return refuse(fault, "forbidden byte in the reason of the response");
    return 0;
}

// version SP status [SP reason]
static int read_line(struct moon_slice line, struct moon_head *out, struct moon_fault *fault)
{
    unsigned major, minor;
    struct moon_slice version = {line.ptr, line.len < VERSION_LEN ? line.len : VERSION_LEN};
    if (!moon_version_parse(version, &major, &minor) || line.len == VERSION_LEN ||
        line.ptr[VERSION_LEN] != ' ')
        return refuse(fault, "malformed status line in the response");
    if (major != 1 || minor > 1)
        return refuse(fault, "HTTP version of the response not supported");
    out->minor = (uint8_t)minor;
    return read_status(moon_slice_skip(line, VERSION_LEN + 1), out, fault);
}

static bool has_no_body(const struct moon_head *head, enum moon_method request_method)
{
    if (request_method == MOON_METHOD_HEAD || head->status < 200 || head->status == 204 ||
        head->status == 304)
        return true;
    return request_method == MOON_METHOD_CONNECT && head->status < 300;
}

static int check_framing(enum moon_method request_method, struct moon_head *out,
                         struct moon_fault *fault)
{
    const struct moon_field *coding = moon_headers_get(&out->headers, MOON_H_TRANSFER_ENCODING);
    const struct moon_field *length = moon_headers_get(&out->headers, MOON_H_CONTENT_LENGTH);
    if (coding && length)
        return refuse(fault, "Content-Length with Transfer-Encoding in the response");
    if (coding && out->minor == 0)
        return refuse(fault, "Transfer-Encoding in an HTTP/1.0 response");
    if (coding && !moon_slice_equal_fold(coding->value, MOON_SLICE("chunked")))
        return refuse(fault, "unknown Transfer-Encoding in the response");
    if (length && !moon_content_length_parse(length->value, &out->content_length))
        return refuse(fault, "malformed Content-Length in the response");
    if (has_no_body(out, request_method))
        out->body = MOON_BODY_NONE;
    else if (coding)
        out->body = MOON_BODY_CHUNKED;
    else
        out->body = length ? MOON_BODY_LENGTH : MOON_BODY_CLOSE;
    if (out->body == MOON_BODY_CLOSE)
        out->keep_alive = false;
    return 0;
}

int moon_response_parse(struct moon_arena *arena, struct moon_slice text,
                        const struct moon_head_limits *limits, enum moon_method request_method,
                        struct moon_head *out, struct moon_fault *fault)
{
    *out = (struct moon_head){0};
    const char *lf = text.len ? memchr(text.ptr, '\n', text.len) : NULL;
    if (!lf || lf == text.ptr || lf[-1] != '\r')
        return refuse(fault, "malformed status line in the response");
    struct moon_slice line = {text.ptr, (size_t)(lf - text.ptr) - 1};
    if (read_line(line, out, fault) != 0)
        return -1;
    const struct moon_fields_args args = {arena, limits, text, false, moon_response_singletons,
                                          fault};
    if (moon_fields_read(&args, &out->headers) != 0)
        return -1;
    if (!moon_head_read_connection(out))
        return refuse(fault, "too many Connection options in the response");
    return check_framing(request_method, out, fault);
}
