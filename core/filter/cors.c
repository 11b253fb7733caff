// cors: who may read this route's answers from a page of another origin (Fetch; Gateway API, HTTPCORSFilter).
//
//   rewrite        judges Origin; answers a preflight, before any plugin of the access phase could ask for credentials
//   header_filter  every Access-Control field of the upstream goes; those of an allowed origin are added
//
// The judgement is made once and kept, so that it does not change when another plugin edits Origin for the backend. Whoever is
// not allowed gets an answer without a word on it: the browser then refuses.
#include "base/err.h"
#include "conf/schema.h"
#include "filter/compile.h"
#include "filter/origin.h"
#include "filter/shipped.h"
#include "http/head.h"

#include <stdio.h>
#include <stdlib.h>

enum { LIST_MAX_COUNT = 64 };

// A list as one header value; "*" stands alone in it.
struct list {
    struct moon_slice text; // empty: not configured
    bool is_any;
};

struct cors {
    struct moon_origin *origins; // slices of `origins_text`
    struct moon_slice origins_text[LIST_MAX_COUNT];
    uint32_t origin_count;
    bool is_any_origin, credentials;
    struct list methods, headers, expose_headers;
    struct moon_slice max_age;
};

struct cors_state {
    bool is_judged, is_preflight;
    struct moon_slice allowed; // Access-Control-Allow-Origin; empty: not allowed, or not asked
};

// ---- configuration

static const struct moon_schema_key text_key = {.types = MOON_TYPE_STRING, .expected = "a text"};
static const struct moon_schema_key no_keys[] = {{.name = NULL}};
static const struct moon_schema list_schema = {no_keys, &text_key, NULL};

static const struct moon_schema_key keys[] = {
    {.name = "origins",
     .types = MOON_TYPE_TABLE,
     .is_required = true,
     .table = &list_schema,
     .expected = "a list such as { \"https://www.example.com\" }, or { \"*\" }"},
    {.name = "methods",
     .types = MOON_TYPE_TABLE,
     .table = &list_schema,
     .expected = "a list such as { \"GET\", \"PUT\" }, or { \"*\" }"},
    {.name = "headers",
     .types = MOON_TYPE_TABLE,
     .table = &list_schema,
     .expected = "a list of header names, or { \"*\" }"},
    {.name = "expose_headers",
     .types = MOON_TYPE_TABLE,
     .table = &list_schema,
     .expected = "a list of header names, or { \"*\" }"},
    {.name = "credentials", .types = MOON_TYPE_BOOL, .expected = "true or false"},
    {.name = "max_age",
     .types = MOON_TYPE_NUMBER,
     .is_integer = true,
     .min = 1,
     .max = INT32_MAX,
     .expected = "whole seconds, 1 or more"},
    {.name = NULL},
};
static const struct moon_schema schema = {keys, NULL, NULL};

struct compiling {
    const struct moon_filter_compile *at;
    const struct moon_value *value;
    bool is_fine;
};

static void problem(struct compiling *c, const char *name, uint32_t item, const char *hint,
                    struct moon_slice found)
{
    char key[48];
    snprintf(key, sizeof key, "%s[%u]", name, item + 1);
    moon_filter_problem(c->at, key, hint, "found \"%.*s\"", MOON_SLICE_ARG(found));
    c->is_fine = false;
}

// The items of a list, at most LIST_MAX_COUNT; whether it is the star. NULL where it is absent or has a problem of its own.
static const struct moon_value *list_of(struct compiling *c, const char *name, bool *is_any)
{
    const struct moon_value *list = moon_value_get(c->value, name);
    *is_any = false;
    if (!list)
        return NULL;
    if (list->table.item_count == 0 || list->table.item_count > LIST_MAX_COUNT) {
        moon_filter_problem(c->at, name, "1 to 64 items", "found %u items", list->table.item_count);
        c->is_fine = false;
        return NULL;
    }
    for (uint32_t i = 0; i < list->table.item_count; i++) {
        bool is_star = moon_slice_equal(list->table.items[i].string, MOON_SLICE("*"));
        if (is_star && list->table.item_count > 1)
            problem(c, name, i, "\"*\" means all and stands alone", MOON_SLICE("*"));
        *is_any |= is_star;
    }
    return list;
}

static bool is_method(struct moon_slice text)
{
    for (size_t i = 0; i < text.len; i++)
        if (text.ptr[i] >= 'a' && text.ptr[i] <= 'z')
            return false;
    return moon_header_name_is_valid(text);
}

static bool is_header(struct moon_slice text)
{
    return moon_header_name_is_valid(text);
}

// A list of tokens as one value.
static void compile_list(struct compiling *c, const char *name, bool is_item(struct moon_slice),
                         const char *hint, struct list *out)
{
    const struct moon_value *list = list_of(c, name, &out->is_any);
    size_t len = 0;
    for (uint32_t i = 0; list && i < list->table.item_count; i++) {
        struct moon_slice item = list->table.items[i].string;
        len += item.len + 2;
        if (!is_item(item))
            problem(c, name, i, hint, item);
    }
    char *text = moon_filter_alloc(len + 1, 1);
    char *to = text;
    for (uint32_t i = 0; list && i < list->table.item_count; i++) {
        struct moon_slice item = list->table.items[i].string;
        to += snprintf(to, (size_t)(text + len + 1 - to), "%s%.*s", i ? ", " : "",
                       MOON_SLICE_ARG(item));
    }
    out->text = (struct moon_slice){text, (size_t)(to - text)};
}

static void compile_origins(struct compiling *c, struct cors *own)
{
    const struct moon_value *list = list_of(c, "origins", &own->is_any_origin);
    if (!list)
        return;
    own->origins = moon_filter_alloc(list->table.item_count, sizeof *own->origins);
    for (uint32_t i = 0; i < list->table.item_count && !own->is_any_origin; i++) {
        struct moon_slice *text = &own->origins_text[own->origin_count];
        *text = moon_filter_copy(list->table.items[i].string);
        if (!moon_origin_parse_pattern(*text, &own->origins[own->origin_count++]))
            problem(c, "origins", i,
                    "scheme and host, such as \"https://www.example.com\", "
                    "\"http://localhost:3000\" or \"https://*.example.com\"",
                    *text);
    }
}

static int compile(const struct moon_filter_compile *at, const struct moon_value *value,
                   void **conf)
{
    struct cors *own = moon_filter_alloc(1, sizeof *own);
    struct compiling c = {at, value, true};
    char max_age[16];
    *conf = own;
    int len = snprintf(max_age, sizeof max_age, "%.0f", moon_value_number(value, "max_age", 5));
    own->max_age = moon_filter_copy((struct moon_slice){max_age, (size_t)len});
    own->credentials = moon_value_bool(value, "credentials", false);
    compile_origins(&c, own);
    compile_list(&c, "methods", is_method, "a method in capitals, such as \"GET\"", &own->methods);
    compile_list(&c, "headers", is_header, "a header name", &own->headers);
    compile_list(&c, "expose_headers", is_header, "a header name", &own->expose_headers);
    if (own->credentials && own->expose_headers.is_any) {
        moon_filter_problem(at, "expose_headers", "name the headers",
                            "\"*\" exposes nothing where credentials are allowed");
        c.is_fine = false;
    }
    return c.is_fine ? 0 : MOON_ECONFIG;
}

static void unref(void *conf)
{
    struct cors *own = conf;
    for (uint32_t i = 0; i < own->origin_count; i++)
        moon_filter_copy_free(own->origins_text[i]);
    free(own->origins);
    moon_filter_copy_free(own->methods.text);
    moon_filter_copy_free(own->headers.text);
    moon_filter_copy_free(own->expose_headers.text);
    moon_filter_copy_free(own->max_age);
    free(own);
}

// ---- judging

static bool is_allowed(const struct cors *own, struct moon_slice text)
{
    struct moon_origin origin;
    if (own->is_any_origin)
        return true;
    if (!moon_origin_parse(text, &origin))
        return false;
    for (uint32_t i = 0; i < own->origin_count; i++)
        if (moon_origin_matches(&own->origins[i], &origin))
            return true;
    return false;
}

// The first field of a name without an id; ptr NULL when there is none.
static struct moon_slice value_of(const struct moon_head *head, struct moon_slice name)
{
    uint32_t at = 0;
    const struct moon_field *field = moon_headers_next(&head->headers, name, &at);
    return field ? field->value : (struct moon_slice){NULL, 0};
}

static struct moon_slice requested_method(const struct moon_flow *flow)
{
    return value_of(flow->request, MOON_SLICE("Access-Control-Request-Method"));
}

static void judge(const struct moon_flow *flow, const struct cors *own, struct cors_state *state)
{
    const struct moon_head *request = flow->request;
    const struct moon_field *origin = moon_headers_get(&request->headers, MOON_H_ORIGIN);
    if (state->is_judged)
        return;
    state->is_judged = true;
    if (!origin)
        return;
    if (is_allowed(own, origin->value))
        state->allowed = own->is_any_origin && !own->credentials ? MOON_SLICE("*") : origin->value;
    state->is_preflight =
        request->method_id == MOON_METHOD_OPTIONS && requested_method(flow).ptr != NULL;
}

static enum moon_verdict rewrite(struct moon_flow *flow, void *conf, void *own_state)
{
    struct cors_state *state = own_state;
    judge(flow, conf, state);
    if (!state->is_preflight)
        return MOON_NEXT;
    flow->ops->respond(flow, 204, MOON_SLICE(""), MOON_SLICE(""));
    return MOON_DONE;
}

// ---- answering

static int add(struct moon_flow *flow, struct moon_slice name, struct moon_slice value)
{
    if (value.len == 0)
        return 0;
    return moon_headers_add(&flow->response->headers, flow->arena, name, value);
}

static void drop_upstream_fields(struct moon_headers *headers)
{
    const struct moon_slice prefix = MOON_SLICE("access-control-");
    for (uint32_t i = 0; i < headers->count; i++) {
        struct moon_slice start = {headers->fields[i].name.ptr, prefix.len};
        if (headers->fields[i].name.len <= prefix.len || !moon_slice_equal_fold(start, prefix))
            continue;
        moon_headers_del(headers, headers->fields[i].name);
        i--; // what followed has moved here; wraps to 0
    }
}

// What is allowed of what was asked for: the list, or where that is the star and credentials forbid to say so, the request's
// own words.
static struct moon_slice answer_of(const struct cors *own, const struct list *list,
                                   struct moon_slice asked)
{
    return list->is_any && own->credentials ? asked : list->text;
}

static int add_preflight(struct moon_flow *flow, const struct cors *own)
{
    struct moon_slice headers =
        answer_of(own, &own->headers,
                  moon_headers_join(&flow->request->headers, flow->arena,
                                    MOON_SLICE("Access-Control-Request-Headers")));
    if (!headers.ptr)
        headers.len = 0;
    int err = add(flow, MOON_SLICE("Access-Control-Allow-Methods"),
                  answer_of(own, &own->methods, requested_method(flow)));
    if (!err)
        err = add(flow, MOON_SLICE("Access-Control-Allow-Headers"), headers);
    if (!err)
        err = add(flow, MOON_SLICE("Access-Control-Max-Age"), own->max_age);
    return err;
}

static bool varies_on_origin(const struct moon_headers *headers)
{
    const struct moon_field *field;
    for (uint32_t at = 0; (field = moon_headers_next(headers, MOON_SLICE("Vary"), &at)) != NULL;) {
        struct moon_slice rest = field->value, item;
        while (moon_slice_next_item(&rest, &item))
            if (moon_slice_equal_fold(item, MOON_SLICE("Origin")) ||
                moon_slice_equal(item, MOON_SLICE("*")))
                return true;
    }
    return false;
}

static enum moon_verdict header_filter(struct moon_flow *flow, void *conf, void *own_state)
{
    const struct cors *own = conf;
    struct cors_state *state = own_state;
    struct moon_headers *headers = &flow->response->headers;
    judge(flow, own, state);
    drop_upstream_fields(headers);
    // Said to everyone: without it a cache would give one origin's answer to another.
    int err = varies_on_origin(headers) ? 0 : add(flow, MOON_SLICE("Vary"), MOON_SLICE("Origin"));
    if (!err && state->allowed.len == 0)
        return MOON_NEXT;
    if (!err)
        err = add(flow, MOON_SLICE("Access-Control-Allow-Origin"), state->allowed);
    if (!err && own->credentials)
        err = add(flow, MOON_SLICE("Access-Control-Allow-Credentials"), MOON_SLICE("true"));
    if (!err)
        err = add(flow, MOON_SLICE("Access-Control-Expose-Headers"), own->expose_headers.text);
    if (!err && state->is_preflight)
        err = add_preflight(flow, own);
    return err ? MOON_FAIL : MOON_NEXT;
}

const struct moon_filter_type moon_filter_cors = {
    .name = "cors",
    .schema = &schema,
    .state_len = sizeof(struct cors_state),
    .compile = compile,
    .unref = unref,
    .rewrite = rewrite,
    .header_filter = header_filter,
};
