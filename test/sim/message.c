// Reading messages: see message.h.
#include "test/sim/message.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static void bad(struct message *message, const char *why)
{
    message->state = MESSAGE_BAD;
    message->why = why;
}

void message_begin(struct message *message)
{
    message->state = MESSAGE_HEAD;
    message->framing = FRAMING_NONE;
    message->status = 0;
    message->interim_count = 0;
    message->left_len = message->body_len = 0;
    message->head_len = message->line_len = 0;
    message->head[0] = '\0';
}

bool message_field(const struct message *message, const char *name, char *to, size_t cap)
{
    size_t name_len = strlen(name);
    const char *line = strstr(message->head, "\r\n");
    while (line && line[2] != '\r') {
        line += 2;
        const char *end = strstr(line, "\r\n");
        if (strncasecmp(line, name, name_len) == 0 && line[name_len] == ':') {
            const char *value = line + name_len + 1 + strspn(line + name_len + 1, " ");
            size_t len = end > value ? (size_t)(end - value) : 0;
            if (len >= cap)
                return false;
            memcpy(to, value, len);
            to[len] = '\0';
            return true;
        }
        line = end;
    }
    return false;
}

static void frame_body(struct message *message)
{
    char length[32], coding[32], *end;
    bool has_length = message_field(message, "Content-Length", length, sizeof length);
    bool has_coding = message_field(message, "Transfer-Encoding", coding, sizeof coding);
    if (has_length && has_coding) {
        bad(message, "Content-Length with Transfer-Encoding");
        return;
    }
    if (message->is_response &&
        (message->is_answer_to_head || message->status == 204 || message->status == 304)) {
        message->state = MESSAGE_OVER;
    } else if (has_coding && strcmp(coding, "chunked") == 0) {
        message->framing = FRAMING_CHUNKED;
        message->state = MESSAGE_CHUNK_LINE;
    } else if (has_coding) {
        bad(message, "a foreign transfer coding");
    } else if (has_length) {
        message->framing = FRAMING_LENGTH;
        message->left_len = strtoull(length, &end, 10);
        message->state = message->left_len ? MESSAGE_BODY : MESSAGE_OVER;
        if (*end || end == length)
            bad(message, "a broken Content-Length");
    } else if (message->is_response) {
        message->framing = FRAMING_CLOSE;
        message->left_len = UINT64_MAX;
        message->state = MESSAGE_BODY;
    } else {
        message->state = MESSAGE_OVER;
    }
}

static void head_done(struct message *message)
{
    if (strlen(message->head) != message->head_len) {
        bad(message, "NUL in a head");
        return;
    }
    if (!message->is_response) {
        frame_body(message);
        return;
    }
    if (strncmp(message->head, "HTTP/1.1 ", 9) != 0) {
        bad(message, "a broken status line");
        return;
    }
    message->status = (int)strtol(message->head + 9, NULL, 10);
    if (message->status >= 200) {
        frame_body(message);
        return;
    }
    if (message->status < 100)
        bad(message, "a broken status");
    message->interim_count++;
    message->head_len = 0;
}

static void take_head_byte(struct message *message, char byte)
{
    if (message->head_len + 1 >= sizeof message->head) {
        bad(message, "a head that does not end");
        return;
    }
    message->head[message->head_len++] = byte;
    message->head[message->head_len] = '\0';
    if (byte == '\n' && message->head_len >= 4 &&
        memcmp(message->head + message->head_len - 4, "\r\n\r\n", 4) == 0)
        head_done(message);
}

static void chunk_line_done(struct message *message)
{
    char *end;
    message->left_len = strtoull(message->line, &end, 16);
    if (end == message->line || *end)
        bad(message, "a broken chunk line");
    else
        message->state = message->left_len ? MESSAGE_CHUNK_DATA : MESSAGE_TRAILERS;
}

// One byte of a line that ends with CRLF.
static void take_line_byte(struct message *message, char byte)
{
    if (message->line_len + 1 >= sizeof message->line) {
        bad(message, "a line that does not end");
        return;
    }
    message->line[message->line_len++] = byte;
    if (byte != '\n')
        return;
    if (message->line_len < 2 || message->line[message->line_len - 2] != '\r') {
        bad(message, "a bare LF");
        return;
    }
    bool is_empty = message->line_len == 2;
    message->line[message->line_len - 2] = '\0';
    message->line_len = 0;
    if (message->state == MESSAGE_CHUNK_LINE)
        chunk_line_done(message);
    else if (message->state == MESSAGE_CHUNK_END && is_empty)
        message->state = MESSAGE_CHUNK_LINE;
    else if (message->state == MESSAGE_CHUNK_END)
        bad(message, "a chunk that does not end where it says");
    else if (is_empty)
        message->state = MESSAGE_OVER;
}

static size_t take_body(struct message *message, const char *bytes, size_t len)
{
    size_t n = len < message->left_len ? len : (size_t)message->left_len;
    if (message->on_body)
        message->on_body(message->owner, bytes, n);
    message->body_len += n;
    if (message->framing != FRAMING_CLOSE)
        message->left_len -= n;
    if (message->left_len == 0)
        message->state = message->framing == FRAMING_CHUNKED ? MESSAGE_CHUNK_END : MESSAGE_OVER;
    return n;
}

size_t message_feed(struct message *message, const char *bytes, size_t len)
{
    size_t at = 0;
    while (at < len) {
        switch (message->state) {
        case MESSAGE_HEAD:
            take_head_byte(message, bytes[at++]);
            break;
        case MESSAGE_BODY:
        case MESSAGE_CHUNK_DATA:
            at += take_body(message, bytes + at, len - at);
            break;
        case MESSAGE_CHUNK_LINE:
        case MESSAGE_CHUNK_END:
        case MESSAGE_TRAILERS:
            take_line_byte(message, bytes[at++]);
            break;
        case MESSAGE_OVER:
        case MESSAGE_BAD:
            return at;
        }
    }
    return at;
}

bool message_end(struct message *message)
{
    if (message->state == MESSAGE_BODY && message->framing == FRAMING_CLOSE)
        message->state = MESSAGE_OVER;
    return message->state == MESSAGE_OVER;
}
