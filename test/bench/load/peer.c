// The bytes between a client and the proxy: a socket, or TLS over one. As send and recv, errno included; whoever waits for EAGAIN
// of TLS is told by either event.
#include "load.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { DISCARD_LEN = 65536 };

static SSL_CTX *context;
static SSL **connections; // by descriptor
static int connection_count;
static SSL_SESSION *session; // the newest that the proxy gave; resumed
static bool resumes;

// 1: the reference is ours.
static int on_session(SSL *ssl, SSL_SESSION *given)
{
    (void)ssl;
    SSL_SESSION_free(session);
    session = given;
    return 1;
}

void peer_init(const struct options *options)
{
    if (options->tls == TLS_NONE)
        return;
    signal(SIGPIPE, SIG_IGN);
    resumes = options->tls == TLS_RESUME;
    context = SSL_CTX_new(TLS_client_method());
    if (!context)
        fail("load: TLS");
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                  SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_read_ahead(context, 1);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    if (options->is_h2)
        SSL_CTX_set_alpn_protos(context, (const unsigned char *)"\2h2", 3);
    if (resumes)
        SSL_CTX_sess_set_new_cb(context, on_session);
    else
        SSL_CTX_set_options(context, SSL_OP_NO_TICKET);
}

// Of a descriptor; made at its first use.
static SSL *peer_of(int fd)
{
    if (fd >= connection_count) {
        int count = fd + 1024;
        connections = realloc(connections, (size_t)count * sizeof *connections);
        if (!connections)
            fail("load: memory");
        while (connection_count < count)
            connections[connection_count++] = NULL;
    }
    if (connections[fd])
        return connections[fd];
    SSL *ssl = SSL_new(context);
    if (!ssl || !SSL_set_fd(ssl, fd))
        fail("load: TLS");
    SSL_set_tlsext_host_name(ssl, "bench.example");
    SSL_set_connect_state(ssl);
    if (resumes && session)
        SSL_set_session(ssl, session);
    connections[fd] = ssl;
    return ssl;
}

static ssize_t result(SSL *ssl, int done, size_t n)
{
    if (done > 0)
        return (ssize_t)n;
    int kind = SSL_get_error(ssl, done);
    ERR_clear_error();
    if (kind == SSL_ERROR_ZERO_RETURN)
        return 0;
    errno = kind == SSL_ERROR_WANT_READ || kind == SSL_ERROR_WANT_WRITE ? EAGAIN : EPROTO;
    return -1;
}

ssize_t peer_send(int fd, const struct iovec *iov, int count)
{
    if (!context && count == 1) // which costs less than sendmsg
        return send(fd, iov->iov_base, iov->iov_len, MSG_NOSIGNAL);
    if (!context) {
        struct msghdr message = {.msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)count};
        return sendmsg(fd, &message, MSG_NOSIGNAL);
    }
    SSL *ssl = peer_of(fd);
    size_t n = 0;
    int done = SSL_write_ex(ssl, iov->iov_base, iov->iov_len, &n);
    return result(ssl, done, n);
}

// `to` NULL: the bytes are thrown away.
ssize_t peer_recv(int fd, void *to, size_t len)
{
    static char discarded[DISCARD_LEN];
    if (!context) // TCP throws them away without copying
        return recv(fd, to, len, to ? 0 : MSG_TRUNC);
    SSL *ssl = peer_of(fd);
    size_t n = 0;
    if (!to && len > DISCARD_LEN)
        len = DISCARD_LEN;
    int done = SSL_read_ex(ssl, to ? to : discarded, len, &n);
    return result(ssl, done, n);
}

bool peer_is_secure(void)
{
    return context != NULL;
}

void peer_close(int fd)
{
    if (context && fd < connection_count && connections[fd]) {
        SSL_set_quiet_shutdown(connections[fd], 1);
        SSL_shutdown(connections[fd]); // else its session counts as broken
        SSL_free(connections[fd]);
        connections[fd] = NULL;
    }
    close(fd);
}
