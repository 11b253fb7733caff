// A strict reader of HTTP/1.1 messages for the tests, independent of the product's: what it can't read exactly is BAD.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum message_state {
    MESSAGE_HEAD,
    MESSAGE_BODY, // by length, or until the end of the connection
    MESSAGE_CHUNK_LINE,
    MESSAGE_CHUNK_DATA,
    MESSAGE_CHUNK_END,
    MESSAGE_TRAILERS,
    MESSAGE_OVER,
    MESSAGE_BAD,
};

enum message_framing { FRAMING_NONE, FRAMING_LENGTH, FRAMING_CHUNKED, FRAMING_CLOSE };

enum { MESSAGE_HEAD_MAX_LEN = 16384, MESSAGE_LINE_MAX_LEN = 256 };

struct message {
    bool is_response, is_answer_to_head; // set these before the first byte
    enum message_state state;
    enum message_framing framing;
    int status;
    unsigned interim_count;
    uint64_t left_len, body_len; // of this chunk, or of the body; seen so far
    size_t head_len, line_len;
    const char *why; // of BAD
    void (*on_body)(void *owner, const char *bytes, size_t len);
    void *owner;
    char line[MESSAGE_LINE_MAX_LEN];
    char head[MESSAGE_HEAD_MAX_LEN];
};

// For the next message of the same connection.
void message_begin(struct message *message);
// Takes bytes until the message is over or BAD; returns how many.
size_t message_feed(struct message *message, const char *bytes, size_t len);
// The connection ended: true when that ends the message in good order.
bool message_end(struct message *message);
// Once the head is there. The value of a field, NUL-terminated in `to`; false when it is not there or does not fit.
bool message_field(const struct message *message, const char *name, char *to, size_t cap);
static inline bool message_has_head(const struct message *message)
{
    return message->state != MESSAGE_HEAD && message->state != MESSAGE_BAD;
}
