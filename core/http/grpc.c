// Requests, timeouts, statuses and messages of gRPC. See grpc.h.
#include "http/grpc.h"

#include "base/arena.h"
#include "http/head.h"

#include <string.h>

enum { MESSAGE_MAX_LEN = 1024, TIMEOUT_DIGITS = 8 };

// ---- which requests

// What follows a media type's name ends it, or is its suffix or parameters.
static bool is_type_end(struct moon_slice rest)
{
    return rest.len == 0 || rest.ptr[0] == '+' || rest.ptr[0] == ';' || rest.ptr[0] == ' ' ||
           rest.ptr[0] == '\t';
}

static bool take_fold(struct moon_slice *rest, struct moon_slice part)
{
    if (rest->len < part.len ||
        !moon_slice_equal_fold((struct moon_slice){rest->ptr, part.len}, part))
        return false;
    *rest = moon_slice_skip(*rest, part.len);
    return true;
}

enum moon_grpc_kind moon_grpc_kind_of(const struct moon_head *head, struct moon_slice *suffix)
{
    const struct moon_field *type = moon_headers_get(&head->headers, MOON_H_CONTENT_TYPE);
    struct moon_slice rest = type ? type->value : MOON_SLICE("");
    enum moon_grpc_kind kind = MOON_GRPC;
    if (!take_fold(&rest, MOON_SLICE("application/grpc")))
        return MOON_GRPC_NONE;
    if (take_fold(&rest, MOON_SLICE("-web-text")))
        kind = MOON_GRPC_WEB_TEXT;
    else if (take_fold(&rest, MOON_SLICE("-web")))
        kind = MOON_GRPC_WEB;
    if (!is_type_end(rest))
        return MOON_GRPC_NONE;
    if (suffix)
        *suffix = rest;
    return kind;
}

bool moon_grpc_split_path(struct moon_slice path, struct moon_slice *service,
                          struct moon_slice *method)
{
    if (path.len < 4 || path.ptr[0] != '/')
        return false;
    const char *start = path.ptr + 1, *end = path.ptr + path.len;
    const char *slash = memchr(start, '/', path.len - 1);
    if (!slash || slash == start || slash + 1 == end ||
        memchr(slash + 1, '/', (size_t)(end - slash - 1)))
        return false;
    *service = (struct moon_slice){start, (size_t)(slash - start)};
    *method = (struct moon_slice){slash + 1, (size_t)(end - slash - 1)};
    return true;
}

// Of a gRPC-Web client, which always names that header among those that it will send.
static bool is_preflight(const struct moon_head *request)
{
    const struct moon_field *field;
    uint32_t at = 0;
    while ((field = moon_headers_next(&request->headers,
                                      MOON_SLICE("Access-Control-Request-Headers"), &at)) != NULL) {
        struct moon_slice rest = field->value, item;
        while (moon_slice_next_item(&rest, &item))
            if (moon_slice_equal_fold(item, MOON_SLICE("x-grpc-web")))
                return true;
    }
    return false;
}

bool moon_grpc_is_call(const struct moon_head *request)
{
    struct moon_slice service, method;
    if (request->method_id == MOON_METHOD_POST) {
        if (moon_grpc_kind_of(request, NULL) == MOON_GRPC_NONE)
            return false;
    } else if (request->method_id != MOON_METHOD_OPTIONS || !is_preflight(request)) {
        return false;
    }
    return moon_grpc_split_path(request->target.path, &service, &method);
}

// ---- timeouts

// Nanoseconds of a unit; 0: there is no such unit.
static uint64_t unit_ns(char unit)
{
    switch (unit) {
    case 'H':
        return UINT64_C(3600000000000);
    case 'M':
        return UINT64_C(60000000000);
    case 'S':
        return UINT64_C(1000000000);
    case 'm':
        return UINT64_C(1000000);
    case 'u':
        return UINT64_C(1000);
    case 'n':
        return 1;
    default:
        return 0;
    }
}

bool moon_grpc_timeout_read(struct moon_slice text, uint64_t *ms)
{
    uint64_t value = 0, unit = text.len ? unit_ns(text.ptr[text.len - 1]) : 0;
    if (text.len < 2 || text.len > TIMEOUT_DIGITS + 1 || unit == 0)
        return false;
    for (size_t i = 0; i + 1 < text.len; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9')
            return false;
        value = value * 10 + (uint64_t)(text.ptr[i] - '0');
    }
    const uint64_t ms_ns = 1000000;
    *ms = unit >= ms_ns ? value * (unit / ms_ns) : (value * unit + ms_ns - 1) / ms_ns;
    return true;
}

size_t moon_grpc_timeout_write(uint64_t ms, char to[MOON_GRPC_TIMEOUT_LEN])
{
    static const struct {
        char unit;
        uint64_t ms;
    } units[] = {{'m', 1}, {'S', 1000}, {'M', 60000}, {'H', 3600000}};
    char digits[MOON_U64_DIGITS];
    size_t at = 0;
    ms = ms ? ms : 1;
    while (at < 3 && ms / units[at].ms > 99999999)
        at++;
    uint64_t value = ms / units[at].ms;
    struct moon_slice text = moon_slice_from_u64(value > 99999999 ? 99999999 : value, digits);
    memcpy(to, text.ptr, text.len);
    to[text.len] = units[at].unit;
    return text.len + 1;
}

// ---- answers

enum moon_grpc_status moon_grpc_status_of(uint16_t http_status)
{
    switch (http_status) {
    case 200:
        return MOON_GRPC_OK;
    case 400:
        return MOON_GRPC_INTERNAL;
    case 401:
        return MOON_GRPC_UNAUTHENTICATED;
    case 403:
        return MOON_GRPC_PERMISSION_DENIED;
    case 404:
        return MOON_GRPC_UNIMPLEMENTED;
    case 429:
    case 502:
    case 503:
    case 504:
        return MOON_GRPC_UNAVAILABLE;
    default:
        return MOON_GRPC_UNKNOWN;
    }
}

struct moon_slice moon_grpc_message(struct moon_arena *arena, struct moon_slice text)
{
    static const char digits[] = "0123456789ABCDEF";
    if (text.len > MESSAGE_MAX_LEN)
        text.len = MESSAGE_MAX_LEN;
    char *out = moon_arena_try_bytes(arena, text.len * 3 + 1), *to = out;
    if (!out)
        return MOON_SLICE("");
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        if (c >= 0x20 && c <= 0x7e && c != '%') {
            *to++ = (char)c;
            continue;
        }
        *to++ = '%';
        *to++ = digits[c >> 4];
        *to++ = digits[c & 15];
    }
    return (struct moon_slice){out, (size_t)(to - out)};
}
