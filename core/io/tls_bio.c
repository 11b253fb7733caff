// The way of ciphertext between OpenSSL and the stream below. What OpenSSL writes in one call of ours gathers in the seat's scratch
// and leaves in one send; what the stream below does not take waits in `pending`, in order.
#include "io/tls_priv.h"

#include "base/err.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

// ---- ciphertext out

void tls_pending_drop(struct tls_stream *stream)
{
    free(stream->pending);
    stream->pending = NULL;
    stream->pending_at = stream->pending_len = 0;
}

static void pending_add(struct tls_stream *stream, struct moon_slice bytes)
{
    size_t left = stream->pending ? stream->pending_len - stream->pending_at : 0;
    char *grown = malloc(left + bytes.len);
    if (!grown)
        abort();
    if (left)
        memcpy(grown, stream->pending + stream->pending_at, left);
    memcpy(grown + left, bytes.ptr, bytes.len);
    tls_pending_drop(stream);
    stream->pending = grown;
    stream->pending_len = (uint32_t)(left + bytes.len);
}

// Offers bytes to the stream below; how many it took.
static size_t offer(struct tls_stream *stream, struct moon_slice bytes)
{
    struct iovec iov = {(void *)bytes.ptr, bytes.len};
    ssize_t n = bytes.len ? moon_stream_writev(stream->inner, &iov, 1) : 0;
    if (n >= 0)
        return (size_t)n;
    stream->error = stream->error ? stream->error : (int)n;
    return bytes.len; // nobody will get them
}

void tls_pending_flush(struct tls_stream *stream)
{
    struct moon_slice bytes = {stream->pending + stream->pending_at,
                               stream->pending_len - stream->pending_at};
    if (!stream->pending)
        return;
    stream->pending_at += (uint32_t)offer(stream, bytes);
    if (stream->pending_at == stream->pending_len)
        tls_pending_drop(stream);
}

// What the call to OpenSSL has left in the scratch.
void tls_scratch_flush(struct tls_stream *stream)
{
    struct moon_slice bytes = {stream->seat->scratch, stream->seat->scratch_len};
    stream->seat->scratch_len = 0;
    if (bytes.len == 0 || stream->is_plain) // no alert to one who would read it as text
        return;
    if (!stream->pending)
        bytes = moon_slice_skip(bytes, offer(stream, bytes));
    if (bytes.len == 0)
        return;
    stream->is_slow = true;
    pending_add(stream, bytes);
}

// ---- in front of everything

void moon_tls_send_first(struct moon_stream *s, struct moon_slice bytes)
{
    struct tls_stream *stream = (struct tls_stream *)s;
    stream->first = malloc(bytes.len);
    if (!stream->first)
        abort();
    memcpy(stream->first, bytes.ptr, bytes.len);
    stream->first_len = (uint32_t)bytes.len;
}

void tls_first_take(struct tls_stream *stream)
{
    if (!stream->first)
        return;
    memcpy(stream->seat->scratch, stream->first, stream->first_len);
    stream->seat->scratch_len = stream->first_len;
    free(stream->first);
    stream->first = NULL;
}

// ---- the first record

enum { RECORD_HEAD_LEN = 5, RECORD_MAX_LEN = RECORD_HEAD_LEN + TLS_RECORD_LEN };

void tls_hello_drop(struct tls_stream *stream)
{
    free(stream->hello);
    stream->hello = NULL;
    stream->hello_at = stream->hello_len = 0;
}

// Whether OpenSSL can say yes or no to it.
static bool is_complete(const struct tls_stream *stream)
{
    const unsigned char *bytes = (const unsigned char *)stream->hello;
    if (bytes && bytes[0] != SSL3_RT_HANDSHAKE)
        return true;
    if (!bytes || stream->hello_len < RECORD_HEAD_LEN)
        return false;
    size_t len = RECORD_HEAD_LEN + (size_t)(bytes[3] << 8 | bytes[4]);
    return stream->hello_len >= len || len > RECORD_MAX_LEN;
}

int tls_hello_gather(struct tls_stream *stream)
{
    char *room = stream->seat->scratch;
    while (!is_complete(stream)) {
        ssize_t n = moon_stream_read(stream->inner, room, RECORD_MAX_LEN - stream->hello_len);
        if (n <= 0)
            return (int)n;
        char *grown = realloc(stream->hello, stream->hello_len + (size_t)n);
        if (!grown)
            return -ENOMEM;
        memcpy(grown + stream->hello_len, room, (size_t)n);
        stream->hello = grown;
        stream->hello_len += (uint32_t)n;
    }
    stream->is_plain = stream->hello[0] != SSL3_RT_HANDSHAKE && stream->hello[0] != SSL3_RT_ALERT;
    return 1;
}

static int hello_take(struct tls_stream *stream, char *to, int len)
{
    uint32_t left = stream->hello_len - stream->hello_at;
    uint32_t taken = left < (uint32_t)len ? left : (uint32_t)len;
    memcpy(to, stream->hello + stream->hello_at, taken);
    stream->hello_at += taken;
    if (taken == left)
        tls_hello_drop(stream);
    return (int)taken;
}

// ---- OpenSSL's way to the stream below

static int bio_read(BIO *bio, char *to, int len)
{
    struct tls_stream *stream = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (stream->hello)
        return hello_take(stream, to, len);
    ssize_t n = moon_stream_read(stream->inner, to, (size_t)len);
    if (n > 0)
        return (int)n;
    if (n == 0) {
        stream->is_dry = true;
        BIO_set_retry_read(bio);
        return -1;
    }
    stream->is_eof = n == MOON_EOF;
    if (!stream->is_eof)
        stream->error = (int)n;
    return stream->is_eof ? 0 : -1;
}

static int bio_write(BIO *bio, const char *bytes, int len)
{
    struct tls_stream *stream = BIO_get_data(bio);
    struct tls_seat *seat = stream->seat;
    BIO_clear_retry_flags(bio);
    if (stream->pending_len - stream->pending_at > TLS_PENDING_MAX_LEN) {
        BIO_set_retry_write(bio);
        return -1;
    }
    if (seat->scratch_len + (size_t)len > TLS_SCRATCH_LEN)
        tls_scratch_flush(stream);
    if (len > TLS_SCRATCH_LEN)
        len = TLS_SCRATCH_LEN;
    memcpy(seat->scratch + seat->scratch_len, bytes, (size_t)len);
    seat->scratch_len += (size_t)len;
    return len;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
    (void)number;
    (void)pointer;
    const struct tls_stream *stream = BIO_get_data(bio);
    switch (command) {
    case BIO_CTRL_FLUSH:
    case BIO_CTRL_DUP:
        return 1;
    case BIO_CTRL_EOF:
        return stream->is_eof;
    default:
        return 0;
    }
}

BIO_METHOD *tls_bio_new(void)
{
    enum { OWN_TYPE = 100 };
    BIO_METHOD *bio = BIO_meth_new(BIO_TYPE_SOURCE_SINK | OWN_TYPE, "moongate stream");
    if (!bio)
        abort();
    BIO_meth_set_read(bio, bio_read);
    BIO_meth_set_write(bio, bio_write);
    BIO_meth_set_ctrl(bio, bio_ctrl);
    return bio;
}
