// See control.h. Who may: judged by where the connection comes from, then by Host and Origin (DNS rebinding, cross-site forms).
#include "admin/control.h"

#include "admin/upload.h"
#include "base/arena.h"
#include "base/json.h"
#include "http/head.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct order {
    const char *path;
    bool is_post;
    enum moon_verdict (*answer)(struct moon_flow *flow, const struct moon_admin_ops *ops,
                                const struct order *order, void **state);
    enum moon_admin_document document;
};

static void free_text(void *text)
{
    free(text);
}

static enum moon_verdict respond_json(struct moon_flow *flow, uint16_t status, char *json,
                                      size_t len)
{
    moon_arena_on_free(flow->arena, free_text, json);
    flow->ops->respond(flow, status, MOON_SLICE("application/json"),
                       (struct moon_slice){json, len});
    return MOON_DONE;
}

static enum moon_verdict refuse(struct moon_flow *flow, uint16_t status, struct moon_slice why)
{
    flow->ops->respond(flow, status, MOON_SLICE(""), why);
    return MOON_DONE;
}

// ---- the orders

static enum moon_verdict answer_document(struct moon_flow *flow, const struct moon_admin_ops *ops,
                                         const struct order *order, void **state)
{
    (void)state;
    size_t len = 0;
    char *json = ops->document(ops->owner, order->document, flow->request->target.query, &len);
    return respond_json(flow, 200, json, len);
}

struct waiting {
    struct moon_admin_wait wait; // first
    struct moon_flow *flow;
    char *json;
    size_t len;
    bool is_done, is_fine;
};

static void on_told(struct moon_admin_wait *wait, bool is_fine, char *json, size_t len)
{
    struct waiting *waiting = (struct waiting *)wait;
    waiting->is_done = true;
    waiting->is_fine = is_fine;
    waiting->json = json;
    waiting->len = len;
    waiting->flow->ops->resume(waiting->flow);
}

static struct waiting *start_waiting(struct moon_flow *flow)
{
    struct waiting *waiting = moon_arena_zalloc(flow->arena, sizeof *waiting);
    waiting->wait.done = on_told;
    waiting->flow = flow;
    return waiting;
}

static enum moon_verdict answer_reload(struct moon_flow *flow, const struct moon_admin_ops *ops,
                                       const struct order *order, void **state)
{
    (void)order;
    struct waiting *waiting = *state;
    if (!waiting) {
        *state = waiting = start_waiting(flow);
        ops->reload(ops->owner, &waiting->wait);
    }
    if (!waiting->is_done)
        return MOON_WAIT;
    return respond_json(flow, waiting->is_fine ? 200 : 422, waiting->json, waiting->len);
}

static enum moon_verdict answer_connections(struct moon_flow *flow,
                                            const struct moon_admin_ops *ops,
                                            const struct order *order, void **state)
{
    (void)order;
    struct waiting *waiting = *state;
    if (!waiting) {
        waiting = start_waiting(flow);
        if (!ops->connections(ops->owner, flow->request->target.query, &waiting->wait))
            return refuse(flow, 400, MOON_SLICE("write ?limit=N, 1 to 1000\n"));
        *state = waiting;
    }
    return waiting->is_done ? respond_json(flow, 200, waiting->json, waiting->len) : MOON_WAIT;
}

static enum moon_verdict answer_drain(struct moon_flow *flow, const struct moon_admin_ops *ops,
                                      const struct order *order, void **state)
{
    (void)order;
    (void)state;
    ops->drain(ops->owner);
    flow->ops->respond(flow, 202, MOON_SLICE("application/json"),
                       MOON_SLICE("{\"draining\":true}\n"));
    return MOON_DONE;
}

static enum moon_verdict answer_log_level(struct moon_flow *flow, const struct moon_admin_ops *ops,
                                          const struct order *order, void **state)
{
    (void)order;
    (void)state;
    struct moon_slice query = flow->request->target.query, key = MOON_SLICE("level=");
    if (moon_slice_starts(query, key) &&
        ops->set_log_level(ops->owner, moon_slice_skip(query, key.len))) {
        flow->ops->respond(flow, 200, MOON_SLICE("application/json"),
                           MOON_SLICE("{\"fine\":true}\n"));
        return MOON_DONE;
    }
    return refuse(flow, 400, MOON_SLICE("write ?level=debug, info, warn or error\n"));
}

enum { NAME_MAX_LEN = 255 };

// The value of the only parameter, decoded; false: it is another.
static bool read_name(struct moon_slice query, char out[static NAME_MAX_LEN],
                      struct moon_slice *name)
{
    struct moon_slice key = MOON_SLICE("name=");
    if (!moon_slice_starts(query, key) || query.len == key.len)
        return false;
    query = moon_slice_skip(query, key.len);
    size_t len = 0;
    for (size_t i = 0; i < query.len; i++) {
        char text[3] = "";
        if (len == NAME_MAX_LEN)
            return false;
        if (query.ptr[i] != '%') {
            out[len++] = query.ptr[i];
            continue;
        }
        if (i + 2 >= query.len)
            return false;
        memcpy(text, query.ptr + i + 1, 2);
        if (strspn(text, "0123456789abcdefABCDEF") != 2)
            return false;
        out[len++] = (char)strtoul(text, NULL, 16);
        i += 2;
    }
    *name = (struct moon_slice){out, len};
    return true;
}

static enum moon_verdict answer_set_certificate(struct moon_flow *flow,
                                                const struct moon_admin_ops *ops,
                                                const struct order *order, void **state)
{
    char text[NAME_MAX_LEN], problem[MOON_ADMIN_PROBLEM_LEN] = "";
    struct moon_slice name, body;
    size_t len = 0;
    (void)order;
    (void)state;
    if (!moon_admin_uploaded(flow, &body))
        return refuse(flow, 413, MOON_SLICE("more than 256 KiB\n"));
    if (!read_name(flow->request->target.query, text, &name) || body.len == 0)
        return refuse(flow, 400,
                      MOON_SLICE("write ?name=NAME, and send the certificate, its chain and its "
                                 "key in PEM\n"));
    const char *why = ops->set_certificate(ops->owner, name, body, problem);
    char *json = NULL;
    FILE *out = open_memstream(&json, &len);
    if (!out)
        abort();
    fprintf(out, "{\"fine\":%s", why ? "false," : "true");
    if (why)
        moon_json_member(out, "text", why);
    fputs("}\n", out);
    if (fclose(out) != 0)
        abort();
    return respond_json(flow, why ? 422 : 200, json, len);
}

static const struct order orders[] = {
    {"/status", false, answer_document, MOON_ADMIN_STATUS},
    {"/config", false, answer_document, MOON_ADMIN_CONFIG},
    {"/routes", false, answer_document, MOON_ADMIN_ROUTES},
    {"/upstreams", false, answer_document, MOON_ADMIN_UPSTREAMS},
    {"/connections", false, answer_connections, MOON_ADMIN_STATUS},
    {"/errors", false, answer_document, MOON_ADMIN_ERRORS},
    {"/explain", false, answer_document, MOON_ADMIN_EXPLAIN},
    {"/certificates", false, answer_document, MOON_ADMIN_CERTIFICATES},
    {"/certificates", true, answer_set_certificate, MOON_ADMIN_CERTIFICATES},
    {"/reload", true, answer_reload, MOON_ADMIN_STATUS},
    {"/drain", true, answer_drain, MOON_ADMIN_STATUS},
    {"/log-level", true, answer_log_level, MOON_ADMIN_STATUS},
};

// ---- who may

static bool is_local_client(const struct moon_flow *flow)
{
    return flow->client.family == MOON_FAMILY_NONE || moon_address_is_loopback(&flow->client);
}

// The name in Host without its port.
static struct moon_slice host_name(struct moon_slice host)
{
    if (host.len && host.ptr[0] == '[') {
        const char *end = memchr(host.ptr, ']', host.len);
        return end ? (struct moon_slice){host.ptr, (size_t)(end - host.ptr) + 1} : host;
    }
    const char *colon = host.len ? memchr(host.ptr, ':', host.len) : NULL;
    return colon ? (struct moon_slice){host.ptr, (size_t)(colon - host.ptr)} : host;
}

static bool is_local_host(const struct moon_flow *flow)
{
    struct moon_slice name = host_name(flow->request->host_text);
    return moon_slice_equal_fold(name, MOON_SLICE("localhost")) ||
           moon_slice_equal(name, MOON_SLICE("127.0.0.1")) ||
           moon_slice_equal(name, MOON_SLICE("[::1]"));
}

static bool has_origin(const struct moon_flow *flow)
{
    uint32_t at = 0;
    return moon_headers_next(&flow->request->headers, MOON_SLICE("Origin"), &at) != NULL;
}

bool moon_admin_may_control(const struct moon_flow *flow)
{
    return is_local_client(flow) && is_local_host(flow) && !has_origin(flow);
}

static const struct order *find_order(const struct moon_head *request, bool *is_path)
{
    bool is_read = request->method_id == MOON_METHOD_GET || request->method_id == MOON_METHOD_HEAD,
         is_post = request->method_id == MOON_METHOD_POST;
    *is_path = false;
    for (size_t i = 0; i < sizeof orders / sizeof *orders; i++) {
        const struct order *order = &orders[i];
        if (!moon_slice_equal(request->target.path, moon_slice_from(order->path)))
            continue;
        *is_path = true;
        if (order->is_post ? is_post : is_read)
            return order;
    }
    return NULL;
}

enum moon_verdict moon_admin_control(struct moon_flow *flow, const struct moon_admin_ops *ops,
                                     void **state)
{
    bool is_path;
    if (!is_local_client(flow))
        return refuse(flow, 403, MOON_SLICE("only /metrics, /healthz and /readyz from afar\n"));
    if (!moon_admin_may_control(flow))
        return refuse(flow, 403, MOON_SLICE("control takes Host: localhost and no Origin\n"));
    const struct order *order = find_order(flow->request, &is_path);
    if (order)
        return order->answer(flow, ops, order, state);
    if (is_path)
        return refuse(flow, 405,
                      flow->request->method_id == MOON_METHOD_POST
                          ? MOON_SLICE("POST orders, GET reads: GET\n")
                          : MOON_SLICE("POST orders, GET reads: POST\n"));
    return refuse(flow, 404,
                  MOON_SLICE("GET /metrics /healthz /readyz /status /config /routes /upstreams "
                             "/connections /explain /errors /certificates, POST /reload /drain "
                             "/log-level /certificates\n"));
}

void moon_admin_control_cancel(struct moon_flow *flow, void *owner, void *state)
{
    (void)flow;
    (void)owner;
    struct waiting *waiting = state;
    if (waiting && !waiting->is_done)
        waiting->wait.forget(&waiting->wait);
    else if (waiting)
        free(waiting->json);
}
