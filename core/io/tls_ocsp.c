// OCSP (RFC 6960): what says that a certificate is not revoked, stapled to handshakes whose client asks for it (RFC 6066 8). It comes
// out of a file, or from the responder that the certificate names, and serves when its issuer vouches for it and it says "good".
//
//   builder: certificate -> proof (one for each certificate, by its digest; empty)
//   control: due -> question -> answer --good--> staple in the proof, next one due half its time later
//                                      --no----> the old one serves until its time is over; asked again, ever more rarely
//   worker:  client asks -> its view of the proof, renewed where its version has changed -> stapled, if its time is not over
//
// Invariant: a staple never changes; a proof's lock is taken by a worker only when there is a new one.
#include "base/err.h"
#include "io/tls_priv.h"
#include "io/world.h"

#include <openssl/err.h>
#include <openssl/ocsp.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

enum { SKEW_S = 300, OPEN_END_S = 3600, REFRESH_MIN_S = 5, RETRY_MIN_S = 2, RETRY_MAX_S = 3600 };
enum { URL_MAX_LEN = 1024 };

struct tls_staple {
    atomic_uint ref_count;
    int64_t end_s; // not served from then on
    size_t len;
    unsigned char der[];
};

struct tls_proof {
    atomic_uint ref_count;
    struct moon_list node; // of the proofs, under their lock
    struct tls_proofs *proofs;
    uint8_t digest[TLS_DIGEST_LEN];
    // of those that can have a staple; NULL: it is not in the file. Under the proofs' lock
    X509 *issuer;
    OCSP_CERTID *id;
    char *url; // of its responder; NULL: it names none
    bool must_staple;
    char name[128];
    // what workers take
    pthread_mutex_t lock;
    atomic_uint version;
    struct tls_staple *staple; // NULL: none
    // control's
    atomic_bool is_wanted; // somebody has it fetched
    bool is_asked;
    int64_t due_s;
    unsigned fail_count;
    char problem[200]; // "": none
};

struct tls_proofs {
    struct moon_world *world;
    pthread_mutex_t lock;
    struct moon_list list;
};

static int64_t now_s(const struct tls_proofs *proofs)
{
    return (int64_t)(moon_world_wall_ms(proofs->world) / 1000);
}

// ---- staples

static void staple_unref(struct tls_staple *staple)
{
    if (staple && atomic_fetch_sub_explicit(&staple->ref_count, 1, memory_order_acq_rel) == 1)
        free(staple);
}

static struct tls_staple *staple_new(struct moon_slice der, int64_t end_s)
{
    struct tls_staple *staple = malloc(sizeof *staple + der.len);
    if (!staple)
        abort();
    atomic_init(&staple->ref_count, 1);
    staple->end_s = end_s;
    staple->len = der.len;
    memcpy(staple->der, der.ptr, der.len);
    return staple;
}

// Takes the reference.
static void set_staple(struct tls_proof *proof, struct tls_staple *staple)
{
    pthread_mutex_lock(&proof->lock);
    struct tls_staple *before = proof->staple;
    proof->staple = staple;
    atomic_fetch_add_explicit(&proof->version, 1, memory_order_release);
    pthread_mutex_unlock(&proof->lock);
    staple_unref(before);
}

// ---- proofs

struct tls_proofs *tls_proofs_new(struct moon_world *world)
{
    struct tls_proofs *proofs = calloc(1, sizeof *proofs);
    if (!proofs)
        abort();
    proofs->world = world;
    pthread_mutex_init(&proofs->lock, NULL);
    moon_list_init(&proofs->list);
    return proofs;
}

void tls_proofs_free(struct tls_proofs *proofs)
{
    pthread_mutex_destroy(&proofs->lock);
    free(proofs);
}

static void proof_free(struct tls_proof *proof)
{
    X509_free(proof->issuer);
    OCSP_CERTID_free(proof->id);
    staple_unref(proof->staple);
    pthread_mutex_destroy(&proof->lock);
    free(proof->url);
    free(proof);
}

void tls_proof_unref(struct tls_proof *proof)
{
    if (!proof)
        return;
    struct tls_proofs *proofs = proof->proofs;
    pthread_mutex_lock(&proofs->lock); // nobody finds it meanwhile
    bool is_last = atomic_fetch_sub_explicit(&proof->ref_count, 1, memory_order_acq_rel) == 1;
    if (is_last)
        moon_list_del(&proof->node);
    pthread_mutex_unlock(&proofs->lock);
    if (is_last)
        proof_free(proof);
}

static bool asks_for_staples(X509 *x509)
{
    TLS_FEATURE *features = X509_get_ext_d2i(x509, NID_tlsfeature, NULL, NULL);
    bool found = false;
    for (int i = 0; i < sk_ASN1_INTEGER_num(features); i++)
        found |= ASN1_INTEGER_get(sk_ASN1_INTEGER_value(features, i)) == TLSEXT_TYPE_status_request;
    sk_ASN1_INTEGER_pop_free(features, ASN1_INTEGER_free);
    return found;
}

static char *responder_of(X509 *x509)
{
    STACK_OF(OPENSSL_STRING) *urls = X509_get1_ocsp(x509);
    char *url = NULL;
    for (int i = 0; i < sk_OPENSSL_STRING_num(urls) && !url; i++) {
        const char *at = sk_OPENSSL_STRING_value(urls, i);
        bool is_http = strncmp(at, "http://", 7) == 0 || strncmp(at, "https://", 8) == 0;
        if (is_http && strlen(at) <= URL_MAX_LEN)
            url = strdup(at);
    }
    X509_email_free(urls);
    return url;
}

// The issuer stands behind its certificate.
static void read_chain(struct tls_proof *proof, BIO *bio, X509 *own)
{
    X509 *next;
    while (!proof->issuer && (next = tls_pem_certificate(bio, NULL)) != NULL) {
        if (X509_check_issued(next, own) == X509_V_OK)
            proof->issuer = next;
        else
            X509_free(next);
    }
    if (proof->issuer)
        proof->id = OCSP_cert_to_id(NULL, own, proof->issuer);
}

static struct tls_proof *proof_new(struct tls_proofs *proofs, X509 *own,
                                   const uint8_t digest[TLS_DIGEST_LEN], const char *name)
{
    struct tls_proof *proof = calloc(1, sizeof *proof);
    if (!proof)
        abort();
    atomic_init(&proof->ref_count, 1);
    memcpy(proof->digest, digest, sizeof proof->digest);
    snprintf(proof->name, sizeof proof->name, "%s", name);
    pthread_mutex_init(&proof->lock, NULL);
    proof->proofs = proofs;
    proof->must_staple = asks_for_staples(own);
    proof->url = responder_of(own);
    moon_list_add_before(&proofs->list, &proof->node);
    return proof;
}

static struct tls_proof *find(const struct tls_proofs *proofs, const uint8_t digest[TLS_DIGEST_LEN])
{
    for (struct moon_list *at = proofs->list.next; at != &proofs->list; at = at->next) {
        struct tls_proof *proof = MOON_CONTAINER(at, struct tls_proof, node);
        if (memcmp(proof->digest, digest, TLS_DIGEST_LEN) == 0)
            return proof;
    }
    return NULL;
}

struct tls_proof *tls_proof_get(struct tls_proofs *proofs, struct moon_slice pem, const char *name,
                                bool has_file)
{
    BIO *bio = tls_pem_open(pem);
    X509 *own = tls_pem_certificate(bio, NULL);
    uint8_t digest[EVP_MAX_MD_SIZE];
    struct tls_proof *proof = NULL;
    if (!own || !X509_digest(own, EVP_sha256(), digest, NULL))
        goto fail;
    pthread_mutex_lock(&proofs->lock);
    proof = find(proofs, digest);
    if (proof)
        atomic_fetch_add_explicit(&proof->ref_count, 1, memory_order_relaxed);
    else
        proof = proof_new(proofs, own, digest, name);
    if (!proof->issuer && (has_file || proof->url))
        read_chain(proof, bio, own);
    pthread_mutex_unlock(&proofs->lock);
fail:
    X509_free(own);
    BIO_free(bio);
    ERR_clear_error();
    return proof;
}

const char *tls_proof_warning(const struct tls_proof *proof, bool is_fetched, bool has_file)
{
    if (!proof || !proof->must_staple || has_file)
        return NULL;
    if (!is_fetched)
        return "asks for OCSP stapling (must-staple), and `ocsp` says that there is none: clients "
               "will refuse it";
    if (!proof->url)
        return "asks for OCSP stapling (must-staple), and names no responder: clients will refuse "
               "it without `ocsp`";
    return proof->issuer ? NULL
                         : "asks for OCSP stapling (must-staple), and its issuer's certificate is "
                           "not behind it in the file: nothing can be asked for it";
}

void tls_proof_want(struct tls_proof *proof)
{
    atomic_store(&proof->is_wanted, true);
}

// ---- judging answers

static const char *judge_status(const struct tls_proof *proof, OCSP_BASICRESP *basic,
                                int64_t *begin_s, int64_t *end_s)
{
    int status, reason;
    ASN1_GENERALIZEDTIME *begin, *end;
    if (!OCSP_resp_find_status(basic, proof->id, &status, &reason, NULL, &begin, &end))
        return "is not about this certificate";
    if (status != V_OCSP_CERTSTATUS_GOOD)
        return status == V_OCSP_CERTSTATUS_REVOKED ? "says that the certificate is revoked"
                                                   : "does not know the certificate";
    int64_t now = now_s(proof->proofs);
    *begin_s = begin ? tls_time_s(begin) : now;
    *end_s = end ? tls_time_s(end) : now + OPEN_END_S; // there is always something newer
    if (*begin_s > now + SKEW_S)
        return "is of the future";
    return *end_s <= now ? "has expired" : NULL;
}

// Whether the issuer, or whom it has told to, has signed it.
static bool is_signed(const struct tls_proof *proof, OCSP_BASICRESP *basic)
{
    X509_STORE *store = X509_STORE_new();
    STACK_OF(X509) *certificates = sk_X509_new_null();
    if (!store || !certificates || !sk_X509_push(certificates, proof->issuer) ||
        !X509_STORE_add_cert(store, proof->issuer))
        abort();
    X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN);
    X509_VERIFY_PARAM_set_time(X509_STORE_get0_param(store), (time_t)now_s(proof->proofs));
    bool is_fine = OCSP_basic_verify(basic, certificates, store, 0) == 1;
    sk_X509_free(certificates);
    X509_STORE_free(store);
    return is_fine;
}

// NULL and a staple, or why not, static.
static const char *judge(const struct tls_proof *proof, struct moon_slice der,
                         struct tls_staple **out, int64_t *begin_s)
{
    const unsigned char *at = (const unsigned char *)der.ptr;
    OCSP_BASICRESP *basic = NULL;
    int64_t end_s = 0;
    OCSP_RESPONSE *response = der.len ? d2i_OCSP_RESPONSE(NULL, &at, (long)der.len) : NULL;
    const char *problem = "is no OCSP response in DER";
    if (!response || at != (const unsigned char *)der.ptr + der.len)
        goto fail;
    problem = "says that the responder has failed";
    if (OCSP_response_status(response) != OCSP_RESPONSE_STATUS_SUCCESSFUL)
        goto fail;
    basic = OCSP_response_get1_basic(response);
    problem = proof->issuer ? "is not signed by the certificate's issuer"
                            : "cannot be judged: the issuer's certificate is not in the file "
                              "behind the certificate";
    if (!basic || !proof->issuer || !is_signed(proof, basic))
        goto fail;
    problem = judge_status(proof, basic, begin_s, &end_s);
    if (!problem)
        *out = staple_new(der, end_s);
fail:
    OCSP_BASICRESP_free(basic);
    OCSP_RESPONSE_free(response);
    ERR_clear_error();
    return problem;
}

const char *tls_proof_take(struct tls_proof *proof, struct moon_slice der)
{
    struct tls_staple *staple = NULL;
    int64_t begin_s;
    const char *problem = judge(proof, der, &staple, &begin_s);
    if (!problem)
        set_staple(proof, staple);
    return problem;
}

// ---- control: questions and answers

static struct moon_slice make_request(const struct tls_proof *proof)
{
    OCSP_REQUEST *request = OCSP_REQUEST_new();
    OCSP_CERTID *id = OCSP_CERTID_dup(proof->id);
    unsigned char *der = NULL;
    if (!request || !id || !OCSP_request_add0_id(request, id))
        abort();
    int len = i2d_OCSP_REQUEST(request, &der);
    OCSP_REQUEST_free(request);
    return (struct moon_slice){(const char *)der, len > 0 ? (size_t)len : 0};
}

bool moon_tls_ocsp_next(struct moon_tls_hub *hub, struct moon_tls_question *out)
{
    struct tls_proofs *proofs = hub->proofs;
    int64_t now = now_s(proofs);
    struct tls_proof *found = NULL;
    pthread_mutex_lock(&proofs->lock);
    for (struct moon_list *at = proofs->list.next; at != &proofs->list && !found; at = at->next) {
        struct tls_proof *proof = MOON_CONTAINER(at, struct tls_proof, node);
        if (atomic_load(&proof->is_wanted) && !proof->is_asked && proof->id && proof->url &&
            now >= proof->due_s)
            found = proof;
    }
    if (found)
        atomic_fetch_add_explicit(&found->ref_count, 1, memory_order_relaxed);
    pthread_mutex_unlock(&proofs->lock);
    if (!found)
        return false;
    found->is_asked = true;
    *out = (struct moon_tls_question){found->name, found->url, make_request(found), found};
    return true;
}

static void plan_retry(struct tls_proof *proof, int64_t now)
{
    unsigned shift = proof->fail_count < 12 ? proof->fail_count : 12;
    int64_t wait_s = (int64_t)RETRY_MIN_S << shift;
    proof->fail_count++;
    proof->due_s = now + (wait_s < RETRY_MAX_S ? wait_s : RETRY_MAX_S);
}

// How long a response that has come is good enough: to half of its life. Where that is over, as with responders that sign ahead and
// renew late, a share of what is left, so that they are not asked all the time.
static int64_t refresh_s(int64_t begin_s, int64_t end_s, int64_t now)
{
    int64_t wait_s = begin_s + (end_s - begin_s) / 2 - now;
    if (wait_s <= 0)
        wait_s = (end_s - now) / 8 < RETRY_MAX_S ? (end_s - now) / 8 : RETRY_MAX_S;
    return wait_s > REFRESH_MIN_S ? wait_s : REFRESH_MIN_S;
}

const char *moon_tls_ocsp_answer(struct moon_tls_question *question, struct moon_slice der)
{
    struct tls_proof *proof = question->proof;
    struct tls_staple *staple = NULL;
    int64_t begin_s = 0, now = now_s(proof->proofs);
    const char *problem = der.ptr ? judge(proof, der, &staple, &begin_s) : "";
    proof->is_asked = false;
    if (problem) {
        plan_retry(proof, now);
    } else {
        proof->fail_count = 0;
        proof->due_s = now + refresh_s(begin_s, staple->end_s, now);
        set_staple(proof, staple);
    }
    OPENSSL_free((void *)question->request.ptr);
    tls_proof_unref(proof);
    return problem;
}

void moon_tls_ocsp_count(struct moon_tls_hub *hub, size_t *good, size_t *missing)
{
    struct tls_proofs *proofs = hub->proofs;
    int64_t now = now_s(proofs);
    *good = *missing = 0;
    pthread_mutex_lock(&proofs->lock);
    for (struct moon_list *at = proofs->list.next; at != &proofs->list; at = at->next) {
        struct tls_proof *proof = MOON_CONTAINER(at, struct tls_proof, node);
        pthread_mutex_lock(&proof->lock);
        bool is_good = proof->staple && proof->staple->end_s > now;
        bool is_due = proof->staple || proof->must_staple ||
                      (atomic_load(&proof->is_wanted) && proof->url && proof->id);
        pthread_mutex_unlock(&proof->lock);
        *good += is_good;
        *missing += !is_good && is_due;
    }
    pthread_mutex_unlock(&proofs->lock);
}

// ---- workers

void tls_view_fini(struct tls_view *view)
{
    staple_unref(view->staple);
}

static void look(struct tls_view *view, struct tls_proof *proof)
{
    if (atomic_load_explicit(&proof->version, memory_order_acquire) == view->version)
        return;
    staple_unref(view->staple);
    pthread_mutex_lock(&proof->lock);
    view->staple = proof->staple;
    view->version = atomic_load_explicit(&proof->version, memory_order_relaxed);
    if (view->staple)
        atomic_fetch_add_explicit(&view->staple->ref_count, 1, memory_order_relaxed);
    pthread_mutex_unlock(&proof->lock);
}

bool tls_view_staple(struct tls_view *view, struct tls_proof *proof, SSL *ssl, int64_t wall_s)
{
    look(view, proof);
    const struct tls_staple *staple = view->staple;
    if (!staple || staple->end_s <= wall_s)
        return false;
    unsigned char *copy = OPENSSL_memdup(staple->der, staple->len);
    if (!copy)
        return false;
    SSL_set_tlsext_status_ocsp_resp(ssl, copy, (long)staple->len); // takes it
    return true;
}
