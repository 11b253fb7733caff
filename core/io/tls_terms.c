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

enum { DEPTH = 4 };

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
        err =
            tls_certificate_check_in(terms->hub, context, &terms->certificates[i], (int)i, problem);
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

static int read_files(struct moon_tls_terms *terms, const struct moon_tls_options *options,
                      struct moon_tls_problem *problem)
{
    int err = 0;
    for (size_t i = 0; i < options->pair_count && !err; i++) {
        struct tls_certificate *certificate = &terms->certificates[terms->certificate_count++];
        err = tls_certificate_read(terms->hub, &options->pairs[i], i, certificate, problem);
    }
    if (!err && options->ca)
        err = tls_file_read_all(terms->hub, "client.ca", options->ca, false, &terms->ca, problem);
    if (!err && options->crl)
        err = tls_file_read_all(terms->hub, "client.crl", options->crl, true, &terms->crl, problem);
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

bool tls_terms_are_read(const struct moon_tls_terms *terms)
{
    for (size_t i = 0; i < terms->certificate_count; i++)
        if (!tls_certificate_is_read(terms->hub, &terms->certificates[i]))
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
