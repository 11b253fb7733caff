// Bodies that tell whose they are: one long pattern, begun at a place that the tag and the direction decide.
#include "test/sim/scenario.h"

#include <stdio.h>
#include <string.h>

enum { PERIOD = 65521 }; // a prime, so that no buffer size hides a slip

// A byte of the pattern depends on its place alone; 4 bytes of a mixed counter at a time.
static char pattern_at(size_t at)
{
    uint32_t word = (uint32_t)(at / 4) * 0x9e3779b1u;
    word = (word ^ (word >> 15)) * 0x85ebca77u;
    return (char)(word >> (8 * (at % 4)));
}

static size_t place(uint64_t tag, int direction, size_t from)
{
    uint64_t z = (tag * 2 + (uint64_t)direction) * 0xbf58476d1ce4e5b9u;
    return (size_t)(((z >> 20) + from) % PERIOD);
}

static void fill(uint64_t tag, int direction, size_t from, char *to, size_t len)
{
    size_t at = place(tag, direction, from);
    for (size_t i = 0; i < len; i++) {
        to[i] = pattern_at(at);
        at = at + 1 == PERIOD ? 0 : at + 1;
    }
}

void body_add(struct text *text, uint64_t tag, int direction, size_t from, size_t len)
{
    char bytes[4096];
    for (size_t n; len > 0; len -= n, from += n) {
        n = len < sizeof bytes ? len : sizeof bytes;
        fill(tag, direction, from, bytes, n);
        text_add(text, bytes, n);
    }
}

bool body_matches(uint64_t tag, int direction, size_t from, const char *bytes, size_t len)
{
    char right[4096];
    for (size_t n; len > 0; len -= n, from += n, bytes += n) {
        n = len < sizeof right ? len : sizeof right;
        fill(tag, direction, from, right, n);
        if (memcmp(bytes, right, n) != 0)
            return false;
    }
    return true;
}

void body_add_framed(struct text *text, const struct request *request, int direction, size_t len,
                     bool is_whole, size_t chunk_len)
{
    enum message_framing framing = direction ? request->plan.framing : request->framing;
    if (framing != FRAMING_CHUNKED) {
        body_add(text, request->tag, direction, 0, len);
        return;
    }
    char line[32];
    for (size_t at = 0, n; at < len; at += n) {
        n = len - at < chunk_len ? len - at : chunk_len;
        text_add(text, line, (size_t)snprintf(line, sizeof line, "%zx\r\n", n));
        body_add(text, request->tag, direction, at, n);
        text_add(text, "\r\n", 2);
    }
    if (!is_whole)
        return;
    text_add(text, "0\r\n", 3);
    if (request->has_trailers)
        text_add(text, line, (size_t)snprintf(line, sizeof line, "X-Sum: %zu\r\n", len));
    text_add(text, "\r\n", 2);
}
