// Certificates that somebody else chooses while the handshake waits (io/tls.h, "choosing").
//
//   ClientHello -> chosen by name -> asked --LATER--> the handshake rests --choose_again--> asked again
//                                         --MADE--> goes on      --DECLINED, FAILED--> an alert
//
// Invariant: a second ClientHello (after a HelloRetryRequest) is not asked about again, and names the same host.
#include "base/err.h"
#include "io/tls_priv.h"

#include <openssl/err.h>

static struct moon_slice read_alpn(SSL *ssl)
{
    static const struct moon_slice none = {NULL, 0};
    const unsigned char *ext;
    size_t len;
    if (!SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_application_layer_protocol_negotiation, &ext,
                                   &len) ||
        len < 2 || (size_t)(ext[0] << 8 | ext[1]) != len - 2)
        return none;
    for (size_t at = 2; at < len; at += (size_t)ext[at] + 1)
        if (ext[at] == 0 || at + ext[at] >= len)
            return none;
    return (struct moon_slice){(const char *)ext + 2, len - 2};
}

int tls_choose_ask(struct tls_stream *stream, SSL *ssl, int *alert)
{
    struct moon_tls_hello hello = {.terms = stream->host,
                                   .sni = stream->sni ? moon_slice_from(stream->sni)
                                                      : (struct moon_slice){NULL, 0},
                                   .alpn = read_alpn(ssl)};
    enum moon_tls_choice choice = stream->choose(stream->choose_owner, &hello);
    stream->choice = (uint8_t)choice & 3;
    switch (choice) {
    case MOON_TLS_CHOICE_MADE:
        stream->choose = NULL;
        return SSL_CLIENT_HELLO_SUCCESS;
    case MOON_TLS_CHOICE_LATER:
        stream->is_choosing = true;
        return SSL_CLIENT_HELLO_RETRY;
    case MOON_TLS_CHOICE_DECLINED:
        *alert = SSL_AD_UNRECOGNIZED_NAME;
        return SSL_CLIENT_HELLO_ERROR;
    case MOON_TLS_CHOICE_FAILED:
        break;
    }
    *alert = SSL_AD_INTERNAL_ERROR;
    return SSL_CLIENT_HELLO_ERROR;
}

void moon_tls_set_chooser(struct moon_stream *s, moon_tls_choose_fn *choose, void *owner)
{
    struct tls_stream *stream = (struct tls_stream *)s;
    stream->choose = choose;
    stream->choose_owner = owner;
}

void moon_tls_choose_again(struct moon_stream *s)
{
    struct tls_stream *stream = (struct tls_stream *)s;
    moon_loop_defer(stream->loop, &stream->more);
}

static bool has_expired(const struct tls_stream *stream, const X509 *x509)
{
    time_t now_s = (time_t)(moon_loop_wall_ms(stream->loop) / 1000);
    return X509_cmp_time(X509_get0_notAfter(x509), &now_s) <= 0;
}

const char *moon_tls_give(struct moon_stream *s, const struct moon_tls_gift *gift)
{
    struct tls_stream *stream = (struct tls_stream *)s;
    struct moon_slice cert = gift->cert, key = gift->key;
    const struct tls_pair *pair;
    int index = TLS_GIVEN_TEXT;
    if (gift->name.len) {
        index = tls_contexts_find(stream->contexts, stream->host, gift->name);
        if (index < 0)
            return "there is no certificate of that name";
        const struct tls_certificate *own =
            tls_contexts_certificate(stream->contexts, stream->host, index);
        cert = own->cert.bytes;
        key = own->key.bytes;
    }
    const char *problem = tls_given_read(stream->seat, cert, key, &pair);
    if (problem)
        return problem;
    if (has_expired(stream, pair->own))
        return "has expired";
    SSL_certs_clear(stream->ssl); // no other kind of key is offered beside it
    if (!SSL_use_cert_and_key(stream->ssl, pair->own, pair->key, pair->chain, 1)) {
        ERR_clear_error();
        return "is refused by OpenSSL";
    }
    stream->given = (int16_t)index;
    return NULL;
}
