// Frames of WebSocket (RFC 6455 5): bytes in, events out, and heads of frames back. Pure, like body.h: a payload that nobody
// looks at may be skipped, so that splice(2) can move it.
#pragma once

#include "base/slice.h"

#include <stdbool.h>
#include <stdint.h>

enum moon_websocket_opcode {
    MOON_WEBSOCKET_CONTINUATION = 0,
    MOON_WEBSOCKET_TEXT = 1,
    MOON_WEBSOCKET_BINARY = 2,
    MOON_WEBSOCKET_CLOSE = 8, // from here on control frames
    MOON_WEBSOCKET_PING = 9,
    MOON_WEBSOCKET_PONG = 10,
};

// Codes of Close frames that the gateway sends or knows (RFC 6455 7.4, and the registry of IANA).
enum {
    MOON_WEBSOCKET_NORMAL = 1000,
    MOON_WEBSOCKET_GOING_AWAY = 1001,
    MOON_WEBSOCKET_PROTOCOL_ERROR = 1002,
    MOON_WEBSOCKET_NO_CODE = 1005, // never sent: a Close without one
    MOON_WEBSOCKET_BAD_TEXT = 1007,
    MOON_WEBSOCKET_TOO_BIG = 1009,
    MOON_WEBSOCKET_FAILED = 1011,
    MOON_WEBSOCKET_RESTART = 1012,
    MOON_WEBSOCKET_TRY_LATER = 1013,
};

enum {
    MOON_WEBSOCKET_HEAD_MAX_LEN = 14,
    MOON_WEBSOCKET_CONTROL_MAX_LEN = 125, // payload of a control frame
    MOON_WEBSOCKET_REASON_MAX_LEN = MOON_WEBSOCKET_CONTROL_MAX_LEN - 2, // of a Close
    MOON_WEBSOCKET_CLOSE_MAX_LEN = MOON_WEBSOCKET_HEAD_MAX_LEN + MOON_WEBSOCKET_CONTROL_MAX_LEN,
};

// What the reader is to know about who sends.
enum {
    MOON_WEBSOCKET_IS_MASKED = 1, // a client: every frame is masked; a server: none is
    // an extension may have been agreed on: reserved bits and opcodes say nothing to us
    MOON_WEBSOCKET_IS_EXTENDED = 2,
};

enum moon_websocket_event {
    MOON_WEBSOCKET_MORE, // everything was consumed; feed more
    // a head is complete: opcode, is_final and left_len of the reader say what it is
    MOON_WEBSOCKET_FRAME,
    MOON_WEBSOCKET_DATA, // `data` holds payload as it came: moon_websocket_copy reads it
    MOON_WEBSOCKET_END,  // the frame is over
    MOON_WEBSOCKET_BAD,  // the peer broke the protocol: nothing after this can be trusted
};

struct moon_websocket_reader {
    uint64_t left_len; // of the payload
    uint64_t told_len; // of the payload, before the last DATA
    uint8_t head[MOON_WEBSOCKET_HEAD_MAX_LEN];
    uint8_t head_len;
    uint8_t state;
    uint8_t flags;
    uint8_t opcode; // enum moon_websocket_opcode, or a reserved one where an extension may be
    uint8_t mask[4];
    bool is_final;
    bool is_in_message; // between the fragments of one
};

void moon_websocket_init(struct moon_websocket_reader *r, unsigned flags);
// Takes bytes off *in and tells the next event; *data is a slice of *in.
enum moon_websocket_event moon_websocket_next(struct moon_websocket_reader *r,
                                              struct moon_slice *in, struct moon_slice *data);
// Copies what DATA has just told, without its mask.
void moon_websocket_copy(const struct moon_websocket_reader *r, struct moon_slice data, char *to);
// Between two frames: another one may be put in here.
bool moon_websocket_is_at_border(const struct moon_websocket_reader *r);
// Payload that may be moved past the reader at once, without it seeing it.
uint64_t moon_websocket_skippable(const struct moon_websocket_reader *r);
void moon_websocket_skip(struct moon_websocket_reader *r, uint64_t len); // len <= skippable

static inline bool moon_websocket_is_control(unsigned opcode)
{
    return opcode >= MOON_WEBSOCKET_CLOSE;
}

struct moon_websocket_frame {
    enum moon_websocket_opcode opcode;
    bool is_final;
    uint64_t len;
    const uint8_t *mask; // four bytes that nobody can foresee, in frames to a server; else NULL
};

// The head of a frame; its length. The payload follows, masked where it has a mask.
size_t moon_websocket_head_write(const struct moon_websocket_frame *frame,
                                 char to[static MOON_WEBSOCKET_HEAD_MAX_LEN]);
// Masks, or unmasks, bytes that stand at an offset of the payload.
void moon_websocket_mask(const uint8_t mask[static 4], uint64_t offset, char *bytes, size_t len);
// A whole Close frame; its length. The reason is cut to what it may have.
size_t moon_websocket_close_write(uint16_t code, struct moon_slice reason, const uint8_t *mask,
                                  char to[static MOON_WEBSOCKET_CLOSE_MAX_LEN]);

// Reads the payload of a Close frame; an empty one has MOON_WEBSOCKET_NO_CODE. False: it breaks the protocol.
bool moon_websocket_close_parse(struct moon_slice payload, uint16_t *code,
                                struct moon_slice *reason);
// A code that a Close frame may have.
bool moon_websocket_code_is_valid(unsigned code);
// UTF-8 (RFC 3629), whole: nothing overlong, no surrogates.
bool moon_websocket_text_is_valid(struct moon_slice text);
