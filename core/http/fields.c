// Field lines of a head, read by llhttp in strict mode: its spans become slices of the head,
// without a copy. llhttp answers for the bytes of names and values (head_fuzz holds it to that);
// what it leaves open, empty names, folds and line ends, is checked here. The cause of a refusal is
// looked for by a reader of our own, so that the answer can name it.
#include "http/head_priv.h"

#include "base/arena.h"
#include "http/chars.h"

#include <assert.h>
#include <llhttp.h>

_Static_assert(LLHTTP_STRICT_MODE == 1, "llhttp must be compiled and used in strict mode");

enum {
    FIELD_GUESS_LEN = 32,  // bytes a field takes, for the first size of the table
    FIELD_SPARE_COUNT = 8, // fields that the gateway adds
    CONNECTION_MAX_COUNT = 32,
};

struct reading {
    const struct moon_fields_args *args;
    struct moon_headers *headers;
    const char *end;
    struct moon_slice name, value;
    bool has_name, is_complete, has_fault, refuses_underscore;
};

static const char *const repeated[MOON_H_COUNT] = {[MOON_H_OTHER] = "repeated header",
#define X(id, name) [MOON_H_##id] = "repeated " name,
                                                   MOON_HEADER_NAMES(X)
#undef X
};

const char *moon_header_repeated(enum moon_header_id id)
{
    return repeated[id];
}

static int refuse(struct reading *r, uint16_t status, const char *reason)
{
    *r->args->fault = (struct moon_fault){r->args->is_request ? status : 502, reason};
    r->has_fault = true;
    return -1;
}

// Only white space and CRLF follow.
static bool ends_line(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\t'))
        p++;
    return end - p >= 2 && p[0] == '\r' && p[1] == '\n';
}

static bool starts_value(const char *p, const char *value)
{
    if (*p++ != ':')
        return false;
    while (p < value && (*p == ' ' || *p == '\t'))
        p++;
    return p >= value;
}

static bool is_verbatim(struct moon_slice name, struct moon_slice value, const char *end)
{
    const char *colon = name.ptr + name.len, *stop = value.ptr + value.len;
    return value.ptr == colon + 2 && colon[0] == ':' && colon[1] == ' ' && end - stop >= 2 &&
           stop[0] == '\r' && stop[1] == '\n';
}

static int check_field(struct reading *r, uint8_t id, uint64_t before)
{
    const struct moon_head_limits *limits = r->args->limits;
    if ((before & r->args->singletons) >> id & 1)
        return refuse(r, 400, repeated[id]);
    if (id == MOON_H_OTHER && r->refuses_underscore && memchr(r->name.ptr, '_', r->name.len))
        return refuse(r, 400, "underscore in a header name");
    if (r->headers->count > limits->field_count)
        return refuse(r, 431, "too many header fields");
    return 0;
}

static struct moon_slice trim_end(struct moon_slice value)
{
    while (value.len && (value.ptr[value.len - 1] == ' ' || value.ptr[value.len - 1] == '\t'))
        value.len--;
    return value;
}

static int finish_field(struct reading *r)
{
    r->has_name = false;
    if (r->name.len == 0)
        return refuse(r, 400, "empty header name");
    r->value = trim_end(r->value);
    bool verbatim = is_verbatim(r->name, r->value, r->end);
    if (!verbatim && (!starts_value(r->name.ptr + r->name.len, r->value.ptr) ||
                      !ends_line(r->value.ptr + r->value.len, r->end)))
        return refuse(r, 400, "malformed header line");
    uint64_t before = r->headers->present;
    if (moon_headers_add_received(r->headers, r->args->arena, r->name, r->value, verbatim) != 0)
        return refuse(r, 431, "head too large");
    return check_field(r, r->headers->fields[r->headers->count - 1].id, before);
}

static int on_name(llhttp_t *parser, const char *at, size_t len)
{
    struct reading *r = parser->data;
    if (r->has_name && finish_field(r) != 0)
        return HPE_USER;
    r->name = (struct moon_slice){at, len};
    r->value = (struct moon_slice){at + len + 1, 0};
    r->has_name = true;
    return 0;
}

static int on_value(llhttp_t *parser, const char *at, size_t len)
{
    struct reading *r = parser->data;
    if (len == 0) // stands behind the line
        return 0;
    if (r->value.len) {
        refuse(r, 400, "folded header line");
        return HPE_USER;
    }
    r->value = (struct moon_slice){at, len};
    return 0;
}

static int on_complete(llhttp_t *parser)
{
    struct reading *r = parser->data;
    if (r->has_name && finish_field(r) != 0)
        return -1;
    r->is_complete = true;
    return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
    .on_header_field = on_name,
    .on_header_value = on_value,
    .on_headers_complete = on_complete,
};

const char *moon_field_line_check(struct moon_slice line, struct moon_slice *name,
                                  struct moon_slice *value)
{
    const char *colon = line.len ? memchr(line.ptr, ':', line.len) : NULL;
    if (line.len && (line.ptr[0] == ' ' || line.ptr[0] == '\t'))
        return "folded header line";
    if (!colon)
        return "header line without a colon";
    *name = (struct moon_slice){line.ptr, (size_t)(colon - line.ptr)};
    *value = moon_slice_trim(moon_slice_skip(line, name->len + 1));
    if (name->len == 0)
        return "empty header name";
    if (colon[-1] == ' ' || colon[-1] == '\t')
        return "white space before a colon";
    if (!moon_header_name_is_valid(*name))
        return "forbidden byte in a header name";
    return moon_header_value_is_valid(*value) ? NULL : "forbidden byte in a header value";
}

// llhttp refused: the first line that is wrong by itself tells why.
static const char *find_cause(struct moon_slice text)
{
    struct moon_slice name, value;
    const char *lf = memchr(text.ptr, '\n', text.len);
    while (lf) {
        text = moon_slice_skip(text, (size_t)(lf - text.ptr) + 1);
        lf = text.len ? memchr(text.ptr, '\n', text.len) : NULL;
        if (!lf || lf == text.ptr || lf[-1] != '\r')
            return "malformed line end in the head";
        struct moon_slice line = {text.ptr, (size_t)(lf - text.ptr) - 1};
        if (line.len == 0)
            break;
        const char *cause = moon_field_line_check(line, &name, &value);
        if (cause)
            return cause;
    }
    return NULL;
}

static int explain(struct reading *r, const llhttp_t *parser)
{
    const char *cause = find_cause(r->args->text);
    if (cause)
        return refuse(r, 400, cause);
    switch (llhttp_get_errno(parser)) {
    case HPE_INVALID_CONTENT_LENGTH:
        return refuse(r, 400, "malformed Content-Length");
    case HPE_UNEXPECTED_CONTENT_LENGTH:
        if (parser->flags & F_TRANSFER_ENCODING)
            return refuse(r, 400, "Content-Length with Transfer-Encoding");
        return refuse(r, 400, "repeated Content-Length");
    case HPE_INVALID_TRANSFER_ENCODING:
        if (parser->flags & F_CONTENT_LENGTH)
            return refuse(r, 400, "Content-Length with Transfer-Encoding");
        return refuse(r, 400, "malformed Transfer-Encoding");
    default:
        return refuse(r, 400, "malformed head");
    }
}

int moon_fields_read(const struct moon_fields_args *args, struct moon_headers *headers)
{
    struct reading r = {.args = args, .headers = headers, .end = args->text.ptr + args->text.len};
    r.refuses_underscore = args->is_request && !args->limits->allow_underscore;
    llhttp_t parser;
    uint32_t guess = (uint32_t)(args->text.len / FIELD_GUESS_LEN) + FIELD_SPARE_COUNT;
    if (guess > args->limits->field_count + FIELD_SPARE_COUNT)
        guess = args->limits->field_count + FIELD_SPARE_COUNT;
    if (moon_headers_init(headers, args->arena, guess) != 0)
        return refuse(&r, 431, "head too large");
    llhttp_init(&parser, args->is_request ? HTTP_REQUEST : HTTP_RESPONSE, &settings);
    parser.data = &r;
    llhttp_errno_t err = llhttp_execute(&parser, args->text.ptr, args->text.len);
    if (r.has_fault)
        return -1;
    if (err != HPE_PAUSED || !r.is_complete)
        return explain(&r, &parser);
    if (llhttp_get_error_pos(&parser) != r.end)
        return refuse(&r, 400, "bytes behind the head");
    return 0;
}

bool moon_content_length_parse(struct moon_slice value, uint64_t *out)
{
    bool is_canonical = value.len == 1 || (value.len > 1 && value.ptr[0] != '0');
    return is_canonical && moon_slice_to_u64(value, out) && *out <= INT64_MAX;
}

bool moon_version_parse(struct moon_slice text, unsigned *major, unsigned *minor)
{
    if (text.len != 8 || !moon_slice_starts(text, MOON_SLICE("HTTP/")) ||
        !moon_char_is_digit(text.ptr[5]) || text.ptr[6] != '.' || !moon_char_is_digit(text.ptr[7]))
        return false;
    *major = (unsigned)(text.ptr[5] - '0');
    *minor = (unsigned)(text.ptr[7] - '0');
    return true;
}

static bool offers_h2c(const struct moon_headers *h)
{
    for (uint32_t i = 0; i < h->count; i++) {
        struct moon_slice rest = h->fields[i].value, item;
        while (h->fields[i].id == MOON_H_UPGRADE && moon_slice_next_item(&rest, &item)) {
            struct moon_slice start = {item.ptr, 3};
            if (item.len >= 3 && moon_slice_equal_fold(start, MOON_SLICE("h2c")))
                return true;
        }
    }
    return false;
}

static bool is_upgrade(const struct moon_head *head)
{
    const struct moon_field *upgrade = moon_headers_get(&head->headers, MOON_H_UPGRADE);
    return upgrade && head->minor == 1 && upgrade->value.len > 0 &&
           upgrade->value.len <= MOON_UPGRADE_MAX_LEN && !offers_h2c(&head->headers);
}

bool moon_head_read_connection(struct moon_head *head)
{
    const struct moon_headers *h = &head->headers;
    bool close = false, keep_alive = false, upgrade = false;
    unsigned count = 0;
    head->keep_alive = head->minor == 1;
    if (!moon_headers_has(h, MOON_H_CONNECTION))
        return true;
    for (uint32_t i = 0; i < h->count; i++) {
        struct moon_slice rest = h->fields[i].value, item;
        while (h->fields[i].id == MOON_H_CONNECTION && moon_slice_next_item(&rest, &item)) {
            close |= moon_slice_equal_fold(item, MOON_SLICE("close"));
            keep_alive |= moon_slice_equal_fold(item, MOON_SLICE("keep-alive"));
            upgrade |= moon_slice_equal_fold(item, MOON_SLICE("upgrade"));
            if (++count > CONNECTION_MAX_COUNT)
                return false;
        }
    }
    head->keep_alive = !close && (head->minor == 1 || keep_alive);
    head->has_upgrade = upgrade && is_upgrade(head);
    return true;
}
