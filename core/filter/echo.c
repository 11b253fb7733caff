// builtin:echo, an upstream inside the binary: answers JSON that describes the request it got. For demos and tests.
#include "base/arena.h"
#include "filter/filter.h"
#include "http/head.h"

#include <stdio.h>

// Writes to `to`, or only counts where it is NULL.
struct writer {
    char *to;
    size_t len;
};

static void put(struct writer *w, struct moon_slice s)
{
    if (w->to && s.len)
        memcpy(w->to + w->len, s.ptr, s.len);
    w->len += s.len;
}

// A JSON string; bytes above ASCII are taken as Latin-1, so that any header value gives valid JSON.
static void put_string(struct writer *w, struct moon_slice s)
{
    put(w, MOON_SLICE("\""));
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        char escaped[8];
        if (c >= 0x20 && c < 0x7f && c != '"' && c != '\\') {
            put(w, (struct moon_slice){s.ptr + i, 1});
            continue;
        }
        snprintf(escaped, sizeof escaped, "\\u%04x", c);
        put(w, (struct moon_slice){escaped, 6});
    }
    put(w, MOON_SLICE("\""));
}

static void put_member(struct writer *w, const char *name, struct moon_slice value)
{
    put(w, MOON_SLICE("  "));
    put_string(w, moon_slice_from(name));
    put(w, MOON_SLICE(": "));
    put_string(w, value);
    put(w, MOON_SLICE(",\n"));
}

static void put_headers(struct writer *w, const struct moon_headers *headers)
{
    put(w, MOON_SLICE("  \"headers\": ["));
    for (uint32_t i = 0; i < headers->count; i++) {
        put(w, i ? MOON_SLICE(",\n    [") : MOON_SLICE("\n    ["));
        put_string(w, headers->fields[i].name);
        put(w, MOON_SLICE(", "));
        put_string(w, headers->fields[i].value);
        put(w, MOON_SLICE("]"));
    }
    put(w, MOON_SLICE("\n  ],\n"));
}

static void describe(struct writer *w, const struct moon_flow *flow)
{
    char client[MOON_ADDRESS_TEXT_LEN], count[32];
    const struct moon_head *request = flow->request;
    size_t client_len = moon_address_format_ip(&flow->client, client);
    put(w, MOON_SLICE("{\n"));
    put_member(w, "method", request->method);
    put_member(w, "scheme", moon_slice_from(flow->scheme));
    put_member(w, "host", request->host_text);
    put_member(w, "path", request->target.path);
    if (request->target.has_query)
        put_member(w, "query", request->target.query);
    put_member(w, "client", (struct moon_slice){client, client_len});
    put_headers(w, &request->headers);
    int len = snprintf(count, sizeof count, "  \"body_bytes\": %llu\n}\n",
                       (unsigned long long)flow->request_body_len);
    put(w, (struct moon_slice){count, (size_t)len});
}

static enum moon_verdict answer(struct moon_flow *flow, void *owner, void **state)
{
    (void)owner;
    (void)state;
    struct writer measure = {NULL, 0};
    describe(&measure, flow);
    struct writer w = {moon_arena_try_bytes(flow->arena, measure.len), 0};
    if (!w.to) {
        flow->ops->respond(flow, 500, MOON_SLICE("text/plain"),
                           MOON_SLICE("the request is too large to echo\n"));
        return MOON_DONE;
    }
    describe(&w, flow);
    flow->ops->respond(flow, 200, MOON_SLICE("application/json"), (struct moon_slice){w.to, w.len});
    return MOON_DONE;
}

const struct moon_builtin moon_builtin_echo = {.name = "echo", .answer = answer};
