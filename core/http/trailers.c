// Trailer sections (RFC 9110 6.5): lines that body.c collected become a table of the fields that
// may come behind a body. A field that would have changed how the message was framed, routed,
// authenticated or read is left out.
#include "http/body.h"

#include "base/arena.h"
#include "http/head_priv.h"

#include <errno.h>

#define BIT(id) (UINT64_C(1) << MOON_H_##id)
static const uint64_t allowed_ids =
    BIT(OTHER) | BIT(ETAG) | BIT(LAST_MODIFIED) | BIT(CONTENT_DIGEST) | BIT(X_REQUEST_ID);
#undef BIT

static bool may_trail(struct moon_slice name)
{
    static const struct moon_slice prefixes[] = {
        {"content-", 8}, {"x-forwarded-", 12},    {"x-real-", 7}, {"proxy-", 6},
        {"if-", 3},      {"access-control-", 15}, {"sec-", 4},    {"www-", 4},
        {"range", 5},    {"pragma", 6},           {"age", 3},     {"expires", 7},
        {"vary", 4},     {"warning", 7},          {"alt-svc", 7}, {"cookie", 6},
        {"host", 4},     {"strict-transport", 16}};
    enum moon_header_id id = moon_header_id(name);
    if ((allowed_ids >> id & 1) == 0 || id != MOON_H_OTHER)
        return allowed_ids >> id & 1;
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
        struct moon_slice start = {name.ptr, prefixes[i].len};
        if (name.len >= prefixes[i].len && moon_slice_equal_fold(start, prefixes[i]))
            return false;
    }
    return true;
}

// Takes one line without its CRLF off *lines.
static bool take_line(struct moon_slice *lines, struct moon_slice *line)
{
    const char *lf = memchr(lines->ptr, '\n', lines->len);
    if (!lf || lf == lines->ptr || lf[-1] != '\r')
        return false;
    *line = (struct moon_slice){lines->ptr, (size_t)(lf - lines->ptr) - 1};
    *lines = moon_slice_skip(*lines, line->len + 2);
    return true;
}

int moon_trailers_parse(struct moon_arena *arena, struct moon_slice lines, struct moon_headers *out)
{
    struct moon_slice line, name, value;
    struct moon_slice copy = moon_arena_try_copy(arena, lines);
    if (!copy.ptr || moon_headers_init(out, arena, 8) != 0)
        return -ENOMEM;
    while (copy.len > 0) {
        if (!take_line(&copy, &line) || moon_field_line_check(line, &name, &value) != NULL)
            return -EBADMSG;
        if (may_trail(name) && moon_headers_add(out, arena, name, value) != 0)
            return -ENOMEM;
    }
    return 0;
}
