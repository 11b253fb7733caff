// The compiler and the writer of access log formats.
//
//   items: literal | field | literal | field ... tail         JSON's keys, commas and braces are literals, too
//
// Invariant: before a field is written, room is left for all literals behind it and for SMALL_LEN of each field behind it, so
// that a record ends as it should however long its fields are.
#include "obs/format.h"

#include "base/address.h"
#include "obs/escape.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    SMALL_LEN = 96,           // no number, address, time or empty text is longer
    LITERALS_MAX_LEN = 16384, // of a whole format
};

struct item {
    struct moon_slice literal; // before the field
    uint8_t field;             // enum moon_format_field
    uint8_t header;            // index, of MOON_FORMAT_header
    uint32_t rest_len;         // what must be left for all that follows the field
};

struct moon_format {
    bool is_json;
    uint32_t item_count, header_count;
    uint64_t used; // bits of fields
    struct moon_slice tail;
    struct item items[MOON_FORMAT_ITEM_COUNT];
    struct moon_format_header headers[MOON_FORMAT_ITEM_COUNT];
};

const char *const moon_format_names[] = {
#define X(name) #name,
    MOON_FORMAT_FIELDS(X)
#undef X
        "request.header.NAME",
    "response.header.NAME",
    NULL,
};

#define NAME(text)               \
    {                            \
        (text), sizeof(text) - 1 \
    }
const struct moon_slice moon_format_json_default[] = {
    NAME("time"),           NAME("client"),   NAME("method"),
    NAME("host"),           NAME("path"),     NAME("query"),
    NAME("protocol"),       NAME("status"),   NAME("request_bytes"),
    NAME("response_bytes"), NAME("duration"), NAME("route"),
    NAME("upstream"),       NAME("endpoint"), NAME("upstream_duration"),
    NAME("attempts"),       NAME("id"),       NAME("user_agent"),
    NAME("referer"),
};
const size_t moon_format_json_default_count =
    sizeof moon_format_json_default / sizeof *moon_format_json_default;
const struct moon_slice moon_format_combined = NAME(
    "$client - - [$time_clf] \"$request\" $status $response_bytes \"$referer\" \"$user_agent\"");

// ---- compiling

static char *copy_of(struct moon_slice text)
{
    char *copy = malloc(text.len + 1);
    if (!copy)
        abort();
    memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    return copy;
}

static bool header_add(struct moon_format *format, struct item *item, struct moon_slice name,
                       bool is_response)
{
    if (name.len == 0 || name.len > 128)
        return false;
    item->field = MOON_FORMAT_header;
    item->header = (uint8_t)format->header_count;
    format->headers[format->header_count++] =
        (struct moon_format_header){{copy_of(name), name.len}, is_response};
    return true;
}

// Fills in what the name of a field means; false: nothing.
static bool resolve(struct moon_format *format, struct item *item, struct moon_slice name)
{
    static const struct moon_slice of_request = NAME("request.header."),
                                   of_response = NAME("response.header.");
    if (moon_slice_starts(name, of_request))
        return header_add(format, item, moon_slice_skip(name, of_request.len), false);
    if (moon_slice_starts(name, of_response))
        return header_add(format, item, moon_slice_skip(name, of_response.len), true);
    for (unsigned i = 0; i < MOON_FORMAT_header; i++) {
        if (!moon_slice_equal(moon_slice_from(moon_format_names[i]), name))
            continue;
        item->field = (uint8_t)i;
        format->used |= UINT64_C(1) << i;
        return true;
    }
    return false;
}

static struct moon_format *format_new(bool is_json)
{
    struct moon_format *format = calloc(1, sizeof *format);
    if (!format)
        abort();
    format->is_json = is_json;
    return format;
}

// Works out what must be left behind each field; false when the literals are too long.
static bool finish(struct moon_format *format)
{
    size_t rest = format->tail.len;
    for (uint32_t i = format->item_count; i > 0; i--) {
        struct item *item = &format->items[i - 1];
        item->rest_len = (uint32_t)rest;
        rest += item->literal.len + SMALL_LEN;
    }
    return rest <= LITERALS_MAX_LEN;
}

// `{"time":` or `,"name":`.
static struct moon_slice key_of(struct moon_slice name, bool is_first)
{
    size_t cap = name.len * 6 + 8, len = 0;
    char *text = malloc(cap);
    if (!text)
        abort();
    text[len++] = is_first ? '{' : ',';
    text[len++] = '"';
    len += moon_escape_json(name, text + len, cap - 8);
    text[len++] = '"';
    text[len++] = ':';
    return (struct moon_slice){text, len};
}

struct moon_format *moon_format_new_json(const struct moon_slice *names, size_t count,
                                         struct moon_slice *bad)
{
    struct moon_format *format = format_new(true);
    *bad = MOON_SLICE("");
    format->tail =
        (struct moon_slice){copy_of(count ? MOON_SLICE("}\n") : MOON_SLICE("{}\n")), count ? 2 : 3};
    if (count > MOON_FORMAT_ITEM_COUNT)
        goto fail;
    for (size_t i = 0; i < count; i++) {
        struct item *item = &format->items[format->item_count++];
        item->literal = key_of(names[i], i == 0);
        if (!resolve(format, item, names[i])) {
            *bad = names[i];
            goto fail;
        }
    }
    if (finish(format))
        return format;
fail:
    moon_format_free(format);
    return NULL;
}

static bool is_name_char(char c)
{
    return (c >= 'a' && c <= 'z') || c == '_';
}

// Takes "$name" or "${name}" off the rest; empty: neither stands there.
static struct moon_slice take_name(struct moon_slice *rest)
{
    struct moon_slice name = moon_slice_skip(*rest, 1);
    size_t len = 0;
    if (name.len && name.ptr[0] == '{') {
        const char *end = memchr(name.ptr, '}', name.len);
        if (!end)
            return (struct moon_slice){NULL, 0};
        name = (struct moon_slice){name.ptr + 1, (size_t)(end - name.ptr) - 1};
        *rest = moon_slice_skip(*rest, name.len + 3);
        return name;
    }
    while (len < name.len && is_name_char(name.ptr[len]))
        len++;
    *rest = moon_slice_skip(*rest, len + 1);
    return (struct moon_slice){name.ptr, len};
}

// Reads plain text up to a field or the end into `to`; "$$" is a dollar. The bytes read.
static size_t take_literal(struct moon_slice *rest, char *to)
{
    size_t len = 0;
    while (rest->len) {
        bool is_dollar = rest->ptr[0] == '$';
        if (is_dollar && (rest->len < 2 || rest->ptr[1] != '$'))
            break;
        to[len++] = rest->ptr[0];
        *rest = moon_slice_skip(*rest, is_dollar ? 2 : 1);
    }
    return len;
}

struct moon_format *moon_format_new_text(struct moon_slice template, struct moon_slice *bad)
{
    struct moon_format *format = format_new(false);
    struct moon_slice rest = template;
    char *literal = malloc(template.len + 2);
    if (!literal)
        abort();
    *bad = MOON_SLICE("");
    for (;;) {
        size_t len = take_literal(&rest, literal);
        if (rest.len == 0) {
            literal[len] = '\n';
            format->tail = (struct moon_slice){literal, len + 1};
            break;
        }
        if (format->item_count == MOON_FORMAT_ITEM_COUNT)
            goto fail;
        struct item *item = &format->items[format->item_count++];
        struct moon_slice before = rest;
        item->literal = (struct moon_slice){copy_of((struct moon_slice){literal, len}), len};
        struct moon_slice name = take_name(&rest);
        if (!resolve(format, item, name)) {
            *bad = name.len ? name : before;
            goto fail;
        }
    }
    if (finish(format))
        return format;
    literal = NULL; // the tail's
fail:
    free(literal);
    moon_format_free(format);
    return NULL;
}

void moon_format_free(struct moon_format *format)
{
    if (!format)
        return;
    for (uint32_t i = 0; i < format->item_count; i++)
        free((void *)format->items[i].literal.ptr);
    for (uint32_t i = 0; i < format->header_count; i++)
        free((void *)format->headers[i].name.ptr);
    free((void *)format->tail.ptr);
    free(format);
}

bool moon_format_has(const struct moon_format *format, enum moon_format_field field)
{
    return (format->used >> field) & 1;
}

size_t moon_format_header_count(const struct moon_format *format)
{
    return format->header_count;
}

const struct moon_format_header *moon_format_header(const struct moon_format *format, size_t index)
{
    return &format->headers[index];
}

// ---- writing

struct writing {
    char *at;
    size_t room; // for this field
    bool is_json;
    struct moon_format_clock *clock;
    const struct moon_record *record;
};

static void put(struct writing *to, struct moon_slice text)
{
    memcpy(to->at, text.ptr, text.len);
    to->at += text.len;
}

static void put_absent(struct writing *to)
{
    put(to, to->is_json ? MOON_SLICE("null") : MOON_SLICE("-"));
}

static void put_quote(struct writing *to)
{
    if (to->is_json)
        *to->at++ = '"';
}

// Text of a peer.
static void put_text(struct writing *to, struct moon_slice text)
{
    if (!text.ptr || (!to->is_json && text.len == 0)) {
        put_absent(to);
        return;
    }
    put_quote(to);
    to->at += to->is_json ? moon_escape_json(text, to->at, to->room - 2)
                          : moon_escape_text(text, to->at, to->room);
    put_quote(to);
}

// Text of ours, of SMALL_LEN at the most, that needs no escape.
static void put_plain(struct writing *to, struct moon_slice text)
{
    put_quote(to);
    put(to, text);
    put_quote(to);
}

static void put_number(struct writing *to, uint64_t number)
{
    char digits[MOON_U64_DIGITS];
    put(to, moon_slice_from_u64(number, digits));
}

// Seconds with six decimals.
static void put_seconds(struct writing *to, uint64_t us)
{
    put_number(to, us / 1000000);
    *to->at++ = '.';
    uint32_t rest = (uint32_t)(us % 1000000);
    for (int i = 5; i >= 0; i--) {
        to->at[i] = (char)('0' + rest % 10);
        rest /= 10;
    }
    to->at += 6;
}

static void put_address(struct writing *to, const struct moon_address *address, bool with_port)
{
    char text[MOON_ADDRESS_TEXT_LEN];
    if (!address || address->family == MOON_FAMILY_NONE) {
        put_absent(to);
        return;
    }
    put_quote(to);
    if (address->family == MOON_FAMILY_IPV4) {
        for (int i = 0; i < 4; i++) {
            if (i)
                *to->at++ = '.';
            put_number(to, address->ip[i]);
        }
        if (with_port)
            *to->at++ = ':';
        if (with_port)
            put_number(to, address->port);
    } else {
        size_t len =
            with_port ? moon_address_format(address, text) : moon_address_format_ip(address, text);
        put(to, (struct moon_slice){text, len});
    }
    put_quote(to);
}

static void tick(struct moon_format_clock *clock, uint64_t second)
{
    time_t at = (time_t)second;
    struct tm utc;
    if (clock->second == second && clock->iso[0])
        return;
    clock->second = second;
    gmtime_r(&at, &utc);
    strftime(clock->iso, sizeof clock->iso, "%Y-%m-%dT%H:%M:%S", &utc);
    strftime(clock->clf, sizeof clock->clf, "%d/%b/%Y:%H:%M:%S +0000", &utc);
}

static void put_time(struct writing *to, bool is_clf)
{
    uint64_t ms = to->record->wall_ms;
    if (ms == 0) {
        put_absent(to);
        return;
    }
    tick(to->clock, ms / 1000);
    if (is_clf) {
        put_plain(to, moon_slice_from(to->clock->clf));
        return;
    }
    char text[32];
    size_t len = strlen(to->clock->iso);
    unsigned rest = (unsigned)(ms % 1000);
    memcpy(text, to->clock->iso, len);
    text[len] = '.';
    text[len + 1] = (char)('0' + rest / 100);
    text[len + 2] = (char)('0' + rest / 10 % 10);
    text[len + 3] = (char)('0' + rest % 10);
    text[len + 4] = 'Z';
    put_plain(to, (struct moon_slice){text, len + 5});
}

// The request line as far as it is known: "GET /path?query HTTP/1.1".
static void put_request(struct writing *to)
{
    const struct moon_record *record = to->record;
    if (!record->method.ptr && !record->path.ptr) {
        put_absent(to);
        return;
    }
    const struct moon_slice parts[] = {
        record->method,  MOON_SLICE(" "),
        record->path,    record->query.ptr ? MOON_SLICE("?") : MOON_SLICE(""),
        record->query,   record->protocol.ptr ? MOON_SLICE(" ") : MOON_SLICE(""),
        record->protocol};
    put_quote(to);
    const char *end = to->at + to->room - 2;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        size_t room = (size_t)(end - to->at);
        if (parts[i].len)
            to->at += to->is_json ? moon_escape_json(parts[i], to->at, room)
                                  : moon_escape_text(parts[i], to->at, room);
    }
    put_quote(to);
}

static void put_field(struct writing *to, const struct item *item)
{
    const struct moon_record *record = to->record;
    switch ((enum moon_format_field)item->field) {
    case MOON_FORMAT_time:
        put_time(to, false);
        return;
    case MOON_FORMAT_time_clf:
        put_time(to, true);
        return;
    case MOON_FORMAT_client:
        put_address(to, record->client, false);
        return;
    case MOON_FORMAT_port:
        if (record->client)
            put_number(to, record->client->port);
        else
            put_absent(to);
        return;
    case MOON_FORMAT_method:
        put_text(to, record->method);
        return;
    case MOON_FORMAT_scheme:
        put_text(to, record->scheme);
        return;
    case MOON_FORMAT_host:
        put_text(to, record->host);
        return;
    case MOON_FORMAT_path:
        put_text(to, record->path);
        return;
    case MOON_FORMAT_query:
        put_text(to, record->query);
        return;
    case MOON_FORMAT_protocol:
        put_text(to, record->protocol);
        return;
    case MOON_FORMAT_request:
        put_request(to);
        return;
    case MOON_FORMAT_status:
        if (record->status)
            put_number(to, record->status);
        else
            put_absent(to);
        return;
    case MOON_FORMAT_request_bytes:
        put_number(to, record->request_len);
        return;
    case MOON_FORMAT_response_bytes:
        put_number(to, record->response_len);
        return;
    case MOON_FORMAT_duration:
        put_seconds(to, record->us);
        return;
    case MOON_FORMAT_route:
        put_text(to, record->route);
        return;
    case MOON_FORMAT_upstream:
        put_text(to, record->upstream);
        return;
    case MOON_FORMAT_endpoint:
        put_address(to, record->endpoint, true);
        return;
    case MOON_FORMAT_upstream_duration:
        if (record->has_upstream_us)
            put_seconds(to, record->upstream_us);
        else
            put_absent(to);
        return;
    case MOON_FORMAT_attempts:
        put_number(to, record->attempt_count);
        return;
    case MOON_FORMAT_complete:
        put(to, record->is_complete ? MOON_SLICE("true") : MOON_SLICE("false"));
        return;
    case MOON_FORMAT_id:
        put_text(to, record->id);
        return;
    case MOON_FORMAT_grpc_status:
        put_text(to, record->grpc_status);
        return;
    case MOON_FORMAT_user_agent:
        put_text(to, record->user_agent);
        return;
    case MOON_FORMAT_referer:
        put_text(to, record->referer);
        return;
    case MOON_FORMAT_header:
        put_text(to, record->headers[item->header]);
        return;
    }
}

size_t moon_format_write(const struct moon_format *format, struct moon_format_clock *clock,
                         const struct moon_record *record, char *to)
{
    struct writing writing = {
        .at = to, .is_json = format->is_json, .clock = clock, .record = record};
    const char *end = to + MOON_FORMAT_RECORD_LEN;
    for (uint32_t i = 0; i < format->item_count; i++) {
        const struct item *item = &format->items[i];
        put(&writing, item->literal);
        size_t room = (size_t)(end - writing.at) - item->rest_len;
        writing.room = room < MOON_FORMAT_FIELD_LEN ? room : MOON_FORMAT_FIELD_LEN;
        put_field(&writing, item);
    }
    put(&writing, format->tail);
    return (size_t)(writing.at - to);
}
