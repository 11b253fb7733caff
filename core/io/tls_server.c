// Who gets which certificate. Of a port's terms the name that the client asks for chooses one (exact hostname, longest wildcard,
// none), and then, among its certificates, those that carry the name (exact, wildcard of one label, the first of all). Such
// certificates of different keys stand in one context, and OpenSSL takes the one that the client can use.
//
//   slot of a worker -> contexts (counted) <- streams, until their handshake is done
//
// Invariant: a slot's contexts are changed under its lock, which only its worker and who swaps them ever take.
#include "io/tls_priv.h"

#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>

struct tls_group {
    int certificates[TLS_KEY_TYPE_COUNT]; // -1: none
    SSL_CTX *context;
};

struct tls_name {
    const char *text; // of the terms
    int group;
};

struct tls_host {
    struct moon_tls_terms *terms;
    struct tls_group *groups; // the first is the default
    size_t group_count;
    struct tls_name *names; // sorted
    size_t name_count;
    struct tls_view *views; // of each certificate's proof
};

struct tls_slot {
    pthread_mutex_t lock;
    struct tls_contexts *contexts;
};

// ---- groups

static bool same_group(const struct tls_group *a, const struct tls_group *b)
{
    return memcmp(a->certificates, b->certificates, sizeof a->certificates) == 0;
}

static int group_add(struct tls_host *host, const struct tls_group *group)
{
    for (size_t i = 0; i < host->group_count; i++)
        if (same_group(&host->groups[i], group))
            return (int)i;
    host->groups = realloc(host->groups, (host->group_count + 1) * sizeof *host->groups);
    if (!host->groups)
        abort();
    host->groups[host->group_count] = *group;
    return (int)host->group_count++;
}

static bool has_name(const struct tls_certificate *certificate, const char *name)
{
    for (size_t i = 0; i < certificate->name_count; i++)
        if (strcmp(certificate->names[i], name) == 0)
            return true;
    return false;
}

// The first certificate of each kind of key that carries the name.
static struct tls_group group_of(const struct moon_tls_terms *terms, const char *name)
{
    struct tls_group group = {.certificates = {-1, -1, -1, -1}};
    int count = 0;
    for (size_t i = 0; i < terms->certificate_count && count < TLS_KEY_TYPE_COUNT; i++) {
        bool is_new = has_name(&terms->certificates[i], name);
        for (int k = 0; k < count; k++)
            if (terms->certificates[group.certificates[k]].type == terms->certificates[i].type)
                is_new = false;
        if (is_new)
            group.certificates[count++] = (int)i;
    }
    return group;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct tls_name *)a)->text, ((const struct tls_name *)b)->text);
}

static void index_names(struct tls_host *host)
{
    const struct moon_tls_terms *terms = host->terms;
    size_t cap = 0, kept = 0;
    for (size_t i = 0; i < terms->certificate_count; i++)
        cap += terms->certificates[i].name_count;
    host->names = calloc(cap + 1, sizeof *host->names);
    if (!host->names)
        abort();
    const struct tls_certificate *first = &terms->certificates[0];
    struct tls_group group = {.certificates = {0, -1, -1, -1}};
    if (first->name_count)
        group = group_of(terms, first->names[0]);
    group_add(host, &group);
    for (size_t i = 0; i < terms->certificate_count; i++)
        for (size_t k = 0; k < terms->certificates[i].name_count; k++)
            host->names[host->name_count++].text = terms->certificates[i].names[k];
    qsort(host->names, host->name_count, sizeof *host->names, compare_names);
    for (size_t i = 0; i < host->name_count; i++)
        if (kept == 0 || strcmp(host->names[kept - 1].text, host->names[i].text) != 0)
            host->names[kept++] = host->names[i];
    host->name_count = kept;
    for (size_t i = 0; i < kept; i++) {
        group = group_of(terms, host->names[i].text);
        host->names[i].group = group_add(host, &group);
    }
}

static const struct tls_name *find_name(const struct tls_host *host, const char *text)
{
    struct tls_name wanted = {.text = text};
    return bsearch(&wanted, host->names, host->name_count, sizeof wanted, compare_names);
}

static const struct tls_group *choose_group(const struct tls_host *host, const char *sni)
{
    char wildcard[TLS_SNI_MAX_LEN + 2];
    const struct tls_name *name = find_name(host, sni);
    const char *dot = strchr(sni, '.');
    if (!name && dot) {
        snprintf(wildcard, sizeof wildcard, "*%s", dot);
        name = find_name(host, wildcard);
    }
    return &host->groups[name ? name->group : 0];
}

// The terms that fit the name best; the first where none does: the request's host is looked at later.
static size_t choose_host(const struct tls_contexts *contexts, const char *sni)
{
    size_t best = 0, best_len = 0, len = strlen(sni);
    bool has_best = false;
    for (size_t i = 0; i < contexts->host_count; i++) {
        const char *hostname = contexts->hosts[i].terms->hostname;
        size_t own_len = strlen(hostname);
        if (own_len && strcmp(hostname, sni) == 0)
            return i;
        bool fits = own_len == 0 || (hostname[0] == '.' && own_len < len &&
                                     strcmp(sni + len - own_len, hostname) == 0);
        if (fits && (!has_best || own_len > best_len)) {
            best = i;
            best_len = own_len;
            has_best = true;
        }
    }
    return best;
}

// ---- the ClientHello

// The one host name of the extension (RFC 6066 3), lower case. False: it is malformed.
static bool read_sni(SSL *ssl, char to[TLS_SNI_MAX_LEN + 1])
{
    const unsigned char *ext;
    size_t len;
    to[0] = '\0';
    if (!SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &ext, &len))
        return true;
    if (len < 5 || (size_t)(ext[0] << 8 | ext[1]) != len - 2 || ext[2] != TLSEXT_NAMETYPE_host_name)
        return false;
    size_t name_len = (size_t)(ext[3] << 8 | ext[4]);
    if (name_len != len - 5 || name_len == 0 || name_len > TLS_SNI_MAX_LEN)
        return false;
    for (size_t i = 0; i < name_len; i++) {
        unsigned char c = ext[5 + i];
        if (c <= ' ' || c >= 0x7f)
            return false;
        to[i] = (char)(c >= 'A' && c <= 'Z' ? c | 0x20 : c);
    }
    to[name_len] = '\0';
    if (to[name_len - 1] == '.') // fully qualified
        to[name_len - 1] = '\0';
    return true;
}

// SSL_set_SSL_CTX brings certificates and CAs; what else terms decide is set here.
static void apply(SSL *ssl, const struct moon_tls_terms *terms, SSL_CTX *context)
{
    SSL_set_SSL_CTX(ssl, context);
    SSL_set_session_id_context(ssl, terms->id, sizeof terms->id);
    SSL_set_verify(ssl, SSL_CTX_get_verify_mode(context), NULL);
    SSL_set_verify_depth(ssl, (int)terms->depth);
    SSL_set_min_proto_version(ssl, terms->min_version);
    SSL_set_max_proto_version(ssl, terms->max_version);
    SSL_set_cipher_list(ssl, terms->ciphers);
    SSL_set_num_tickets(ssl, terms->has_tickets ? 2 : 0);
    if (terms->has_tickets)
        SSL_clear_options(ssl, SSL_OP_NO_TICKET);
    else
        SSL_set_options(ssl, SSL_OP_NO_TICKET);
}

// What the name says; it is the stream's from here on.
static void choose_by_name(struct tls_stream *stream, SSL *ssl, const char *sni)
{
    const struct tls_contexts *contexts = stream->contexts;
    size_t chosen = choose_host(contexts, sni);
    const struct tls_host *host = &contexts->hosts[chosen];
    const struct tls_group *group = choose_group(host, sni);
    stream->has_hello = true;
    stream->host = (uint16_t)chosen;
    if (sni[0])
        stream->sni = strdup(sni);
    if (chosen != 0)
        apply(ssl, host->terms, group->context);
    else if (group != &host->groups[0])
        SSL_set_SSL_CTX(ssl, group->context);
}

static int on_client_hello(SSL *ssl, int *alert, void *arg)
{
    (void)arg;
    struct tls_stream *stream = SSL_get_app_data(ssl);
    char sni[TLS_SNI_MAX_LEN + 1];
    if (!read_sni(ssl, sni)) {
        *alert = SSL_AD_DECODE_ERROR;
        return SSL_CLIENT_HELLO_ERROR;
    }
    if (sni[0] && tls_challenge_answer(stream, sni))
        return SSL_CLIENT_HELLO_SUCCESS;
    if (!stream->has_hello) {
        choose_by_name(stream, ssl, sni);
    } else if (strcmp(sni, stream->sni ? stream->sni : "") != 0) { // RFC 8446 4.1.2
        *alert = SSL_AD_ILLEGAL_PARAMETER;
        return SSL_CLIENT_HELLO_ERROR;
    }
    return stream->choose ? tls_choose_ask(stream, ssl, alert) : SSL_CLIENT_HELLO_SUCCESS;
}

// Says that the name was understood, as clients like to hear (RFC 6066 3).
static int on_server_name(SSL *ssl, int *alert, void *arg)
{
    (void)ssl;
    (void)alert;
    (void)arg;
    return SSL_TLSEXT_ERR_OK;
}

// Ours, the preferred first. A client that speaks none of them is told so (RFC 7301 3.2). Which it was is told by the bytes that
// come: the preface of HTTP/2, or a request.
static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                   const unsigned char *in, unsigned in_len, void *arg)
{
    static const unsigned char ours[] = "\x02h2\x08http/1.1";
    unsigned char *chosen;
    const struct tls_stream *stream = SSL_get_app_data(ssl);
    (void)arg;
    if (stream->is_proof) {
        tls_challenge_protocol(out, out_len);
        return SSL_TLSEXT_ERR_OK;
    }
    if (stream->contexts->hosts[stream->host].terms->is_opaque)
        return SSL_TLSEXT_ERR_NOACK;
    if (SSL_select_next_proto(&chosen, out_len, ours, sizeof ours - 1, in, in_len) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static int group_certificate(const struct tls_host *host, const SSL *ssl)
{
    const X509 *x509 =
        SSL_get_certificate(ssl); // the one of its kinds of key that OpenSSL has chosen
    const SSL_CTX *context = SSL_get_SSL_CTX(ssl);
    int type = x509 ? EVP_PKEY_get_base_id(X509_get0_pubkey(x509)) : EVP_PKEY_NONE;
    for (size_t i = 0; i < host->group_count; i++)
        for (int k = 0; host->groups[i].context == context && k < TLS_KEY_TYPE_COUNT; k++) {
            int index = host->groups[i].certificates[k];
            if (index >= 0 && host->terms->certificates[index].type == type)
                return index;
        }
    return TLS_GIVEN_NONE;
}

// The client would like to hear that the certificate is not revoked (RFC 6066 8).
static int on_status(SSL *ssl, void *arg)
{
    struct tls_stream *stream = SSL_get_app_data(ssl);
    const struct tls_host *host = &stream->contexts->hosts[stream->host];
    int index = stream->given == TLS_GIVEN_NONE ? group_certificate(host, ssl) : stream->given;
    (void)arg;
    if (index < 0 || !host->terms->certificates[index].has_ocsp ||
        !host->terms->certificates[index].proof)
        return SSL_TLSEXT_ERR_NOACK;
    stream->is_stapled =
        tls_view_staple(&host->views[index], host->terms->certificates[index].proof, ssl,
                        (int64_t)(moon_loop_wall_ms(stream->loop) / 1000));
    return stream->is_stapled ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_NOACK;
}

static void on_key_line(const SSL *ssl, const char *line)
{
    const struct tls_stream *stream = SSL_get_app_data(ssl);
    if (!stream->hub->key_log)
        return;
    fprintf(stream->hub->key_log, "%s\n", line); // one call: lines stay whole
    fflush(stream->hub->key_log);
}

// ---- contexts

static bool group_build(struct tls_group *group, const struct moon_tls_terms *terms,
                        struct tls_seat *seat)
{
    group->context = tls_context_new(terms, seat);
    if (!group->context)
        return false;
    for (int i = 0; i < TLS_KEY_TYPE_COUNT && group->certificates[i] >= 0; i++)
        if (tls_context_add(group->context, seat, &terms->certificates[group->certificates[i]]))
            return false;
    SSL_CTX_set_client_hello_cb(group->context, on_client_hello, NULL);
    SSL_CTX_set_tlsext_servername_callback(group->context, on_server_name);
    SSL_CTX_set_alpn_select_cb(group->context, on_alpn, NULL);
    SSL_CTX_set_tlsext_status_cb(group->context, on_status);
    if (terms->hub->key_log)
        SSL_CTX_set_keylog_callback(group->context, on_key_line);
    return true;
}

void tls_contexts_unref(struct tls_contexts *contexts)
{
    if (!contexts || atomic_fetch_sub_explicit(&contexts->ref_count, 1, memory_order_acq_rel) > 1)
        return;
    for (size_t i = 0; i < contexts->host_count; i++) {
        struct tls_host *host = &contexts->hosts[i];
        for (size_t k = 0; k < host->group_count; k++)
            SSL_CTX_free(host->groups[k].context);
        for (size_t k = 0; k < host->terms->certificate_count; k++)
            tls_view_fini(&host->views[k]);
        free(host->views);
        free(host->groups);
        free(host->names);
        moon_tls_terms_unref(host->terms);
    }
    free(contexts->hosts);
    free(contexts);
}

static struct tls_contexts *contexts_new(struct moon_tls_terms *const *terms, size_t count,
                                         struct tls_seat *seat)
{
    struct tls_contexts *contexts = calloc(1, sizeof *contexts);
    struct tls_host *hosts = calloc(count, sizeof *hosts);
    if (!contexts || !hosts)
        abort();
    atomic_init(&contexts->ref_count, 1);
    contexts->seat = seat;
    contexts->hosts = hosts;
    for (size_t i = 0; i < count; i++) {
        struct tls_host *host = &hosts[contexts->host_count++];
        host->terms = moon_tls_terms_ref(terms[i]);
        host->views = calloc(terms[i]->certificate_count + 1, sizeof *host->views);
        if (!host->views)
            abort();
        index_names(host);
        for (size_t k = 0; k < host->group_count; k++) {
            if (group_build(&host->groups[k], terms[i], seat))
                continue;
            ERR_clear_error();
            tls_contexts_unref(contexts);
            return NULL;
        }
    }
    return contexts;
}

SSL_CTX *tls_contexts_first(const struct tls_contexts *contexts)
{
    return contexts->hosts[0].groups[0].context;
}

int tls_contexts_find(const struct tls_contexts *contexts, size_t host, struct moon_slice name)
{
    const struct moon_tls_terms *terms = contexts->hosts[host].terms;
    for (size_t i = 0; i < terms->certificate_count; i++)
        if (moon_slice_equal(moon_slice_from(terms->certificates[i].name), name))
            return (int)i;
    return TLS_GIVEN_NONE;
}

const struct tls_certificate *tls_contexts_certificate(const struct tls_contexts *contexts,
                                                       size_t host, int index)
{
    return &contexts->hosts[host].terms->certificates[index];
}

const uint8_t *tls_contexts_id(const struct tls_contexts *contexts, size_t host)
{
    return contexts->hosts[host].terms->id;
}

struct tls_contexts *tls_server_contexts(struct moon_tls_server *server, size_t worker)
{
    struct tls_slot *slot = &server->slots[worker];
    pthread_mutex_lock(&slot->lock);
    struct tls_contexts *contexts = slot->contexts;
    atomic_fetch_add_explicit(&contexts->ref_count, 1, memory_order_relaxed);
    pthread_mutex_unlock(&slot->lock);
    return contexts;
}

// ---- servers

bool tls_server_fill(struct moon_tls_server *server)
{
    size_t count = server->hub->seat_count;
    struct tls_slot *slots = calloc(count, sizeof *slots);
    if (!slots)
        abort();
    for (size_t i = 0; i < server->slot_count; i++) { // locks stay where they are made
        slots[i].contexts = server->slots[i].contexts;
        pthread_mutex_init(&slots[i].lock, NULL);
        pthread_mutex_destroy(&server->slots[i].lock);
    }
    free(server->slots);
    server->slots = slots;
    while (server->slot_count < count) {
        struct tls_slot *slot = &slots[server->slot_count];
        slot->contexts =
            contexts_new(server->terms, server->term_count, server->hub->seats[server->slot_count]);
        if (!slot->contexts)
            return false;
        pthread_mutex_init(&slot->lock, NULL);
        server->slot_count++;
    }
    return true;
}

void tls_server_log_keys(struct moon_tls_server *server)
{
    for (size_t i = 0; i < server->slot_count; i++)
        for (size_t k = 0; k < server->slots[i].contexts->host_count; k++) {
            const struct tls_host *host = &server->slots[i].contexts->hosts[k];
            for (size_t g = 0; g < host->group_count; g++)
                SSL_CTX_set_keylog_callback(host->groups[g].context, on_key_line);
        }
}

struct moon_tls_server *moon_tls_server_new(struct moon_tls_hub *hub,
                                            struct moon_tls_terms *const *terms, size_t count)
{
    struct moon_tls_server *server = calloc(1, sizeof *server);
    if (!server || count > UINT16_MAX)
        abort();
    server->hub = hub;
    server->terms = calloc(count, sizeof *server->terms);
    if (!server->terms)
        abort();
    for (size_t i = 0; i < count; i++)
        server->terms[server->term_count++] = moon_tls_terms_ref(terms[i]);
    bool is_fine = tls_server_fill(server);
    pthread_mutex_lock(&hub->lock);
    moon_list_add_before(&hub->servers, &server->node);
    pthread_mutex_unlock(&hub->lock);
    if (is_fine)
        return server;
    moon_tls_server_free(server);
    return NULL;
}

void moon_tls_server_free(struct moon_tls_server *server)
{
    if (!server)
        return;
    pthread_mutex_lock(&server->hub->lock);
    moon_list_del(&server->node);
    pthread_mutex_unlock(&server->hub->lock);
    for (size_t i = 0; i < server->slot_count; i++) {
        tls_contexts_unref(server->slots[i].contexts);
        pthread_mutex_destroy(&server->slots[i].lock);
    }
    for (size_t i = 0; i < server->term_count; i++)
        moon_tls_terms_unref(server->terms[i]);
    free((void *)server->terms);
    free(server->slots);
    free(server);
}

bool tls_server_swap(struct moon_tls_server *server, struct moon_tls_terms **terms)
{
    struct tls_contexts **fresh = calloc(server->slot_count, sizeof *fresh);
    size_t made = 0;
    if (!fresh)
        abort();
    while (made < server->slot_count) {
        fresh[made] = contexts_new(terms, server->term_count, server->hub->seats[made]);
        if (!fresh[made])
            break;
        made++;
    }
    bool is_fine = made == server->slot_count;
    for (size_t i = 0; is_fine && i < server->term_count; i++)
        tls_terms_prevail(terms[i]);
    for (size_t i = 0; i < made; i++) {
        struct tls_contexts *old = fresh[i];
        if (is_fine) {
            pthread_mutex_lock(&server->slots[i].lock);
            old = server->slots[i].contexts;
            server->slots[i].contexts = fresh[i];
            pthread_mutex_unlock(&server->slots[i].lock);
        }
        tls_contexts_unref(old);
    }
    free((void *)fresh);
    if (!is_fine)
        return false;
    for (size_t i = 0; i < server->term_count; i++)
        moon_tls_terms_unref(server->terms[i]);
    free((void *)server->terms);
    server->terms = terms;
    return true;
}
