// See acme_crypto.h.
#include "io/acme_crypto.h"

#include "io/tls_priv.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NUMBER_LEN = 32, HOST_MAX_LEN = 253, COMMON_NAME_MAX_LEN = 64 };

// ---- base64url

// In place: the alphabet and the padding of RFC 4648 4 to those of 5.
static void make_url(char *text)
{
    for (char *at = text; *at; at++) {
        if (*at == '+')
            *at = '-';
        else if (*at == '/')
            *at = '_';
        else if (*at == '=')
            *at = '\0';
    }
}

char *moon_acme_base64(struct moon_slice bytes)
{
    char *out = malloc((bytes.len + 2) / 3 * 4 + 1);
    if (!out)
        abort();
    out[0] = '\0';
    if (bytes.len)
        EVP_EncodeBlock((unsigned char *)out, (const unsigned char *)bytes.ptr, (int)bytes.len);
    make_url(out);
    return out;
}

static int value_of(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '-' ? 62 : c == '_' ? 63 : -1;
}

bool moon_acme_unbase64(struct moon_slice text, char **out, size_t *len)
{
    unsigned bits = 0, held = 0;
    while (text.len && text.ptr[text.len - 1] == '=')
        text.len--;
    char *bytes = malloc(text.len + 1);
    if (!bytes)
        abort();
    *len = 0;
    for (size_t i = 0; i < text.len; i++) {
        int value = value_of(text.ptr[i]);
        if (value < 0) {
            free(bytes);
            return false;
        }
        bits = (bits << 6 | (unsigned)value) & 0xffff;
        held += 6;
        if (held >= 8) {
            held -= 8;
            bytes[(*len)++] = (char)(bits >> held);
        }
    }
    *out = bytes;
    return true;
}

static void base64_number(const unsigned char number[NUMBER_LEN],
                          char out[MOON_ACME_NUMBER_LEN + 1])
{
    char *text = moon_acme_base64((struct moon_slice){(const char *)number, NUMBER_LEN});
    memcpy(out, text, MOON_ACME_NUMBER_LEN + 1);
    free(text);
}

// ---- digests

void moon_acme_digest(struct moon_slice bytes, char out[MOON_ACME_NUMBER_LEN + 1])
{
    unsigned char digest[NUMBER_LEN];
    if (!EVP_Digest(bytes.ptr, bytes.len, digest, NULL, EVP_sha256(), NULL))
        abort();
    base64_number(digest, out);
}

void moon_acme_hmac(struct moon_slice key, struct moon_slice bytes,
                    char out[MOON_ACME_NUMBER_LEN + 1])
{
    unsigned char digest[NUMBER_LEN];
    unsigned len;
    if (!HMAC(EVP_sha256(), key.ptr, (int)key.len, (const unsigned char *)bytes.ptr, bytes.len,
              digest, &len))
        abort();
    base64_number(digest, out);
}

// ---- keys

static BIO *bio_of(struct moon_slice pem)
{
    BIO *bio = BIO_new_mem_buf(pem.ptr ? pem.ptr : "", (int)pem.len);
    if (!bio)
        abort();
    return bio;
}

// Nobody is there to type a passphrase.
static int no_passphrase(char *to, int cap, int is_writing, void *owner)
{
    (void)to;
    (void)cap;
    (void)is_writing;
    (void)owner;
    return -1;
}

// NULL: there is none.
static EVP_PKEY *read_key(struct moon_slice pem)
{
    BIO *bio = bio_of(pem);
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);
    BIO_free(bio);
    ERR_clear_error();
    return key;
}

char *moon_acme_key_new(void)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    BIO *bio = BIO_new(BIO_s_mem());
    char *text;
    if (!key || !bio || !PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL))
        abort();
    long len = BIO_get_mem_data(bio, &text);
    char *out = malloc((size_t)len + 1);
    if (!out)
        abort();
    memcpy(out, text, (size_t)len);
    out[len] = '\0';
    OPENSSL_cleanse(text, (size_t)len);
    EVP_PKEY_free(key);
    BIO_free(bio);
    return out;
}

static bool read_coordinate(const EVP_PKEY *key, const char *name,
                            char out[MOON_ACME_NUMBER_LEN + 1])
{
    BIGNUM *number = NULL;
    unsigned char bytes[NUMBER_LEN];
    bool is_fine = EVP_PKEY_get_bn_param(key, name, &number) &&
                   BN_bn2binpad(number, bytes, sizeof bytes) == NUMBER_LEN;
    BN_free(number);
    if (is_fine)
        base64_number(bytes, out);
    return is_fine;
}

static bool is_p256(const EVP_PKEY *key)
{
    char group[32];
    size_t len;
    return key && EVP_PKEY_get_group_name(key, group, sizeof group, &len) &&
           strcmp(group, "prime256v1") == 0;
}

bool moon_acme_key_public(struct moon_slice pem, char x[MOON_ACME_NUMBER_LEN + 1],
                          char y[MOON_ACME_NUMBER_LEN + 1])
{
    EVP_PKEY *key = read_key(pem);
    bool is_fine = is_p256(key) && read_coordinate(key, OSSL_PKEY_PARAM_EC_PUB_X, x) &&
                   read_coordinate(key, OSSL_PKEY_PARAM_EC_PUB_Y, y);
    EVP_PKEY_free(key);
    ERR_clear_error();
    return is_fine;
}

// OpenSSL's signatures are DER, JOSE's two numbers of fixed length.
static bool flatten(const unsigned char *der, size_t len, unsigned char out[2 * NUMBER_LEN])
{
    ECDSA_SIG *signature = d2i_ECDSA_SIG(NULL, &der, (long)len);
    bool is_fine =
        signature && BN_bn2binpad(ECDSA_SIG_get0_r(signature), out, NUMBER_LEN) == NUMBER_LEN &&
        BN_bn2binpad(ECDSA_SIG_get0_s(signature), out + NUMBER_LEN, NUMBER_LEN) == NUMBER_LEN;
    ECDSA_SIG_free(signature);
    return is_fine;
}

bool moon_acme_sign(struct moon_slice pem, struct moon_slice bytes,
                    char out[MOON_ACME_SIGNATURE_LEN + 1])
{
    unsigned char der[128], flat[2 * NUMBER_LEN];
    size_t len = sizeof der;
    EVP_PKEY *key = read_key(pem);
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    if (!digest)
        abort();
    bool is_fine = is_p256(key) && EVP_DigestSignInit(digest, NULL, EVP_sha256(), NULL, key) &&
                   EVP_DigestSign(digest, der, &len, (const unsigned char *)bytes.ptr, bytes.len) &&
                   flatten(der, len, flat);
    EVP_MD_CTX_free(digest);
    EVP_PKEY_free(key);
    ERR_clear_error();
    if (!is_fine)
        return false;
    char *text = moon_acme_base64((struct moon_slice){(const char *)flat, sizeof flat});
    memcpy(out, text, MOON_ACME_SIGNATURE_LEN + 1);
    free(text);
    return true;
}

// ---- requests

static bool add_host(X509_REQ *request, struct moon_slice host)
{
    char text[HOST_MAX_LEN + 8];
    if (host.len == 0 || host.len > HOST_MAX_LEN || memchr(host.ptr, ',', host.len))
        return false;
    snprintf(text, sizeof text, "DNS:%.*s", MOON_SLICE_ARG(host));
    X509_EXTENSION *names = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, text);
    STACK_OF(X509_EXTENSION) *extensions = sk_X509_EXTENSION_new_null();
    if (!extensions)
        abort();
    bool is_fine = names && sk_X509_EXTENSION_push(extensions, names) &&
                   X509_REQ_add_extensions(request, extensions);
    X509_EXTENSION_free(names);
    sk_X509_EXTENSION_free(extensions);
    if (!is_fine || host.len > COMMON_NAME_MAX_LEN) // then the name stands in the extension alone
        return is_fine;
    return X509_NAME_add_entry_by_txt(X509_REQ_get_subject_name(request), "CN", MBSTRING_ASC,
                                      (const unsigned char *)host.ptr, (int)host.len, -1, 0);
}

char *moon_acme_request_new(struct moon_slice key_pem, struct moon_slice host)
{
    EVP_PKEY *key = read_key(key_pem);
    X509_REQ *request = X509_REQ_new();
    unsigned char *der = NULL;
    char *out = NULL;
    if (!request)
        abort();
    if (key && add_host(request, host) && X509_REQ_set_pubkey(request, key) &&
        X509_REQ_sign(request, key, EVP_sha256()) > 0) {
        int len = i2d_X509_REQ(request, &der);
        if (len > 0)
            out = moon_acme_base64((struct moon_slice){(const char *)der, (size_t)len});
    }
    OPENSSL_free(der);
    X509_REQ_free(request);
    EVP_PKEY_free(key);
    ERR_clear_error();
    return out;
}

// ---- certificates

const char *moon_acme_inspect(struct moon_slice pem, struct moon_slice host,
                              struct moon_acme_validity *out)
{
    BIO *bio = bio_of(pem);
    X509 *certificate = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL);
    EVP_PKEY *key = read_key(pem);
    const char *wrong = NULL;
    if (!certificate)
        wrong = "holds no certificate";
    else if (!key)
        wrong = "holds no private key";
    else if (!X509_check_private_key(certificate, key))
        wrong = "holds a certificate of another key";
    else if (X509_check_host(certificate, host.ptr, host.len, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT,
                             NULL) != 1)
        wrong = "holds a certificate of another host";
    if (!wrong) // half a chain would be sent as if it were whole
        wrong = tls_pem_check(pem, false);
    if (!wrong) {
        out->not_before_s = tls_time_s(X509_get0_notBefore(certificate));
        out->not_after_s = tls_time_s(X509_get0_notAfter(certificate));
    }
    EVP_PKEY_free(key);
    X509_free(certificate);
    BIO_free(bio);
    ERR_clear_error();
    return wrong;
}
