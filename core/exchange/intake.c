// Intake: the request's body before anything is forwarded. A filter whose rewrite or access hook waits reads it
// (ops->read_request), and a filter puts other bytes in its place (ops->replace_request). Most exchanges have none.
//
//   link --bytes--> reader     while its hook waits; what it refuses stays in the link: back-pressure
//   replaced:  memory --> later readers;  memory --> body filters --> upstream;  link --bytes--> dropped
//
// Invariant: bytes that a reader took are gone. Such a request is forwarded replaced or not at all.
// Owner: the struct lives in the arena; the replacement belongs to the filter, until the arena is freed.
#include "base/arena.h"
#include "base/err.h"
#include "exchange/exchange_priv.h"

#include <assert.h>

struct moon_intake {
    struct moon_body_reader reader; // body NULL: nobody reads
    struct moon_slice replacement;
    size_t read_len, sent_len; // of the replacement: given to readers, pushed towards the upstream
    uint16_t filter_at;        // whose hook has to wait for the reader to be called
    bool is_refused;           // the reader waits: nothing more before the next read_request
    bool was_taken;            // a reader has taken bytes
    bool is_replaced;
};

static bool is_head_phase(const struct moon_exchange *ex)
{
    return (ex->step == STEP_REWRITE || ex->step == STEP_ACCESS) && ex->down && !ex->was_aborted;
}

static struct moon_intake *intake_of(struct moon_exchange *ex)
{
    if (!ex->intake)
        ex->intake = moon_arena_zalloc(ex->flow.arena, sizeof *ex->intake);
    return ex->intake;
}

bool moon_intake_is_read(const struct moon_exchange *ex)
{
    const struct moon_intake *intake = ex->intake;
    return intake && intake->reader.body && !intake->is_refused && is_head_phase(ex) &&
           ex->run.waiting_head == intake->filter_at;
}

bool moon_intake_is_replaced(const struct moon_exchange *ex)
{
    return ex->intake && ex->intake->is_replaced;
}

bool moon_intake_is_lost(const struct moon_exchange *ex)
{
    return ex->intake && ex->intake->was_taken && !ex->intake->is_replaced;
}

void moon_intake_stop(struct moon_exchange *ex)
{
    if (ex->intake)
        ex->intake->reader = (struct moon_body_reader){0};
}

// While a hook waits and nobody reads, the client is not slow.
static void hold(struct moon_exchange *ex)
{
    if (is_head_phase(ex))
        moon_lane_hold(ex->down, moon_chain_head_waits(&ex->run) && !moon_intake_is_read(ex));
}

// ---- reading

static void forget_expectation(struct moon_exchange *ex)
{
    ex->request.expects_continue = false;
    if (moon_headers_has(&ex->request.headers, MOON_H_EXPECT))
        moon_headers_del_id(&ex->request.headers, MOON_H_EXPECT);
}

static void say_continue(struct moon_exchange *ex)
{
    if (ex->request.expects_continue && !ex->is_request_whole)
        moon_exchange_continue(ex);
    forget_expectation(ex);
}

// One call of the reader. MOON_BODY_FAIL has been answered.
static ssize_t offer(struct moon_exchange *ex, struct moon_slice bytes, bool end)
{
    struct moon_intake *intake = ex->intake;
    ssize_t taken = intake->reader.body(intake->reader.owner, bytes, end);
    if (taken == MOON_BODY_WAIT) {
        intake->is_refused = true;
        hold(ex);
        return taken;
    }
    bool is_fine = end ? taken == 0 : taken > 0 && (size_t)taken <= bytes.len;
    if (is_fine && end)
        moon_intake_stop(ex);
    if (is_fine)
        return taken;
    moon_intake_stop(ex);
    if (!ex->was_aborted)
        moon_exchange_fail(ex, "a plugin or function failed on the request body");
    return MOON_BODY_FAIL;
}

size_t moon_intake_take(struct moon_exchange *ex, struct moon_slice bytes)
{
    size_t len = 0;
    while (len < bytes.len && moon_intake_is_read(ex)) {
        forget_expectation(ex); // it did not wait for 100
        ssize_t taken = offer(ex, moon_slice_skip(bytes, len), false);
        if (taken == MOON_BODY_FAIL)
            return bytes.len;
        if (taken < 0)
            break;
        ex->intake->was_taken = true;
        len += (size_t)taken;
    }
    return len;
}

void moon_intake_end(struct moon_exchange *ex)
{
    if (moon_intake_is_read(ex) && !ex->intake->is_replaced)
        offer(ex, MOON_SLICE(""), true);
}

static void read_replacement(struct moon_exchange *ex)
{
    struct moon_intake *intake = ex->intake;
    while (moon_intake_is_read(ex) && intake->read_len < intake->replacement.len) {
        ssize_t taken = offer(ex, moon_slice_skip(intake->replacement, intake->read_len), false);
        if (taken < 0)
            return;
        intake->read_len += (size_t)taken;
    }
    if (moon_intake_is_read(ex))
        offer(ex, MOON_SLICE(""), true);
}

void moon_intake_run(struct moon_exchange *ex)
{
    if (!moon_intake_is_read(ex))
        return;
    hold(ex);
    say_continue(ex);
    if (ex->intake->is_replaced)
        read_replacement(ex);
    else if (ex->is_request_whole)
        moon_intake_end(ex);
    else
        moon_lane_resume(ex->down);
}

void moon_intake_read(struct moon_exchange *ex, const struct moon_body_reader *reader)
{
    if (!is_head_phase(ex) || (!reader && !ex->intake))
        return;
    struct moon_intake *intake = intake_of(ex);
    if (!intake->reader.body)
        intake->read_len = 0; // of a body that is in memory, a new reader sees all
    intake->reader = reader ? *reader : (struct moon_body_reader){0};
    intake->filter_at = ex->run.head_at;
    intake->is_refused = false;
    if (!reader)
        hold(ex);
    else
        moon_loop_defer(ex->res->loop, &ex->task);
}

// ---- replacing

// RFC 9110 8.6: an empty body is told where the method gives one a meaning.
static bool needs_length(const struct moon_exchange *ex)
{
    switch (ex->request.method_id) {
    case MOON_METHOD_POST:
    case MOON_METHOD_PUT:
    case MOON_METHOD_PATCH:
        return true;
    case MOON_METHOD_GET:
    case MOON_METHOD_HEAD:
    case MOON_METHOD_DELETE:
    case MOON_METHOD_OPTIONS:
    case MOON_METHOD_TRACE:
    case MOON_METHOD_OTHER:
    case MOON_METHOD_CONNECT:
    case MOON_METHOD_EXTENSION:
        return false;
    }
    return false;
}

// What said how long and what the old body was. The field is for filters to see: none that frames is forwarded as it stands.
static void reframe(struct moon_exchange *ex, size_t len)
{
    struct moon_head *request = &ex->request;
    struct moon_headers *headers = &request->headers;
    bool has_body = len || needs_length(ex);
    moon_headers_del_id(headers, MOON_H_TRANSFER_ENCODING);
    moon_headers_del_id(headers, MOON_H_CONTENT_LENGTH);
    moon_headers_del_id(headers, MOON_H_TRAILER);
    moon_head_forget_digests(headers);
    forget_expectation(ex);
    request->body = has_body ? MOON_BODY_LENGTH : MOON_BODY_NONE;
    request->content_length = len;
    ex->request_trailers = (struct moon_headers){0};
    struct moon_slice text = moon_arena_try_format(ex->flow.arena, "%zu", len);
    if (has_body && text.ptr)
        moon_headers_add_id(headers, ex->flow.arena, MOON_H_CONTENT_LENGTH, text);
}

void moon_intake_replace(struct moon_exchange *ex, struct moon_slice bytes)
{
    if (!is_head_phase(ex))
        return;
    struct moon_intake *intake = intake_of(ex);
    moon_intake_stop(ex);
    intake->replacement = bytes;
    intake->is_replaced = true;
    reframe(ex, bytes.len);
    hold(ex);
}

// ---- forwarding

bool moon_intake_is_kept(const struct moon_exchange *ex)
{
    return moon_intake_is_replaced(ex) && !ex->run.has_request_body;
}

struct moon_slice moon_intake_rest(const struct moon_exchange *ex)
{
    if (!moon_intake_is_replaced(ex))
        return (struct moon_slice){"", 0};
    return moon_slice_skip(ex->intake->replacement, ex->intake->sent_len);
}

void moon_intake_sent(struct moon_exchange *ex, size_t len)
{
    assert(moon_intake_rest(ex).len >= len);
    ex->intake->sent_len += len;
}

void moon_intake_rewind(struct moon_exchange *ex)
{
    if (moon_intake_is_kept(ex))
        ex->intake->sent_len = 0;
}
