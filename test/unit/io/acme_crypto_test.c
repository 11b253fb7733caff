// What ACME needs of OpenSSL, held against the examples of the RFCs; and certificates of our own making, read by OpenSSL.
#include "io/acme_crypto.h"
#include "io/tls_priv.h"

#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

// The key of RFC 7515 A.3.
static const char rfc_key[] = "-----BEGIN EC PRIVATE KEY-----\n"
                              "MHcCAQEEII6bEJ5xkJi/mASH3x9dd+nLKWBuvtImO19XwhPfhPSyoAoGCCqGSM49\n"
                              "AwEHoUQDQgAEf83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEXH8UTNG72b\n"
                              "focs3+257rn0s2ldbqkLJK2KRiMohYjlrQ==\n"
                              "-----END EC PRIVATE KEY-----\n";
static const char rfc_x[] = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
static const char rfc_y[] = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";

static EVP_PKEY *key_of(const char *pem)
{
    BIO *bio = BIO_new_mem_buf(pem, -1);
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);
    BIO_free(bio);
    assert_non_null(key);
    return key;
}

// ---- texts

static void base64_is_that_of_urls(void **state)
{
    (void)state;
    static const struct {
        const char *bytes, *text;
    } rows[] = {{"", ""}, {"f", "Zg"}, {"fo", "Zm8"}, {"foo", "Zm9v"}, {"\xff\xef\xbe", "_---"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *text = moon_acme_base64(moon_slice_from(rows[i].bytes)), *bytes;
        size_t len;
        if (i < 4)
            assert_string_equal(text, rows[i].text);
        assert_null(strpbrk(text, "+/="));
        assert_true(moon_acme_unbase64(moon_slice_from(text), &bytes, &len));
        assert_int_equal(len, strlen(rows[i].bytes));
        assert_memory_equal(bytes, rows[i].bytes, len);
        free(bytes);
        free(text);
    }
    char *bytes;
    size_t len;
    assert_true(moon_acme_unbase64(MOON_SLICE("Zm8="), &bytes, &len));
    assert_int_equal(len, 2);
    free(bytes);
    assert_false(moon_acme_unbase64(MOON_SLICE("Zm+v"), &bytes, &len));
    assert_false(moon_acme_unbase64(MOON_SLICE("Zm9v Zm9v"), &bytes, &len));
}

// The example of RFC 7638 3.1: a thumbprint is this of the members in their order.
static void digests_are_those_of_the_rfc(void **state)
{
    (void)state;
    char out[MOON_ACME_NUMBER_LEN + 1];
    moon_acme_digest(
        MOON_SLICE(
            "{\"e\":\"AQAB\",\"kty\":\"RSA\",\"n\":"
            "\"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tS"
            "oc_"
            "BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-"
            "65YGjQR0_"
            "FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-"
            "bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-"
            "kEgU8awapJzKnqDKgw\"}"),
        out);
    assert_string_equal(out, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
}

// RFC 7515 A.1.
static void hmacs_are_those_of_the_rfc(void **state)
{
    (void)state;
    char out[MOON_ACME_NUMBER_LEN + 1], *key;
    size_t len;
    assert_true(moon_acme_unbase64(
        MOON_SLICE("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjA"
                   "zZr1Z9CAow"),
        &key, &len));
    moon_acme_hmac(
        (struct moon_slice){key, len},
        MOON_SLICE("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAi"
                   "OjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"),
        out);
    free(key);
    assert_string_equal(out, "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
}

// ---- keys

static void keys_are_read(void **state)
{
    (void)state;
    char x[MOON_ACME_NUMBER_LEN + 1], y[MOON_ACME_NUMBER_LEN + 1];
    assert_true(moon_acme_key_public(MOON_SLICE(rfc_key), x, y));
    assert_string_equal(x, rfc_x);
    assert_string_equal(y, rfc_y);
    assert_false(moon_acme_key_public(MOON_SLICE("no PEM"), x, y));
    assert_false(moon_acme_key_public((struct moon_slice){NULL, 0}, x, y));
    EVP_PKEY *other = EVP_EC_gen("P-384"); // no key of ES256
    BIO *bio = BIO_new(BIO_s_mem());
    char *pem;
    assert_true(PEM_write_bio_PrivateKey(bio, other, NULL, NULL, 0, NULL, NULL));
    long len = BIO_get_mem_data(bio, &pem);
    char signature[MOON_ACME_SIGNATURE_LEN + 1];
    assert_false(moon_acme_key_public((struct moon_slice){pem, (size_t)len}, x, y));
    assert_false(
        moon_acme_sign((struct moon_slice){pem, (size_t)len}, MOON_SLICE("text"), signature));
    BIO_free(bio);
    EVP_PKEY_free(other);
}

static void keys_are_new(void **state)
{
    (void)state;
    char x[2][MOON_ACME_NUMBER_LEN + 1], y[MOON_ACME_NUMBER_LEN + 1];
    for (int i = 0; i < 2; i++) {
        char *pem = moon_acme_key_new();
        assert_true(moon_acme_key_public(moon_slice_from(pem), x[i], y));
        assert_int_equal(strlen(x[i]), MOON_ACME_NUMBER_LEN);
        free(pem);
    }
    assert_string_not_equal(x[0], x[1]);
}

// A signature of JOSE, verified by OpenSSL. Many, because numbers with leading zeros are rare.
static void signatures_hold(void **state)
{
    (void)state;
    EVP_PKEY *key = key_of(rfc_key);
    for (int i = 0; i < 600; i++) {
        char text[32], signature[MOON_ACME_SIGNATURE_LEN + 1], *flat;
        unsigned char *der = NULL;
        size_t flat_len;
        snprintf(text, sizeof text, "head.body-%d", i);
        assert_true(moon_acme_sign(MOON_SLICE(rfc_key), moon_slice_from(text), signature));
        assert_true(moon_acme_unbase64(moon_slice_from(signature), &flat, &flat_len));
        assert_int_equal(flat_len, 64);
        ECDSA_SIG *numbers = ECDSA_SIG_new();
        ECDSA_SIG_set0(numbers, BN_bin2bn((unsigned char *)flat, 32, NULL),
                       BN_bin2bn((unsigned char *)flat + 32, 32, NULL));
        int len = i2d_ECDSA_SIG(numbers, &der);
        EVP_MD_CTX *digest = EVP_MD_CTX_new();
        assert_int_equal(EVP_DigestVerifyInit(digest, NULL, EVP_sha256(), NULL, key), 1);
        assert_int_equal(
            EVP_DigestVerify(digest, der, (size_t)len, (const unsigned char *)text, strlen(text)),
            1);
        EVP_MD_CTX_free(digest);
        ECDSA_SIG_free(numbers);
        OPENSSL_free(der);
        free(flat);
    }
    EVP_PKEY_free(key);
}

// ---- requests

static X509_REQ *request_of(const char *host)
{
    char *text = moon_acme_request_new(MOON_SLICE(rfc_key), moon_slice_from(host)), *der;
    size_t len;
    assert_non_null(text);
    assert_true(moon_acme_unbase64(moon_slice_from(text), &der, &len));
    const unsigned char *at = (const unsigned char *)der;
    X509_REQ *request = d2i_X509_REQ(NULL, &at, (long)len);
    assert_non_null(request);
    assert_ptr_equal(at, der + len);
    free(der);
    free(text);
    return request;
}

static void requests_name_the_host(void **state)
{
    (void)state;
    char longest[] = "a-label-of-forty-five-bytes-that-is-quite-long.and-another-one.site.example";
    static const char first[] = "site.example";
    EVP_PKEY *key = key_of(rfc_key);
    for (int i = 0; i < 2; i++) {
        const char *host = i ? longest : first;
        X509_REQ *request = request_of(host);
        assert_int_equal(X509_REQ_verify(request, key), 1);
        STACK_OF(X509_EXTENSION) *extensions = X509_REQ_get_extensions(request);
        GENERAL_NAMES *names = X509V3_get_d2i(extensions, NID_subject_alt_name, NULL, NULL);
        assert_int_equal(sk_GENERAL_NAME_num(names), 1);
        const ASN1_STRING *name = sk_GENERAL_NAME_value(names, 0)->d.dNSName;
        assert_int_equal(ASN1_STRING_length(name), strlen(host));
        assert_memory_equal(ASN1_STRING_get0_data(name), host, strlen(host));
        // a common name has 64 bytes at the most
        assert_int_equal(X509_NAME_entry_count(X509_REQ_get_subject_name(request)), i ? 0 : 1);
        GENERAL_NAMES_free(names);
        sk_X509_EXTENSION_pop_free(extensions, X509_EXTENSION_free);
        X509_REQ_free(request);
    }
    EVP_PKEY_free(key);
}

static void requests_are_refused(void **state)
{
    (void)state;
    assert_null(moon_acme_request_new(MOON_SLICE("no key"), MOON_SLICE("site.example")));
    assert_null(moon_acme_request_new(MOON_SLICE(rfc_key), MOON_SLICE("")));
    // what would be a further name
    assert_null(moon_acme_request_new(MOON_SLICE(rfc_key), MOON_SLICE("a.example,DNS:b.example")));
}

// ---- certificates of our own making

static void placeholders_are_inspected(void **state)
{
    (void)state;
    struct moon_slice pem, other;
    struct moon_acme_validity validity = {0};
    const int64_t now_s = 1800000000;
    assert_true(tls_made_placeholder("site.example", now_s, &pem));
    assert_true(tls_made_placeholder("site.example", now_s, &other));
    assert_null(moon_acme_inspect(pem, MOON_SLICE("site.example"), &validity));
    assert_true(validity.not_before_s < now_s && validity.not_after_s > now_s);
    assert_int_equal(validity.not_after_s - validity.not_before_s, 7 * 86400 + 3600);
    assert_string_equal(moon_acme_inspect(pem, MOON_SLICE("shop.example"), &validity),
                        "holds a certificate of another host");
    const char *mark = strstr(pem.ptr, "-----BEGIN CERTIFICATE");
    struct moon_slice key = {pem.ptr, (size_t)(mark - pem.ptr)};
    assert_string_equal(moon_acme_inspect(key, MOON_SLICE("site.example"), &validity),
                        "holds no certificate");
    assert_string_equal(
        moon_acme_inspect(moon_slice_skip(pem, key.len), MOON_SLICE("site.example"), &validity),
        "holds no private key");
    char *mixed;
    assert_true(asprintf(&mixed, "%.*s%s", MOON_SLICE_ARG(key),
                         strstr(other.ptr, "-----BEGIN CERTIFICATE")) > 0);
    assert_string_equal(
        moon_acme_inspect(moon_slice_from(mixed), MOON_SLICE("site.example"), &validity),
        "holds a certificate of another key");
    free(mixed);
    const char *chain = strstr(other.ptr, "-----BEGIN CERTIFICATE");
    assert_true(asprintf(&mixed, "%.*s%s", MOON_SLICE_ARG(pem), chain) > 0);
    assert_null(moon_acme_inspect(moon_slice_from(mixed), MOON_SLICE("site.example"), &validity));
    assert_string_equal(moon_acme_inspect((struct moon_slice){mixed, pem.len + strlen(chain) / 2},
                                          MOON_SLICE("site.example"), &validity),
                        "holds a certificate that is damaged"); // a chain that was cut
    assert_string_equal(moon_acme_inspect((struct moon_slice){NULL, 0}, MOON_SLICE("a"), &validity),
                        "holds no certificate");
    assert_int_equal(ERR_peek_error(), 0);
    free(mixed);
    free((void *)pem.ptr);
    free((void *)other.ptr);
}

// RFC 8737 3: one name, and the digest in a critical extension.
static void proofs_are_as_the_rfc_says(void **state)
{
    (void)state;
    uint8_t digest[32];
    for (int i = 0; i < 32; i++)
        digest[i] = (uint8_t)(i * 7);
    struct tls_made_args args = {
        .host = "site.example", .title = "ACME", .proof = digest, .now_s = 1800000000};
    X509 *certificate;
    EVP_PKEY *key;
    assert_true(tls_made_new(&args, &certificate, &key));
    ASN1_OBJECT *id = OBJ_txt2obj("1.3.6.1.5.5.7.1.31", 1);
    int at = X509_get_ext_by_OBJ(certificate, id, -1);
    assert_true(at >= 0);
    X509_EXTENSION *extension = X509_get_ext(certificate, at);
    assert_int_equal(X509_EXTENSION_get_critical(extension), 1);
    const ASN1_OCTET_STRING *value = X509_EXTENSION_get_data(extension);
    assert_int_equal(ASN1_STRING_length(value), 34);
    assert_memory_equal(ASN1_STRING_get0_data(value), "\x04\x20", 2);
    assert_memory_equal(ASN1_STRING_get0_data(value) + 2, digest, 32);
    GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    assert_int_equal(sk_GENERAL_NAME_num(names), 1);
    assert_int_equal(X509_verify(certificate, key), 1);
    GENERAL_NAMES_free(names);
    ASN1_OBJECT_free(id);
    X509_free(certificate);
    EVP_PKEY_free(key);
}

// ---- challenges

static void challenges_come_and_go(void **state)
{
    (void)state;
    char out[MOON_TLS_CHALLENGE_LEN];
    struct moon_world *world = moon_world_new_real();
    struct moon_tls_hub *hub = moon_tls_hub_new(world);
    assert_false(moon_tls_has_challenges(hub));
    assert_true(moon_tls_challenge_add(hub, "a.example", "token-a", "token-a.print"));
    assert_true(moon_tls_challenge_add(hub, "b.example", "token-b", "token-b.print"));
    assert_true(moon_tls_has_challenges(hub));
    assert_true(moon_tls_challenge_find(hub, MOON_SLICE("token-b"), out));
    assert_string_equal(out, "token-b.print");
    assert_false(moon_tls_challenge_find(hub, MOON_SLICE("token"), out));
    assert_false(moon_tls_challenge_find(hub, MOON_SLICE(""), out));
    moon_tls_challenge_del(hub, "token-b");
    moon_tls_challenge_del(hub, "token-b");
    assert_false(moon_tls_challenge_find(hub, MOON_SLICE("token-b"), out));
    assert_true(moon_tls_has_challenges(hub));
    moon_tls_challenge_del(hub, "token-a");
    assert_false(moon_tls_has_challenges(hub));
    assert_true(moon_tls_challenge_add(hub, "c.example", "token-c", "token-c.print")); // left over
    moon_tls_hub_free(hub);
    moon_world_free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(base64_is_that_of_urls),
        cmocka_unit_test(digests_are_those_of_the_rfc),
        cmocka_unit_test(hmacs_are_those_of_the_rfc),
        cmocka_unit_test(keys_are_read),
        cmocka_unit_test(keys_are_new),
        cmocka_unit_test(signatures_hold),
        cmocka_unit_test(requests_name_the_host),
        cmocka_unit_test(requests_are_refused),
        cmocka_unit_test(placeholders_are_inspected),
        cmocka_unit_test(proofs_are_as_the_rfc_says),
        cmocka_unit_test(challenges_come_and_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
