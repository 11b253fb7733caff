// See probe.h. The verdict is kept in `why` and told by a task, because events of the lane must not free it. It is mostly known
// with the head; the answer is read on to its end, because a connection that is closed with bytes unread is reset, and servers
// complain of that in their logs, check by check.
#include "exchange/probe.h"

#include "base/arena.h"
#include "base/err.h"
#include "http/grpc.h"
#include "http/grpc_health.h"
#include "http/head.h"
#include "io/loop.h"
#include "link/link.h"
#include "link/resources.h"
#include "upstream/health.h"
#include "upstream/pool.h"
#include "upstream/upstream.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ARENA_CAP_LEN = 131072, WHY_LEN = 160, UNREAD_MAX_LEN = 65536 };

struct moon_probe {
    struct moon_probe_args args;
    const struct moon_health_check *check;
    struct moon_arena *arena;
    struct moon_head request, response;
    struct moon_framing framing;
    struct moon_slice body;     // of the request, what was not sent yet
    struct moon_lane *lane;     // NULL when gone
    struct moon_pooled *pooled; // its connection
    struct moon_timer timer;
    struct moon_task task; // tells done
    size_t answer_len;
    char answer[MOON_GRPC_HEALTH_MAX_LEN];
    size_t unread_len; // of the body behind a verdict
    bool is_judged, is_over, is_sent, has_passed;
    bool is_reused, is_second; // the connection; the attempt
    char why[WHY_LEN];
};

static void judge(struct moon_probe *probe, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

// NULL: it has passed. The first verdict stands: how an answer ends says nothing that its head has not.
static void judge(struct moon_probe *probe, const char *format, ...)
{
    if (probe->is_judged)
        return;
    probe->is_judged = true;
    probe->has_passed = format == NULL;
    if (format) {
        va_list args;
        va_start(args, format);
        vsnprintf(probe->why, sizeof probe->why, format, args);
        va_end(args);
    }
}

// `is_whole`: the answer was read to its end.
static void finish(struct moon_probe *probe, bool is_whole)
{
    struct moon_lane *lane = probe->lane;
    if (probe->is_over)
        return;
    probe->is_over = true;
    probe->lane = NULL;
    if (lane)
        moon_lane_end(lane, is_whole && probe->args.upstream->protocol != MOON_UPSTREAM_HTTP1);
    moon_loop_timer_del(probe->args.res->loop, &probe->timer);
    moon_loop_defer(probe->args.res->loop, &probe->task);
}

static void probe_task(struct moon_task *task)
{
    struct moon_probe *probe = MOON_CONTAINER(task, struct moon_probe, task);
    probe->args.done(probe->args.owner, probe->has_passed ? NULL : probe->why);
}

// What failed may be the connection: the next probe is to have another. An answer, whatever it says, proves that it is sound.
static void give_up(struct moon_probe *probe, const char *why)
{
    if (probe->lane && !probe->is_judged)
        moon_pooled_retire(probe->pooled);
    judge(probe, "%s", why);
    finish(probe, false);
}

static void on_timeout(struct moon_timer *timer)
{
    give_up(MOON_CONTAINER(timer, struct moon_probe, timer), "no answer in time");
}

// ---- judging

static void check_grpc_status(struct moon_probe *probe, const struct moon_headers *fields)
{
    uint32_t at = 0;
    const struct moon_field *field = moon_headers_next(fields, MOON_SLICE("grpc-status"), &at);
    if (field && !moon_slice_equal(field->value, MOON_SLICE("0")))
        judge(probe, "grpc-status %.*s", (int)(field->value.len < 8 ? field->value.len : 8),
              field->value.ptr);
}

static void on_head(void *owner)
{
    struct moon_probe *probe = owner;
    const struct moon_head *response = &probe->response;
    bool is_grpc = probe->check->kind == MOON_CHECK_GRPC;
    if (response->status < 200 && response->status != 101)
        return;
    if (response->status >= 400 || response->status == 101 || (is_grpc && response->status != 200))
        judge(probe, "status %u", response->status);
    else if (!is_grpc)
        judge(probe, NULL);
    else if (moon_grpc_kind_of(response, NULL) != MOON_GRPC)
        judge(probe, "the answer is no gRPC");
    else
        check_grpc_status(probe, &response->headers);
    if (response->status == 101) // nothing ends what follows
        finish(probe, false);
}

static size_t on_body(void *owner, struct moon_slice bytes)
{
    struct moon_probe *probe = owner;
    if (!probe->is_judged && probe->answer_len + bytes.len > sizeof probe->answer)
        judge(probe, "the answer is too long");
    if (!probe->is_judged) {
        memcpy(probe->answer + probe->answer_len, bytes.ptr, bytes.len);
        probe->answer_len += bytes.len;
        return bytes.len;
    }
    probe->unread_len += bytes.len;
    if (probe->unread_len > UNREAD_MAX_LEN)
        finish(probe, false);
    return bytes.len;
}

static void judge_grpc_answer(struct moon_probe *probe)
{
    static const char *const names[] = {"UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"};
    int status = moon_grpc_health_read((struct moon_slice){probe->answer, probe->answer_len});
    if (status < 0)
        judge(probe, "the answer is no HealthCheckResponse");
    else if (status != 1)
        judge(probe, "%s", names[status]);
    else
        judge(probe, NULL);
}

static void on_end(void *owner, const struct moon_headers *trailers)
{
    struct moon_probe *probe = owner;
    check_grpc_status(probe, trailers);
    if (!probe->is_judged)
        judge_grpc_answer(probe);
    finish(probe, true);
}

static void on_fault(void *owner, const struct moon_fault *fault)
{
    give_up(owner, fault->reason);
}

static void begin(struct moon_probe *probe);

// A connection that was kept may have died meanwhile, and ALPN may have told another protocol than the one guessed: that says
// nothing of the endpoint.
static void on_abort(void *owner, int err)
{
    struct moon_probe *probe = owner;
    bool is_chance = probe->is_reused || err == MOON_ENOTBEGUN || err == MOON_EGUESS;
    probe->lane = NULL;
    if (is_chance && !probe->is_second && probe->response.status == 0) {
        probe->is_second = true;
        begin(probe);
        return;
    }
    judge(probe, "%s", moon_err_text(err));
    finish(probe, false);
}

static void push(struct moon_probe *probe)
{
    while (probe->body.len) {
        size_t taken = moon_lane_send_body(probe->lane, probe->body);
        probe->body = moon_slice_skip(probe->body, taken);
        if (taken == 0)
            return; // `writable` follows
    }
    if (!probe->is_sent)
        moon_lane_send_end(probe->lane, NULL);
    probe->is_sent = true;
}

static void on_writable(void *owner)
{
    push(owner);
}

static const struct moon_lane_events events = {
    .head = on_head,
    .fault = on_fault,
    .body = on_body,
    .end = on_end,
    .abort = on_abort,
    .writable = on_writable,
};

// ---- asking

// What Host says: what was given, else the upstream's name where it can be one, else the address.
static struct moon_slice host_of(struct moon_probe *probe)
{
    struct moon_authority authority;
    const struct moon_upstream *upstream = probe->args.upstream;
    char *text = moon_arena_alloc(probe->arena, MOON_ADDRESS_TEXT_LEN);
    if (probe->check->host.len)
        return probe->check->host;
    if (moon_authority_parse(upstream->name, &authority))
        return upstream->name;
    return (struct moon_slice){text, moon_address_format(&probe->args.address, text)};
}

// False: there is no such request.
static bool make_request(struct moon_probe *probe)
{
    bool is_grpc = probe->check->kind == MOON_CHECK_GRPC;
    struct moon_fault fault;
    struct moon_slice path =
        is_grpc ? MOON_SLICE("/grpc.health.v1.Health/Check") : probe->check->path;
    struct moon_slice host = host_of(probe);
    struct moon_slice text = moon_arena_try_format(
        probe->arena,
        "%s %.*s HTTP/1.1\r\nHost: %.*s\r\nUser-Agent: moongate/" MOON_VERSION "\r\n%s\r\n",
        is_grpc ? "POST" : "GET", MOON_SLICE_ARG(path), MOON_SLICE_ARG(host),
        is_grpc ? "Content-Type: application/grpc\r\n" : "");
    if (!text.ptr || moon_request_parse(probe->arena, text, &moon_head_limits_default,
                                        &probe->request, &fault) < 0)
        return false;
    probe->framing.close = probe->args.upstream->protocol == MOON_UPSTREAM_HTTP1;
    if (!is_grpc)
        return true;
    probe->body = moon_grpc_health_ask(probe->arena, probe->check->service);
    probe->framing = (struct moon_framing){
        .body = MOON_BODY_LENGTH, .content_length = probe->body.len, .te_trailers = true};
    return probe->body.ptr != NULL;
}

static void begin(struct moon_probe *probe)
{
    const struct moon_upstream *upstream = probe->args.upstream;
    struct moon_lease lease;
    struct moon_lend_to_args args = {.address = &probe->args.address,
                                     .tls = upstream->tls,
                                     .host = upstream->tls_host,
                                     .fresh = probe->is_second ||
                                              upstream->protocol == MOON_UPSTREAM_HTTP1,
                                     .protocol = (uint8_t)upstream->protocol};
    int err = make_request(probe) ? moon_pool_lend_to(probe->args.pool, &args, &lease) : MOON_EURL;
    if (err) {
        judge(probe, "%s", moon_err_text(err));
        finish(probe, false);
        return;
    }
    probe->lane = lease.lane;
    probe->pooled = lease.pooled;
    probe->is_reused = lease.is_reused;
    probe->is_sent = false;
    moon_lane_attach(probe->lane, &(struct moon_lane_attachment){
                                      .events = &events,
                                      .owner = probe,
                                      .arena = probe->arena,
                                      .head = &probe->response,
                                      .request_method = probe->request.method_id,
                                      .response_ms = probe->check->timeout_ms + 1000});
    moon_lane_send_head(probe->lane, &probe->request, &probe->framing); // an error is told by abort
    push(probe);
}

struct moon_probe *moon_probe_start(const struct moon_probe_args *args)
{
    struct moon_probe *probe = calloc(1, sizeof *probe);
    if (!probe)
        abort();
    probe->args = *args;
    probe->check = args->upstream->check;
    probe->arena = moon_arena_new(args->res->arenas, ARENA_CAP_LEN);
    probe->task.fn = probe_task;
    probe->timer.fn = on_timeout;
    moon_loop_timer_add(args->res->loop, &probe->timer, probe->check->timeout_ms);
    begin(probe);
    return probe;
}

void moon_probe_free(struct moon_probe *probe)
{
    if (!probe)
        return;
    if (probe->lane)
        moon_lane_end(probe->lane, false);
    moon_loop_timer_del(probe->args.res->loop, &probe->timer);
    moon_task_cancel(&probe->task);
    moon_arena_free(probe->arena);
    free(probe);
}
