// See tls.h. What the files hold is read once, checked with OpenSSL, and kept as PEM: each worker parses it for its own library.
#include "base/err.h"
#include "io/tls_priv.h"
#include "io/world.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { FILE_MAX_LEN = 4 << 20, DEPTH = 4 };

// With forward secrecy and AEAD; the rest of TLS 1.2 is history (RFC 9325).
const char tls_ciphers[] =
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";
// The shorter key and digest first: as safe as the rest, and cheaper.
const char tls_suites[] =
    "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";
const char tls_groups[] = "X25519:P-256:P-384";

int tls_refuse(struct moon_tls_problem *problem, const char *path, const char *format, ...)
{
    va_list args;
    snprintf(problem->path, sizeof problem->path, "%s", path);
    va_start(args, format);
    vsnprintf(problem->text, sizeof problem->text, format, args);
    va_end(args);
    ERR_clear_error();
    return MOON_ECONFIG;
}

// What OpenSSL says last of all.
static const char *reason(void)
{
    const char *text = ERR_reason_error_string(ERR_peek_last_error());
    return text ? text : "OpenSSL does not say why";
}

// ---- files

static void stat_file(const char *path, struct tls_file *out)
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
    stat_file(file->path, &now);
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
    stat_file(path, out);
    int err = moon_world_read_file(hub->world, path, FILE_MAX_LEN, &text, &len);
    if (err)
        return tls_refuse(problem, key, "cannot read %s: %s", path, moon_err_text(err));
    out->bytes = (struct moon_slice){text, len};
    return 0;
}

void tls_file_fini(struct tls_file *file)
{
    free((char *)file->bytes.ptr);
    free(file->path);
}

static BIO *bio_of(const struct tls_file *file)
{
    BIO *bio = BIO_new_mem_buf(file->bytes.ptr, (int)file->bytes.len);
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

static X509 *read_certificate(BIO *bio, OSSL_LIB_CTX *library)
{
    bool was_asked = false;
    X509 *certificate = X509_new_ex(library, NULL);
    if (certificate && !PEM_read_bio_X509(bio, &certificate, no_passphrase, &was_asked)) {
        X509_free(certificate);
        return NULL;
    }
    return certificate;
}

static X509_CRL *read_crl(BIO *bio, OSSL_LIB_CTX *library)
{
    bool was_asked = false;
    X509_CRL *crl = X509_CRL_new_ex(library, NULL);
    if (crl && !PEM_read_bio_X509_CRL(bio, &crl, no_passphrase, &was_asked)) {
        X509_CRL_free(crl);
        return NULL;
    }
    return crl;
}

static EVP_PKEY *read_key(const struct tls_file *file, OSSL_LIB_CTX *library, bool *is_encrypted)
{
    BIO *bio = bio_of(file);
    *is_encrypted = false;
    EVP_PKEY *key =
        PEM_read_bio_PrivateKey_ex(bio, NULL, no_passphrase, is_encrypted, library, NULL);
    BIO_free(bio);
    return key;
}

// ---- certificates

const char *tls_context_add(SSL_CTX *context, const struct tls_seat *seat,
                            const struct tls_certificate *certificate)
{
    OSSL_LIB_CTX *library = seat->library;
    const char *problem = "holds no certificate in PEM";
    bool is_encrypted = false;
    STACK_OF(X509) *chain = sk_X509_new_null();
    BIO *bio = bio_of(&certificate->cert);
    X509 *own = read_certificate(bio, library), *next;
    EVP_PKEY *key = NULL;
    if (!own)
        goto fail;
    while ((next = read_certificate(bio, library)) != NULL)
        if (!sk_X509_push(chain, next))
            abort();
    key = read_key(&certificate->key, library, &is_encrypted);
    problem = is_encrypted ? "key: is encrypted; a key without a passphrase is needed"
                           : "key: holds no private key in PEM";
    if (!key)
        goto fail;
    problem = "key: does not belong to the certificate";
    if (!X509_check_private_key(own, key))
        goto fail;
    problem = SSL_CTX_use_cert_and_key(context, own, key, chain, 1) ? NULL : reason();
fail:
    sk_X509_pop_free(chain, X509_free);
    X509_free(own);
    EVP_PKEY_free(key);
    BIO_free(bio);
    ERR_clear_error();
    return problem;
}

static void add_name(struct tls_certificate *out, const unsigned char *text, int len)
{
    if (len <= 0 || len > TLS_SNI_MAX_LEN || memchr(text, '\0', (size_t)len))
        return;
    out->names = realloc((void *)out->names, (out->name_count + 1) * sizeof *out->names);
    char *name = strndup((const char *)text, (size_t)len);
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

static int64_t seconds_of(const ASN1_TIME *time)
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
    out->expires_s = seconds_of(X509_get0_notAfter(x509));
    if (out->expires_s < now_s) {
        format_time(X509_get0_notAfter(x509), text);
        return tls_refuse(problem, key, "%s has expired: %s", out->cert.path, text);
    }
    if (seconds_of(X509_get0_notBefore(x509)) > now_s) {
        format_time(X509_get0_notBefore(x509), text);
        return tls_refuse(problem, key, "%s is not valid before %s", out->cert.path, text);
    }
    return 0;
}

// The certificate and its key, together and each for itself.
static int check_certificate(struct moon_tls_terms *terms, SSL_CTX *context, size_t index,
                             struct moon_tls_problem *problem)
{
    struct tls_certificate *certificate = &terms->certificates[index];
    char key[64];
    const char *wrong = tls_context_add(context, terms->hub->seats[0], certificate);
    bool is_key = wrong && strncmp(wrong, "key: ", 5) == 0;
    snprintf(key, sizeof key, "certificates[%zu].%s", index + 1, is_key ? "key" : "cert");
    if (wrong)
        return tls_refuse(problem, key, "%s %s",
                          is_key ? certificate->key.path : certificate->cert.path,
                          is_key ? wrong + 5 : wrong);
    X509 *x509 = SSL_CTX_get0_certificate(context);
    certificate->type = EVP_PKEY_get_base_id(X509_get0_pubkey(x509));
    read_names(x509, certificate);
    return tls_check_dates(terms->hub, x509, key, certificate, problem);
}

// ---- clients' certificates

size_t tls_store_add(X509_STORE *store, const struct tls_file *file, struct tls_seat *seat,
                     STACK_OF(X509_NAME) * names)
{
    BIO *bio = bio_of(file);
    X509 *ca;
    size_t count = 0;
    while ((ca = read_certificate(bio, seat->library)) != NULL) {
        X509_NAME *name = names ? X509_NAME_dup(X509_get_subject_name(ca)) : NULL;
        if (!X509_STORE_add_cert(store, ca) || (names && !sk_X509_NAME_push(names, name)))
            abort();
        X509_free(ca);
        count++;
    }
    BIO_free(bio);
    ERR_clear_error(); // the end of a file is one
    return count;
}

size_t tls_store_add_crls(X509_STORE *store, const struct tls_file *file, struct tls_seat *seat)
{
    BIO *bio = bio_of(file);
    X509_CRL *crl;
    size_t count = 0;
    for (; (crl = read_crl(bio, seat->library)) != NULL; count++) {
        X509_STORE_add_crl(store, crl);
        X509_CRL_free(crl);
    }
    // Of one CA, what it has signed itself; of several, the whole chain.
    X509_STORE_set_flags(store,
                         X509_V_FLAG_CRL_CHECK | (count > 1 ? X509_V_FLAG_CRL_CHECK_ALL : 0));
    BIO_free(bio);
    ERR_clear_error();
    return count;
}

// NULL, or the option whose file is no good.
static const char *use_clients(SSL_CTX *context, const struct moon_tls_terms *terms,
                               struct tls_seat *seat)
{
    if (terms->verify == MOON_TLS_VERIFY_NONE)
        return NULL;
    STACK_OF(X509_NAME) *names = sk_X509_NAME_new_null();
    X509_STORE *store = X509_STORE_new();
    if (!names || !store)
        abort();
    const char *wrong = tls_store_add(store, &terms->ca, seat, names) ? NULL : "ca";
    if (terms->crl.path && !tls_store_add_crls(store, &terms->crl, seat))
        wrong = wrong ? wrong : "crl";
    SSL_CTX_set1_verify_cert_store(context, store);
    SSL_CTX_set_client_CA_list(context, names);
    SSL_CTX_set_verify_depth(context, (int)terms->depth);
    SSL_CTX_set_verify(
        context,
        SSL_VERIFY_PEER |
            (terms->verify == MOON_TLS_VERIFY_REQUIRED ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0),
        NULL);
    X509_STORE_free(store);
    return wrong;
}

// ---- contexts

SSL_CTX *tls_context_new(const struct moon_tls_terms *terms, struct tls_seat *seat)
{
    SSL_CTX *context = SSL_CTX_new_ex(seat->library, NULL, TLS_server_method());
    if (!context)
        return NULL;
    SSL_CTX_set_options(context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION |
                                     SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                                  SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_clear_mode(context, SSL_MODE_AUTO_RETRY); // records of others are counted
    SSL_CTX_set_read_ahead(context, 1);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_session_id_context(context, terms->id, sizeof terms->id);
    if (!SSL_CTX_set_min_proto_version(context, terms->min_version) ||
        !SSL_CTX_set_max_proto_version(context, terms->max_version) ||
        !SSL_CTX_set_ciphersuites(context, tls_suites) ||
        !SSL_CTX_set1_groups_list(context, tls_groups) ||
        !SSL_CTX_set_cipher_list(context, terms->ciphers) || use_clients(context, terms, seat)) {
        SSL_CTX_free(context);
        return NULL;
    }
    if (terms->has_tickets)
        tls_tickets_use(context);
    else
        SSL_CTX_set_options(context, SSL_OP_NO_TICKET);
    SSL_CTX_set_num_tickets(context, terms->has_tickets ? 2 : 0);
    return context;
}

// Makes everything once, in the first worker's library, to see whether it can be made.
static int check(struct moon_tls_terms *terms, struct moon_tls_problem *problem)
{
    struct tls_seat *seat = terms->hub->seats[0];
    int err = 0;
    SSL_CTX *context = SSL_CTX_new_ex(seat->library, NULL, TLS_server_method());
    if (!context)
        abort();
    if (!SSL_CTX_set_cipher_list(context, terms->ciphers))
        err = tls_refuse(problem, "ciphers", "OpenSSL knows none of \"%s\"", terms->ciphers);
    const char *wrong = err ? NULL : use_clients(context, terms, seat);
    if (wrong && strcmp(wrong, "ca") == 0)
        err = tls_refuse(problem, "client.ca", "%s holds no certificate in PEM", terms->ca.path);
    else if (wrong)
        err = tls_refuse(problem, "client.crl", "%s holds no CRL in PEM", terms->crl.path);
    for (size_t i = 0; i < terms->certificate_count && !err; i++)
        err = check_certificate(terms, context, i, problem);
    SSL_CTX_free(context);
    return err;
}

// ---- terms

int tls_version(int version, int absent)
{
    return version == MOON_TLS_1_2   ? TLS1_2_VERSION
           : version == MOON_TLS_1_3 ? TLS1_3_VERSION
                                     : absent;
}

static void make_id(struct moon_tls_terms *terms)
{
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    unsigned facts[] = {(unsigned)terms->verify, terms->depth};
    if (!digest || !EVP_DigestInit_ex(digest, EVP_sha256(), NULL))
        abort();
    EVP_DigestUpdate(digest, terms->hostname, strlen(terms->hostname) + 1);
    EVP_DigestUpdate(digest, facts, sizeof facts);
    if (terms->verify != MOON_TLS_VERIFY_NONE) {
        EVP_DigestUpdate(digest, &terms->ca.bytes.len, sizeof terms->ca.bytes.len);
        EVP_DigestUpdate(digest, terms->ca.bytes.ptr, terms->ca.bytes.len);
        EVP_DigestUpdate(digest, terms->crl.bytes.ptr, terms->crl.bytes.len);
    }
    EVP_DigestFinal_ex(digest, terms->id, NULL);
    EVP_MD_CTX_free(digest);
}

static int read_files(struct moon_tls_terms *terms, const struct moon_tls_options *options,
                      struct moon_tls_problem *problem)
{
    char key[64];
    int err = 0;
    for (size_t i = 0; i < options->pair_count && !err; i++) {
        struct tls_certificate *certificate = &terms->certificates[terms->certificate_count++];
        snprintf(key, sizeof key, "certificates[%zu].cert", i + 1);
        err = tls_file_read(terms->hub, key, options->pairs[i].cert, &certificate->cert, problem);
        snprintf(key, sizeof key, "certificates[%zu].key", i + 1);
        if (!err)
            err = tls_file_read(terms->hub, key, options->pairs[i].key, &certificate->key, problem);
    }
    if (!err && options->ca)
        err = tls_file_read(terms->hub, "client.ca", options->ca, &terms->ca, problem);
    if (!err && options->crl)
        err = tls_file_read(terms->hub, "client.crl", options->crl, &terms->crl, problem);
    return err;
}

int moon_tls_terms_load(struct moon_tls_hub *hub, const struct moon_tls_options *options,
                        struct moon_tls_problem *problem, struct moon_tls_terms **out)
{
    struct moon_tls_terms *terms = calloc(1, sizeof *terms);
    struct tls_certificate *certificates = calloc(options->pair_count + 1, sizeof *certificates);
    if (!terms || !certificates)
        abort();
    tls_hub_fill(hub);
    atomic_init(&terms->ref_count, 1);
    terms->hub = hub;
    terms->certificates = certificates;
    terms->hostname =
        strndup(options->hostname.len ? options->hostname.ptr : "", options->hostname.len);
    terms->min_version = tls_version(options->min_version, TLS1_2_VERSION);
    terms->max_version = tls_version(options->max_version, TLS1_3_VERSION);
    terms->ciphers = strdup(options->ciphers ? options->ciphers : tls_ciphers);
    terms->has_tickets = options->has_tickets;
    terms->verify = options->verify;
    terms->depth = options->depth ? options->depth : DEPTH;
    int err = read_files(terms, options, problem);
    make_id(terms);
    if (!err)
        err = check(terms, problem);
    if (err)
        moon_tls_terms_unref(terms);
    else
        *out = terms;
    return err;
}

int tls_terms_reload(const struct moon_tls_terms *terms, struct moon_tls_problem *problem,
                     struct moon_tls_terms **out)
{
    struct moon_tls_pair *pairs = calloc(terms->certificate_count + 1, sizeof *pairs);
    if (!pairs)
        abort();
    for (size_t i = 0; i < terms->certificate_count; i++)
        pairs[i] = (struct moon_tls_pair){terms->certificates[i].cert.path,
                                          terms->certificates[i].key.path};
    struct moon_tls_options options = {
        .hostname = moon_slice_from(terms->hostname),
        .pairs = pairs,
        .pair_count = terms->certificate_count,
        .min_version = terms->min_version == TLS1_3_VERSION ? MOON_TLS_1_3 : MOON_TLS_1_2,
        .max_version = terms->max_version == TLS1_2_VERSION ? MOON_TLS_1_2 : MOON_TLS_1_3,
        .ciphers = terms->ciphers,
        .has_tickets = terms->has_tickets,
        .verify = terms->verify,
        .ca = terms->ca.path,
        .crl = terms->crl.path,
        .depth = terms->depth};
    int err = moon_tls_terms_load(terms->hub, &options, problem, out);
    free(pairs);
    return err;
}

struct moon_tls_terms *moon_tls_terms_ref(struct moon_tls_terms *terms)
{
    atomic_fetch_add_explicit(&terms->ref_count, 1, memory_order_relaxed);
    return terms;
}

void moon_tls_terms_unref(struct moon_tls_terms *terms)
{
    if (!terms || atomic_fetch_sub_explicit(&terms->ref_count, 1, memory_order_acq_rel) > 1)
        return;
    for (size_t i = 0; i < terms->certificate_count; i++) {
        struct tls_certificate *certificate = &terms->certificates[i];
        OPENSSL_cleanse((char *)certificate->key.bytes.ptr, certificate->key.bytes.len);
        tls_file_fini(&certificate->cert);
        tls_file_fini(&certificate->key);
        for (size_t k = 0; k < certificate->name_count; k++)
            free(certificate->names[k]);
        free((void *)certificate->names);
    }
    tls_file_fini(&terms->ca);
    tls_file_fini(&terms->crl);
    free(terms->certificates);
    free(terms->hostname);
    free(terms->ciphers);
    free(terms);
}

bool tls_terms_are_read(const struct moon_tls_terms *terms)
{
    for (size_t i = 0; i < terms->certificate_count; i++)
        if (!tls_file_is_fresh(&terms->certificates[i].cert) ||
            !tls_file_is_fresh(&terms->certificates[i].key))
            return false;
    return tls_file_is_fresh(&terms->ca) && tls_file_is_fresh(&terms->crl);
}

bool moon_tls_terms_are_fresh(const struct moon_tls_terms *terms)
{
    int64_t now_s = (int64_t)(moon_world_wall_ms(terms->hub->world) / 1000);
    for (size_t i = 0; i < terms->certificate_count; i++)
        if (terms->certificates[i].expires_s < now_s)
            return false;
    return tls_terms_are_read(terms);
}

const uint8_t *moon_tls_terms_id(const struct moon_tls_terms *terms)
{
    return terms->id;
}

bool moon_tls_terms_verify(const struct moon_tls_terms *terms)
{
    return terms->verify != MOON_TLS_VERIFY_NONE;
}
