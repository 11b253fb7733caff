// See tls.h. What the files hold is read once, checked with OpenSSL, and kept as PEM: each worker parses it for its own library.
#include "base/err.h"
#include "io/acme_crypto.h"
#include "io/tls_priv.h"

#include <errno.h>
#include <openssl/err.h>
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
static int check_certificate(struct moon_tls_hub *hub, SSL_CTX *context,
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
    int err = check_certificate(hub, context, certificate, -1, problem);
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

// ---- clients' certificates

size_t tls_store_add(X509_STORE *store, const struct tls_file *file, struct tls_seat *seat,
                     STACK_OF(X509_NAME) * names)
{
    BIO *bio = tls_pem_open(file->bytes);
    X509 *ca;
    size_t count = 0;
    while ((ca = tls_pem_certificate(bio, seat->library)) != NULL) {
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
    BIO *bio = tls_pem_open(file->bytes);
    X509_CRL *crl;
    size_t count = 0;
    for (; (crl = tls_pem_crl(bio, seat->library)) != NULL; count++) {
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
        err = check_certificate(terms->hub, context, &terms->certificates[i], (int)i, problem);
    SSL_CTX_free(context);
    return err;
}

// ---- lineage

struct tls_id {
    struct tls_id *before;
    uint8_t bytes[MOON_TLS_ID_LEN];
};

// Ids are kept as long as somebody may compare with them; there is one for each change of CAs or CRLs.
struct tls_lineage {
    atomic_uint ref_count;
    _Atomic(struct tls_id *) current;
};

static struct tls_lineage *lineage_new(void)
{
    struct tls_lineage *lineage = calloc(1, sizeof *lineage);
    if (!lineage)
        abort();
    atomic_init(&lineage->ref_count, 1);
    return lineage;
}

static struct tls_lineage *lineage_ref(struct tls_lineage *lineage)
{
    atomic_fetch_add_explicit(&lineage->ref_count, 1, memory_order_relaxed);
    return lineage;
}

static void lineage_unref(struct tls_lineage *lineage)
{
    if (!lineage || atomic_fetch_sub_explicit(&lineage->ref_count, 1, memory_order_acq_rel) > 1)
        return;
    for (struct tls_id *at = atomic_load(&lineage->current), *before; at; at = before) {
        before = at->before;
        free(at);
    }
    free(lineage);
}

void tls_terms_prevail(const struct moon_tls_terms *terms)
{
    struct tls_lineage *lineage = terms->lineage;
    struct tls_id *now = atomic_load(&lineage->current);
    if (now && memcmp(now->bytes, terms->id, sizeof terms->id) == 0)
        return;
    struct tls_id *id = calloc(1, sizeof *id);
    if (!id)
        abort();
    memcpy(id->bytes, terms->id, sizeof id->bytes);
    id->before = now;
    atomic_store_explicit(&lineage->current, id, memory_order_release);
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

static char *duplicate(const char *text)
{
    char *out = strdup(text);
    if (!out)
        abort();
    return out;
}

// In the place of one that is not there, or is worth nothing.
static void put_placeholder(struct moon_tls_terms *terms, struct tls_certificate *certificate)
{
    int64_t now_s = (int64_t)(moon_world_wall_ms(terms->hub->world) / 1000);
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

static int read_obtained(struct moon_tls_terms *terms, const struct moon_tls_pair *pair,
                         struct tls_certificate *certificate, struct moon_tls_problem *problem)
{
    struct moon_acme_validity validity;
    certificate->host = duplicate(pair->host);
    certificate->name = duplicate(pair->host);
    certificate->has_ocsp = true; // where it names a responder
    int err = tls_file_read(terms->hub, "acme", pair->cert, &certificate->cert, problem);
    const char *wrong =
        err ? NULL
            : moon_acme_inspect(certificate->cert.bytes, moon_slice_from(pair->host), &validity);
    if (wrong)
        err = tls_refuse(problem, "acme", "%s %s", pair->cert, wrong);
    if (err && pair->is_known)
        return err;
    if (err)
        put_placeholder(terms, certificate);
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

static int read_files(struct moon_tls_terms *terms, const struct moon_tls_options *options,
                      struct moon_tls_problem *problem)
{
    int err = 0;
    for (size_t i = 0; i < options->pair_count && !err; i++) {
        struct tls_certificate *certificate = &terms->certificates[terms->certificate_count++];
        err = options->pairs[i].host
                  ? read_obtained(terms, &options->pairs[i], certificate, problem)
                  : read_pair(terms->hub, &options->pairs[i], i, certificate, problem);
    }
    if (!err && options->ca)
        err = tls_file_read(terms->hub, "client.ca", options->ca, &terms->ca, problem);
    if (!err && options->crl)
        err = tls_file_read(terms->hub, "client.crl", options->crl, &terms->crl, problem);
    return err;
}

// Takes the reference to the lineage.
static int load(struct moon_tls_hub *hub, const struct moon_tls_options *options,
                struct tls_lineage *lineage, struct moon_tls_problem *problem,
                struct moon_tls_terms **out)
{
    struct moon_tls_terms *terms = calloc(1, sizeof *terms);
    struct tls_certificate *certificates = calloc(options->pair_count + 1, sizeof *certificates);
    if (!terms || !certificates)
        abort();
    tls_hub_fill(hub);
    atomic_init(&terms->ref_count, 1);
    terms->hub = hub;
    terms->lineage = lineage;
    terms->certificates = certificates;
    terms->hostname = moon_slice_dup(options->hostname);
    terms->min_version = tls_version(options->min_version, TLS1_2_VERSION);
    terms->max_version = tls_version(options->max_version, TLS1_3_VERSION);
    terms->ciphers = strdup(options->ciphers ? options->ciphers : tls_ciphers);
    terms->has_tickets = options->has_tickets;
    terms->is_opaque = options->is_opaque;
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

int moon_tls_terms_load(struct moon_tls_hub *hub, const struct moon_tls_options *options,
                        struct moon_tls_problem *problem, struct moon_tls_terms **out)
{
    int err = load(hub, options, lineage_new(), problem, out);
    if (!err)
        tls_terms_prevail(*out);
    return err;
}

int tls_terms_reload(const struct moon_tls_terms *terms, struct moon_tls_problem *problem,
                     struct moon_tls_terms **out)
{
    struct moon_tls_pair *pairs = calloc(terms->certificate_count + 1, sizeof *pairs);
    if (!pairs)
        abort();
    for (size_t i = 0; i < terms->certificate_count; i++)
        pairs[i] = (struct moon_tls_pair){.cert = terms->certificates[i].cert.path,
                                          .key = terms->certificates[i].key.path,
                                          .host = terms->certificates[i].host,
                                          .is_known = !terms->certificates[i].is_placeholder,
                                          .name = terms->certificates[i].name,
                                          .ocsp = terms->certificates[i].ocsp.path,
                                          .has_no_ocsp = !terms->certificates[i].has_ocsp};
    struct moon_tls_options options = {
        .hostname = moon_slice_from(terms->hostname),
        .pairs = pairs,
        .pair_count = terms->certificate_count,
        .min_version = terms->min_version == TLS1_3_VERSION ? MOON_TLS_1_3 : MOON_TLS_1_2,
        .max_version = terms->max_version == TLS1_2_VERSION ? MOON_TLS_1_2 : MOON_TLS_1_3,
        .ciphers = terms->ciphers,
        .has_tickets = terms->has_tickets,
        .is_opaque = terms->is_opaque,
        .verify = terms->verify,
        .ca = terms->ca.path,
        .crl = terms->crl.path,
        .depth = terms->depth};
    int err = load(terms->hub, &options, lineage_ref(terms->lineage), problem, out);
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
    for (size_t i = 0; i < terms->certificate_count; i++)
        tls_certificate_fini(&terms->certificates[i]);
    lineage_unref(terms->lineage);
    tls_file_fini(&terms->ca);
    tls_file_fini(&terms->crl);
    free(terms->certificates);
    free(terms->hostname);
    free(terms->ciphers);
    free(terms);
}

static bool is_read(struct moon_tls_hub *hub, const struct tls_certificate *certificate)
{
    return tls_file_is_fresh(&certificate->cert) && tls_file_is_fresh(&certificate->key) &&
           tls_file_is_fresh(&certificate->ocsp) &&
           (certificate->host || // obtained: nothing is given in its place
            tls_override_find(hub->overrides, certificate) == certificate->override_id);
}

bool tls_terms_are_read(const struct moon_tls_terms *terms)
{
    for (size_t i = 0; i < terms->certificate_count; i++)
        if (!is_read(terms->hub, &terms->certificates[i]))
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
    return atomic_load_explicit(&terms->lineage->current, memory_order_acquire)->bytes;
}

bool moon_tls_terms_verify(const struct moon_tls_terms *terms)
{
    return terms->verify != MOON_TLS_VERIFY_NONE;
}

const char *moon_tls_terms_warning(const struct moon_tls_terms *terms, size_t index)
{
    const struct tls_certificate *certificate = &terms->certificates[index];
    if (certificate->has_old_ocsp)
        return "the OCSP response in the file has expired: it is not served";
    return tls_proof_warning(certificate->proof, certificate->has_ocsp,
                             certificate->ocsp.path != NULL);
}
