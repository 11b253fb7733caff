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

enum { SESSION_COUNT = 64, DIGEST_LEN = 32 };

// By whom a peer was asked for, and where: addresses of one name may not know each other's sessions.
struct session {
    char *host;
    struct moon_address address;
    SSL_SESSION *session;
};

struct worker_part {
    SSL_CTX *context;
    struct session *sessions; // made with the first; only its worker looks
    unsigned next;            // to be replaced
};

struct moon_tls_client {
    struct moon_list node; // in hub->clients
    unsigned ref_count;    // under the hub's lock
    struct moon_tls_hub *hub;
    uint8_t digest[DIGEST_LEN];
    bool is_unverified;
    struct tls_file ca;         // path NULL: the system's
    struct tls_certificate own; // cert.path NULL: none
    struct moon_slice *sans;    // malloc'd
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

static struct session *find_session(struct worker_part *part, const char *host,
                                    const struct moon_address *address)
{
    for (unsigned i = 0; part->sessions && i < SESSION_COUNT; i++) {
        struct session *session = &part->sessions[i];
        if (session->host && moon_address_equal(&session->address, address) &&
            strcmp(session->host, host) == 0)
            return session;
    }
    return NULL;
}

static struct session *make_session(struct worker_part *part, const char *host,
                                    const struct moon_address *address)
{
    if (!part->sessions)
        part->sessions = calloc(SESSION_COUNT, sizeof *part->sessions);
    if (!part->sessions)
        abort();
    struct session *session = &part->sessions[part->next++ % SESSION_COUNT];
    free(session->host);
    SSL_SESSION_free(session->session);
    *session = (struct session){strdup(host), *address, NULL};
    return session;
}

// A peer gives a session: the newest of its kind is kept. 1: the reference is ours.
static int on_session(SSL *ssl, SSL_SESSION *given)
{
    struct tls_stream *stream = SSL_get_app_data(ssl);
    struct moon_address address;
    if (!stream->client || !stream->sni || !SSL_SESSION_is_resumable(given))
        return 0;
    moon_stream_address(stream->inner, true, &address);
    struct worker_part *part = part_of(stream);
    struct session *session = find_session(part, stream->sni, &address);
    if (!session)
        session = make_session(part, stream->sni, &address);
    SSL_SESSION_free(session->session);
    session->session = given;
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

// What the system trusts is looked up by OpenSSL when a peer's issuer is first met: two small files, then it is known. The
// only files that a worker ever reads.
static bool trust(struct moon_tls_client *client, SSL_CTX *context, struct tls_seat *seat)
{
    if (client->is_unverified)
        return true;
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    if (!client->ca.path)
        return SSL_CTX_set_default_verify_paths(context) == 1;
    return tls_store_add(SSL_CTX_get_cert_store(context), &client->ca, seat, NULL) > 0;
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
    if (!trust(client, context, seat))
        return "ca";
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
        bool is_key = strncmp(wrong, "key: ", 5) == 0;
        const struct tls_file *file = is_key ? &client->own.key : &client->own.cert;
        return tls_refuse(problem, is_key ? "key" : "cert", "%s %s", file->path ? file->path : "",
                          is_key ? wrong + 5 : wrong);
    }
    return 0;
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
        for (unsigned k = 0; part->sessions && k < SESSION_COUNT; k++) {
            free(part->sessions[k].host);
            SSL_SESSION_free(part->sessions[k].session);
        }
        free(part->sessions);
        SSL_CTX_free(part->context);
    }
    for (size_t i = 0; i < client->san_count; i++)
        free((void *)client->sans[i].ptr);
    if (client->own.key.bytes.ptr)
        OPENSSL_cleanse((char *)client->own.key.bytes.ptr, client->own.key.bytes.len);
    tls_file_fini(&client->own.cert);
    tls_file_fini(&client->own.key);
    tls_file_fini(&client->ca);
    free(client->sans);
    free(client->parts);
    free(client);
}

static void add(EVP_MD_CTX *digest, const void *bytes, size_t len)
{
    EVP_DigestUpdate(digest, &len, sizeof len);
    EVP_DigestUpdate(digest, bytes, len);
}

static void make_digest(struct moon_tls_client *client)
{
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    int facts[] = {client->is_unverified, client->ca.path != NULL, client->own.cert.path != NULL,
                   client->min_version, client->max_version};
    if (!digest || !EVP_DigestInit_ex(digest, EVP_sha256(), NULL))
        abort();
    EVP_DigestUpdate(digest, facts, sizeof facts);
    add(digest, client->ca.bytes.ptr, client->ca.bytes.len);
    add(digest, client->own.cert.bytes.ptr, client->own.cert.bytes.len);
    add(digest, client->own.key.bytes.ptr, client->own.key.bytes.len);
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
        err = tls_file_read(client->hub, "ca", options->ca, &client->ca, problem);
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
        known->ref_count++;
        return 0;
    }
    int err = build(*client, problem);
    if (!err)
        moon_list_add_before(&hub->clients, &(*client)->node);
    return err;
}

int moon_tls_client_get(struct moon_tls_hub *hub, const struct moon_tls_client_options *options,
                        struct moon_tls_problem *problem, struct moon_tls_client **out)
{
    struct moon_tls_client *client = calloc(1, sizeof *client);
    if (!client)
        abort();
    tls_hub_fill(hub);
    client->hub = hub;
    client->ref_count = 1;
    client->is_unverified = options->is_unverified;
    client->min_version = tls_version(options->min_version, TLS1_2_VERSION);
    client->max_version = tls_version(options->max_version, TLS1_3_VERSION);
    client->sans = calloc(options->san_count + 1, sizeof *client->sans);
    if (!client->sans)
        abort();
    for (; client->san_count < options->san_count; client->san_count++) {
        struct moon_slice san = options->sans[client->san_count];
        client->sans[client->san_count] = (struct moon_slice){strndup(san.ptr, san.len), san.len};
    }
    int err = read_files(client, options, problem);
    make_digest(client);
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
    pthread_mutex_lock(&client->hub->lock);
    client->ref_count++;
    pthread_mutex_unlock(&client->hub->lock);
    return client;
}

void moon_tls_client_unref(struct moon_tls_client *client)
{
    if (!client)
        return;
    struct moon_tls_hub *hub = client->hub;
    pthread_mutex_lock(&hub->lock);
    bool is_last = --client->ref_count == 0;
    if (is_last)
        moon_list_del(&client->node);
    pthread_mutex_unlock(&hub->lock);
    if (is_last)
        client_free(client);
}

bool moon_tls_client_is_fresh(const struct moon_tls_client *client)
{
    return tls_file_is_fresh(&client->ca) && tls_file_is_fresh(&client->own.cert) &&
           tls_file_is_fresh(&client->own.key);
}

struct moon_stream *moon_tls_connect(struct moon_tls_client *client, size_t worker,
                                     struct moon_loop *loop, struct moon_stream *inner,
                                     const char *host, struct moon_slice alpn)
{
    struct moon_address address;
    struct worker_part *part = &client->parts[worker];
    struct tls_stream *stream =
        tls_stream_new(client->hub, client->hub->seats[worker], loop, inner);
    tls_stream_begin(stream, part->context);
    stream->client = moon_tls_client_ref(client);
    size_t len = strlen(host);
    stream->sni = strndup(host, len > 1 && host[len - 1] == '.' ? len - 1 : len); // RFC 6066 3
    if (!stream->sni)
        abort();
    SSL_set_connect_state(stream->ssl);
    SSL_set_alpn_protos(stream->ssl, (const unsigned char *)alpn.ptr, (unsigned)alpn.len);
    expect(stream, stream->sni);
    moon_stream_address(inner, true, &address);
    struct session *session = find_session(part, stream->sni, &address);
    if (session && session->session)
        SSL_set_session(stream->ssl, session->session);
    return &stream->base;
}
