// Formats of the access log, compiled once, written for every request. Two kinds: JSON, a list of field names, one object a
// line; and text, a template such as "$client $method ${request.header.x-y}".
//
// Everything of a record may be absent: null in JSON, "-" in text. A field takes at most 4 KiB, escaped, and a record at
// most MOON_FORMAT_RECORD_LEN: what is longer is cut. A format is immutable; any thread may use it.
#pragma once

#include "base/slice.h"

#include <stddef.h>
#include <stdint.h>

struct moon_address;
struct moon_format;

enum { MOON_FORMAT_RECORD_LEN = 65536, MOON_FORMAT_FIELD_LEN = 4096, MOON_FORMAT_ITEM_COUNT = 64 };

// X(name): the names of fields; beside them "request.header.NAME" and "response.header.NAME".
// clang-format off: it would fill the lines
#define MOON_FORMAT_FIELDS(X) \
    X(time)                   \
    X(time_clf)               \
    X(client)                 \
    X(port)                   \
    X(method)                 \
    X(scheme)                 \
    X(host)                   \
    X(path)                   \
    X(query)                  \
    X(protocol)               \
    X(request)                \
    X(status)                 \
    X(request_bytes)          \
    X(response_bytes)         \
    X(duration)               \
    X(route)                  \
    X(upstream)               \
    X(endpoint)               \
    X(upstream_duration)      \
    X(attempts)               \
    X(complete)               \
    X(id)                     \
    X(user_agent)             \
    X(referer)                \
    X(grpc_status)
// clang-format on

enum moon_format_field {
#define X(name) MOON_FORMAT_##name,
    MOON_FORMAT_FIELDS(X)
#undef X
        MOON_FORMAT_header
};

// What is known of a request that has ended. Texts with a NULL ptr, a NULL address, status 0 are absent.
struct moon_record {
    uint64_t wall_ms; // 0: absent
    const struct moon_address *client, *endpoint;
    struct moon_slice method, scheme, host, path, query, protocol, route, upstream, id, user_agent,
        referer, grpc_status;
    const struct moon_slice *headers; // one for each moon_format_header
    uint64_t request_len, response_len, us, upstream_us;
    uint32_t attempt_count;
    uint16_t status;
    bool has_upstream_us;
    bool is_complete;
};

// The last second that was written out; one a worker, zeroed at first.
struct moon_format_clock {
    uint64_t second;
    char iso[24], clf[32];
};

// NULL: *bad is the name that is not known, or empty when there are too many items or too much text.
struct moon_format *moon_format_new_json(const struct moon_slice *names, size_t count,
                                         struct moon_slice *bad);
struct moon_format *moon_format_new_text(struct moon_slice template, struct moon_slice *bad);
void moon_format_free(struct moon_format *format);

// The names of fields, NULL-terminated, for suggestions.
extern const char *const moon_format_names[];
// What `fields` of JSON and "combined" are when nothing is said.
extern const struct moon_slice moon_format_json_default[];
extern const size_t moon_format_json_default_count;
extern const struct moon_slice moon_format_combined;

// Whether the format has that field: what it has not need not be found out.
bool moon_format_has(const struct moon_format *format, enum moon_format_field field);

struct moon_format_header {
    struct moon_slice name;
    bool is_response;
};

size_t moon_format_header_count(const struct moon_format *format);
const struct moon_format_header *moon_format_header(const struct moon_format *format, size_t index);

// Writes one line with its '\n' to `to`, which has MOON_FORMAT_RECORD_LEN bytes; returns its length.
size_t moon_format_write(const struct moon_format *format, struct moon_format_clock *clock,
                         const struct moon_record *record, char *to);
