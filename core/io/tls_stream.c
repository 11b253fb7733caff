// A TLS stream over another stream, with the manners of any stream (io/stream.h). OpenSSL reads and writes the one below by
// a BIO of ours, so it works over whatever a world calls a stream, and a drained one costs no system call.
//
//   read:   inner --recv, as much as is there--> OpenSSL's buffer --> caller; a caller that stops early reads on later
//   write:  caller --up to 4 records--> the seat's scratch --one send--> inner; what it does not take waits in `pending`
//
//   HANDSHAKE --done--> OPEN     HANDSHAKE, OPEN --error--> FAILED
//
// Invariants: nothing is read for the caller before the handshake is done. What is encrypted is sent in order; bytes count as
// written in step with the ciphertext that the stream below has taken, so that a caller with nothing left to write has nothing
// pending. The scratch is empty between calls.
#include "base/err.h"
#include "io/tls_priv.h"

#include <errno.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>

enum tls_state { TLS_HANDSHAKE, TLS_OPEN, TLS_FAILED };

static struct tls_stream *tls_of(struct moon_stream *s)
{
    return (struct tls_stream *)s;
}

// ---- ciphertext out

static void pending_drop(struct tls_stream *stream)
{
    free(stream->pending);
    stream->pending = NULL;
    stream->pending_at = stream->pending_len = 0;
}

static void pending_add(struct tls_stream *stream, struct moon_slice bytes)
{
    size_t left = stream->pending_len - stream->pending_at;
    char *grown = malloc(left + bytes.len);
    if (!grown)
        abort();
    if (left)
        memcpy(grown, stream->pending + stream->pending_at, left);
    memcpy(grown + left, bytes.ptr, bytes.len);
    pending_drop(stream);
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

static void pending_flush(struct tls_stream *stream)
{
    struct moon_slice bytes = {stream->pending + stream->pending_at,
                               stream->pending_len - stream->pending_at};
    if (!stream->pending)
        return;
    stream->pending_at += (uint32_t)offer(stream, bytes);
    if (stream->pending_at == stream->pending_len)
        pending_drop(stream);
}

// What the call to OpenSSL has left in the scratch.
static void scratch_flush(struct tls_stream *stream)
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

// ---- OpenSSL's way to the stream below

static int bio_read(BIO *bio, char *to, int len)
{
    struct tls_stream *stream = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    ssize_t n = moon_stream_read(stream->inner, to, (size_t)len);
    if (n > 0) {
        if (!stream->has_begun && !stream->is_client)
            stream->is_plain = to[0] != SSL3_RT_HANDSHAKE && to[0] != SSL3_RT_ALERT;
        stream->has_begun = true;
        return (int)n;
    }
    if (n == 0) {
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
        scratch_flush(stream);
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

// ---- errors

// What a call has met that is neither done nor "later".
static int fail(struct tls_stream *stream, int err)
{
    stream->state = TLS_FAILED;
    stream->error = err;
    return err;
}

static bool is_alert(unsigned long error)
{
    return ERR_GET_REASON(error) >= SSL_AD_REASON_OFFSET;
}

static enum moon_tls_failure failure_of(const struct tls_stream *stream, unsigned long error)
{
    if (stream->is_plain)
        return MOON_TLS_PLAINTEXT;
    if (stream->is_eof || !error)
        return MOON_TLS_CLOSED;
    if (is_alert(error))
        return MOON_TLS_REFUSED;
    switch (ERR_GET_REASON(error)) {
    case SSL_R_CERTIFICATE_VERIFY_FAILED:
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
        return MOON_TLS_CERTIFICATE;
    default:
        return MOON_TLS_PROTOCOL;
    }
}

static const char *text_of(const struct tls_stream *stream, unsigned long error)
{
    long verified = SSL_get_verify_result(stream->ssl);
    const char *text = error ? ERR_reason_error_string(error) : NULL;
    if (stream->is_plain)
        return "what came is no TLS";
    if (stream->failure == MOON_TLS_CERTIFICATE && verified != X509_V_OK)
        return X509_verify_cert_error_string(verified);
    if (stream->is_eof)
        return "the peer closed the connection";
    return text ? text : stream->error ? moon_err_text(stream->error) : "broken TLS";
}

// An error of a handshake, or of an open connection.
static int take_error(struct tls_stream *stream, int kind)
{
    unsigned long error = kind == SSL_ERROR_SSL ? ERR_peek_error() : 0;
    bool is_cut = stream->is_eof || (error && ERR_GET_REASON(error) == SSL_R_UNEXPECTED_EOF_WHILE_READING);
    stream->failure = (uint8_t)failure_of(stream, error);
    stream->failure_text = text_of(stream, error);
    ERR_clear_error();
    int err = is_cut ? MOON_ECUT : stream->error ? stream->error : MOON_ETLS;
    scratch_flush(stream); // an alert says why
    return fail(stream, err);
}

// ---- the handshake

static void handshake_done(struct tls_stream *stream)
{
    struct moon_slice sni = stream->sni ? moon_slice_from(stream->sni) : (struct moon_slice){NULL, 0};
    const uint8_t *id = stream->contexts ? tls_contexts_id(stream->contexts, stream->host) : NULL;
    stream->state = TLS_OPEN;
    stream->facts = tls_facts_new(stream->ssl, sni, id);
    free(stream->sni);
    stream->sni = NULL;
    tls_contexts_unref(stream->contexts);
    stream->contexts = NULL;
}

// What the owner is to be told.
static unsigned handshake(struct tls_stream *stream)
{
    ERR_clear_error();
    int done = SSL_do_handshake(stream->ssl);
    int kind = done == 1 ? SSL_ERROR_NONE : SSL_get_error(stream->ssl, done);
    if (kind == SSL_ERROR_NONE) {
        scratch_flush(stream);
        handshake_done(stream);
        return MOON_READY_WRITE | MOON_READY_READ;
    }
    if (kind == SSL_ERROR_WANT_READ || kind == SSL_ERROR_WANT_WRITE) {
        scratch_flush(stream);
        return 0;
    }
    take_error(stream, kind);
    return MOON_READY_ERROR | MOON_READY_WRITE;
}

// ---- events of the stream below

// Our end waits until all before it is sent.
static void send_fin(struct tls_stream *stream)
{
    if (!stream->wants_fin || stream->pending)
        return;
    stream->wants_fin = false;
    moon_stream_shutdown(stream->inner);
}

static void tell(struct tls_stream *stream, unsigned ready)
{
    if (ready && stream->base.on_ready)
        stream->base.on_ready(stream->base.owner, ready);
}

static void on_ready(void *owner, unsigned ready)
{
    struct tls_stream *stream = owner;
    if (stream->is_closed)
        return;
    if (ready & ~(unsigned)MOON_READY_WRITE)
        stream->is_dry = false;
    if (ready & MOON_READY_WRITE) {
        pending_flush(stream);
        send_fin(stream);
        if (!stream->pending)
            stream->is_slow = false;
    }
    if (stream->state == TLS_HANDSHAKE) {
        tell(stream, handshake(stream));
        return;
    }
    unsigned up = ready & ~(unsigned)MOON_READY_WRITE;
    if ((ready & MOON_READY_WRITE) && stream->wants_write) {
        stream->wants_write = false;
        up |= MOON_READY_WRITE;
    }
    if ((ready & MOON_READY_WRITE) && stream->is_dry) // OpenSSL may have waited to answer something
        stream->is_dry = false;
    tell(stream, up);
}

// ---- what a stream does

static ssize_t tls_read(struct moon_stream *s, void *to, size_t len)
{
    struct tls_stream *stream = tls_of(s);
    size_t total = 0, n;
    if (stream->state == TLS_FAILED)
        return stream->error;
    if (stream->state == TLS_HANDSHAKE || stream->is_dry)
        return 0;
    ERR_clear_error();
    while (total < len) {
        int done = SSL_read_ex(stream->ssl, (char *)to + total, len - total, &n);
        if (done) {
            total += n;
            continue;
        }
        int kind = SSL_get_error(stream->ssl, done);
        if (kind == SSL_ERROR_WANT_READ || kind == SSL_ERROR_WANT_WRITE) {
            stream->is_dry = true;
            break;
        }
        if (total) // told the next time
            break;
        if (kind == SSL_ERROR_ZERO_RETURN)
            return MOON_EOF;
        return take_error(stream, kind);
    }
    if (stream->seat->scratch_len) // what it had to say in between
        scratch_flush(stream);
    return (ssize_t)total;
}

static size_t offered_len(const struct iovec *iov, int iov_count)
{
    size_t len = 0;
    for (int i = 0; i < iov_count; i++)
        len += iov[i].iov_len;
    return len;
}

// Bytes written so far of those that are pending: in proportion to their ciphertext, the last one with its end.
static size_t settle(struct tls_stream *stream)
{
    uint32_t before_len = stream->pending_len - stream->pending_at, plain_len = stream->pending_plain_len;
    pending_flush(stream);
    uint32_t left_len = stream->pending_len - stream->pending_at;
    uint32_t kept = left_len ? (uint32_t)((uint64_t)plain_len * left_len / before_len) : 0;
    if (left_len && plain_len && kept == 0)
        kept = 1;
    stream->pending_plain_len = kept;
    return plain_len - kept;
}

// Encrypts what fits, in as few records as it takes: short pieces are put together. -1: OpenSSL says no.
static ssize_t encrypt(struct tls_stream *stream, const struct iovec *iov, int iov_count, size_t skip)
{
    char together[TLS_RECORD_LEN];
    size_t max_len = stream->is_slow ? TLS_RECORD_LEN : TLS_PLAIN_LEN, total = 0, n;
    for (int i = 0; i < iov_count && total < max_len;) {
        const char *bytes = iov[i].iov_base;
        size_t len = iov[i].iov_len;
        if (skip >= len) {
            skip -= len;
            i++;
            continue;
        }
        bytes += skip;
        len -= skip;
        if (len < TLS_RECORD_LEN && i + 1 < iov_count) {
            size_t at = 0;
            for (; i < iov_count && at < sizeof together; i++, skip = 0) {
                size_t part = iov[i].iov_len - skip, room = sizeof together - at;
                size_t taken = part < room ? part : room;
                memcpy(together + at, (const char *)iov[i].iov_base + skip, taken);
                at += taken;
                if (taken < part) {
                    skip += taken;
                    break;
                }
            }
            bytes = together;
            len = at;
        } else {
            size_t taken = len < max_len - total ? len : max_len - total;
            skip += taken;
            len = taken;
        }
        for (size_t at = 0; at < len; at += n)
            if (!SSL_write_ex(stream->ssl, bytes + at, len - at, &n))
                return -1;
        total += len;
    }
    return (ssize_t)total;
}

static ssize_t tls_writev(struct moon_stream *s, const struct iovec *iov, int iov_count)
{
    struct tls_stream *stream = tls_of(s);
    size_t offered = offered_len(iov, iov_count), done = 0;
    if (stream->state == TLS_FAILED)
        return stream->error == MOON_ECUT ? -EPIPE : stream->error;
    if (stream->is_shut)
        return -EPIPE;
    if (stream->state == TLS_OPEN && (stream->pending || stream->pending_plain_len)) {
        done = settle(stream); // at times on_ready has sent it all already
        if (stream->error)
            return fail(stream, stream->error);
    }
    if (stream->state == TLS_HANDSHAKE || stream->pending) {
        stream->wants_write = true;
        return (ssize_t)done;
    }
    if (done == offered)
        return (ssize_t)done;
    ERR_clear_error();
    ssize_t total = encrypt(stream, iov, iov_count, done);
    if (total < 0)
        return take_error(stream, SSL_ERROR_SSL);
    size_t sealed_len = stream->seat->scratch_len;
    scratch_flush(stream);
    if (stream->error)
        return fail(stream, stream->error);
    if (stream->pending) {
        uint32_t left_len = stream->pending_len - stream->pending_at;
        uint64_t kept = sealed_len ? (uint64_t)total * left_len / sealed_len : (uint64_t)total;
        stream->pending_plain_len = (uint32_t)(kept == 0 ? 1 : kept > (uint64_t)total ? (uint64_t)total : kept);
        total -= stream->pending_plain_len;
    }
    done += (size_t)total;
    stream->wants_write = done < offered;
    if (stream->wants_write && !stream->pending) // it was the bound of one call: the rest is due at once
        moon_loop_defer(stream->loop, &stream->more);
    return (ssize_t)done;
}

// close_notify, once; nothing is written behind it.
static void say_goodbye(struct tls_stream *stream)
{
    if (stream->is_shut || stream->state != TLS_OPEN)
        return;
    stream->is_shut = true;
    ERR_clear_error();
    SSL_shutdown(stream->ssl);
    ERR_clear_error();
    scratch_flush(stream);
}

static int tls_shutdown(struct moon_stream *s)
{
    struct tls_stream *stream = tls_of(s);
    say_goodbye(stream);
    stream->wants_fin = true;
    send_fin(stream);
    return stream->error && stream->state != TLS_FAILED ? stream->error : 0;
}

static void tls_free(struct moon_task *task)
{
    struct tls_stream *stream = MOON_CONTAINER(task, struct tls_stream, task);
    free(stream);
}

// The stream below is closed, or somebody else's.
static void discard(struct tls_stream *stream)
{
    stream->is_closed = true;
    stream->inner = NULL;
    moon_task_cancel(&stream->more);
    SSL_free(stream->ssl);
    stream->ssl = NULL;
    pending_drop(stream);
    moon_tls_facts_unref(stream->facts);
    stream->facts = NULL;
    tls_contexts_unref(stream->contexts);
    stream->contexts = NULL;
    free(stream->sni);
    moon_loop_defer(stream->loop, &stream->task);
}

static void tls_close(struct moon_stream *s)
{
    struct tls_stream *stream = tls_of(s);
    if (stream->is_closed)
        return;
    if (!stream->pending)
        say_goodbye(stream);
    moon_stream_close(stream->inner);
    discard(stream);
}

static void tls_abort(struct moon_stream *s)
{
    struct tls_stream *stream = tls_of(s);
    if (stream->is_closed)
        return;
    moon_stream_abort(stream->inner);
    discard(stream);
}

static void tls_again(struct moon_stream *s)
{
    struct tls_stream *stream = tls_of(s);
    if (!stream->is_closed)
        moon_stream_again(stream->inner);
}

static int tls_connected(struct moon_stream *s)
{
    const struct tls_stream *stream = tls_of(s);
    switch ((enum tls_state)stream->state) {
    case TLS_HANDSHAKE:
        return -EINPROGRESS;
    case TLS_OPEN:
        return 0;
    case TLS_FAILED:
        return stream->error;
    }
    return 0;
}

static void tls_address(const struct moon_stream *s, bool peer, struct moon_address *out)
{
    moon_stream_address(((const struct tls_stream *)s)->inner, peer, out);
}

static struct moon_tls_facts *tls_facts(const struct moon_stream *s)
{
    return ((const struct tls_stream *)s)->facts;
}

static const struct moon_stream_ops stream_ops = {
    .read = tls_read,
    .writev = tls_writev,
    .shutdown = tls_shutdown,
    .close = tls_close,
    .abort = tls_abort,
    .again = tls_again,
    .connected = tls_connected,
    .address = tls_address,
    .tls = tls_facts,
};

// The owner asked for room and there is.
static void on_more(struct moon_task *task)
{
    struct tls_stream *stream = MOON_CONTAINER(task, struct tls_stream, more);
    if (stream->is_closed || !stream->wants_write)
        return;
    stream->wants_write = false;
    tell(stream, MOON_READY_WRITE);
}

struct tls_stream *tls_stream_new(struct tls_seat *seat, struct moon_tls_hub *hub, SSL_CTX *context,
                                  struct moon_loop *loop, struct moon_stream *inner)
{
    struct tls_stream *stream = calloc(1, sizeof *stream);
    BIO *bio = BIO_new_ex(seat->library, hub->bio);
    if (!stream || !bio)
        abort();
    stream->base.ops = &stream_ops;
    stream->inner = inner;
    stream->loop = loop;
    stream->hub = hub;
    stream->seat = seat;
    stream->task.fn = tls_free;
    stream->more.fn = on_more;
    stream->ssl = SSL_new(context);
    if (!stream->ssl)
        abort();
    BIO_set_data(bio, stream);
    BIO_set_init(bio, 1);
    SSL_set_bio(stream->ssl, bio, bio);
    SSL_set_app_data(stream->ssl, stream);
    moon_stream_set_owner(inner, on_ready, stream);
    return stream;
}

struct moon_stream *moon_tls_accept(struct moon_tls_server *server, size_t worker,
                                    struct moon_loop *loop, struct moon_stream *inner)
{
    struct tls_contexts *contexts = tls_server_contexts(server, worker);
    struct tls_stream *stream = tls_stream_new(contexts->seat, server->hub,
                                               tls_contexts_first(contexts), loop, inner);
    stream->contexts = contexts;
    SSL_set_accept_state(stream->ssl);
    return &stream->base;
}

enum moon_tls_failure moon_tls_failure_of(const struct moon_stream *stream)
{
    return (enum moon_tls_failure)((const struct tls_stream *)stream)->failure;
}

const char *moon_tls_failure_text(const struct moon_stream *stream)
{
    const char *text = ((const struct tls_stream *)stream)->failure_text;
    return text ? text : "";
}

struct moon_stream *moon_tls_strip(struct moon_stream *s)
{
    struct tls_stream *stream = tls_of(s);
    struct moon_stream *inner = stream->inner;
    moon_stream_set_owner(inner, NULL, NULL);
    discard(stream);
    return inner;
}
