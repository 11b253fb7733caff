// Certificates and keys in PEM, read into one worker's library; and those that a function gives in a handshake, kept parsed.
//
// Invariant: a seat's given pairs are its worker's alone; the list is bounded, the one that was used longest ago goes first.
#include "io/tls_priv.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdlib.h>
#include <string.h>

enum { GIVEN_MAX_COUNT = 256 };

static const char damaged[] = "holds a certificate that is damaged";

struct given {
    struct moon_list node;
    uint8_t digest[TLS_DIGEST_LEN]; // of both texts
    struct tls_pair pair;
};

// What OpenSSL says last of all.
static const char *reason(void)
{
    const char *text = ERR_reason_error_string(ERR_peek_last_error());
    return text ? text : "OpenSSL does not say why";
}

BIO *tls_pem_open(struct moon_slice bytes)
{
    BIO *bio = BIO_new_mem_buf(bytes.ptr, (int)bytes.len);
    if (!bio)
        abort();
    return bio;
}

// A key with a passphrase is refused: nobody is there to type it.
static int no_passphrase(char *to, int cap, int is_writing, void *owner)
{
    (void)to;
    (void)cap;
    (void)is_writing;
    *(bool *)owner = true;
    return -1;
}

X509 *tls_pem_certificate(BIO *bio, OSSL_LIB_CTX *library)
{
    bool was_asked = false;
    X509 *certificate = X509_new_ex(library, NULL);
    if (certificate && !PEM_read_bio_X509(bio, &certificate, no_passphrase, &was_asked)) {
        X509_free(certificate);
        return NULL;
    }
    return certificate;
}

X509_CRL *tls_pem_crl(BIO *bio, OSSL_LIB_CTX *library)
{
    bool was_asked = false;
    X509_CRL *crl = X509_CRL_new_ex(library, NULL);
    if (crl && !PEM_read_bio_X509_CRL(bio, &crl, no_passphrase, &was_asked)) {
        X509_CRL_free(crl);
        return NULL;
    }
    return crl;
}

// The reader has come to nothing: whether it was not the end of the text but something that cannot be read, half a file perhaps.
static bool is_damaged(void)
{
    unsigned long error = ERR_peek_last_error();
    return ERR_GET_LIB(error) != ERR_LIB_PEM || ERR_GET_REASON(error) != PEM_R_NO_START_LINE;
}

const char *tls_pem_check(struct moon_slice bytes, bool is_crl)
{
    BIO *bio = tls_pem_open(bytes);
    size_t count = 0;
    ERR_clear_error();
    for (bool goes_on = true; goes_on; count += goes_on) {
        X509_CRL *crl = is_crl ? tls_pem_crl(bio, NULL) : NULL;
        X509 *certificate = is_crl ? NULL : tls_pem_certificate(bio, NULL);
        goes_on = crl || certificate;
        X509_CRL_free(crl);
        X509_free(certificate);
    }
    const char *problem = NULL;
    if (is_damaged())
        problem = is_crl ? "holds a CRL that is damaged" : damaged;
    else if (count == 0)
        problem = is_crl ? "holds no CRL in PEM" : "holds no certificate in PEM";
    BIO_free(bio);
    ERR_clear_error();
    return problem;
}

static EVP_PKEY *read_key(struct moon_slice bytes, OSSL_LIB_CTX *library, bool *is_encrypted)
{
    BIO *bio = tls_pem_open(bytes);
    *is_encrypted = false;
    EVP_PKEY *key =
        PEM_read_bio_PrivateKey_ex(bio, NULL, no_passphrase, is_encrypted, library, NULL);
    BIO_free(bio);
    return key;
}

// ---- pairs

const char *tls_pair_read(struct tls_pair *out, OSSL_LIB_CTX *library, struct moon_slice cert,
                          struct moon_slice key)
{
    X509 *next;
    bool is_encrypted = false;
    *out = (struct tls_pair){.chain = sk_X509_new_null()};
    BIO *bio = tls_pem_open(cert);
    ERR_clear_error();
    out->own = tls_pem_certificate(bio, library);
    const char *problem = is_damaged() ? damaged : "holds no certificate in PEM";
    if (!out->own)
        goto fail;
    while ((next = tls_pem_certificate(bio, library)) != NULL)
        if (!sk_X509_push(out->chain, next))
            abort();
    problem = damaged; // a chain that ends too early serves, but not everybody
    if (is_damaged())
        goto fail;
    out->key = read_key(key, library, &is_encrypted);
    problem = is_encrypted ? "key: is encrypted; a key without a passphrase is needed"
                           : "key: holds no private key in PEM";
    if (!out->key)
        goto fail;
    problem = "key: does not belong to the certificate";
    if (!X509_check_private_key(out->own, out->key))
        goto fail;
    problem = NULL;
fail:
    BIO_free(bio);
    ERR_clear_error();
    if (problem)
        tls_pair_fini(out);
    return problem;
}

void tls_pair_fini(struct tls_pair *pair)
{
    sk_X509_pop_free(pair->chain, X509_free);
    X509_free(pair->own);
    EVP_PKEY_free(pair->key);
    *pair = (struct tls_pair){0};
}

const char *tls_context_add(SSL_CTX *context, const struct tls_seat *seat,
                            const struct tls_certificate *certificate)
{
    struct tls_pair pair;
    const char *problem =
        tls_pair_read(&pair, seat->library, certificate->cert.bytes, certificate->key.bytes);
    if (problem)
        return problem;
    if (!SSL_CTX_use_cert_and_key(context, pair.own, pair.key, pair.chain, 1))
        problem = reason();
    tls_pair_fini(&pair);
    ERR_clear_error();
    return problem;
}

// ---- pairs that are given

static void given_free(struct tls_seat *seat, struct given *given)
{
    moon_list_del(&given->node);
    seat->given_count--;
    tls_pair_fini(&given->pair);
    free(given);
}

void tls_given_drop(struct tls_seat *seat)
{
    while (!moon_list_is_empty(&seat->given))
        given_free(seat, MOON_CONTAINER(seat->given.next, struct given, node));
}

static void digest_of(struct moon_slice cert, struct moon_slice key, uint8_t out[TLS_DIGEST_LEN])
{
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    if (!digest || !EVP_DigestInit_ex(digest, EVP_sha256(), NULL))
        abort();
    EVP_DigestUpdate(digest, &cert.len, sizeof cert.len);
    EVP_DigestUpdate(digest, cert.ptr, cert.len);
    EVP_DigestUpdate(digest, key.ptr, key.len);
    EVP_DigestFinal_ex(digest, out, NULL);
    EVP_MD_CTX_free(digest);
}

static struct given *find(struct tls_seat *seat, const uint8_t digest[TLS_DIGEST_LEN])
{
    for (struct moon_list *at = seat->given.next; at != &seat->given; at = at->next) {
        struct given *given = MOON_CONTAINER(at, struct given, node);
        if (memcmp(given->digest, digest, TLS_DIGEST_LEN) == 0)
            return given;
    }
    return NULL;
}

const char *tls_given_read(struct tls_seat *seat, struct moon_slice cert, struct moon_slice key,
                           const struct tls_pair **out)
{
    uint8_t digest[TLS_DIGEST_LEN];
    digest_of(cert, key, digest);
    struct given *given = find(seat, digest);
    if (given) {
        moon_list_del(&given->node);
    } else {
        given = calloc(1, sizeof *given);
        if (!given)
            abort();
        const char *problem = tls_pair_read(&given->pair, seat->library, cert, key);
        if (problem) {
            free(given);
            return problem;
        }
        memcpy(given->digest, digest, sizeof digest);
        if (seat->given_count++ == GIVEN_MAX_COUNT)
            given_free(seat, MOON_CONTAINER(seat->given.prev, struct given, node));
    }
    moon_list_add_after(&seat->given, &given->node);
    *out = &given->pair;
    return NULL;
}
