// Certificates of our own making, signed by their own keys, that nobody is to trust: what a host shows that has none yet, and the
// proof of TLS-ALPN-01 (RFC 8737).
#include "io/tls_priv.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

enum { BEFORE_S = 3600, AFTER_S = 7 * 86400, OCTETS = 4, DIGEST_LEN = 32 };

static bool add_extension(X509 *x509, X509_EXTENSION *extension)
{
    bool is_fine = extension && X509_add_ext(x509, extension, -1);
    X509_EXTENSION_free(extension);
    return is_fine;
}

static bool add_names(X509 *x509, const char *host)
{
    char text[TLS_SNI_MAX_LEN + 8];
    snprintf(text, sizeof text, "DNS:%s", host);
    return add_extension(x509, X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, text));
}

// acmeIdentifier, critical (RFC 8737 3).
static bool add_proof(X509 *x509, const uint8_t proof[DIGEST_LEN])
{
    unsigned char octets[2 + DIGEST_LEN] = {OCTETS, DIGEST_LEN};
    memcpy(octets + 2, proof, DIGEST_LEN);
    ASN1_OBJECT *id = OBJ_txt2obj("1.3.6.1.5.5.7.1.31", 1);
    ASN1_OCTET_STRING *value = ASN1_OCTET_STRING_new();
    if (!id || !value || !ASN1_OCTET_STRING_set(value, octets, sizeof octets))
        abort();
    bool is_fine = add_extension(x509, X509_EXTENSION_create_by_OBJ(NULL, id, 1, value));
    ASN1_OCTET_STRING_free(value);
    ASN1_OBJECT_free(id);
    return is_fine;
}

static bool fill(X509 *x509, const struct tls_made_args *args, EVP_PKEY *key)
{
    X509_NAME *name = X509_get_subject_name(x509);
    uint64_t serial = 0;
    RAND_bytes((unsigned char *)&serial, sizeof serial);
    return X509_set_version(x509, X509_VERSION_3) &&
           ASN1_INTEGER_set_uint64(X509_get_serialNumber(x509), serial >> 1) &&
           ASN1_TIME_set(X509_getm_notBefore(x509), args->now_s - BEFORE_S) &&
           ASN1_TIME_set(X509_getm_notAfter(x509), args->now_s + AFTER_S) &&
           X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)args->title,
                                      -1, -1, 0) &&
           X509_set_issuer_name(x509, name) && X509_set_pubkey(x509, key) &&
           add_names(x509, args->host) && (!args->proof || add_proof(x509, args->proof)) &&
           X509_sign(x509, key, EVP_sha256()) > 0;
}

bool tls_made_new(const struct tls_made_args *args, X509 **certificate, EVP_PKEY **key)
{
    *key = EVP_EC_gen("P-256");
    *certificate = X509_new();
    if (!*key || !*certificate)
        abort();
    if (fill(*certificate, args, *key))
        return true;
    ERR_clear_error();
    X509_free(*certificate);
    EVP_PKEY_free(*key);
    return false;
}

static struct moon_slice take(BIO *bio)
{
    char *text;
    long len = BIO_get_mem_data(bio, &text);
    char *copy = malloc((size_t)len + 1);
    if (!copy)
        abort();
    memcpy(copy, text, (size_t)len);
    copy[len] = '\0';
    OPENSSL_cleanse(text, (size_t)len);
    BIO_free(bio);
    return (struct moon_slice){copy, (size_t)len};
}

bool tls_made_placeholder(const char *host, int64_t now_s, struct moon_slice *pem)
{
    struct tls_made_args args = {
        .host = host, .title = "Moongate: no certificate yet", .now_s = now_s};
    X509 *certificate;
    EVP_PKEY *key;
    if (!tls_made_new(&args, &certificate, &key))
        return false;
    BIO *bio = BIO_new(BIO_s_mem());
    if (!bio || !PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) ||
        !PEM_write_bio_X509(bio, certificate))
        abort();
    *pem = take(bio);
    X509_free(certificate);
    EVP_PKEY_free(key);
    return true;
}
