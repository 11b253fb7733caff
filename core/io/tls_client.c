// Connections of our own: to upstreams, and of calls. A client is settings with its files and, for each worker, a context and
// the sessions that peers have given.
//
//   hub->clients: all that are in use, by digest of settings and files
#include "base/err.h"
#include "io/tls_priv.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

enum { DIGEST_LEN = 32 };

struct worker_part {
    SSL_CTX *context;             // under the client's lock
    struct tls_sessions sessions; // only its worker looks
};

struct moon_tls_client {
    struct moon_list node; // in hub->clients
    // to 0 under the hub's lock alone: while it is in the list somebody may find it
    atomic_uint ref_count;
    struct moon_tls_hub *hub;
    uint8_t digest[DIGEST_LEN]; // under the hub's lock
    bool is_unverified;
    pthread_mutex_t lock;       // of contexts
    pthread_mutex_t file_lock;  // of the files below, which no worker looks at
    atomic_uint epoch;          // counts how often the files have changed
    struct tls_file ca, crl;    // path NULL: the system's, none
    struct tls_certificate own; // cert.path NULL: none
    char refused[320];          // why its new files were refused, and how often; control's
    unsigned refused_count;
    struct moon_slice *sans; // malloc'd
    size_t san_count;
    int min_version, max_version;
    struct worker_part *parts;
    size_t part_count;
};

// ---- sessions

static struct worker_part *part_of(const struct tls_stream *stream)
{
    struct moon_tls_client *client = stream->client;
    size_t worker = 0;
    while (client->hub->seats[worker] != stream->seat)
        worker++;
    return &client->parts[worker];
}

// A peer gives a session: the newest of its kind is kept. 1: the reference is ours.
static int on_session(SSL *ssl, SSL_SESSION *given)
{
    struct tls_stream *stream = SSL_get_app_data(ssl);
    struct moon_address address;
    if (!stream->client || !stream->sni || !SSL_SESSION_is_resumable(given))
        return 0;
    moon_stream_address(stream->inner, true, &address);
    if (!moon_tls_is_current(&stream->base))
        return 0;
    tls_sessions_keep(&part_of(stream)->sessions, stream->epoch, stream->sni, &address, given);
    return 1;
}

// ---- who the peer is

static bool has_uri(const X509 *x509, struct moon_slice wanted)
{
    GENERAL_NAMES *all = X509_get_ext_d2i(x509, NID_subject_alt_name, NULL, NULL);
    bool has = false;
    for (int i = 0; i < sk_GENERAL_NAME_num(all); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(all, i);
        if (name->type != GEN_URI)
            continue;
        const ASN1_STRING *uri = name->d.uniformResourceIdentifier;
        has |=
            moon_slice_equal(wanted, (struct moon_slice){(const char *)ASN1_STRING_get0_data(uri),
                                                         (size_t)ASN1_STRING_length(uri)});
    }
    GENERAL_NAMES_free(all);
    return has;
}

static bool has_san(X509 *x509, struct moon_slice wanted)
{
    if (memmem(wanted.ptr, wanted.len, "://", 3))
        return has_uri(x509, wanted);
    return X509_check_host(x509, wanted.ptr, wanted.len,
                           X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS |
                               X509_CHECK_FLAG_NEVER_CHECK_SUBJECT,
                           NULL) == 1;
}

const char *tls_client_judge(const struct tls_stream *stream)
{
    const struct moon_tls_client *client = stream->client;
    X509 *x509 = SSL_get0_peer_certificate(stream->ssl);
    if (client->san_count == 0)
        return NULL;
    for (size_t i = 0; x509 && i < client->san_count; i++)
        if (has_san(x509, client->sans[i]))
            return NULL;
    return "the certificate has none of the names that are pinned (sans)";
}

// Whose certificate it must be: a name, or an address.
static void expect(struct tls_stream *stream, const char *host)
{
    X509_VERIFY_PARAM *param = SSL_get0_param(stream->ssl);
    unsigned char ip[16];
    bool is_ip = inet_pton(AF_INET, host, ip) == 1 || inet_pton(AF_INET6, host, ip) == 1;
    if (!is_ip)
        SSL_set_tlsext_host_name(stream->ssl, host);
    if (stream->client->is_unverified || stream->client->san_count)
        return;
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS |
                                               X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
    if (is_ip)
        X509_VERIFY_PARAM_set1_ip_asc(param, host);
    else
        X509_VERIFY_PARAM_set1_host(param, host, 0);
}

// ---- clients

// NULL, or the option whose file is no good. What the system trusts is looked up by OpenSSL when a peer's issuer is first met: two small files, then it is known. The
// only files that a worker ever reads.
static const char *trust(struct moon_tls_client *client, SSL_CTX *context, struct tls_seat *seat)
{
    X509_STORE *store = SSL_CTX_get_cert_store(context);
    if (client->is_unverified)
        return NULL;
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    if (!client->ca.path)
        return SSL_CTX_set_default_verify_paths(context) == 1 ? NULL : "ca";
    if (tls_store_add(store, &client->ca, seat, NULL) == 0)
        return "ca";
    return client->crl.path && tls_store_add_crls(store, &client->crl, seat) == 0 ? "crl" : NULL;
}

// NULL: fine; else what is wrong, static.
static const char *part_build(struct moon_tls_client *client, struct tls_seat *seat,
                              struct worker_part *part)
{
    SSL_CTX *context = SSL_CTX_new_ex(seat->library, NULL, TLS_client_method());
    part->context = context;
    if (!context)
        return "OpenSSL has no room for it";
    SSL_CTX_set_options(context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                                  SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_clear_mode(context, SSL_MODE_AUTO_RETRY); // records of others are counted
    SSL_CTX_set_read_ahead(context, 1);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context, on_session);
    if (!SSL_CTX_set_min_proto_version(context, client->min_version) ||
        !SSL_CTX_set_max_proto_version(context, client->max_version) ||
        !SSL_CTX_set_ciphersuites(context, tls_suites) ||
        !SSL_CTX_set1_groups_list(context, tls_groups) ||
        !SSL_CTX_set_cipher_list(context, tls_ciphers))
        return "OpenSSL refuses these settings together";
    const char *wrong = trust(client, context, seat);
    if (wrong)
        return wrong;
    return client->own.cert.path ? tls_context_add(context, seat, &client->own) : NULL;
}

// Contexts for workers that have none yet.
static int build(struct moon_tls_client *client, struct moon_tls_problem *problem)
{
    size_t count = client->hub->seat_count;
    struct worker_part *parts = realloc(client->parts, count * sizeof *parts);
    if (!parts)
        abort();
    memset(parts + client->part_count, 0, (count - client->part_count) * sizeof *parts);
    client->parts = parts;
    while (client->part_count < client->hub->seat_count) {
        size_t at = client->part_count++;
        const char *wrong = part_build(client, client->hub->seats[at], &client->parts[at]);
        if (!wrong)
            continue;
        if (strcmp(wrong, "ca") == 0)
            return tls_refuse(problem, "ca", "%s holds no certificate in PEM", client->ca.path);
        if (strcmp(wrong, "crl") == 0)
            return tls_refuse(problem, "crl", "%s holds no CRL in PEM", client->crl.path);
        bool is_key = strncmp(wrong, "key: ", 5) == 0;
        const struct tls_file *file = is_key ? &client->own.key : &client->own.cert;
        return tls_refuse(problem, is_key ? "key" : "cert", "%s %s", file->path ? file->path : "",
                          is_key ? wrong + 5 : wrong);
    }
    const X509 *own = SSL_CTX_get0_certificate(client->parts[0].context);
    return own ? tls_check_dates(client->hub, own, "cert", &client->own, problem) : 0;
}

void tls_clients_fill(struct moon_tls_hub *hub)
{
    struct moon_tls_problem problem; // there was none with the first worker
    for (struct moon_list *at = hub->clients.next; at != &hub->clients; at = at->next)
        build(MOON_CONTAINER(at, struct moon_tls_client, node), &problem);
}

static void client_free(struct moon_tls_client *client)
{
    for (size_t i = 0; i < client->part_count; i++) {
        struct worker_part *part = &client->parts[i];
        tls_sessions_fini(&part->sessions);
        SSL_CTX_free(part->context);
    }
    for (size_t i = 0; i < client->san_count; i++)
        free((void *)client->sans[i].ptr);
    if (client->own.key.bytes.ptr)
        OPENSSL_cleanse((char *)client->own.key.bytes.ptr, client->own.key.bytes.len);
    tls_file_fini(&client->own.cert);
    tls_file_fini(&client->own.key);
    tls_file_fini(&client->ca);
    tls_file_fini(&client->crl);
    pthread_mutex_destroy(&client->lock);
    pthread_mutex_destroy(&client->file_lock);
    free(client->sans);
    free(client->parts);
    free(client);
}

static void add(EVP_MD_CTX *digest, const void *bytes, size_t len)
{
    EVP_DigestUpdate(digest, &len, sizeof len);
    EVP_DigestUpdate(digest, bytes, len);
}

static void add_file(EVP_MD_CTX *digest, const struct tls_file *file)
{
    const char *path = file->path ? file->path : "";
    add(digest, path, strlen(path)); // what is equal now may differ later
    add(digest, file->bytes.ptr, file->bytes.len);
}

static void make_digest(struct moon_tls_client *client)
{
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    int facts[] = {client->is_unverified, client->ca.path != NULL, client->own.cert.path != NULL,
                   client->min_version, client->max_version};
    if (!digest || !EVP_DigestInit_ex(digest, EVP_sha256(), NULL))
        abort();
    EVP_DigestUpdate(digest, facts, sizeof facts);
    add_file(digest, &client->ca);
    add_file(digest, &client->crl);
    add_file(digest, &client->own.cert);
    add_file(digest, &client->own.key);
    for (size_t i = 0; i < client->san_count; i++)
        add(digest, client->sans[i].ptr, client->sans[i].len);
    EVP_DigestFinal_ex(digest, client->digest, NULL);
    EVP_MD_CTX_free(digest);
}

static int read_files(struct moon_tls_client *client, const struct moon_tls_client_options *options,
                      struct moon_tls_problem *problem)
{
    int err = 0;
    if (options->ca)
        err = tls_file_read_all(client->hub, "ca", options->ca, false, &client->ca, problem);
    if (!err && options->crl)
        err = tls_file_read_all(client->hub, "crl", options->crl, true, &client->crl, problem);
    if (!err && options->pair)
        err = tls_file_read(client->hub, "cert", options->pair->cert, &client->own.cert, problem);
    if (!err && options->pair)
        err = tls_file_read(client->hub, "key", options->pair->key, &client->own.key, problem);
    return err;
}

static struct moon_tls_client *find(const struct moon_tls_hub *hub, const uint8_t *digest)
{
    for (struct moon_list *at = hub->clients.next; at != &hub->clients; at = at->next) {
        struct moon_tls_client *client = MOON_CONTAINER(at, struct moon_tls_client, node);
        if (memcmp(client->digest, digest, DIGEST_LEN) == 0)
            return client;
    }
    return NULL;
}

// Under the lock: the client that there is already, or this one, once it is built.
static int intern(struct moon_tls_client **client, struct moon_tls_problem *problem)
{
    struct moon_tls_hub *hub = (*client)->hub;
    struct moon_tls_client *known = find(hub, (*client)->digest);
    if (known) {
        client_free(*client);
        *client = known;
        atomic_fetch_add_explicit(&known->ref_count, 1, memory_order_relaxed);
        return 0;
    }
    int err = build(*client, problem);
    if (!err)
        moon_list_add_before(&hub->clients, &(*client)->node);
    return err;
}

// Its settings and files, without contexts. 0 or MOON_ECONFIG; to be freed either way.
static int client_read(struct moon_tls_hub *hub, const struct moon_tls_client_options *options,
                       struct moon_tls_problem *problem, struct moon_tls_client **out)
{
    struct moon_tls_client *client = *out = calloc(1, sizeof *client);
    if (!client)
        abort();
    client->hub = hub;
    atomic_init(&client->ref_count, 1);
    pthread_mutex_init(&client->lock, NULL);
    pthread_mutex_init(&client->file_lock, NULL);
    client->is_unverified = options->is_unverified;
    client->min_version = tls_version(options->min_version, TLS1_2_VERSION);
    client->max_version = tls_version(options->max_version, TLS1_3_VERSION);
    client->sans = calloc(options->san_count + 1, sizeof *client->sans);
    if (!client->sans)
        abort();
    for (; client->san_count < options->san_count; client->san_count++) {
        struct moon_slice san = options->sans[client->san_count];
        client->sans[client->san_count] = (struct moon_slice){moon_slice_dup(san), san.len};
    }
    int err = read_files(client, options, problem);
    make_digest(client);
    return err;
}

int moon_tls_client_get(struct moon_tls_hub *hub, const struct moon_tls_client_options *options,
                        struct moon_tls_problem *problem, struct moon_tls_client **out)
{
    struct moon_tls_client *client;
    tls_hub_fill(hub);
    int err = client_read(hub, options, problem, &client);
    pthread_mutex_lock(&hub->lock);
    if (!err)
        err = intern(&client, problem);
    pthread_mutex_unlock(&hub->lock);
    ERR_clear_error();
    if (err)
        client_free(client);
    else
        *out = client;
    return err;
}

struct moon_tls_client *moon_tls_client_ref(struct moon_tls_client *client)
{
    atomic_fetch_add_explicit(&client->ref_count, 1, memory_order_relaxed);
    return client;
}

// Gives a reference back that is not the last, without the lock, under which control may be reading files.
static bool unref_early(struct moon_tls_client *client)
{
    unsigned count = atomic_load_explicit(&client->ref_count, memory_order_relaxed);
    while (count > 1)
        if (atomic_compare_exchange_weak_explicit(&client->ref_count, &count, count - 1,
                                                  memory_order_release, memory_order_relaxed))
            return true;
    return false;
}

void moon_tls_client_unref(struct moon_tls_client *client)
{
    if (!client || unref_early(client))
        return;
    struct moon_tls_hub *hub = client->hub;
    pthread_mutex_lock(&hub->lock);
    bool is_last = atomic_fetch_sub_explicit(&client->ref_count, 1, memory_order_acq_rel) == 1;
    if (is_last)
        moon_list_del(&client->node);
    pthread_mutex_unlock(&hub->lock);
    if (is_last)
        client_free(client);
}

// ---- files that change

static bool has_files(const struct moon_tls_client *client)
{
    return client->ca.path || client->own.cert.path;
}

bool tls_clients_have_files(const struct moon_tls_hub *hub)
{
    for (const struct moon_list *at = hub->clients.next; at != &hub->clients; at = at->next)
        if (has_files(MOON_CONTAINER(at, const struct moon_tls_client, node)))
            return true;
    return false;
}

bool moon_tls_client_is_fresh(struct moon_tls_client *client)
{
    pthread_mutex_lock(&client->file_lock);
    bool is_fresh = tls_file_is_fresh(&client->ca) && tls_file_is_fresh(&client->crl) &&
                    tls_file_is_fresh(&client->own.cert) && tls_file_is_fresh(&client->own.key);
    pthread_mutex_unlock(&client->file_lock);
    return is_fresh;
}

// The same settings, with what is in the files now.
static int reread(const struct moon_tls_client *client, struct moon_tls_problem *problem,
                  struct moon_tls_client **out)
{
    struct moon_tls_pair pair = {.cert = client->own.cert.path, .key = client->own.key.path};
    struct moon_tls_client_options options = {.is_unverified = client->is_unverified,
                                              .ca = client->ca.path,
                                              .crl = client->crl.path,
                                              .pair = pair.cert ? &pair : NULL,
                                              .sans = client->sans,
                                              .san_count = client->san_count};
    int err = client_read(client->hub, &options, problem, out);
    (*out)->min_version = client->min_version;
    (*out)->max_version = client->max_version;
    make_digest(*out);
    return err ? err : build(*out, problem);
}

#define SWAP(type, a, b) \
    do {                 \
        type kept = (a); \
        (a) = (b);       \
        (b) = kept;      \
    } while (0)

// Files and contexts of `fresh`, which gets the old ones. Workers wait for pointers to change places, never for a file.
static void swap(struct moon_tls_client *client, struct moon_tls_client *fresh)
{
    pthread_mutex_lock(&client->hub->lock);
    memcpy(client->digest, fresh->digest, sizeof client->digest);
    pthread_mutex_unlock(&client->hub->lock);
    pthread_mutex_lock(&client->file_lock);
    SWAP(struct tls_file, client->ca, fresh->ca);
    SWAP(struct tls_file, client->crl, fresh->crl);
    SWAP(struct tls_certificate, client->own, fresh->own);
    pthread_mutex_unlock(&client->file_lock);
    pthread_mutex_lock(&client->lock);
    for (size_t i = 0; i < client->part_count; i++)
        SWAP(SSL_CTX *, client->parts[i].context, fresh->parts[i].context);
    atomic_fetch_add(&client->epoch, 1);
    pthread_mutex_unlock(&client->lock);
}

static void look(struct moon_tls_client *client,
                 void (*tell)(void *owner, bool is_fine, const char *text), void *owner)
{
    struct moon_tls_problem problem;
    struct moon_tls_client *fresh;
    if (moon_tls_client_is_fresh(client))
        return;
    int err = reread(client, &problem, &fresh);
    ERR_clear_error();
    if (err && strcmp(problem.text, client->refused) != 0) {
        snprintf(client->refused, sizeof client->refused, "%s", problem.text);
        client->refused_count = 0;
    }
    // A certificate and its key are written one after the other: what is wrong for a moment is not told.
    if (err && ++client->refused_count == 2)
        tell(owner, false, problem.text);
    if (!err) {
        client->refused[0] = '\0';
        swap(client, fresh);
        tell(owner, true, client->own.cert.path ? client->own.cert.path : client->ca.path);
    }
    client_free(fresh);
}

// References to all that have files, malloc'd: reading takes its time, and nobody waits for it.
static size_t gather(struct moon_tls_hub *hub, struct moon_tls_client ***out)
{
    size_t count = 0;
    *out = NULL;
    pthread_mutex_lock(&hub->lock);
    for (struct moon_list *at = hub->clients.next; at != &hub->clients; at = at->next) {
        struct moon_tls_client *client = MOON_CONTAINER(at, struct moon_tls_client, node);
        if (!has_files(client))
            continue;
        *out = (struct moon_tls_client **)realloc((void *)*out, (count + 1) * sizeof(void *));
        if (!*out)
            abort();
        atomic_fetch_add_explicit(&client->ref_count, 1, memory_order_relaxed);
        (*out)[count++] = client;
    }
    pthread_mutex_unlock(&hub->lock);
    return count;
}

void moon_tls_clients_poll(struct moon_tls_hub *hub,
                           void (*tell)(void *owner, bool is_fine, const char *text), void *owner)
{
    struct moon_tls_client **clients;
    size_t count = gather(hub, &clients);
    for (size_t i = 0; i < count; i++) {
        look(clients[i], tell, owner);
        moon_tls_client_unref(clients[i]);
    }
    free((void *)clients);
}

bool moon_tls_is_current(const struct moon_stream *s)
{
    const struct tls_stream *stream = (const struct tls_stream *)s;
    return stream->epoch == atomic_load_explicit(&stream->client->epoch, memory_order_relaxed);
}

// ---- connecting

// A reference to the context of now.
static SSL_CTX *context_of(struct moon_tls_client *client, const struct worker_part *part,
                           uint32_t *epoch)
{
    pthread_mutex_lock(&client->lock);
    SSL_CTX *context = part->context;
    SSL_CTX_up_ref(context);
    *epoch = atomic_load(&client->epoch);
    pthread_mutex_unlock(&client->lock);
    return context;
}

struct moon_stream *moon_tls_connect(struct moon_tls_client *client, size_t worker,
                                     struct moon_loop *loop, struct moon_stream *inner,
                                     const char *host, struct moon_slice alpn)
{
    struct moon_address address;
    struct worker_part *part = &client->parts[worker];
    struct tls_stream *stream =
        tls_stream_new(client->hub, client->hub->seats[worker], loop, inner);
    SSL_CTX *context = context_of(client, part, &stream->epoch);
    tls_stream_begin(stream, context);
    SSL_CTX_free(context); // the connection has a reference of its own
    stream->client = moon_tls_client_ref(client);
    size_t len = strlen(host);
    stream->sni = strndup(host, len > 1 && host[len - 1] == '.' ? len - 1 : len); // RFC 6066 3
    if (!stream->sni)
        abort();
    SSL_set_connect_state(stream->ssl);
    SSL_set_alpn_protos(stream->ssl, (const unsigned char *)alpn.ptr, (unsigned)alpn.len);
    expect(stream, stream->sni);
    moon_stream_address(inner, true, &address);
    SSL_SESSION *session = tls_sessions_get(&part->sessions, stream->epoch, stream->sni, &address);
    if (session)
        SSL_set_session(stream->ssl, session);
    return &stream->base;
}
