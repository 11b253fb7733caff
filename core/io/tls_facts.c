// What is known of a connection: read off OpenSSL once, when the handshake is done, into one block of memory.
#include "io/tls_priv.h"

#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_MAX_LEN = 8192 }; // of each text of a certificate

static struct moon_slice text_of(BIO *bio)
{
    char *text;
    long len = BIO_get_mem_data(bio, &text);
    return (struct moon_slice){text, len < 0 ? 0 : len > TEXT_MAX_LEN ? TEXT_MAX_LEN : (size_t)len};
}

static void print_text(BIO *to, const ASN1_STRING *text)
{
    const unsigned char *bytes = ASN1_STRING_get0_data(text);
    for (int i = 0; i < ASN1_STRING_length(text); i++) {
        bool is_plain = bytes[i] > ' ' && bytes[i] < 0x7f && bytes[i] != ',' && bytes[i] != '"' &&
                        bytes[i] != '\\';
        BIO_printf(to, is_plain ? "%c" : "\\%02X", bytes[i]);
    }
}

static void print_ip(BIO *to, const ASN1_OCTET_STRING *ip)
{
    const unsigned char *at = ASN1_STRING_get0_data(ip);
    int len = ASN1_STRING_length(ip);
    if (len == 4)
        BIO_printf(to, "%u.%u.%u.%u", at[0], at[1], at[2], at[3]);
    for (int i = 0; len == 16 && i < 16; i += 2)
        BIO_printf(to, "%s%x", i ? ":" : "", (unsigned)at[i] << 8 | at[i + 1]);
}

// Commas, quotes, controls and what is no ASCII are escaped: a name cannot pass for two.
static void print_sans(BIO *to, const X509 *x509)
{
    GENERAL_NAMES *all = X509_get_ext_d2i(x509, NID_subject_alt_name, NULL, NULL);
    const char *comma = "";
    for (int i = 0; i < sk_GENERAL_NAME_num(all); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(all, i);
        const char *kind = name->type == GEN_DNS     ? "DNS"
                           : name->type == GEN_URI   ? "URI"
                           : name->type == GEN_EMAIL ? "email"
                           : name->type == GEN_IPADD ? "IP"
                                                     : NULL;
        if (!kind)
            continue;
        BIO_printf(to, "%s%s:", comma, kind);
        if (name->type == GEN_IPADD)
            print_ip(to, name->d.iPAddress);
        else
            print_text(to, name->d.ia5);
        comma = ",";
    }
    GENERAL_NAMES_free(all);
}

static struct moon_slice keep(char **at, struct moon_slice text)
{
    struct moon_slice kept = {*at, text.len};
    if (text.len)
        memcpy(*at, text.ptr, text.len);
    *at += text.len;
    return text.len ? kept : (struct moon_slice){NULL, 0};
}

enum { CN_MAX_LEN = 256 }; // X.520 has 64

// The most specific common name; empty: none, or one that is no text.
static size_t read_cn(const X509 *x509, char out[CN_MAX_LEN])
{
    const X509_NAME *subject = X509_get_subject_name(x509);
    int at = -1, last = -1;
    while ((at = X509_NAME_get_index_by_NID(subject, NID_commonName, at)) >= 0)
        last = at;
    if (last < 0)
        return 0;
    unsigned char *text;
    int len =
        ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, last)));
    if (len < 0)
        return 0;
    size_t kept = len <= CN_MAX_LEN ? (size_t)len : 0;
    memcpy(out, text, kept);
    OPENSSL_free(text);
    return kept;
}

struct shown {
    char cn[CN_MAX_LEN];
    size_t cn_len;
    BIO *subject, *sans, *serial;
    char fingerprint[2 * EVP_MAX_MD_SIZE + 1];
};

static void read_shown(const X509 *x509, struct shown *out)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    out->subject = BIO_new(BIO_s_mem());
    out->sans = BIO_new(BIO_s_mem());
    out->serial = BIO_new(BIO_s_mem());
    if (!out->subject || !out->sans || !out->serial)
        abort();
    X509_NAME_print_ex(out->subject, X509_get_subject_name(x509), 0, XN_FLAG_RFC2253);
    out->cn_len = read_cn(x509, out->cn);
    print_sans(out->sans, x509);
    i2a_ASN1_INTEGER(out->serial, X509_get0_serialNumber(x509));
    X509_digest(x509, EVP_sha256(), digest, &len);
    for (unsigned i = 0; i < len; i++)
        snprintf(out->fingerprint + (size_t)i * 2, 3, "%02x", digest[i]);
}

struct moon_tls_facts *tls_facts_new(SSL *ssl, struct moon_slice sni, const uint8_t *id)
{
    const unsigned char *alpn;
    unsigned alpn_len;
    X509 *x509 = SSL_get0_peer_certificate(ssl);
    struct shown shown = {0};
    struct moon_slice subject = {NULL, 0}, sans = subject, serial = subject;
    if (x509) {
        read_shown(x509, &shown);
        subject = text_of(shown.subject);
        sans = text_of(shown.sans);
        serial = text_of(shown.serial);
    }
    struct moon_slice fingerprint = moon_slice_from(shown.fingerprint);
    SSL_get0_alpn_selected(ssl, &alpn, &alpn_len);
    size_t len =
        sni.len + alpn_len + subject.len + shown.cn_len + sans.len + serial.len + fingerprint.len;
    struct moon_tls_facts *facts = calloc(1, sizeof *facts + len);
    if (!facts)
        abort();
    char *at = (char *)(facts + 1);
    facts->ref_count = 1;
    facts->version = SSL_get_version(ssl);
    facts->cipher = SSL_get_cipher_name(ssl);
    facts->is_resumed = SSL_session_reused(ssl);
    facts->is_verified = x509 && SSL_get_verify_result(ssl) == X509_V_OK;
    if (id)
        memcpy(facts->id, id, sizeof facts->id);
    facts->sni = keep(&at, sni);
    facts->alpn = keep(&at, (struct moon_slice){(const char *)alpn, alpn_len});
    facts->subject = keep(&at, subject);
    facts->cn = keep(&at, (struct moon_slice){shown.cn, shown.cn_len});
    facts->sans = keep(&at, sans);
    facts->serial = keep(&at, serial);
    facts->fingerprint = keep(&at, fingerprint);
    BIO_free(shown.subject);
    BIO_free(shown.sans);
    BIO_free(shown.serial);
    return facts;
}

struct moon_tls_facts *moon_tls_facts_ref(struct moon_tls_facts *facts)
{
    facts->ref_count++;
    return facts;
}

void moon_tls_facts_unref(struct moon_tls_facts *facts)
{
    if (facts && --facts->ref_count == 0)
        free(facts);
}
