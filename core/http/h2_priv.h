// The body of struct moon_h2, for the files of this room: h2.c (receiving), h2_send.c, h2_head.c, h2_guard.c.
#pragma once

#include "http/h2.h"

#include <nghttp2/nghttp2.h>

// A bucket of tokens: what is cheap to send and costs us work takes some, what is worth something gives some back.
struct moon_h2_bucket {
    int32_t left;
    uint64_t filled_ms;
};

enum { MOON_H2_RESET_COUNT = 16 };

struct moon_h2 {
    nghttp2_session *session;
    struct moon_h2_args args;
    // h2_memory.c; NULL: it is awake
    char *region;
    uint8_t *image;
    uint32_t tables_len;
    struct moon_buffer *out;         // under moon_h2_pump
    struct moon_h2_stream *block_of; // whose header block is being received
    uint32_t block_len;              // of it, as it came
    struct moon_h2_bucket resets, control;
    uint64_t now_ms;
    // Streams that we have reset of late: what of them is still on its way is no fault.
    int32_t reset_ids[MOON_H2_RESET_COUNT];
    uint32_t reset_count;
    int32_t seen_id;      // the highest that a HEADERS frame had
    uint32_t payload_len; // until the next frame head, for the guard
    uint8_t frame_head[9], frame_head_len;
    uint16_t continuation_count; // of the block
    uint8_t cause;               // enum moon_h2_cause
    bool is_receiving : 1, is_pumping : 1, is_in_block : 1;
    bool is_greeted : 1; // the preface is through, SETTINGS included
    bool has_terminated : 1;
    bool wants_ping : 1;                                       // behind the GOAWAY that is queued
    bool was_sent_away : 1;                                    // a GOAWAY came
    bool is_making : 1, has_frame_buffer : 1, is_dropping : 1; // h2_memory.c
    int error;                                                 // from under nghttp2
};

// h2.c
struct moon_h2_stream *moon_h2_stream_at(const struct moon_h2 *h2, int32_t id);
void moon_h2_note_reset(struct moon_h2 *h2, int32_t id);

// h2_guard.c: each ends the connection when a bucket is empty.
void moon_h2_guard_init(struct moon_h2 *h2);
// Looks at the head of each frame before nghttp2 does, which tells of some only. How many bytes nghttp2 may have now: the rest
// wants to be looked at when it has had them.
size_t moon_h2_guard_walk(struct moon_h2 *h2, struct moon_slice bytes);
void moon_h2_guard_data(struct moon_h2 *h2, const nghttp2_frame *frame);
// A stream was reset before its time; by whom does not matter.
void moon_h2_guard_reset(struct moon_h2 *h2);
void moon_h2_guard_sent_data(struct moon_h2 *h2);
void moon_h2_end(struct moon_h2 *h2, enum moon_h2_cause cause, uint32_t code);

// h2_memory.c: for a session of this h2, which outlives it. `is_making` ends with the session's making.
nghttp2_mem moon_h2_memory_init(struct moon_h2 *h2);
void moon_h2_memory_fini(struct moon_h2 *h2);
// Before anything is asked of the session; costs nothing where it is awake.
void moon_h2_wake(struct moon_h2 *h2);
// Keeps back what only nghttp2 has to hear.
int moon_h2_before_send(nghttp2_session *session, const nghttp2_frame *frame, void *owner);

// h2_head.c: one field as it was decoded. False: malformed.
bool moon_h2_field_add(struct moon_h2 *h2, struct moon_h2_stream *stream, struct moon_slice name,
                       struct moon_slice value);

// h2_response.c: the block that is complete has a status that ends a response's heads.
bool moon_h2_is_final(const struct moon_h2_stream *stream);

// h2_send.c
ssize_t moon_h2_on_send(nghttp2_session *session, const uint8_t *bytes, size_t len, int flags,
                        void *owner);
int moon_h2_on_send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head,
                         size_t len, nghttp2_data_source *source, void *owner);
int moon_h2_on_frame_sent(nghttp2_session *session, const nghttp2_frame *frame, void *owner);
