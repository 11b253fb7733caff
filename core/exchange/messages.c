// See messages.h. Each direction by itself: frames are read until a message is whole, it goes through the filters, and out as one
// frame. Nothing more is read from a side while its message waits for a filter or for room on the other side, so that memory is
// bounded by two messages a direction, which are charged to the buffer budget.
//
//   stream of `from` -> in -> frames -> bytes (a message) -> filters -> to_write, out of `to` -> stream of `to`
//
//   open --Close from both sides, each passed on--> closing
//        --a filter, a broken rule, idleness, a drain: ours to both--> closing --both answered, or CLOSING_MS--> over
#include "exchange/messages.h"

#include "base/err.h"
#include "exchange/exchange_priv.h"
#include "http/websocket.h"
#include "obs/counters.h"
#include "obs/log.h"

#include <errno.h>
#include <stdlib.h>

enum {
    IDLE_MS = 600000,
    CLOSING_MS = MOON_RELAY_CLOSING_MS,
    READ_LEN = 16384,
    MESSAGE_MIN_LEN = 4096, // of the memory for one
};

_Static_assert((int)MOON_MESSAGE_REASON_MAX_LEN == (int)MOON_WEBSOCKET_REASON_MAX_LEN, "one frame");

// A Close that is to be sent.
struct farewell {
    uint16_t code; // 0: none
    uint8_t reason_len;
    char reason[MOON_WEBSOCKET_REASON_MAX_LEN];
};

struct side {
    struct moon_messages *all;
    struct side *peer;
    struct moon_stream *stream;
    struct moon_buffer in; // read here, not looked at yet
    struct moon_websocket_reader frames;
    // the message that comes from here, and what holds it
    char *bytes;
    size_t len, cap;
    struct moon_websocket_message message; // while filters have it
    char control[MOON_WEBSOCKET_CONTROL_MAX_LEN];
    uint8_t control_len;
    // goes out here: first to_write, then the payload of a message, which lies in out_base
    struct moon_buffer to_write;
    struct moon_slice out;
    char *out_base;
    size_t out_charge_len;
    struct farewell farewell; // behind both
    uint64_t read_len;
    bool is_text;
    bool is_judged;  // filters have the message
    bool is_broken;  // writing failed here
    bool has_ended;  // EOF was read here
    bool was_shut;   // our end was sent here
    bool has_closed; // its Close came from here, or it broke the protocol
    bool was_closed; // a Close was sent here: nothing may follow it
};

struct moon_messages {
    struct side client, upstream;
    struct moon_exchange *ex;
    struct moon_resources *res;
    struct moon_claim claim;
    struct moon_relay_identity identity;
    struct moon_timer timer;
    struct moon_task task; // frees
    uint64_t active_ms;
    uint32_t idle_ms;
    size_t max_len; // of a message
    bool is_over, is_closing;
};

// ---- the end

static void drop_message(struct side *from)
{
    moon_buffer_pool_discharge(from->all->res->buffers, from->cap);
    free(from->bytes);
    from->bytes = NULL;
    from->len = from->cap = 0;
    free(from->message.owned);
    from->message.owned = NULL;
    from->is_judged = false;
}

static void drop_out(struct side *to)
{
    moon_buffer_pool_discharge(to->all->res->buffers, to->out_charge_len);
    free(to->out_base);
    to->out_base = NULL;
    to->out_charge_len = 0;
    to->out = (struct moon_slice){NULL, 0};
}

static void side_fini(struct side *side, bool is_error)
{
    struct moon_resources *res = side->all->res;
    drop_message(side);
    drop_out(side);
    moon_buffer_fini(&side->in, res->buffers);
    moon_buffer_fini(&side->to_write, res->buffers);
    if (is_error)
        moon_stream_abort(side->stream);
    else
        moon_stream_close(side->stream);
}

static void messages_free(struct moon_task *task)
{
    struct moon_messages *all = MOON_CONTAINER(task, struct moon_messages, task);
    moon_relay_identity_fini(&all->identity);
    free(all);
}

void moon_messages_end(struct moon_messages *all, bool is_error)
{
    struct moon_exchange *ex = all->ex;
    if (all->is_over)
        return;
    all->is_over = true;
    moon_chain_cancel(&ex->run, &ex->flow);
    side_fini(&all->client, is_error);
    side_fini(&all->upstream, is_error);
    moon_loop_timer_del(all->res->loop, &all->timer);
    moon_claim_release(&all->claim);
    moon_count_down(&all->res->counters->tunnels_live);
    moon_count_down(&all->res->counters->websockets_live);
    ex->flow.request_body_len += all->client.read_len;
    ex->flow.response_body_len += all->upstream.read_len;
    ex->messages = NULL;
    moon_loop_defer(all->res->loop, &all->task);
    moon_exchange_tunnel_ended(ex);
}

// ---- writing

static bool is_to_server(const struct side *to)
{
    return to == &to->all->upstream;
}

// What it has sent before it broke is read still.
static void write_failed(struct side *to)
{
    to->is_broken = true;
    drop_out(to);
    moon_buffer_fini(&to->to_write, to->all->res->buffers);
    moon_stream_again(to->stream);
}

static bool queue(struct side *to, struct moon_slice bytes)
{
    if (to->is_broken || to->was_shut)
        return true;
    if (moon_buffer_append(&to->to_write, to->all->res->buffers, bytes) == 0)
        return true;
    moon_messages_end(to->all, true);
    return false;
}

// A frame without a payload, or with a short one; `payload` is masked where it goes to a server.
static bool queue_frame(struct side *to, enum moon_websocket_opcode opcode, char *payload,
                        size_t len, size_t queued_len)
{
    uint8_t mask[4];
    char head[MOON_WEBSOCKET_HEAD_MAX_LEN];
    struct moon_websocket_frame frame = {.opcode = opcode, .is_final = true, .len = len};
    if (is_to_server(to)) {
        moon_loop_random(to->all->res->loop, mask, sizeof mask);
        moon_websocket_mask(mask, 0, payload, len);
        frame.mask = mask;
    }
    return queue(to, (struct moon_slice){head, moon_websocket_head_write(&frame, head)}) &&
           queue(to, (struct moon_slice){payload, queued_len});
}

static void queue_close(struct side *to, uint16_t code, struct moon_slice reason)
{
    uint8_t mask[4];
    char frame[MOON_WEBSOCKET_CLOSE_MAX_LEN];
    moon_loop_random(to->all->res->loop, mask, sizeof mask);
    to->was_closed = true;
    size_t len = moon_websocket_close_write(code, reason, is_to_server(to) ? mask : NULL, frame);
    queue(to, (struct moon_slice){frame, len});
}

// One write. False: nothing went out, or the rest waits for room.
static bool write_some(struct side *to)
{
    struct moon_slice first = moon_buffer_bytes(&to->to_write);
    struct iovec iov[2] = {{(void *)first.ptr, first.len}, {(void *)to->out.ptr, to->out.len}};
    size_t all_len = first.len + to->out.len;
    ssize_t n = first.len ? moon_stream_writev(to->stream, iov, to->out.len ? 2 : 1)
                          : moon_stream_writev(to->stream, iov + 1, 1);
    if (n < 0) {
        write_failed(to);
        return true;
    }
    size_t first_len = (size_t)n < first.len ? (size_t)n : first.len;
    if (first_len)
        moon_buffer_consume(&to->to_write, to->all->res->buffers, first_len);
    to->out = moon_slice_skip(to->out, (size_t)n - first_len);
    if (to->out.len == 0)
        drop_out(to);
    return (size_t)n == all_len;
}

// Writes what waits, and then the Close that is due. False when it is not all out, or the tunnel is over.
static bool flush(struct side *to)
{
    while (!to->all->is_over) {
        if (moon_buffer_len(&to->to_write) || to->out.len) {
            if (!write_some(to))
                return false;
        } else if (to->farewell.code && !to->was_closed) {
            moon_count_up(&to->all->res->counters->websocket_closes_total);
            queue_close(to, to->farewell.code,
                        (struct moon_slice){to->farewell.reason, to->farewell.reason_len});
        } else {
            return true;
        }
    }
    return false;
}

// ---- closing

static bool is_done(const struct side *side)
{
    return side->has_closed || side->has_ended || side->is_broken;
}

static bool is_empty(const struct side *side)
{
    return moon_buffer_len(&side->to_write) == 0 && side->out.len == 0;
}

static void end_if_closed(struct moon_messages *all)
{
    if (!all->is_over && all->is_closing && is_done(&all->client) && is_done(&all->upstream) &&
        is_empty(&all->client) && is_empty(&all->upstream))
        moon_messages_end(all, false);
}

static void begin_closing(struct moon_messages *all)
{
    if (all->is_closing)
        return;
    all->is_closing = true;
    moon_loop_timer_add(all->res->loop, &all->timer, CLOSING_MS);
}

static void bid_farewell(struct side *to, uint16_t code, struct moon_slice reason)
{
    if (to->was_closed || to->farewell.code)
        return;
    to->farewell.code = code;
    to->farewell.reason_len = (uint8_t)reason.len;
    if (reason.len)
        memcpy(to->farewell.reason, reason.ptr, reason.len);
}

// Ours to both sides, behind the frame that is under way; messages that filters have, and all that still come, are dropped.
static void close_both(struct moon_messages *all, uint16_t client_code, uint16_t upstream_code,
                       struct moon_slice reason)
{
    bid_farewell(&all->client, client_code, reason);
    bid_farewell(&all->upstream, upstream_code, reason);
    begin_closing(all);
    moon_chain_cancel(&all->ex->run, &all->ex->flow);
    drop_message(&all->client);
    drop_message(&all->upstream);
    flush(&all->client);
    flush(&all->upstream);
    end_if_closed(all);
}

// What the side sends is against the protocol, or more than it may be: it is told, and the other side that it is over.
static void refuse(struct side *from, uint16_t code, const char *why)
{
    struct moon_messages *all = from->all;
    bool is_client = from == &all->client;
    from->has_closed |= code == MOON_WEBSOCKET_PROTOCOL_ERROR; // what comes cannot be read any more
    moon_log_debug(all->res->log, "websocket: the %s %s", is_client ? "client" : "upstream", why);
    close_both(all, is_client ? code : MOON_WEBSOCKET_GOING_AWAY,
               is_client ? MOON_WEBSOCKET_GOING_AWAY : code, MOON_SLICE(""));
}

// ---- messages

// Nothing that comes from here goes on any more.
static bool is_dropped(const struct side *from)
{
    return from->all->is_closing || from->has_closed || from->peer->was_closed;
}

static void send_message(struct side *from)
{
    struct side *to = from->peer;
    struct moon_websocket_message *message = &from->message;
    struct moon_slice data = message->data;
    if (message->is_text && message->owned && !moon_websocket_text_is_valid(data)) {
        moon_log_error(from->all->res->log,
                       "websocket: a filter made a text of request %.*s that is not UTF-8",
                       MOON_SLICE_ARG(moon_exchange_id(from->all->ex)));
        close_both(from->all, MOON_WEBSOCKET_FAILED, MOON_WEBSOCKET_FAILED, MOON_SLICE(""));
        return;
    }
    if (to->is_broken || to->was_shut) {
        drop_message(from);
        return;
    }
    bool is_sent = queue_frame(to, message->is_text ? MOON_WEBSOCKET_TEXT : MOON_WEBSOCKET_BINARY,
                               (char *)data.ptr, data.len, 0);
    if (!is_sent)
        return;
    to->out = data;
    to->out_base = message->owned ? message->owned : from->bytes;
    if (!message->owned) { // what holds it goes along
        to->out_charge_len = from->cap;
        from->bytes = NULL;
        from->cap = 0;
    }
    message->owned = NULL;
    drop_message(from);
    if (data.len == 0)
        drop_out(to);
}

static void judge(struct side *from, bool is_again)
{
    struct moon_messages *all = from->all;
    struct moon_websocket_message *message = &from->message;
    enum moon_verdict verdict =
        moon_chain_message(&all->ex->run, &all->ex->flow, message, is_again);
    struct moon_slice reason = {message->close_reason, message->close_reason_len};
    uint16_t code = message->close_code;
    switch (verdict) {
    case MOON_WAIT:
        return;
    case MOON_NEXT:
        send_message(from);
        return;
    case MOON_DONE:
        drop_message(from);
        if (code)
            close_both(all, code, code, reason);
        return;
    case MOON_FAIL:
        code = code ? code : MOON_WEBSOCKET_FAILED;
        close_both(all, code, code, reason);
        return;
    }
}

static void message_is_whole(struct side *from)
{
    struct moon_slice data = {from->bytes ? from->bytes : "", from->len};
    if (from->is_text && !moon_websocket_text_is_valid(data)) {
        refuse(from, MOON_WEBSOCKET_BAD_TEXT, "sent a text that is not UTF-8");
        return;
    }
    from->message = (struct moon_websocket_message){.direction = is_to_server(from) ? MOON_RESPONSE
                                                                                    : MOON_REQUEST,
                                                    .is_text = from->is_text,
                                                    .data = data};
    from->is_judged = true;
    moon_count_up(&from->all->res->counters->websocket_messages_total);
    judge(from, false);
}

// ---- frames

static void close_came(struct side *from)
{
    struct moon_messages *all = from->all;
    struct moon_slice reason;
    uint16_t code;
    if (!moon_websocket_close_parse((struct moon_slice){from->control, from->control_len}, &code,
                                    &reason)) {
        refuse(from, MOON_WEBSOCKET_PROTOCOL_ERROR, "sent a Close that is none");
        return;
    }
    from->has_closed = true;
    if (!from->peer->was_closed && !from->peer->farewell.code)
        queue_close(from->peer, code, reason);
    if (!all->is_over && is_done(from->peer))
        begin_closing(all);
}

static void frame_begins(struct side *from)
{
    const struct moon_websocket_reader *r = &from->frames;
    from->control_len = 0;
    if (moon_websocket_is_control(r->opcode) || is_dropped(from))
        return;
    if (r->opcode != MOON_WEBSOCKET_CONTINUATION)
        from->is_text = r->opcode == MOON_WEBSOCKET_TEXT;
    if (r->left_len > from->all->max_len - from->len)
        refuse(from, MOON_WEBSOCKET_TOO_BIG, "sent a message longer than the route takes");
}

static bool make_room(struct side *from, size_t len)
{
    struct moon_buffer_pool *pool = from->all->res->buffers;
    size_t need = from->len + len, cap = from->cap ? from->cap * 2 : MESSAGE_MIN_LEN;
    if (need <= from->cap)
        return true;
    cap = cap < need ? need : cap;
    if (moon_buffer_pool_charge(pool, cap - from->cap) < 0)
        return false;
    char *more = realloc(from->bytes, cap);
    if (!more) {
        moon_buffer_pool_discharge(pool, cap - from->cap);
        return false;
    }
    from->bytes = more;
    from->cap = cap;
    return true;
}

static void frame_data(struct side *from, struct moon_slice data)
{
    const struct moon_websocket_reader *r = &from->frames;
    if (moon_websocket_is_control(r->opcode)) {
        moon_websocket_copy(r, data, from->control + from->control_len);
        from->control_len = (uint8_t)(from->control_len + data.len);
        return;
    }
    if (is_dropped(from))
        return;
    if (!make_room(from, data.len)) {
        refuse(from, MOON_WEBSOCKET_TRY_LATER, "sent a message that finds no memory");
        return;
    }
    moon_websocket_copy(r, data, from->bytes + from->len);
    from->len += data.len;
}

static void frame_ends(struct side *from)
{
    const struct moon_websocket_reader *r = &from->frames;
    if (r->opcode == MOON_WEBSOCKET_CLOSE && !from->has_closed)
        close_came(from);
    else if (is_dropped(from))
        return;
    else if (moon_websocket_is_control(r->opcode))
        queue_frame(from->peer, (enum moon_websocket_opcode)r->opcode, from->control,
                    from->control_len, from->control_len);
    else if (r->is_final)
        message_is_whole(from);
}

// One event of what was read. False: there is none yet.
static bool take(struct side *from)
{
    struct moon_slice in = moon_buffer_bytes(&from->in), data;
    size_t len = in.len;
    enum moon_websocket_event event = moon_websocket_next(&from->frames, &in, &data);
    if (event == MOON_WEBSOCKET_DATA)
        frame_data(from, data);
    if (from->all->is_over)
        return true;
    if (event == MOON_WEBSOCKET_BAD)
        in.len = 0;
    if (len > in.len)
        moon_buffer_consume(&from->in, from->all->res->buffers, len - in.len);
    switch (event) {
    case MOON_WEBSOCKET_MORE:
        return false;
    case MOON_WEBSOCKET_FRAME:
        frame_begins(from);
        return true;
    case MOON_WEBSOCKET_DATA:
        return true;
    case MOON_WEBSOCKET_END:
        frame_ends(from);
        return true;
    case MOON_WEBSOCKET_BAD:
        if (!from->has_closed)
            refuse(from, MOON_WEBSOCKET_PROTOCOL_ERROR, "broke the protocol");
        return false;
    }
    return false;
}

// ---- reading

// As a read.
static ssize_t read_some(struct side *from)
{
    struct moon_messages *all = from->all;
    char *to = moon_buffer_reserve(&from->in, all->res->buffers, READ_LEN);
    if (!to)
        return -ENOMEM;
    ssize_t n = moon_stream_read(from->stream, to, READ_LEN);
    if (n <= 0) {
        moon_buffer_fini(&from->in, all->res->buffers); // it is empty
        return n;
    }
    moon_buffer_commit(&from->in, (size_t)n);
    from->read_len += (uint64_t)n;
    all->active_ms = moon_loop_now_ms(all->res->loop);
    moon_count_add(from == &all->client ? &all->res->counters->relay_client_bytes_total
                                        : &all->res->counters->relay_upstream_bytes_total,
                   (uint64_t)n);
    return n;
}

static void side_ended(struct side *from)
{
    struct side *to = from->peer;
    from->has_ended = true;
    if (from->is_broken) {
        moon_messages_end(from->all, true);
        return;
    }
    if (!to->was_shut) {
        to->was_shut = true;
        moon_stream_shutdown(to->stream);
    }
    if (to->has_ended && from->was_shut)
        moon_messages_end(from->all, false);
}

// Moves what comes from one side until a filter waits, the other side is full, or there is nothing.
static void pump(struct side *from)
{
    struct moon_messages *all = from->all;
    size_t turn_len = 0;
    while (flush(from->peer) && !from->is_judged) {
        if (take(from) || all->is_over)
            continue;
        if (from->has_ended)
            break;
        if (turn_len >= MOON_TURN_LEN) {
            moon_stream_again(from->stream);
            break;
        }
        ssize_t n = read_some(from);
        if (n == MOON_EOF)
            side_ended(from);
        else if (n < 0)
            moon_messages_end(all, true);
        if (n <= 0)
            break;
        turn_len += (size_t)n;
    }
    end_if_closed(all);
}

static void on_ready(void *owner, unsigned ready)
{
    struct side *side = owner;
    if (ready & MOON_READY_WRITE && !side->all->is_over)
        pump(side->peer);
    if (ready & ~(unsigned)MOON_READY_WRITE && !side->all->is_over)
        pump(side);
}

static void on_timer(struct moon_timer *timer)
{
    struct moon_messages *all = MOON_CONTAINER(timer, struct moon_messages, timer);
    uint64_t idle_ms = moon_loop_now_ms(all->res->loop) - all->active_ms;
    if (all->is_closing)
        moon_messages_end(all, false);
    else if (idle_ms >= all->idle_ms)
        moon_messages_close(all);
    else
        moon_loop_timer_add(all->res->loop, timer, all->idle_ms - idle_ms);
}

// ---- public

static void side_init(struct side *side, struct side *peer, struct moon_messages *all,
                      unsigned flags)
{
    side->all = all;
    side->peer = peer;
    moon_websocket_init(&side->frames, flags);
}

static void begin(struct side *side)
{
    moon_stream_set_owner(side->stream, on_ready, side);
    moon_stream_again(side->stream);
}

void moon_messages_start(struct moon_exchange *ex)
{
    struct moon_resources *res = ex->res;
    struct moon_lane *down = ex->down, *up = ex->up;
    struct moon_messages *all = calloc(1, sizeof *all);
    if (!all)
        abort();
    all->ex = ex;
    all->res = res;
    all->idle_ms = ex->action->timeouts.idle_ms ? ex->action->timeouts.idle_ms : IDLE_MS;
    all->max_len = ex->action->max_message_len;
    all->timer.fn = on_timer;
    all->task.fn = messages_free;
    all->active_ms = moon_loop_now_ms(res->loop);
    moon_pooled_claim(ex->lease.pooled, &all->claim);
    moon_relay_identify(ex, &all->identity);
    side_init(&all->client, &all->upstream, all, MOON_WEBSOCKET_IS_MASKED);
    side_init(&all->upstream, &all->client, all, 0);
    ex->down = ex->up = NULL;
    ex->messages = all;
    moon_count_up(&res->counters->tunnels_live);
    moon_count_up(&res->counters->websockets_live);
    moon_count_up(&res->counters->websockets_total);
    int err =
        moon_lane_take_stream(down, &all->client.stream, &all->client.in, &all->client.to_write);
    int up_err = moon_lane_take_stream(up, &all->upstream.stream, &all->upstream.in,
                                       &all->upstream.to_write);
    if (err || up_err) {
        moon_messages_end(all, true);
        return;
    }
    moon_loop_timer_add(res->loop, &all->timer, all->idle_ms);
    begin(&all->client);
    begin(&all->upstream);
}

void moon_messages_resume(struct moon_messages *all)
{
    struct side *const sides[] = {&all->client, &all->upstream};
    for (size_t i = 0; i < 2; i++) {
        if (!all->is_over && sides[i]->is_judged)
            judge(sides[i], true);
        if (!all->is_over)
            pump(sides[i]);
    }
}

void moon_messages_close(struct moon_messages *all)
{
    if (all->is_closing)
        return;
    close_both(all, MOON_WEBSOCKET_GOING_AWAY, MOON_WEBSOCKET_GOING_AWAY, MOON_SLICE("going away"));
    if (!all->is_over)
        pump(&all->client);
    if (!all->is_over)
        pump(&all->upstream);
}

const struct moon_relay_identity *moon_messages_identity(const struct moon_messages *all)
{
    return &all->identity;
}
