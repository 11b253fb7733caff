// Outlet: what goes out on one side of a WebSocket tunnel whose messages are read: frames in their order, one long payload at a
// time without a copy, and a Close behind everything. It borrows the stream.
#pragma once

#include "base/buffer.h"
#include "http/websocket.h"

#include <stdbool.h>

struct moon_resources;
struct moon_stream;

struct moon_outlet {
    struct moon_resources *res;
    struct moon_stream *stream;
    struct moon_buffer to_write; // heads, control frames; goes before `payload`
    struct moon_slice payload;   // of a message, what is left of it
    char *payload_base;          // from malloc, that it lies in
    size_t charge_len;           // of that, in the buffer budget
    uint16_t farewell_code;      // of a Close behind both; 0: none
    uint8_t farewell_reason_len;
    char farewell_reason[MOON_WEBSOCKET_REASON_MAX_LEN];
    bool is_to_server; // what goes out is masked
    bool is_broken;    // writing failed: all that still goes out is dropped
    bool was_shut;     // our end was sent
    bool was_closed;   // a Close was sent: nothing may follow it
};

// Lets go of what waits; the stream stays.
void moon_outlet_fini(struct moon_outlet *outlet);
// All that was given went out.
bool moon_outlet_is_empty(const struct moon_outlet *outlet);

// These queue; 0, or an error after which the tunnel cannot go on. The bytes of `payload` are masked in place.
int moon_outlet_control(struct moon_outlet *outlet, unsigned opcode, char *payload, size_t len);
// The one before is out whole. `data` lies in `base`, which the outlet takes over, with its charge; NULL for no bytes.
int moon_outlet_message(struct moon_outlet *outlet, bool is_text, struct moon_slice data,
                        char *base, size_t charge_len);
// A Close of the peer's, passed on.
int moon_outlet_close(struct moon_outlet *outlet, uint16_t code, struct moon_slice reason);

// A Close of the gateway's own, as soon as all else is out; harmless where there was one.
void moon_outlet_farewell(struct moon_outlet *outlet, uint16_t code, struct moon_slice reason);
// Writes what it can: 1 all is out, 0 it waits for room, or an error.
int moon_outlet_flush(struct moon_outlet *outlet);
// Ends our side; all is out.
void moon_outlet_shut(struct moon_outlet *outlet);
