// See messages.h. Each direction by itself: frames are read until a message is whole, it goes through the filters, and out as one
// frame. Nothing more is read from a side while its message waits for a filter or for room on the other side, so that memory is
// bounded by two messages a direction, which are charged to the buffer budget.
//
//   stream of `from` -> in -> frames -> bytes (a message) -> filters -> outlet of `to` -> stream of `to`
//
//   open --Close from both sides, each passed on--> closing
//        --a filter, a broken rule, idleness, a drain: ours to both--> closing --both answered, or CLOSING_MS--> over
#include "exchange/messages.h"

#include "base/err.h"
#include "exchange/exchange_priv.h"
#include "exchange/outlet.h"
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

struct side {
    struct moon_messages *all;
    struct side *peer;
    struct moon_buffer in; // read here, not looked at yet
    struct moon_websocket_reader frames;
    // the message that comes from here, and what holds it
    char *bytes;
    size_t len, cap;
    struct moon_websocket_message message; // while filters have it
    char control[MOON_WEBSOCKET_CONTROL_MAX_LEN];
    uint8_t control_len;
    struct moon_outlet outlet; // what goes out here
    uint64_t read_len;
    bool is_text;
    bool is_judged;  // filters have the message
    bool has_ended;  // EOF was read here
    bool has_closed; // its Close came from here, or it broke the protocol
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

static void side_fini(struct side *side, bool is_error)
{
    struct moon_resources *res = side->all->res;
    drop_message(side);
    moon_outlet_fini(&side->outlet);
    moon_buffer_fini(&side->in, res->buffers);
    if (is_error)
        moon_stream_abort(side->outlet.stream);
    else
        moon_stream_close(side->outlet.stream);
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

static bool is_client(const struct side *side)
{
    return side == &side->all->client;
}

// Of an outlet's work. False: the tunnel is over.
static bool went_well(struct moon_messages *all, int err)
{
    if (err < 0)
        moon_messages_end(all, true);
    return !all->is_over;
}

// False when it is not all out, or the tunnel is over.
static bool flush(struct side *to)
{
    if (to->all->is_over)
        return false;
    int all_out = moon_outlet_flush(&to->outlet);
    return went_well(to->all, all_out) && all_out;
}

// ---- closing

static bool is_done(const struct side *side)
{
    return side->has_closed || side->has_ended || side->outlet.is_broken;
}

static void end_if_closed(struct moon_messages *all)
{
    if (!all->is_over && all->is_closing && is_done(&all->client) && is_done(&all->upstream) &&
        moon_outlet_is_empty(&all->client.outlet) && moon_outlet_is_empty(&all->upstream.outlet))
        moon_messages_end(all, false);
}

static void begin_closing(struct moon_messages *all)
{
    if (all->is_closing)
        return;
    all->is_closing = true;
    moon_loop_timer_add(all->res->loop, &all->timer, CLOSING_MS);
}

// Ours to both sides, behind the frame that is under way; messages that filters have, and all that still come, are dropped.
static void close_both(struct moon_messages *all, uint16_t client_code, uint16_t upstream_code,
                       struct moon_slice reason)
{
    moon_outlet_farewell(&all->client.outlet, client_code, reason);
    moon_outlet_farewell(&all->upstream.outlet, upstream_code, reason);
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
    bool is_clients = is_client(from);
    from->has_closed |= code == MOON_WEBSOCKET_PROTOCOL_ERROR; // what comes cannot be read any more
    moon_log_debug(all->res->log, "websocket: the %s %s", is_clients ? "client" : "upstream", why);
    close_both(all, is_clients ? code : MOON_WEBSOCKET_GOING_AWAY,
               is_clients ? MOON_WEBSOCKET_GOING_AWAY : code, MOON_SLICE(""));
}

// ---- messages

// Nothing that comes from here goes on any more.
static bool is_dropped(const struct side *from)
{
    return from->all->is_closing || from->has_closed || from->peer->outlet.was_closed;
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
    char *base = message->owned ? message->owned : from->bytes;
    size_t charge_len = message->owned ? 0 : from->cap;
    if (!message->owned) { // what holds it goes along
        from->bytes = NULL;
        from->cap = 0;
    }
    message->owned = NULL;
    drop_message(from);
    went_well(from->all,
              moon_outlet_message(&to->outlet, message->is_text, data, base, charge_len));
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
    from->message =
        (struct moon_websocket_message){.direction = is_client(from) ? MOON_REQUEST : MOON_RESPONSE,
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
    struct moon_outlet *to = &from->peer->outlet;
    if (!to->was_closed && !to->farewell_code &&
        !went_well(all, moon_outlet_close(to, code, reason)))
        return;
    if (is_done(from->peer))
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
        went_well(from->all, moon_outlet_control(&from->peer->outlet, r->opcode, from->control,
                                                 from->control_len));
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
    ssize_t n = moon_stream_read(from->outlet.stream, to, READ_LEN);
    if (n <= 0) {
        moon_buffer_fini(&from->in, all->res->buffers); // it is empty
        return n;
    }
    moon_buffer_commit(&from->in, (size_t)n);
    from->read_len += (uint64_t)n;
    all->active_ms = moon_loop_now_ms(all->res->loop);
    moon_count_add(is_client(from) ? &all->res->counters->relay_client_bytes_total
                                   : &all->res->counters->relay_upstream_bytes_total,
                   (uint64_t)n);
    return n;
}

static void side_ended(struct side *from)
{
    struct side *to = from->peer;
    from->has_ended = true;
    if (from->outlet.is_broken) {
        moon_messages_end(from->all, true);
        return;
    }
    moon_outlet_shut(&to->outlet);
    if (to->has_ended && from->outlet.was_shut)
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
            moon_stream_again(from->outlet.stream);
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
    side->outlet.res = all->res;
    side->outlet.is_to_server = !is_client(side);
    moon_websocket_init(&side->frames, flags);
}

static void begin(struct side *side)
{
    moon_stream_set_owner(side->outlet.stream, on_ready, side);
    moon_stream_again(side->outlet.stream);
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
    int err = moon_lane_take_stream(down, &all->client.outlet.stream, &all->client.in,
                                    &all->client.outlet.to_write);
    int up_err = moon_lane_take_stream(up, &all->upstream.outlet.stream, &all->upstream.in,
                                       &all->upstream.outlet.to_write);
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
