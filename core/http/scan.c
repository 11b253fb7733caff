// Finds the end of a head in the shared read buffer and refuses, as early as they come, bytes that
// no head may hold. Runs over each byte once, however slowly a head drips in: `seen_len` never
// stands behind a lone CR, so that every CR is met with its LF.
//
//   [CRLF] start line CRLF (field CRLF)* CRLF          the first [CRLF] before requests only
#include "http/head.h"

#include "http/chars.h"

enum { START_LINE_SPARE_LEN = 64 }; // method, spaces and version, beside the target

struct place {
    struct moon_slice bytes;
    const struct moon_head_limits *limits;
    struct moon_fault *fault;
    bool is_request;
};

static ssize_t refuse(const struct place *at, uint16_t status, const char *reason)
{
    *at->fault = (struct moon_fault){at->is_request ? status : 502, reason};
    return -1;
}

static ssize_t refuse_control(const struct place *at, size_t pos)
{
    switch (at->bytes.ptr[pos]) {
    case '\r':
        return refuse(at, 400, "bare CR in the head");
    case '\n':
        return refuse(at, 400, "bare LF in the head");
    case '\0':
        return refuse(at, 400, "NUL in the head");
    default:
        return refuse(at, 400, "control byte in the head");
    }
}

static bool is_line_start(const struct place *at, size_t pos)
{
    return pos == 0 || at->bytes.ptr[pos - 1] == '\n';
}

// The start line begins at 0, or at 2 behind an empty line.
static bool is_before_start_line(const struct place *at, size_t pos)
{
    return pos == 0 || (pos == 2 && at->bytes.ptr[0] == '\r');
}

// A CRLF stands at pos, the start of a line: the end of the head (its length), or the empty line
// before a request (0).
static ssize_t empty_line(const struct place *at, size_t pos)
{
    if (!is_before_start_line(at, pos))
        return (ssize_t)pos + 2;
    if (pos == 0 && at->is_request)
        return 0;
    return refuse(at, 400,
                  at->is_request ? "empty lines before the request"
                                 : "empty line before the response");
}

static ssize_t check_line_start(const struct place *at, size_t pos)
{
    char c = at->bytes.ptr[pos];
    if (c != ' ' && c != '\t')
        return 0;
    if (is_before_start_line(at, pos))
        return refuse(at, 400, "white space before the start line");
    return refuse(at, 400, "folded header line");
}

// Of a head of `len` bytes, complete or not: the start line must end within its bounds, and all of
// it within its own.
static ssize_t check_room(const struct place *at, size_t len)
{
    size_t line_max_len = (size_t)at->limits->target_bytes + START_LINE_SPARE_LEN;
    if (len > line_max_len && !memchr(at->bytes.ptr + 2, '\n', line_max_len - 2))
        return refuse(at, 414, at->is_request ? "request target too long" : "status line too long");
    if (len > at->limits->head_bytes)
        return refuse(at, 431, "head too large");
    return 0;
}

// `len` of the complete head, or -1.
static ssize_t finish(const struct place *at, ssize_t len)
{
    return len < 0 || check_room(at, (size_t)len) < 0 ? -1 : len;
}

ssize_t moon_head_scan(struct moon_head_scan *scan, struct moon_slice bytes,
                       const struct moon_head_limits *limits, bool is_request,
                       struct moon_fault *fault)
{
    const struct place at = {bytes, limits, fault, is_request};
    // Never looks further than a head may reach, whatever the buffer holds.
    size_t len =
        bytes.len < (size_t)limits->head_bytes + 2 ? bytes.len : (size_t)limits->head_bytes + 2;
    size_t pos = scan->seen_len;
    while (pos < len) {
        bool starts = is_line_start(&at, pos);
        if (starts && check_line_start(&at, pos) < 0)
            return -1;
        size_t stop = pos + moon_chars_find_control(bytes.ptr + pos, len - pos);
        if (stop < len && bytes.ptr[stop] == '\t') {
            pos = stop + 1;
            continue;
        }
        if (stop == len || (bytes.ptr[stop] == '\r' && stop + 1 == len)) {
            pos = stop;
            break;
        }
        if (bytes.ptr[stop] != '\r' || bytes.ptr[stop + 1] != '\n')
            return refuse_control(&at, stop);
        if (starts && stop == pos) {
            ssize_t head_len = empty_line(&at, pos);
            if (head_len != 0)
                return finish(&at, head_len);
        }
        pos = stop + 2;
    }
    scan->seen_len = (uint32_t)pos;
    return check_room(&at, len);
}
