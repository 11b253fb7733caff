// A TLS stream over another stream, with the manners of any stream (io/stream.h). OpenSSL reads and writes the one below by
// a BIO of ours, so it works over whatever a world calls a stream, and a drained one costs no system call.
//
//   read:   inner --recv, as much as is there--> OpenSSL's buffer --> caller; a caller that stops early reads on later
//   write:  caller --up to 4 records--> the seat's scratch --one send--> inner; what it does not take waits in `pending`
//
// How ciphertext goes out, and what waits of it: tls_bio.c.
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
enum { ODD_MAX_COUNT = 4096 };

static struct tls_stream *tls_of(struct moon_stream *s)
{
    return (struct tls_stream *)s;
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
    if (stream->choice == MOON_TLS_CHOICE_DECLINED)
        return MOON_TLS_DECLINED;
    if (stream->choice == MOON_TLS_CHOICE_FAILED)
        return MOON_TLS_UNCHOSEN;
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
    long verified = stream->ssl ? SSL_get_verify_result(stream->ssl) : X509_V_OK;
    const char *text = error ? ERR_reason_error_string(error) : NULL;
    if (stream->is_plain)
        return "what came is no TLS";
    if (stream->failure == MOON_TLS_CERTIFICATE && verified != X509_V_OK)
        return X509_verify_cert_error_string(verified);
    if (stream->is_eof)
        return "the peer closed the connection";
    if (stream->failure == MOON_TLS_DECLINED)
        return "the function that chooses the certificate declines it";
    if (stream->failure == MOON_TLS_UNCHOSEN)
        return "the function that chooses the certificate has failed";
    return text ? text : stream->error ? moon_err_text(stream->error) : "broken TLS";
}

// An error of a handshake, or of an open connection.
static int take_error(struct tls_stream *stream, int kind)
{
    unsigned long error = kind == SSL_ERROR_SSL ? ERR_peek_error() : 0;
    bool is_cut =
        stream->is_eof || (error && ERR_GET_REASON(error) == SSL_R_UNEXPECTED_EOF_WHILE_READING);
    stream->failure = (uint8_t)failure_of(stream, error);
    stream->failure_text = text_of(stream, error);
    ERR_clear_error();
    int err = stream->failure == MOON_TLS_CERTIFICATE ? MOON_ECERT
              : is_cut                                ? MOON_ECUT
              : stream->error                         ? stream->error
                                                      : MOON_ETLS;
    tls_scratch_flush(stream); // an alert says why
    return fail(stream, err);
}

// ---- the handshake

static bool is_meant(struct tls_stream *stream)
{
    const char *why = stream->client ? tls_client_judge(stream) : NULL;
    if (!why)
        return true;
    stream->failure = MOON_TLS_CERTIFICATE;
    stream->failure_text = why;
    fail(stream, MOON_ECERT);
    return false;
}

static void handshake_done(struct tls_stream *stream)
{
    struct moon_slice sni =
        stream->sni ? moon_slice_from(stream->sni) : (struct moon_slice){NULL, 0};
    const uint8_t *id = stream->contexts ? tls_contexts_id(stream->contexts, stream->host) : NULL;
    stream->state = TLS_OPEN;
    stream->facts = tls_facts_new(stream->ssl, sni, id);
    stream->facts->is_stapled = stream->is_stapled;
    stream->facts->is_proof = stream->is_proof;
    tls_contexts_unref(stream->contexts);
    stream->contexts = NULL;
    if (stream->client)
        return;
    free(stream->sni);
    stream->sni = NULL;
}

// What the owner is to be told.
static unsigned handshake(struct tls_stream *stream)
{
    int hello = stream->ssl ? 1 : tls_hello_gather(stream);
    if (hello == 0)
        return 0;
    if (hello < 0) {
        stream->is_eof = hello == MOON_EOF;
        stream->error = hello == MOON_EOF ? 0 : hello;
        take_error(stream, SSL_ERROR_SYSCALL);
        return MOON_READY_ERROR | MOON_READY_WRITE;
    }
    if (!stream->ssl) {
        tls_stream_begin(stream, tls_contexts_first(stream->contexts));
        SSL_set_accept_state(stream->ssl);
    }
    ERR_clear_error();
    tls_first_take(stream);
    int done = SSL_do_handshake(stream->ssl);
    int kind = done == 1 ? SSL_ERROR_NONE : SSL_get_error(stream->ssl, done);
    if (kind == SSL_ERROR_NONE) {
        if (!is_meant(stream)) {
            stream->seat->scratch_len = 0;
            return MOON_READY_ERROR | MOON_READY_WRITE;
        }
        tls_scratch_flush(stream);
        handshake_done(stream);
        return MOON_READY_WRITE | MOON_READY_READ;
    }
    if (kind == SSL_ERROR_WANT_READ || kind == SSL_ERROR_WANT_WRITE ||
        kind == SSL_ERROR_WANT_CLIENT_HELLO_CB) {
        tls_scratch_flush(stream);
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

// The peer has gone while the chooser takes its time.
static unsigned leave(struct tls_stream *stream)
{
    stream->is_eof = true;
    take_error(stream, SSL_ERROR_SYSCALL);
    return MOON_READY_ERROR | MOON_READY_WRITE;
}

// Something has come in a handshake.
static unsigned handshake_ready(struct tls_stream *stream, unsigned ready)
{
    unsigned up = stream->is_choosing ? 0 : handshake(stream);
    if (stream->is_choosing && (ready & (MOON_READY_HUP | MOON_READY_ERROR)))
        up = leave(stream);
    return up;
}

static void on_ready(void *owner, unsigned ready)
{
    struct tls_stream *stream = owner;
    if (stream->is_closed)
        return;
    if (ready & ~(unsigned)MOON_READY_WRITE)
        stream->is_dry = false;
    if (ready & MOON_READY_WRITE) {
        tls_pending_flush(stream);
        send_fin(stream);
        if (!stream->pending)
            stream->is_slow = false;
    }
    if (stream->state == TLS_HANDSHAKE) {
        int err = stream->client ? moon_stream_connected(stream->inner) : 0;
        if (err == -EINPROGRESS)
            return;
        if (err)
            fail(stream, err);
        tell(stream, err ? MOON_READY_ERROR | MOON_READY_WRITE : handshake_ready(stream, ready));
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

// OpenSSL has met a record that is not the caller's: a ticket, new keys. True: read on. Too many at once wait for another turn,
// too many in all are an attack (A61).
static bool goes_on(struct tls_stream *stream, unsigned *turn_count)
{
    enum { TURN_COUNT = 32 };
    if (stream->is_dry)
        return false;
    if (++stream->odd_count > ODD_MAX_COUNT)
        return false;
    if (++*turn_count <= TURN_COUNT)
        return true;
    moon_stream_again(stream->inner);
    return false;
}

static ssize_t tls_read(struct moon_stream *s, void *to, size_t len)
{
    struct tls_stream *stream = tls_of(s);
    size_t total = 0, n;
    unsigned turn_count = 0;
    int err = 0;
    if (stream->state == TLS_FAILED)
        return stream->error;
    if (stream->is_proof && stream->state == TLS_OPEN) // RFC 8737 4: nothing is said over it
        return MOON_EOF;
    if (stream->state == TLS_HANDSHAKE || stream->is_dry)
        return 0;
    ERR_clear_error();
    while (total < len && !err) {
        int done = SSL_read_ex(stream->ssl, (char *)to + total, len - total, &n);
        if (done) {
            total += n;
            stream->odd_count = 0;
            continue;
        }
        int kind = SSL_get_error(stream->ssl, done);
        bool is_later = kind == SSL_ERROR_WANT_READ || kind == SSL_ERROR_WANT_WRITE;
        if (is_later && kind == SSL_ERROR_WANT_READ && goes_on(stream, &turn_count))
            continue;
        if (stream->odd_count > ODD_MAX_COUNT)
            return fail(stream, MOON_EPROTO);
        stream->is_dry = stream->is_dry || kind == SSL_ERROR_WANT_WRITE;
        if (is_later || total) // an end is told the next time
            break;
        err = kind == SSL_ERROR_ZERO_RETURN ? MOON_EOF : take_error(stream, kind);
    }
    tls_scratch_flush(stream); // what it had to say in between
    return err ? err : (ssize_t)total;
}

// Of the record that is there.
static ssize_t tls_peek(struct moon_stream *s, void *to, size_t len)
{
    struct tls_stream *stream = tls_of(s);
    size_t n = 0;
    if (stream->state == TLS_FAILED)
        return stream->error;
    if (stream->state == TLS_HANDSHAKE)
        return 0;
    ERR_clear_error();
    int done = SSL_peek_ex(stream->ssl, to, len, &n);
    int kind = done ? SSL_ERROR_NONE : SSL_get_error(stream->ssl, done);
    bool is_later = kind == SSL_ERROR_WANT_READ || kind == SSL_ERROR_WANT_WRITE;
    if (!done && !is_later && kind != SSL_ERROR_ZERO_RETURN)
        return take_error(stream, kind);
    tls_scratch_flush(stream);
    return (ssize_t)n;
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
    uint32_t before_len = stream->pending_len - stream->pending_at,
             plain_len = stream->pending_plain_len;
    tls_pending_flush(stream);
    uint32_t left_len = stream->pending_len - stream->pending_at;
    uint32_t kept = left_len ? (uint32_t)((uint64_t)plain_len * left_len / before_len) : 0;
    if (left_len && plain_len && kept == 0)
        kept = 1;
    stream->pending_plain_len = kept;
    return plain_len - kept;
}

// What lies behind the first `skip` bytes: a long piece as it is, short ones put together, a record at most. Empty at the end.
static struct moon_slice next_piece(const struct iovec *iov, int iov_count, size_t skip,
                                    char together[TLS_RECORD_LEN])
{
    size_t len = 0;
    int i = 0;
    while (i < iov_count && skip >= iov[i].iov_len)
        skip -= iov[i++].iov_len;
    if (i == iov_count)
        return (struct moon_slice){NULL, 0};
    if (i + 1 == iov_count || iov[i].iov_len - skip >= TLS_RECORD_LEN)
        return (struct moon_slice){(const char *)iov[i].iov_base + skip, iov[i].iov_len - skip};
    for (; i < iov_count && len < TLS_RECORD_LEN; i++, skip = 0) {
        size_t part = iov[i].iov_len - skip, room = TLS_RECORD_LEN - len;
        part = part < room ? part : room;
        memcpy(together + len, (const char *)iov[i].iov_base + skip, part);
        len += part;
    }
    return (struct moon_slice){together, len};
}

// Encrypts what fits behind the first `skip` bytes, in as few records as it takes. -1: OpenSSL says no.
static ssize_t encrypt(struct tls_stream *stream, const struct iovec *iov, int iov_count,
                       size_t skip)
{
    char together[TLS_RECORD_LEN];
    size_t max_len = stream->is_slow ? TLS_RECORD_LEN : TLS_PLAIN_LEN, total = 0, n;
    while (total < max_len) {
        struct moon_slice piece = next_piece(iov, iov_count, skip + total, together);
        if (piece.len == 0)
            break;
        if (piece.len > max_len - total)
            piece.len = max_len - total;
        for (; piece.len; piece = moon_slice_skip(piece, n), total += n)
            if (!SSL_write_ex(stream->ssl, piece.ptr, piece.len, &n))
                return -1;
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
    tls_scratch_flush(stream);
    if (stream->error)
        return fail(stream, stream->error);
    if (stream->pending) {
        uint32_t left_len = stream->pending_len - stream->pending_at;
        uint64_t kept = sealed_len ? (uint64_t)total * left_len / sealed_len : (uint64_t)total;
        stream->pending_plain_len = (uint32_t)(kept == 0                ? 1
                                               : kept > (uint64_t)total ? (uint64_t)total
                                                                        : kept);
        total -= stream->pending_plain_len;
    }
    done += (size_t)total;
    stream->wants_write = done < offered;
    // it was the bound of one call: the rest is due at once
    if (stream->wants_write && !stream->pending)
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
    tls_scratch_flush(stream);
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
    tls_pending_drop(stream);
    tls_hello_drop(stream);
    free(stream->first);
    stream->first = NULL;
    moon_tls_facts_unref(stream->facts);
    stream->facts = NULL;
    tls_contexts_unref(stream->contexts);
    stream->contexts = NULL;
    free(stream->sni);
    moon_tls_client_unref(stream->client);
    stream->client = NULL;
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
    .peek = tls_peek,
    .tls = tls_facts,
};

// The owner asked for room and there is; or the chooser has come to an end.
static void on_more(struct moon_task *task)
{
    struct tls_stream *stream = MOON_CONTAINER(task, struct tls_stream, more);
    if (!stream->is_closed && stream->is_choosing && stream->state == TLS_HANDSHAKE) {
        stream->is_choosing = false;
        tell(stream, handshake(stream));
        return;
    }
    if (stream->is_closed || !stream->wants_write)
        return;
    stream->wants_write = false;
    tell(stream, MOON_READY_WRITE);
}

struct tls_stream *tls_stream_new(struct moon_tls_hub *hub, struct tls_seat *seat,
                                  struct moon_loop *loop, struct moon_stream *inner)
{
    struct tls_stream *stream = calloc(1, sizeof *stream);
    if (!stream)
        abort();
    stream->base.ops = &stream_ops;
    stream->inner = inner;
    stream->loop = loop;
    stream->hub = hub;
    stream->seat = seat;
    stream->given = TLS_GIVEN_NONE;
    stream->task.fn = tls_free;
    stream->more.fn = on_more;
    moon_stream_set_owner(inner, on_ready, stream);
    return stream;
}

void tls_stream_begin(struct tls_stream *stream, SSL_CTX *context)
{
    BIO *bio = BIO_new_ex(stream->seat->library, stream->hub->bio);
    stream->ssl = SSL_new(context);
    if (!stream->ssl || !bio)
        abort();
    BIO_set_data(bio, stream);
    BIO_set_init(bio, 1);
    SSL_set_bio(stream->ssl, bio, bio);
    SSL_set_app_data(stream->ssl, stream);
}

struct moon_stream *moon_tls_accept(struct moon_tls_server *server, size_t worker,
                                    struct moon_loop *loop, struct moon_stream *inner)
{
    struct tls_contexts *contexts = tls_server_contexts(server, worker);
    struct tls_stream *stream = tls_stream_new(server->hub, contexts->seat, loop, inner);
    stream->contexts = contexts;
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

const char *moon_tls_why(const struct moon_stream *stream)
{
    return stream->ops == &stream_ops ? ((const struct tls_stream *)stream)->failure_text : NULL;
}

struct moon_stream *moon_tls_strip(struct moon_stream *s)
{
    struct tls_stream *stream = tls_of(s);
    struct moon_stream *inner = stream->inner;
    moon_stream_set_owner(inner, NULL, NULL);
    discard(stream);
    return inner;
}
