// See outlet.h.
//
//   [to_write][payload] --all out--> farewell --> Close --> nothing more
#include "exchange/outlet.h"

#include "io/loop.h"
#include "link/resources.h"
#include "obs/counters.h"

#include <stdlib.h>

static void drop_payload(struct moon_outlet *outlet)
{
    moon_buffer_pool_discharge(outlet->res->buffers, outlet->charge_len);
    free(outlet->payload_base);
    outlet->payload_base = NULL;
    outlet->charge_len = 0;
    outlet->payload = (struct moon_slice){NULL, 0};
}

void moon_outlet_fini(struct moon_outlet *outlet)
{
    drop_payload(outlet);
    moon_buffer_fini(&outlet->to_write, outlet->res->buffers);
}

bool moon_outlet_is_empty(const struct moon_outlet *outlet)
{
    return moon_buffer_len(&outlet->to_write) == 0 && outlet->payload.len == 0;
}

static bool takes_nothing(const struct moon_outlet *outlet)
{
    return outlet->is_broken || outlet->was_shut;
}

static int queue(struct moon_outlet *outlet, struct moon_slice bytes)
{
    if (takes_nothing(outlet) || bytes.len == 0)
        return 0;
    return moon_buffer_append(&outlet->to_write, outlet->res->buffers, bytes);
}

// ---- frames

// Queues the head, and masks the payload that belongs to it.
static int queue_head(struct moon_outlet *outlet, unsigned opcode, char *payload, size_t len)
{
    uint8_t mask[4];
    char head[MOON_WEBSOCKET_HEAD_MAX_LEN];
    struct moon_websocket_frame frame = {
        .opcode = (enum moon_websocket_opcode)opcode, .is_final = true, .len = len};
    if (outlet->is_to_server) {
        moon_loop_random(outlet->res->loop, mask, sizeof mask);
        moon_websocket_mask(mask, 0, payload, len);
        frame.mask = mask;
    }
    return queue(outlet, (struct moon_slice){head, moon_websocket_head_write(&frame, head)});
}

int moon_outlet_control(struct moon_outlet *outlet, unsigned opcode, char *payload, size_t len)
{
    int err = queue_head(outlet, opcode, payload, len);
    return err ? err : queue(outlet, (struct moon_slice){payload, len});
}

int moon_outlet_message(struct moon_outlet *outlet, bool is_text, struct moon_slice data,
                        char *base, size_t charge_len)
{
    int err = queue_head(outlet, is_text ? MOON_WEBSOCKET_TEXT : MOON_WEBSOCKET_BINARY,
                         (char *)data.ptr, data.len);
    outlet->payload = data;
    outlet->payload_base = base;
    outlet->charge_len = charge_len;
    if (err || data.len == 0 || takes_nothing(outlet))
        drop_payload(outlet);
    return err;
}

int moon_outlet_close(struct moon_outlet *outlet, uint16_t code, struct moon_slice reason)
{
    uint8_t mask[4];
    char frame[MOON_WEBSOCKET_CLOSE_MAX_LEN];
    moon_loop_random(outlet->res->loop, mask, sizeof mask);
    outlet->was_closed = true;
    size_t len =
        moon_websocket_close_write(code, reason, outlet->is_to_server ? mask : NULL, frame);
    return queue(outlet, (struct moon_slice){frame, len});
}

void moon_outlet_farewell(struct moon_outlet *outlet, uint16_t code, struct moon_slice reason)
{
    if (outlet->was_closed || outlet->farewell_code)
        return;
    outlet->farewell_code = code;
    outlet->farewell_reason_len = (uint8_t)reason.len;
    if (reason.len)
        memcpy(outlet->farewell_reason, reason.ptr, reason.len);
}

// ---- writing

// What the peer has sent before it broke can be read still.
static void write_failed(struct moon_outlet *outlet)
{
    outlet->is_broken = true;
    moon_outlet_fini(outlet);
    moon_stream_again(outlet->stream);
}

// One write. False: there is no room for the rest.
static bool write_some(struct moon_outlet *outlet)
{
    struct moon_slice first = moon_buffer_bytes(&outlet->to_write);
    struct iovec iov[2] = {{(void *)first.ptr, first.len},
                           {(void *)outlet->payload.ptr, outlet->payload.len}};
    size_t all_len = first.len + outlet->payload.len;
    ssize_t n = first.len ? moon_stream_writev(outlet->stream, iov, outlet->payload.len ? 2 : 1)
                          : moon_stream_writev(outlet->stream, iov + 1, 1);
    if (n < 0) {
        write_failed(outlet);
        return true;
    }
    size_t first_len = (size_t)n < first.len ? (size_t)n : first.len;
    if (first_len)
        moon_buffer_consume(&outlet->to_write, outlet->res->buffers, first_len);
    if (outlet->payload.len)
        outlet->payload = moon_slice_skip(outlet->payload, (size_t)n - first_len);
    if (outlet->payload.len == 0)
        drop_payload(outlet);
    return (size_t)n == all_len;
}

int moon_outlet_flush(struct moon_outlet *outlet)
{
    int err = 0;
    while (!err) {
        if (!moon_outlet_is_empty(outlet)) {
            if (!write_some(outlet))
                return 0;
        } else if (outlet->farewell_code && !outlet->was_closed) {
            moon_count_up(&outlet->res->counters->websocket_closes_total);
            err = moon_outlet_close(
                outlet, outlet->farewell_code,
                (struct moon_slice){outlet->farewell_reason, outlet->farewell_reason_len});
        } else {
            return 1;
        }
    }
    return err;
}

void moon_outlet_shut(struct moon_outlet *outlet)
{
    if (outlet->was_shut)
        return;
    outlet->was_shut = true;
    moon_stream_shutdown(outlet->stream);
}
