// Field lines of a head: name ":" OWS value OWS CRLF, read in one pass into slices of the head, without a copy (RFC 9112 5,
// in its strict reading: no folds, no space before the colon, no empty name). The reader stands on the classes of chars.h and
// on nothing the scan has seen before it; head_fuzz holds it to llhttp, which may refuse nothing that is accepted here.
#include "http/head_priv.h"

#include "base/arena.h"
#include "http/chars.h"

enum {
    FIELD_GUESS_LEN = 32,  // bytes a field takes, for the first size of the table
    FIELD_SPARE_COUNT = 8, // fields that the gateway adds
    CONNECTION_MAX_COUNT = 32,
};

struct reading {
    const struct moon_fields_args *args;
    struct moon_headers *headers;
    const char *at, *end; // what is not read yet
    bool refuses_underscore;
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
    return -1;
}

// Both stop at the line feed that the lines end with, if nowhere before.
static const char *skip_space(const char *p)
{
    while (*p == ' ' || *p == '\t')
        p++;
    return p;
}

static const char *skip_token(const char *p)
{
    while (moon_char_is(*p, MOON_CHAR_TOKEN))
        p++;
    return p;
}

// To the first byte that no value holds.
static const char *skip_value(const char *p, const char *end)
{
    p += moon_chars_find_control(p, (size_t)(end - p));
    while (p < end && *p == '\t') {
        p++;
        p += moon_chars_find_control(p, (size_t)(end - p));
    }
    return p;
}

static bool is_crlf(const char *p, const char *end)
{
    return end - p >= 2 && p[0] == '\r' && p[1] == '\n';
}

static int check_field(struct reading *r, const struct moon_field *field, uint64_t before)
{
    uint8_t id = field->id;
    const struct moon_head_limits *limits = r->args->limits;
    if ((before & r->args->singletons) >> id & 1)
        return refuse(r, 400, repeated[id]);
    if (id == MOON_H_OTHER && r->refuses_underscore &&
        memchr(field->name.ptr, '_', field->name.len))
        return refuse(r, 400, "underscore in a header name");
    if (r->headers->count > limits->field_count)
        return refuse(r, 431, "too many header fields");
    return 0;
}

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

// The line is wrong; a second look tells why.
static int refuse_line(struct reading *r)
{
    struct moon_slice name, value;
    const char *lf = r->at < r->end ? memchr(r->at, '\n', (size_t)(r->end - r->at)) : NULL;
    if (!lf || lf == r->at || lf[-1] != '\r')
        return refuse(r, 400, "malformed line end in the head");
    struct moon_slice line = {r->at, (size_t)(lf - r->at) - 1};
    const char *cause = moon_field_line_check(line, &name, &value);
    return refuse(r, 400, cause ? cause : "malformed header line");
}

static struct moon_slice trim_end(const char *p, const char *end)
{
    while (end > p && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    return (struct moon_slice){p, (size_t)(end - p)};
}

// Legal, yet no peer writes it, and parsers differ on it.
static bool is_odd_length(const struct moon_field *field, const char *stop)
{
    return field->id == MOON_H_CONTENT_LENGTH && stop[-1] == '\t';
}

static int read_field(struct reading *r)
{
    const char *start = r->at, *end = r->end, *colon = skip_token(start);
    if (colon == start || *colon != ':')
        return refuse_line(r);
    const char *first = skip_space(colon + 1), *stop = skip_value(first, end);
    if (!is_crlf(stop, end))
        return refuse_line(r);
    struct moon_slice name = {start, (size_t)(colon - start)}, value = trim_end(first, stop);
    bool is_verbatim = first == colon + 2 && colon[1] == ' ' && value.ptr + value.len == stop;
    uint64_t before = r->headers->present;
    if (moon_headers_add_received(r->headers, r->args->arena, name, value, is_verbatim) != 0)
        return refuse(r, 431, "head too large");
    const struct moon_field *field = &r->headers->fields[r->headers->count - 1];
    if (is_odd_length(field, stop))
        return refuse(r, 400, "malformed Content-Length");
    r->at = stop + 2;
    return check_field(r, field, before);
}

int moon_fields_read(const struct moon_fields_args *args, struct moon_headers *headers)
{
    struct reading r = {.args = args,
                        .headers = headers,
                        .at = args->lines.ptr,
                        .end = args->lines.ptr + args->lines.len};
    r.refuses_underscore = args->is_request && !args->limits->allow_underscore;
    uint32_t guess = (uint32_t)(args->lines.len / FIELD_GUESS_LEN) + FIELD_SPARE_COUNT;
    if (guess > args->limits->field_count + FIELD_SPARE_COUNT)
        guess = args->limits->field_count + FIELD_SPARE_COUNT;
    if (moon_headers_init(headers, args->arena, guess) != 0)
        return refuse(&r, 431, "head too large");
    bool is_line = args->lines.len > 0 && r.end[-1] == '\n';
    while (is_line && r.at < r.end && !is_crlf(r.at, r.end)) {
        if (read_field(&r) != 0)
            return -1;
    }
    if (!is_line || r.at == r.end)
        return refuse(&r, 400, "malformed line end in the head");
    return r.at + 2 == r.end ? 0 : refuse(&r, 400, "bytes behind the head");
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
    unsigned count = 0, known_count = 0;
    head->keep_alive = head->minor == 1;
    if (!moon_headers_has(h, MOON_H_CONNECTION))
        return true;
    for (uint32_t i = 0; i < h->count; i++) {
        struct moon_slice rest = h->fields[i].value, item;
        while (h->fields[i].id == MOON_H_CONNECTION && moon_slice_next_item(&rest, &item)) {
            bool is_close = moon_slice_equal_fold(item, MOON_SLICE("close")),
                 is_kept = moon_slice_equal_fold(item, MOON_SLICE("keep-alive")),
                 is_upgrade_option = moon_slice_equal_fold(item, MOON_SLICE("upgrade"));
            close |= is_close;
            keep_alive |= is_kept;
            upgrade |= is_upgrade_option;
            known_count += is_close || is_kept || is_upgrade_option;
            if (++count > CONNECTION_MAX_COUNT)
                return false;
        }
    }
    head->keep_alive = !close && (head->minor == 1 || keep_alive);
    head->has_upgrade = upgrade && is_upgrade(head);
    head->names_no_field = known_count == count;
    return true;
}
