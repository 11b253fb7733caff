// Does a request meet a match? Cheap questions come first: equalities, then the path's expression, then others.
// A header is looked at with all its values joined (", "; cookies "; "), which equality does without joining them; a query
// parameter by its first value, decoded ("%41" and "+"). What must stand in one piece for an expression goes to the scratch.
#include "route/match.h"

#include "base/err.h"
#include "base/regex.h"
#include "http/grpc.h"
#include "http/head.h"
#include "route/route.h"

#include <stdlib.h>

struct moon_route_scratch {
    struct moon_regex_scratch *regex;
    size_t text_cap;
    char text[];
};

struct moon_route_scratch *moon_route_scratch_new(size_t text_len)
{
    struct moon_route_scratch *scratch = malloc(sizeof *scratch + text_len);
    if (!scratch)
        abort();
    scratch->regex = moon_regex_scratch_new();
    scratch->text_cap = text_len;
    return scratch;
}

void moon_route_scratch_free(struct moon_route_scratch *scratch)
{
    if (!scratch)
        return;
    moon_regex_scratch_free(scratch->regex);
    free(scratch);
}

// ---- headers

static struct moon_slice glue_of(const struct moon_condition *condition)
{
    return condition->header_id == MOON_H_COOKIE ? MOON_SLICE("; ") : MOON_SLICE(", ");
}

static const struct moon_field *next_field(const struct moon_headers *headers,
                                           const struct moon_condition *condition, uint32_t *at)
{
    while (*at < headers->count) {
        const struct moon_field *field = &headers->fields[(*at)++];
        if (field->id == condition->header_id &&
            (field->id != MOON_H_OTHER || moon_slice_equal_fold(field->name, condition->name)))
            return field;
    }
    return NULL;
}

// Takes `part` off the front of *rest.
static bool take(struct moon_slice *rest, struct moon_slice part)
{
    if (!moon_slice_starts(*rest, part))
        return false;
    *rest = moon_slice_skip(*rest, part.len);
    return true;
}

static bool header_equals(const struct moon_condition *condition,
                          const struct moon_headers *headers)
{
    struct moon_slice rest = condition->value;
    uint32_t at = 0;
    const struct moon_field *field = next_field(headers, condition, &at);
    if (!field || !take(&rest, field->value))
        return false;
    while ((field = next_field(headers, condition, &at)) != NULL)
        if (!take(&rest, glue_of(condition)) || !take(&rest, field->value))
            return false;
    return rest.len == 0;
}

static bool put(struct moon_route_scratch *scratch, size_t *len, struct moon_slice part)
{
    if (part.len > scratch->text_cap - *len)
        return false;
    if (part.len)
        memcpy(scratch->text + *len, part.ptr, part.len);
    *len += part.len;
    return true;
}

static int header_matches(const struct moon_condition *condition,
                          const struct moon_headers *headers, struct moon_route_scratch *scratch)
{
    uint32_t at = 0;
    size_t len = 0;
    const struct moon_field *first = next_field(headers, condition, &at);
    const struct moon_field *field = first ? next_field(headers, condition, &at) : NULL;
    if (!first)
        return 0;
    if (!field)
        return moon_regex_match(condition->regex, scratch->regex, first->value);
    if (!put(scratch, &len, first->value))
        return MOON_ELIMIT;
    for (; field; field = next_field(headers, condition, &at))
        if (!put(scratch, &len, glue_of(condition)) || !put(scratch, &len, field->value))
            return MOON_ELIMIT;
    return moon_regex_match(condition->regex, scratch->regex,
                            (struct moon_slice){scratch->text, len});
}

static int header_meets(const struct moon_condition *condition, const struct moon_headers *headers,
                        struct moon_route_scratch *scratch)
{
    if (!moon_headers_has(headers, condition->header_id))
        return 0;
    return condition->regex ? header_matches(condition, headers, scratch)
                            : header_equals(condition, headers);
}

// ---- query parameters

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// The next byte of *rest, which is not empty, decoded. An escape that is none stands for itself.
static char take_byte(struct moon_slice *rest)
{
    char c = rest->ptr[0];
    size_t width = 1;
    bool is_escape = c == '%' && rest->len >= 3;
    int high = is_escape ? hex_value(rest->ptr[1]) : -1,
        low = is_escape ? hex_value(rest->ptr[2]) : -1;
    if (high >= 0 && low >= 0) {
        c = (char)(high * 16 + low);
        width = 3;
    } else if (c == '+') {
        c = ' ';
    }
    *rest = moon_slice_skip(*rest, width);
    return c;
}

static bool decodes_to(struct moon_slice raw, struct moon_slice text)
{
    size_t at = 0;
    if (raw.len < text.len)
        return false;
    while (raw.len && at < text.len)
        if (take_byte(&raw) != text.ptr[at++])
            return false;
    return raw.len == 0 && at == text.len;
}

static struct moon_slice until(struct moon_slice text, char mark)
{
    const char *at = text.len ? memchr(text.ptr, mark, text.len) : NULL;
    return at ? (struct moon_slice){text.ptr, (size_t)(at - text.ptr)} : text;
}

// The first value of that name, as received; "" of a name without "=".
static bool find_parameter(struct moon_slice query, struct moon_slice name,
                           struct moon_slice *value)
{
    while (query.len) {
        struct moon_slice pair = until(query, '&'), raw = until(pair, '=');
        if (decodes_to(raw, name)) {
            *value = moon_slice_skip(pair, raw.len < pair.len ? raw.len + 1 : raw.len);
            return true;
        }
        query = moon_slice_skip(query, pair.len < query.len ? pair.len + 1 : pair.len);
    }
    return false;
}

static int query_meets(const struct moon_condition *condition, struct moon_slice query,
                       struct moon_route_scratch *scratch)
{
    struct moon_slice raw;
    size_t len = 0;
    if (!find_parameter(query, condition->name, &raw))
        return 0;
    if (!condition->regex)
        return decodes_to(raw, condition->value);
    if (raw.len > scratch->text_cap)
        return MOON_ELIMIT;
    while (raw.len)
        scratch->text[len++] = take_byte(&raw);
    return moon_regex_match(condition->regex, scratch->regex,
                            (struct moon_slice){scratch->text, len});
}

// ---- gRPC

static int part_meets(const struct moon_grpc_part *part, struct moon_slice text,
                      struct moon_route_scratch *scratch)
{
    if (part->regex)
        return moon_regex_match(part->regex, scratch->regex, text);
    return part->text.len == 0 || moon_slice_equal(part->text, text);
}

static int grpc_meets(const struct moon_grpc_match *grpc, const struct moon_head *head,
                      struct moon_route_scratch *scratch)
{
    struct moon_slice service, method;
    if (!moon_grpc_split_path(head->target.path, &service, &method))
        return 0;
    int got = part_meets(&grpc->service, service, scratch);
    return got == 1 ? part_meets(&grpc->method, method, scratch) : got;
}

// ---- public

static int conditions_meet(const struct moon_match *match, uint32_t from, uint32_t to,
                           const struct moon_head *head, struct moon_route_scratch *scratch)
{
    for (uint32_t i = from; i < to; i++) {
        const struct moon_condition *condition = &match->conditions[i];
        int got = condition->is_query ? query_meets(condition, head->target.query, scratch)
                                      : header_meets(condition, &head->headers, scratch);
        if (got != 1)
            return got;
    }
    return 1;
}

bool moon_match_has_extension(const struct moon_match *match, struct moon_slice method)
{
    for (uint32_t i = 0; i < match->extension_count; i++)
        if (moon_slice_equal(match->extensions[i], method))
            return true;
    return false;
}

int moon_match_meets(const struct moon_match *match, const struct moon_head *head,
                     struct moon_route_scratch *scratch)
{
    int got = conditions_meet(match, 0, match->equality_count, head, scratch);
    if (got == 1 && match->grpc && match->kind != MOON_PATH_EXACT)
        got = grpc_meets(match->grpc, head, scratch);
    if (got == 1 && match->regex)
        got = moon_regex_match(match->regex, scratch->regex, head->target.path);
    if (got == 1)
        got = conditions_meet(match, match->equality_count, match->condition_count, head, scratch);
    return got;
}
