// Challenges of ACME that are to be answered now (RFC 8555 8.3, RFC 8737): control sets them, every worker answers. One list under
// a lock; who has none to answer looks at a counter and takes no lock.
//
//   HTTP-01      the answer is read by who answers requests (exchange/challenge.h)
//   TLS-ALPN-01  a ClientHello that offers "acme-tls/1" alone gets the proof as its certificate; after the handshake there is nothing
#include "io/tls_priv.h"

#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>

static const unsigned char protocol[] = "\x0a"
                                        "acme-tls/1";
enum { PROTOCOL_LEN = sizeof protocol - 1 };

struct challenge {
    struct moon_list node;
    char *host, *token, *answer;
    struct moon_slice certificate, key; // of TLS-ALPN-01, DER of OpenSSL's
};

struct tls_challenges {
    pthread_mutex_t lock;
    struct moon_list all;
    atomic_uint count;
};

struct tls_challenges *tls_challenges_new(void)
{
    struct tls_challenges *challenges = calloc(1, sizeof *challenges);
    if (!challenges)
        abort();
    pthread_mutex_init(&challenges->lock, NULL);
    moon_list_init(&challenges->all);
    return challenges;
}

static void challenge_free(struct challenge *challenge)
{
    moon_list_del(&challenge->node);
    free(challenge->host);
    free(challenge->token);
    free(challenge->answer);
    OPENSSL_free((void *)challenge->certificate.ptr);
    OPENSSL_clear_free((void *)challenge->key.ptr, challenge->key.len);
    free(challenge);
}

void tls_challenges_free(struct tls_challenges *challenges)
{
    while (!moon_list_is_empty(&challenges->all))
        challenge_free(MOON_CONTAINER(challenges->all.next, struct challenge, node));
    pthread_mutex_destroy(&challenges->lock);
    free(challenges);
}

// ---- control

static bool make_proof(struct challenge *challenge, int64_t now_s)
{
    uint8_t digest[32];
    struct tls_made_args args = {
        .host = challenge->host, .title = "ACME", .proof = digest, .now_s = now_s};
    X509 *certificate;
    EVP_PKEY *key;
    unsigned char *der = NULL;
    if (!EVP_Digest(challenge->answer, strlen(challenge->answer), digest, NULL, EVP_sha256(),
                    NULL) ||
        !tls_made_new(&args, &certificate, &key))
        return false;
    int len = i2d_X509(certificate, &der);
    challenge->certificate = (struct moon_slice){(char *)der, len > 0 ? (size_t)len : 0};
    der = NULL;
    len = i2d_PrivateKey(key, &der);
    challenge->key = (struct moon_slice){(char *)der, len > 0 ? (size_t)len : 0};
    X509_free(certificate);
    EVP_PKEY_free(key);
    return challenge->certificate.len && challenge->key.len;
}

bool moon_tls_challenge_add(struct moon_tls_hub *hub, const char *host, const char *token,
                            const char *answer)
{
    struct challenge *challenge = calloc(1, sizeof *challenge);
    if (!challenge)
        abort();
    moon_list_init(&challenge->node);
    challenge->host = strdup(host);
    challenge->token = strdup(token);
    challenge->answer = strdup(answer);
    if (!challenge->host || !challenge->token || !challenge->answer)
        abort();
    if (!make_proof(challenge, (int64_t)(moon_world_wall_ms(hub->world) / 1000))) {
        challenge_free(challenge);
        return false;
    }
    pthread_mutex_lock(&hub->challenges->lock);
    moon_list_add_before(&hub->challenges->all, &challenge->node);
    atomic_fetch_add_explicit(&hub->challenges->count, 1, memory_order_release);
    pthread_mutex_unlock(&hub->challenges->lock);
    return true;
}

void moon_tls_challenge_del(struct moon_tls_hub *hub, const char *token)
{
    pthread_mutex_lock(&hub->challenges->lock);
    struct moon_list *at = hub->challenges->all.next, *next;
    for (; at != &hub->challenges->all; at = next) {
        struct challenge *challenge = MOON_CONTAINER(at, struct challenge, node);
        next = at->next;
        if (strcmp(challenge->token, token) != 0)
            continue;
        challenge_free(challenge);
        atomic_fetch_sub_explicit(&hub->challenges->count, 1, memory_order_release);
    }
    pthread_mutex_unlock(&hub->challenges->lock);
}

// ---- workers

bool moon_tls_has_challenges(const struct moon_tls_hub *hub)
{
    return atomic_load_explicit(&hub->challenges->count, memory_order_acquire) != 0;
}

bool moon_tls_challenge_find(struct moon_tls_hub *hub, struct moon_slice token,
                             char out[MOON_TLS_CHALLENGE_LEN])
{
    bool is_found = false;
    pthread_mutex_lock(&hub->challenges->lock);
    struct moon_list *all = &hub->challenges->all;
    for (struct moon_list *at = all->next; at != all && !is_found; at = at->next) {
        const struct challenge *challenge = MOON_CONTAINER(at, struct challenge, node);
        is_found = moon_slice_equal(token, moon_slice_from(challenge->token));
        if (is_found)
            snprintf(out, MOON_TLS_CHALLENGE_LEN, "%s", challenge->answer);
    }
    pthread_mutex_unlock(&hub->challenges->lock);
    return is_found;
}

// RFC 8737 3: that protocol and no other.
static bool asks_for_proof(SSL *ssl)
{
    const unsigned char *ext;
    size_t len;
    return SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_application_layer_protocol_negotiation, &ext,
                                     &len) &&
           len == 2 + PROTOCOL_LEN && ext[0] == 0 && ext[1] == PROTOCOL_LEN &&
           memcmp(ext + 2, protocol, PROTOCOL_LEN) == 0;
}

// Under the lock; of two for one host the newer.
static const struct challenge *find_host(const struct tls_challenges *challenges,
                                         struct moon_slice host)
{
    for (const struct moon_list *at = challenges->all.prev; at != &challenges->all; at = at->prev) {
        const struct challenge *challenge = MOON_CONTAINER(at, struct challenge, node);
        if (moon_slice_equal(moon_slice_from(challenge->host), host))
            return challenge;
    }
    return NULL;
}

bool moon_tls_has_proof(const struct moon_tls_server *server, struct moon_slice sni,
                        struct moon_slice alpn)
{
    struct tls_challenges *challenges = server->hub->challenges;
    if (!moon_tls_has_challenges(server->hub) ||
        !moon_slice_equal(alpn, (struct moon_slice){(const char *)protocol, PROTOCOL_LEN}))
        return false;
    pthread_mutex_lock(&challenges->lock);
    bool is_found = find_host(challenges, sni) != NULL;
    pthread_mutex_unlock(&challenges->lock);
    return is_found;
}

// In the worker's library: what comes of another's stands in its way.
static bool show(SSL *ssl, const struct tls_seat *seat, const struct challenge *challenge)
{
    const unsigned char *der = (const unsigned char *)challenge->certificate.ptr,
                        *key_der = (const unsigned char *)challenge->key.ptr;
    X509 *certificate = X509_new_ex(seat->library, NULL);
    EVP_PKEY *key =
        d2i_AutoPrivateKey_ex(NULL, &key_der, (long)challenge->key.len, seat->library, NULL);
    bool is_fine = certificate && key &&
                   d2i_X509(&certificate, &der, (long)challenge->certificate.len) &&
                   SSL_use_cert_and_key(ssl, certificate, key, NULL, 1);
    X509_free(certificate);
    EVP_PKEY_free(key);
    ERR_clear_error();
    return is_fine;
}

bool tls_challenge_answer(struct tls_stream *stream, const char *sni)
{
    struct tls_challenges *challenges = stream->hub->challenges;
    SSL *ssl = stream->ssl;
    if (!moon_tls_has_challenges(stream->hub) || !asks_for_proof(ssl))
        return false;
    pthread_mutex_lock(&challenges->lock);
    const struct challenge *challenge = find_host(challenges, moon_slice_from(sni));
    bool is_shown = challenge && show(ssl, stream->seat, challenge);
    pthread_mutex_unlock(&challenges->lock);
    if (!is_shown)
        return false;
    SSL_set_verify(ssl, SSL_VERIFY_NONE, NULL);
    SSL_set_options(ssl, SSL_OP_NO_TICKET);
    SSL_set_num_tickets(ssl, 0);
    stream->is_proof = true;
    return true;
}

void tls_challenge_protocol(const unsigned char **out, unsigned char *len)
{
    *out = protocol + 1;
    *len = PROTOCOL_LEN - 1;
}
