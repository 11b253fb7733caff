// See test_call.h.
//
//   access: start the calls, MOON_WAIT -> done of the last: resume -> access again: next round, or answer        cancel: free all
#include "test/support/test_call.h"

#include "base/arena.h"
#include "base/err.h"
#include "base/json.h"
#include "conf/schema.h"
#include "exchange/call.h"
#include "exchange/exchange_priv.h"
#include "http/head.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FIELD_MAX_COUNT = 16, CALL_MAX_COUNT = 2048, SHOWN_LEN = 1000 };

struct conf {
    struct moon_slice url, method, body, upstream;
    struct moon_slice fields[FIELD_MAX_COUNT];
    uint32_t field_count, timeout_ms, connect_timeout_ms, count, times;
    size_t body_max_len;
};

struct state;

struct one {
    struct state *state;
    struct moon_call *call;
    int start_err;
};

struct state {
    struct moon_flow *flow;
    struct one *calls; // malloc'd
    uint32_t count, open_count, round;
};

#define STRING(key)                                                    \
    {                                                                  \
        .name = key, .types = MOON_TYPE_STRING, .expected = "a string" \
    }
#define NUMBER(key)                                                                           \
    {                                                                                         \
        .name = key, .types = MOON_TYPE_NUMBER, .min = 0, .max = 1e12, .expected = "a number" \
    }

static const struct moon_schema_key keys[] = {
    STRING("url"),
    STRING("method"),
    STRING("body"),
    STRING("upstream"),
    NUMBER("timeout"),
    NUMBER("connect_timeout"),
    NUMBER("body_max"),
    NUMBER("body_len"),
    NUMBER("count"),
    NUMBER("times"),
    {.name = "fields", .types = MOON_TYPE_TABLE, .expected = "a list"},
    {.name = NULL},
};
static const struct moon_schema schema = {keys, NULL, NULL};

static struct moon_slice text(const struct moon_value *value, const char *key)
{
    struct moon_slice s = moon_value_string(value, key, MOON_SLICE(""));
    char *own = malloc(s.len + 1);
    memcpy(own, s.ptr, s.len);
    return (struct moon_slice){own, s.len};
}

static int compile(const struct moon_filter_compile *at, const struct moon_value *value, void **out)
{
    (void)at;
    struct conf *conf = calloc(1, sizeof *conf);
    const struct moon_value *fields = moon_value_get(value, "fields");
    conf->url = text(value, "url");
    conf->method = text(value, "method");
    conf->body = text(value, "body");
    conf->upstream = text(value, "upstream");
    conf->timeout_ms = (uint32_t)(moon_value_number(value, "timeout", 0) * 1000);
    conf->connect_timeout_ms = (uint32_t)(moon_value_number(value, "connect_timeout", 0) * 1000);
    conf->body_max_len = (size_t)moon_value_number(value, "body_max", 0);
    conf->count = (uint32_t)moon_value_number(value, "count", 1);
    conf->times = (uint32_t)moon_value_number(value, "times", 1);
    size_t body_len = (size_t)moon_value_number(value, "body_len", 0);
    if (body_len) {
        char *body = malloc(body_len);
        memset(body, 'x', body_len);
        free((void *)conf->body.ptr);
        conf->body = (struct moon_slice){body, body_len};
    }
    for (uint32_t i = 0; fields && i < fields->table.item_count && i < FIELD_MAX_COUNT; i++) {
        struct moon_slice s = fields->table.items[i].string;
        char *own = malloc(s.len + 1);
        memcpy(own, s.ptr, s.len);
        conf->fields[conf->field_count++] = (struct moon_slice){own, s.len};
    }
    *out = conf;
    return 0;
}

static void unref(void *pointer)
{
    struct conf *conf = pointer;
    for (uint32_t i = 0; i < conf->field_count; i++)
        free((void *)conf->fields[i].ptr);
    free((void *)conf->url.ptr);
    free((void *)conf->method.ptr);
    free((void *)conf->body.ptr);
    free((void *)conf->upstream.ptr);
    free(conf);
}

static void say(const char *what)
{
    dprintf(STDERR_FILENO, "test-call info %s\n", what);
}

static void free_calls(struct state *state)
{
    for (uint32_t i = 0; i < state->count; i++)
        moon_call_free(state->calls[i].call);
    free(state->calls);
    state->calls = NULL;
    state->count = state->open_count = 0;
}

static void on_free(void *arg)
{
    free_calls(arg);
}

static void on_done(void *owner, struct moon_call *call)
{
    struct one *one = owner;
    struct state *state = one->state;
    if (call != one->call)
        dprintf(STDERR_FILENO, "test-call error done of another call, or under start\n");
    if (--state->open_count == 0)
        state->flow->ops->resume(state->flow);
}

// "name: value", split at the first colon.
static struct moon_call_field field_of(struct moon_slice line)
{
    const char *colon = memchr(line.ptr, ':', line.len);
    size_t len = colon ? (size_t)(colon - line.ptr) : line.len;
    return (struct moon_call_field){
        {line.ptr, len}, colon ? moon_slice_skip(line, len + 1) : (struct moon_slice){"", 0}};
}

static void start_round(struct state *state, const struct conf *conf)
{
    struct moon_flow *flow = state->flow;
    struct moon_service *service = ((struct moon_exchange *)flow)->service;
    struct moon_call_field fields[FIELD_MAX_COUNT];
    uint32_t at = 0;
    const struct moon_field *url =
        moon_headers_next(&flow->request->headers, MOON_SLICE("x-url"), &at);
    for (uint32_t i = 0; i < conf->field_count; i++)
        fields[i] = field_of(conf->fields[i]);
    struct moon_call_args args = {.method = conf->method,
                                  .url = url ? url->value : conf->url,
                                  .upstream = conf->upstream,
                                  .fields = fields,
                                  .field_count = conf->field_count,
                                  .body = conf->body,
                                  .timeout_ms = conf->timeout_ms,
                                  .connect_timeout_ms = conf->connect_timeout_ms,
                                  .body_max_len = conf->body_max_len,
                                  .done = on_done};
    free_calls(state);
    state->round++;
    state->count = conf->count < CALL_MAX_COUNT ? conf->count : CALL_MAX_COUNT;
    state->calls = calloc(state->count + 1, sizeof *state->calls);
    for (uint32_t i = 0; i < state->count; i++) {
        struct one *one = &state->calls[i];
        one->state = state;
        args.owner = one;
        one->start_err = moon_call_start(service, &args, &one->call);
        state->open_count += !one->start_err;
    }
}

static void write_one(FILE *out, const struct one *one)
{
    if (one->start_err) {
        fprintf(out, "{\"start\":%d,", one->start_err);
        moon_json_member(out, "text", moon_err_text(one->start_err));
        fputs("}", out);
        return;
    }
    const struct moon_headers *headers = moon_call_headers(one->call);
    struct moon_slice body = moon_call_body(one->call);
    unsigned long sum = 0;
    char *lines;
    size_t len;
    FILE *fields = open_memstream(&lines, &len);
    for (uint32_t i = 0; i < headers->count; i++)
        fprintf(fields, "%.*s: %.*s\n", MOON_SLICE_ARG(headers->fields[i].name),
                MOON_SLICE_ARG(headers->fields[i].value));
    fclose(fields);
    for (size_t i = 0; i < body.len; i++)
        sum = sum * 31 + (uint8_t)body.ptr[i], sum %= 1000003;
    fprintf(out, "{\"error\":%d,", moon_call_error(one->call));
    moon_json_member(out, "text", moon_err_text(moon_call_error(one->call)));
    fprintf(out, ",\"status\":%u,\"body_len\":%zu,\"body_sum\":%lu,\"fields\":",
            moon_call_status(one->call), body.len, sum);
    moon_json_text(out, (struct moon_slice){lines, len});
    fputs(",\"body\":", out);
    moon_json_text(out, (struct moon_slice){body.ptr, body.len < SHOWN_LEN ? body.len : SHOWN_LEN});
    fputs("}", out);
    free(lines);
}

static enum moon_verdict answer(struct moon_flow *flow, const struct state *state)
{
    char *document;
    size_t len;
    FILE *out = open_memstream(&document, &len);
    fputs("{\"calls\":[", out);
    for (uint32_t i = 0; i < state->count; i++) {
        if (i)
            fputs(",", out);
        write_one(out, &state->calls[i]);
    }
    fputs("]}", out);
    fclose(out);
    struct moon_slice own = moon_arena_try_copy(flow->arena, (struct moon_slice){document, len});
    free(document);
    flow->ops->respond(flow, own.ptr ? 200 : 500, MOON_SLICE("application/json"),
                       own.ptr ? own : MOON_SLICE(""));
    return MOON_DONE;
}

static enum moon_verdict access_phase(struct moon_flow *flow, void *pointer, void *own)
{
    const struct conf *conf = pointer;
    struct state *state = own;
    if (!state->flow) {
        state->flow = flow;
        moon_arena_on_free(flow->arena, on_free, state);
    }
    if (state->open_count)
        return MOON_WAIT;
    while (state->round < conf->times) {
        start_round(state, conf);
        if (state->open_count == 0)
            continue;
        say("waits");
        return MOON_WAIT;
    }
    return answer(flow, state);
}

static void cancel(struct moon_flow *flow, void *conf, void *state)
{
    (void)flow;
    (void)conf;
    free_calls(state);
    say("cancelled");
}

const struct moon_filter_type test_call = {.name = "test-call",
                                           .schema = &schema,
                                           .state_len = sizeof(struct state),
                                           .answers = true,
                                           .compile = compile,
                                           .unref = unref,
                                           .access = access_phase,
                                           .cancel = cancel};
