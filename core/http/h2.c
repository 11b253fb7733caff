// The receiving side of an HTTP/2 connection: nghttp2's callbacks become events. Its own checks of messages stay on, as a first
// line: what it finds malformed is reset and never heard of here.
#include "http/h2.h"

#include "base/err.h"
#include "http/h2_priv.h"

#include <errno.h>
#include <stdlib.h>

enum { SETTINGS_COUNT = 32, ACK_COUNT = 1000 };

static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
_Static_assert(sizeof preface - 1 == MOON_H2_PREFACE_LEN, "RFC 9113 3.4");

int moon_h2_is_preface(struct moon_slice bytes)
{
    size_t len = bytes.len < MOON_H2_PREFACE_LEN ? bytes.len : MOON_H2_PREFACE_LEN;
    if (memcmp(bytes.ptr, preface, len) != 0)
        return -1;
    return len == MOON_H2_PREFACE_LEN;
}

struct moon_h2_stream *moon_h2_stream_at(const struct moon_h2 *h2, int32_t id)
{
    return nghttp2_session_get_stream_user_data(h2->session, id);
}

// Frames that come once the connection is to be ended mean nothing.
static int verdict(const struct moon_h2 *h2)
{
    return h2->error || h2->has_terminated ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

void moon_h2_note_reset(struct moon_h2 *h2, int32_t id)
{
    h2->reset_ids[h2->reset_count++ % MOON_H2_RESET_COUNT] = id;
}

static void begin_trailers(struct moon_h2 *h2, struct moon_h2_stream *stream)
{
    h2->block_of = stream;
    if (!stream)
        return;
    stream->is_in_trailers = true; // what is noted of the head stays: it may not have been read yet
    stream->list_len = stream->field_count = stream->crumb_count = 0;
}

// A head of a response: the final one, or one before it.
static void begin_response(struct moon_h2 *h2, struct moon_h2_stream *stream)
{
    h2->block_of = stream;
    moon_buffer_fini(&stream->block, h2->args.buffers);
    stream->status = (struct moon_h2_part){0};
    stream->list_len = stream->field_count = stream->crumb_count = stream->fields_at = 0;
    stream->has_fields = false;
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *owner)
{
    struct moon_h2 *h2 = owner;
    h2->is_in_block = !(frame->hd.flags & NGHTTP2_FLAG_END_HEADERS);
    if (h2->args.is_client) {
        struct moon_h2_stream *known = moon_h2_stream_at(h2, frame->hd.stream_id);
        if (known && !known->has_final)
            begin_response(h2, known);
        else
            begin_trailers(h2, known);
        return verdict(h2);
    }
    if (frame->headers.cat != NGHTTP2_HCAT_REQUEST) {
        begin_trailers(h2, moon_h2_stream_at(h2, frame->hd.stream_id));
        return verdict(h2);
    }
    struct moon_h2_stream *stream = h2->args.events->open(h2->args.owner);
    h2->block_of = stream;
    if (!stream) {
        moon_h2_note_reset(h2, frame->hd.stream_id);
        nghttp2_submit_rst_stream(session, 0, frame->hd.stream_id, NGHTTP2_REFUSED_STREAM);
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    }
    stream->id = frame->hd.stream_id;
    stream->has_session = true;
    nghttp2_session_set_stream_user_data(session, stream->id, stream);
    return verdict(h2);
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
                     void *owner)
{
    (void)flags;
    struct moon_h2 *h2 = owner;
    struct moon_h2_stream *stream = h2->block_of;
    if (!stream || stream->id != frame->hd.stream_id)
        return 0;
    h2->block_len = (uint32_t)frame->hd.length; // CONTINUATION frames included
    if (moon_h2_field_add(h2, stream, (struct moon_slice){(const char *)name, name_len},
                          (struct moon_slice){(const char *)value, value_len}))
        return verdict(h2);
    nghttp2_submit_rst_stream(session, 0, stream->id, NGHTTP2_PROTOCOL_ERROR);
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

static void headers_received(struct moon_h2 *h2, const nghttp2_frame *frame)
{
    struct moon_h2_stream *stream = moon_h2_stream_at(h2, frame->hd.stream_id);
    h2->is_in_block = false;
    h2->block_of = NULL;
    if (!stream)
        return;
    stream->is_read = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    if (stream->is_response ? !stream->is_in_trailers
                            : frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
        stream->is_bodiless = stream->is_read;
        stream->has_final = moon_h2_is_final(stream);
        h2->args.events->head(h2->args.owner, stream);
    }
    if (stream->is_read)
        h2->args.events->end(h2->args.owner, stream);
}

static void data_received(struct moon_h2 *h2, const nghttp2_frame *frame)
{
    struct moon_h2_stream *stream = moon_h2_stream_at(h2, frame->hd.stream_id);
    moon_h2_guard_data(h2, frame);
    if (!stream || !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
        return;
    stream->is_read = true;
    h2->args.events->end(h2->args.owner, stream);
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *owner)
{
    (void)session;
    struct moon_h2 *h2 = owner;
    if (h2->is_dropping)
        return 0;
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
        headers_received(h2, frame);
        break;
    case NGHTTP2_DATA:
        data_received(h2, frame);
        break;
    case NGHTTP2_RST_STREAM:
        if (!h2->args.is_client) // whom we ask may refuse: it costs him more than us
            moon_h2_guard_reset(h2);
        break;
    case NGHTTP2_GOAWAY:
        h2->was_sent_away = true;
        if (h2->args.is_client)
            h2->args.events->goaway(h2->args.owner);
        break;
    case NGHTTP2_PING:
        if (frame->hd.flags & NGHTTP2_FLAG_ACK)
            h2->args.events->pong(h2->args.owner);
        break;
    case NGHTTP2_SETTINGS:
        h2->is_greeted = true;
        if (h2->args.is_client && !(frame->hd.flags & NGHTTP2_FLAG_ACK))
            h2->args.events->settings(h2->args.owner);
        h2->args.events->window(h2->args.owner);
        break;
    case NGHTTP2_WINDOW_UPDATE:
        h2->args.events->window(h2->args.owner);
        break;
    default:
        break;
    }
    return verdict(h2);
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *bytes,
                   size_t len, void *owner)
{
    (void)flags;
    struct moon_h2 *h2 = owner;
    struct moon_h2_stream *stream = moon_h2_stream_at(h2, id);
    if (!stream || h2->args.is_client) // a slow reader of one response does not hold up the others
        nghttp2_session_consume_connection(session, len);
    if (stream)
        h2->args.events->data(h2->args.owner, stream,
                              (struct moon_slice){(const char *)bytes, len});
    return verdict(h2);
}

static int on_closed(nghttp2_session *session, int32_t id, uint32_t code, void *owner)
{
    (void)session;
    struct moon_h2 *h2 = owner;
    struct moon_h2_stream *stream = moon_h2_stream_at(h2, id);
    if (!stream)
        return 0;
    if (h2->block_of == stream)
        h2->block_of = NULL;
    stream->has_session = false;
    stream->is_unprocessed =
        stream->is_response && (code == NGHTTP2_REFUSED_STREAM || !stream->is_begun);
    h2->args.events->closed(h2->args.owner, stream, code);
    return 0;
}

static nghttp2_session_callbacks *callbacks_new(void)
{
    nghttp2_session_callbacks *callbacks;
    if (nghttp2_session_callbacks_new(&callbacks) != 0)
        return NULL;
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_closed);
    nghttp2_session_callbacks_set_send_callback(callbacks, moon_h2_on_send);
    nghttp2_session_callbacks_set_before_frame_send_callback(callbacks, moon_h2_before_send);
    nghttp2_session_callbacks_set_send_data_callback(callbacks, moon_h2_on_send_data);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, moon_h2_on_frame_sent);
    return callbacks;
}

static nghttp2_option *option_new(const struct moon_h2_args *args)
{
    nghttp2_option *option;
    if (nghttp2_option_new(&option) != 0)
        return NULL;
    nghttp2_option_set_no_auto_window_update(option, 1);
    nghttp2_option_set_no_closed_streams(option, 1);
    nghttp2_option_set_max_outbound_ack(option, ACK_COUNT);
    nghttp2_option_set_max_settings(option, SETTINGS_COUNT);
    // Clients that know no RFC 9218 have their PRIORITY frames checked; they change nothing: one stream offers data at a time.
    nghttp2_option_set_server_fallback_rfc7540_priorities(option, 1);
    if (args->is_client) {
        nghttp2_option_set_peer_max_concurrent_streams(
            option, args->peer_stream_count ? args->peer_stream_count : MOON_H2_PEER_STREAM_COUNT);
        nghttp2_option_set_max_send_header_block_length(option, (size_t)4 * args->header_bytes);
    }
    return option;
}

static int queue_settings(struct moon_h2 *h2)
{
    bool is_client = h2->args.is_client;
    const nghttp2_settings_entry entries[] = {
        {is_client ? NGHTTP2_SETTINGS_ENABLE_PUSH : NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS,
         is_client ? 0 : MOON_H2_STREAM_COUNT},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, MOON_H2_STREAM_LEN},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, h2->args.header_bytes},
        {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
        {NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL,
         1}, // RFC 8441; the last one, servers alone say it
    };
    size_t count = sizeof entries / sizeof entries[0] - is_client;
    int err = nghttp2_submit_settings(h2->session, NGHTTP2_FLAG_NONE, entries, count);
    return err ? err
               : nghttp2_session_set_local_window_size(h2->session, NGHTTP2_FLAG_NONE, 0,
                                                       MOON_H2_CONNECTION_LEN);
}

struct moon_h2 *moon_h2_new(const struct moon_h2_args *args)
{
    nghttp2_session_callbacks *callbacks = callbacks_new();
    nghttp2_option *option = option_new(args);
    struct moon_h2 *h2 = calloc(1, sizeof *h2);
    if (callbacks && option && h2) {
        h2->args = *args;
        moon_h2_guard_init(h2);
        nghttp2_mem memory = moon_h2_memory_init(h2);
        if (args->is_client)
            nghttp2_session_client_new3(&h2->session, callbacks, h2, option, &memory);
        else
            nghttp2_session_server_new3(&h2->session, callbacks, h2, option, &memory);
        h2->is_making = false;
    }
    if (callbacks)
        nghttp2_session_callbacks_del(callbacks);
    if (option)
        nghttp2_option_del(option);
    if (h2 && h2->session && queue_settings(h2) == 0)
        return h2;
    moon_h2_free(h2);
    return NULL;
}

void moon_h2_free(struct moon_h2 *h2)
{
    if (!h2)
        return;
    moon_h2_wake(h2);
    nghttp2_session_del(h2->session);
    moon_h2_memory_fini(h2);
    free(h2);
}

void moon_h2_stream_fini(struct moon_h2 *h2, struct moon_h2_stream *stream)
{
    moon_buffer_fini(&stream->block, h2->args.buffers);
    moon_buffer_fini(&stream->trailer_block, h2->args.buffers);
    free(stream->trailers);
    stream->trailers = NULL;
}

static int feed(struct moon_h2 *h2, struct moon_slice bytes)
{
    h2->is_receiving = true;
    ssize_t len = nghttp2_session_mem_recv(h2->session, (const uint8_t *)bytes.ptr, bytes.len);
    h2->is_receiving = false;
    if (h2->error)
        return h2->error;
    if (len == NGHTTP2_ERR_FLOODED)
        moon_h2_end(h2, MOON_H2_CONTROL, NGHTTP2_ENHANCE_YOUR_CALM);
    else if (len < 0)
        moon_h2_end(h2, MOON_H2_PROTOCOL, NGHTTP2_PROTOCOL_ERROR);
    if (len < 0 || h2->has_terminated)
        return MOON_EPROTO;
    // a server that has sent us away may have nothing more to send, and its streams something to be told
    if (nghttp2_session_want_read(h2->session) || (h2->args.is_client && h2->was_sent_away))
        return 0;
    // nghttp2 has queued the GOAWAY of a connection error; after one in good order nothing more is wanted either.
    h2->has_terminated = true;
    return MOON_EOF;
}

int moon_h2_receive(struct moon_h2 *h2, struct moon_slice bytes, uint64_t now_ms)
{
    int err = h2->has_terminated || h2->error ? MOON_EPROTO : 0;
    h2->now_ms = now_ms;
    moon_h2_wake(h2);
    while (bytes.len && !err) {
        size_t len = moon_h2_guard_walk(h2, bytes);
        err = h2->has_terminated ? MOON_EPROTO : feed(h2, (struct moon_slice){bytes.ptr, len});
        bytes = moon_slice_skip(bytes, len);
    }
    return err;
}

enum moon_h2_cause moon_h2_cause(const struct moon_h2 *h2)
{
    return (enum moon_h2_cause)h2->cause;
}

bool moon_h2_is_asleep(const struct moon_h2 *h2)
{
    return h2->image != NULL;
}

bool moon_h2_is_over(const struct moon_h2 *h2)
{
    return !h2->image && !nghttp2_session_want_read(h2->session) &&
           !nghttp2_session_want_write(h2->session);
}

bool moon_h2_is_in_block(const struct moon_h2 *h2)
{
    return h2->is_in_block || !h2->is_greeted;
}

bool moon_h2_is_busy(const struct moon_h2 *h2)
{
    return h2->is_receiving || h2->is_pumping;
}

void moon_h2_consumed(struct moon_h2 *h2, struct moon_h2_stream *stream, size_t len)
{
    moon_h2_wake(h2);
    if (stream->has_session && h2->args.is_client)
        nghttp2_session_consume_stream(h2->session, stream->id, len);
    else if (stream->has_session)
        nghttp2_session_consume(h2->session, stream->id, len);
    else if (!h2->args.is_client)
        nghttp2_session_consume_connection(h2->session, len);
}

void moon_h2_terminate(struct moon_h2 *h2, enum moon_h2_code code)
{
    moon_h2_wake(h2);
    if (!h2->has_terminated)
        nghttp2_session_terminate_session(h2->session, code);
    h2->has_terminated = true;
}

void moon_h2_ping(struct moon_h2 *h2)
{
    moon_h2_wake(h2);
    nghttp2_submit_ping(h2->session, NGHTTP2_FLAG_NONE, NULL);
}

void moon_h2_drain_notice(struct moon_h2 *h2)
{
    moon_h2_wake(h2);
    h2->wants_ping = nghttp2_submit_shutdown_notice(h2->session) ==
                     0; // behind it: PING is sent first where both wait
}

void moon_h2_drain(struct moon_h2 *h2)
{
    moon_h2_wake(h2);
    nghttp2_submit_goaway(h2->session, NGHTTP2_FLAG_NONE,
                          nghttp2_session_get_last_proc_stream_id(h2->session), NGHTTP2_NO_ERROR,
                          NULL, 0);
}
