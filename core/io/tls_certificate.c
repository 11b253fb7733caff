// One certificate of the terms: its files, what is read of them and what is wrong with it. What the files hold is kept as PEM, for
// each worker parses it for its own library.
#include "base/err.h"
#include "io/acme_crypto.h"
#include "io/tls_priv.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { FILE_MAX_LEN = 4 << 20 };

// ---- files

void tls_file_stat(const char *path, struct tls_file *out)
{
    struct stat at;
    out->mtime_ns = out->size = -1;
    if (stat(path, &at) < 0)
        return;
    out->mtime_ns = at.st_mtim.tv_sec * 1000000000 + at.st_mtim.tv_nsec;
    out->size = at.st_size;
}

bool tls_file_is_fresh(const struct tls_file *file)
{
    struct tls_file now;
    if (!file->path)
        return true;
    tls_file_stat(file->path, &now);
    return now.mtime_ns == file->mtime_ns && now.size == file->size;
}

int tls_file_read(struct moon_tls_hub *hub, const char *key, const char *path, struct tls_file *out,
                  struct moon_tls_problem *problem)
{
    char *text;
    size_t len;
    out->path = strdup(path);
    if (!out->path)
        abort();
    tls_file_stat(path, out);
    int err = moon_world_read_file(hub->world, path, FILE_MAX_LEN, &text, &len);
    if (err)
        return tls_refuse(problem, key, "cannot read %s: %s", path, moon_err_text(err));
    out->bytes = (struct moon_slice){text, len};
    return 0;
}

int tls_file_read_all(struct moon_tls_hub *hub, const char *key, const char *path, bool is_crl,
                      struct tls_file *out, struct moon_tls_problem *problem)
{
    int err = tls_file_read(hub, key, path, out, problem);
    const char *wrong = err ? NULL : tls_pem_check(out->bytes, is_crl);
    return wrong ? tls_refuse(problem, key, "%s %s", path, wrong) : err;
}

void tls_file_fini(struct tls_file *file)
{
    free((char *)file->bytes.ptr);
    free(file->path);
}

// ---- certificates

static void add_name(struct tls_certificate *out, const unsigned char *text, int len)
{
    if (len <= 0 || len > TLS_SNI_MAX_LEN || memchr(text, '\0', (size_t)len))
        return;
    out->names = realloc((void *)out->names, (out->name_count + 1) * sizeof *out->names);
    char *name = moon_slice_dup((struct moon_slice){(const char *)text, (size_t)len});
    if (!out->names || !name)
        abort();
    for (char *at = name; *at; at++)
        if (*at >= 'A' && *at <= 'Z')
            *at |= 0x20;
    out->names[out->name_count++] = name;
}

// The names of the subject alternative names; those alone count (RFC 9525). Without any, the common name finds it at least.
static void read_names(const X509 *x509, struct tls_certificate *out)
{
    GENERAL_NAMES *all = X509_get_ext_d2i(x509, NID_subject_alt_name, NULL, NULL);
    for (int i = 0; i < sk_GENERAL_NAME_num(all); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(all, i);
        if (name->type == GEN_DNS)
            add_name(out, ASN1_STRING_get0_data(name->d.dNSName),
                     ASN1_STRING_length(name->d.dNSName));
    }
    GENERAL_NAMES_free(all);
    X509_NAME *subject = X509_get_subject_name(x509);
    int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    if (out->name_count || at < 0)
        return;
    const ASN1_STRING *text = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at));
    add_name(out, ASN1_STRING_get0_data(text), ASN1_STRING_length(text));
}

int64_t tls_time_s(const ASN1_TIME *time)
{
    int days = 0, seconds = 0;
    ASN1_TIME *zero = ASN1_TIME_set(NULL, 0);
    if (!zero || !ASN1_TIME_diff(&days, &seconds, zero, time))
        days = 0;
    ASN1_TIME_free(zero);
    return (int64_t)days * 86400 + seconds;
}

static void format_time(const ASN1_TIME *time, char to[64])
{
    BIO *bio = BIO_new(BIO_s_mem());
    int len = bio && ASN1_TIME_print(bio, time) ? BIO_read(bio, to, 63) : 0;
    to[len > 0 ? len : 0] = '\0';
    BIO_free(bio);
}

int tls_check_dates(struct moon_tls_hub *hub, const X509 *x509, const char *key,
                    struct tls_certificate *out, struct moon_tls_problem *problem)
{
    char text[64];
    int64_t now_s = (int64_t)(moon_world_wall_ms(hub->world) / 1000);
    out->expires_s = tls_time_s(X509_get0_notAfter(x509));
    if (out->host) // one that is over serves until the next is there
        return 0;
    if (out->expires_s < now_s) {
        format_time(X509_get0_notAfter(x509), text);
        return tls_refuse(problem, key, "%s has expired: %s", out->cert.path, text);
    }
    if (tls_time_s(X509_get0_notBefore(x509)) > now_s) {
        format_time(X509_get0_notBefore(x509), text);
        return tls_refuse(problem, key, "%s is not valid before %s", out->cert.path, text);
    }
    return 0;
}

// What the file says serves; one that has expired is no error, it is just not served.
static int check_ocsp(struct moon_tls_hub *hub, struct tls_certificate *certificate, int index,
                      struct moon_tls_problem *problem)
{
    char key[64];
    certificate->proof = tls_proof_get(hub->proofs, certificate->cert.bytes, certificate->cert.path,
                                       certificate->ocsp.path != NULL);
    if (!certificate->has_ocsp || !certificate->proof)
        return 0;
    if (!certificate->ocsp.path) {
        tls_proof_want(certificate->proof);
        return 0;
    }
    const char *wrong = tls_proof_take(certificate->proof, certificate->ocsp.bytes);
    certificate->has_old_ocsp = wrong && strcmp(wrong, "has expired") == 0;
    if (certificate->override_id) // the file is about the certificate that it stands in for
        return 0;
    snprintf(key, sizeof key, "certificates[%d].ocsp", index + 1);
    return wrong && !certificate->has_old_ocsp
               ? tls_refuse(problem, key, "%s %s", certificate->ocsp.path, wrong)
               : 0;
}

// The certificate and its key, together and each for itself. `index` -1: what is given stands under its name.
int tls_certificate_check_in(struct moon_tls_hub *hub, SSL_CTX *context,
                             struct tls_certificate *certificate, int index,
                             struct moon_tls_problem *problem)
{
    char key[64];
    const char *wrong = tls_context_add(context, hub->seats[0], certificate);
    bool is_key = wrong && strncmp(wrong, "key: ", 5) == 0;
    snprintf(key, sizeof key, "certificates[%d].%s", index + 1, is_key ? "key" : "cert");
    if (wrong && index < 0)
        return tls_refuse(problem, key, "what was given for %s: the %s %s", certificate->name,
                          is_key ? "key" : "certificate", is_key ? wrong + 5 : wrong);
    if (wrong)
        return tls_refuse(problem, key, "%s %s",
                          is_key ? certificate->key.path : certificate->cert.path,
                          is_key ? wrong + 5 : wrong);
    X509 *x509 = SSL_CTX_get0_certificate(context);
    certificate->type = EVP_PKEY_get_base_id(X509_get0_pubkey(x509));
    read_names(x509, certificate);
    int err = tls_check_dates(hub, x509, key, certificate, problem);
    return err || index < 0 ? err : check_ocsp(hub, certificate, index, problem);
}

int tls_certificate_check(struct moon_tls_hub *hub, struct tls_certificate *certificate,
                          struct moon_tls_problem *problem)
{
    SSL_CTX *context = SSL_CTX_new_ex(hub->seats[0]->library, NULL, TLS_server_method());
    if (!context)
        abort();
    int err = tls_certificate_check_in(hub, context, certificate, -1, problem);
    SSL_CTX_free(context);
    return err;
}

void tls_certificate_fini(struct tls_certificate *certificate)
{
    OPENSSL_cleanse((char *)certificate->key.bytes.ptr, certificate->key.bytes.len);
    tls_file_fini(&certificate->cert);
    tls_file_fini(&certificate->key);
    tls_file_fini(&certificate->ocsp);
    tls_proof_unref(certificate->proof);
    for (size_t k = 0; k < certificate->name_count; k++)
        free(certificate->names[k]);
    free((void *)certificate->names);
    free(certificate->name);
    free(certificate->host);
}

// ---- reading

static char *duplicate(const char *text)
{
    char *out = strdup(text);
    if (!out)
        abort();
    return out;
}

// In the place of one that is not there, or is worth nothing.
static void put_placeholder(struct moon_tls_hub *hub, struct tls_certificate *certificate)
{
    int64_t now_s = (int64_t)(moon_world_wall_ms(hub->world) / 1000);
    free((char *)certificate->cert.bytes.ptr);
    certificate->is_placeholder = true;
    if (!tls_made_placeholder(certificate->host, now_s, &certificate->cert.bytes))
        abort(); // hosts were checked
}

// The key lies in the same file: what is read belongs together. It is held once more, because either is freed for itself.
static void share_key(struct tls_certificate *certificate)
{
    struct moon_slice bytes = certificate->cert.bytes;
    char *copy = malloc(bytes.len + 1);
    if (!copy)
        abort();
    memcpy(copy, bytes.ptr, bytes.len);
    certificate->key.bytes = (struct moon_slice){copy, bytes.len};
}

static int read_obtained(struct moon_tls_hub *hub, const struct moon_tls_pair *pair,
                         struct tls_certificate *certificate, struct moon_tls_problem *problem)
{
    struct moon_acme_validity validity;
    certificate->host = duplicate(pair->host);
    certificate->name = duplicate(pair->host);
    certificate->has_ocsp = true; // where it names a responder
    int err = tls_file_read(hub, "acme", pair->cert, &certificate->cert, problem);
    const char *wrong =
        err ? NULL
            : moon_acme_inspect(certificate->cert.bytes, moon_slice_from(pair->host), &validity);
    if (wrong)
        err = tls_refuse(problem, "acme", "%s %s", pair->cert, wrong);
    if (err && pair->is_known)
        return err;
    if (err)
        put_placeholder(hub, certificate);
    share_key(certificate);
    return 0;
}

static int read_pair(struct moon_tls_hub *hub, const struct moon_tls_pair *pair, size_t index,
                     struct tls_certificate *out, struct moon_tls_problem *problem)
{
    char key[64];
    out->name = duplicate(pair->name ? pair->name : pair->cert);
    out->has_ocsp = !pair->has_no_ocsp;
    snprintf(key, sizeof key, "certificates[%zu].ocsp", index + 1);
    int err = pair->ocsp ? tls_file_read(hub, key, pair->ocsp, &out->ocsp, problem) : 0;
    if (err)
        return err;
    out->cert.path = duplicate(pair->cert);
    out->key.path = duplicate(pair->key);
    tls_file_stat(pair->cert, &out->cert);
    tls_file_stat(pair->key, &out->key);
    if (tls_override_take(hub->overrides, out))
        return 0;
    tls_file_fini(&out->cert);
    tls_file_fini(&out->key);
    out->key = out->cert = (struct tls_file){.path = NULL};
    snprintf(key, sizeof key, "certificates[%zu].cert", index + 1);
    err = tls_file_read(hub, key, pair->cert, &out->cert, problem);
    snprintf(key, sizeof key, "certificates[%zu].key", index + 1);
    return err ? err : tls_file_read(hub, key, pair->key, &out->key, problem);
}

int tls_certificate_read(struct moon_tls_hub *hub, const struct moon_tls_pair *pair, size_t index,
                         struct tls_certificate *out, struct moon_tls_problem *problem)
{
    return pair->host ? read_obtained(hub, pair, out, problem)
                      : read_pair(hub, pair, index, out, problem);
}

bool tls_certificate_is_read(struct moon_tls_hub *hub, const struct tls_certificate *certificate)
{
    return tls_file_is_fresh(&certificate->cert) && tls_file_is_fresh(&certificate->key) &&
           tls_file_is_fresh(&certificate->ocsp) &&
           (certificate->host || // obtained: nothing is given in its place
            tls_override_find(hub->overrides, certificate) == certificate->override_id);
}
