// Serialising heads, once per message. Fields that stand in the received head as they are to be
// sent, one behind the other, go out in one copy. The framing fields are written from struct
// moon_framing only: a field of the table that frames is passed over, so that no message leaves
// with two.
#include "http/head.h"

#include "http/head_priv.h"

#include <assert.h>

#define BIT(id) (UINT64_C(1) << MOON_H_##id)
static const uint64_t framing_ids = BIT(CONTENT_LENGTH) | BIT(TRANSFER_ENCODING) | BIT(CONNECTION);
static const uint64_t request_ids = BIT(HOST);
#undef BIT

enum {
    // "HTTP/1.1 " and the like, Host, Content-Length, Connection, Upgrade, TE and the empty line
    FIXED_MAX_LEN = 256 + MOON_UPGRADE_MAX_LEN,
};

static inline char *put(char *to, struct moon_slice s)
{
    if (s.len)
        memcpy(to, s.ptr, s.len);
    return to + s.len;
}

#define PUT(to, literal) put((to), MOON_SLICE(literal))

static char *put_u64(char *to, uint64_t value)
{
    char digits[MOON_U64_DIGITS];
    return put(to, moon_slice_from_u64(value, digits));
}

static char *put_connection(char *to, const struct moon_framing *framing)
{
    bool is_first = true;
    const struct {
        bool is_set;
        struct moon_slice text;
    } options[] = {
        {framing->upgrade.len > 0, MOON_SLICE("upgrade")},
        {framing->te_trailers, MOON_SLICE("TE")},
        {framing->close, MOON_SLICE("close")},
        {framing->keep_alive && !framing->close, MOON_SLICE("keep-alive")},
    };
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        if (!options[i].is_set)
            continue;
        to = is_first ? PUT(to, "Connection: ") : PUT(to, ", ");
        to = put(to, options[i].text);
        is_first = false;
    }
    return is_first ? to : PUT(to, "\r\n");
}

static char *put_framing(char *to, const struct moon_framing *framing)
{
    switch (framing->body) {
    case MOON_BODY_LENGTH:
        to = PUT(to, "Content-Length: ");
        to = put_u64(to, framing->content_length);
        to = PUT(to, "\r\n");
        break;
    case MOON_BODY_CHUNKED:
        to = PUT(to, "Transfer-Encoding: chunked\r\n");
        break;
    case MOON_BODY_NONE:
    case MOON_BODY_CLOSE:
        break;
    }
    if (framing->close || framing->keep_alive || framing->te_trailers || framing->upgrade.len)
        to = put_connection(to, framing);
    if (framing->upgrade.len) {
        assert(framing->upgrade.len <= MOON_UPGRADE_MAX_LEN);
        to = PUT(to, "Upgrade: ");
        to = put(to, framing->upgrade);
        to = PUT(to, "\r\n");
    }
    return framing->te_trailers ? PUT(to, "TE: trailers\r\n") : to;
}

static char *put_field(char *to, const struct moon_field *field)
{
    to = put(to, field->name);
    *to++ = ':';
    *to++ = ' ';
    to = put(to, field->value);
    *to++ = '\r';
    *to++ = '\n';
    return to;
}

// All fields but those of the ids in `skip`.
static char *put_fields(char *to, const struct moon_headers *h, uint64_t skip)
{
    struct moon_slice run = {NULL, 0};
    for (uint32_t i = 0; i < h->count; i++) {
        const struct moon_field *field = &h->fields[i];
        if (skip >> field->id & 1)
            continue;
        if (!field->is_verbatim) {
            to = put(to, run);
            run.len = 0;
            to = put_field(to, field);
            continue;
        }
        if (run.len == 0 || run.ptr + run.len != field->name.ptr) {
            to = put(to, run);
            run = (struct moon_slice){field->name.ptr, 0};
        }
        run.len = (size_t)(field->value.ptr + field->value.len - run.ptr) + 2;
    }
    return put(to, run);
}

size_t moon_head_size(const struct moon_head *head)
{
    size_t len = FIXED_MAX_LEN + head->method.len + head->target.path.len + head->target.query.len +
                 head->host_text.len + head->reason.len;
    for (uint32_t i = 0; i < head->headers.count; i++)
        len += head->headers.fields[i].name.len + head->headers.fields[i].value.len + 4;
    return len;
}

size_t moon_request_write(const struct moon_head *head, const struct moon_framing *framing,
                          char *to)
{
    char *start = to;
    to = put(to, head->method);
    *to++ = ' ';
    to = put(to, head->target.path);
    if (head->target.has_query) {
        *to++ = '?';
        to = put(to, head->target.query);
    }
    to = PUT(to, " HTTP/1.1\r\nHost: ");
    to = put(to, head->host_text);
    to = PUT(to, "\r\n");
    to = put_fields(to, &head->headers, framing_ids | request_ids);
    to = put_framing(to, framing);
    to = PUT(to, "\r\n");
    return (size_t)(to - start);
}

size_t moon_response_write(const struct moon_head *head, const struct moon_framing *framing,
                           char *to)
{
    char *start = to;
    assert(head->status >= 100 && head->status <= 999);
    to = PUT(to, "HTTP/1.1 ");
    to = put_u64(to, head->status);
    *to++ = ' ';
    to = put(to, head->reason.ptr ? head->reason : moon_status_reason(head->status));
    to = PUT(to, "\r\n");
    to = put_fields(to, &head->headers, framing_ids);
    to = put_framing(to, framing);
    to = PUT(to, "\r\n");
    return (size_t)(to - start);
}
