// The insides of TLS, shared by the tls_*.c of this room:
//   tls_hub.c  library contexts, files that change   tls_terms.c  settings   tls_certificate.c  files, checks
//   tls_server.c  contexts, who gets which   tls_tickets.c  sessions   tls_facts.c  what a peer has shown   tls_stream.c  streams
//   tls_choose.c  who has a say   tls_ocsp.c  staples   tls_override.c  certificates that are given
//   tls_client.c  connections of our own   tls_sessions.c  their sessions   tls_bio.c  ciphertext on its way
//   tls_pem.c  certificates and keys as text   tls_made.c  certificates of our own making   tls_challenges.c  proofs for ACME
#pragma once

#include "base/list.h"
#include "io/loop.h"
#include "io/tls.h"
#include "io/world.h"

#include <openssl/ssl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/types.h>

enum {
    TLS_KEY_TYPE_COUNT = 4,       // certificates of one name: RSA, ECDSA, Ed25519 ...
    TLS_PLAIN_LEN = 65536,        // encrypted in one go
    TLS_RECORD_LEN = 16384,       // of it in a record
    TLS_SCRATCH_LEN = 69632,      // what TLS_PLAIN_LEN becomes
    TLS_PENDING_MAX_LEN = 131072, // ciphertext that the peer does not take
    TLS_SNI_MAX_LEN = 255,
    TLS_DIGEST_LEN = 32, // SHA-256
};

struct tls_stream;
struct tls_tickets;
struct tls_challenges;

// One worker's part of OpenSSL. Only it uses what is below, but for making contexts.
struct tls_seat {
    OSSL_LIB_CTX *library;
    char *scratch; // ciphertext of the call that is under way
    size_t scratch_len;
    struct tls_tickets *tickets;
    struct tls_ticket_keys *keys; // as this worker has seen them last
    EVP_CIPHER *cipher;           // of tickets
    struct moon_list given;       // pairs that functions have given, used last first
    size_t given_count;
};

struct moon_tls_hub {
    struct moon_world *world;
    struct tls_seat **seats;
    size_t seat_count, worker_count; // seats are made when TLS is first used
    BIO_METHOD *bio;
    struct tls_tickets *tickets;
    struct tls_challenges *challenges;
    FILE *key_log;
    pthread_mutex_t seat_lock; // of making seats
    pthread_mutex_t lock;      // of servers
    struct moon_list servers;  // of struct moon_tls_server
    struct moon_list clients;  // of struct moon_tls_client; under the lock too
    struct tls_overrides *overrides;
    struct tls_proofs *proofs; // of certificates, by OCSP
};

// ---- tls_hub.c

// Seats for all workers.
void tls_hub_fill(struct moon_tls_hub *hub);

// ---- tls_terms.c

struct tls_file {
    char *path;
    struct moon_slice bytes; // malloc'd
    int64_t mtime_ns, size;
};

struct tls_certificate {
    char *name; // by which functions and orders know it
    struct tls_file cert, key;
    // of one that is obtained while we run: both are one file, which may not be there yet; else NULL
    char *host;
    bool is_placeholder;
    struct tls_file ocsp; // path NULL: none
    bool has_ocsp;     // a response is fetched from the responder that it names, or is in the file
    bool has_old_ocsp; // what is in the file has expired
    struct tls_proof *proof; // a reference
    uint64_t override_id;    // of what was given in place of the files; 0: nothing was
    int type;                // EVP_PKEY_
    char **names;            // lower case, "*.example.org" as it is
    size_t name_count;
    int64_t expires_s; // 1970
};

// Ids that terms of one origin have had, one after another: files change, listeners stay.
struct tls_lineage;

struct moon_tls_terms {
    atomic_uint ref_count;
    struct tls_lineage *lineage; // a reference
    struct moon_tls_hub *hub;
    char *hostname;
    struct tls_certificate *certificates;
    size_t certificate_count;
    int min_version, max_version; // OpenSSL's
    char *ciphers;
    bool has_tickets, is_opaque;
    enum moon_tls_verify verify;
    struct tls_file ca, crl; // path NULL: none
    unsigned depth;
    uint8_t id[MOON_TLS_ID_LEN];
};

// Fills the problem; MOON_ECONFIG.
__attribute__((format(printf, 3, 4))) int tls_refuse(struct moon_tls_problem *problem,
                                                     const char *path, const char *format, ...);
// 0 or MOON_ECONFIG. The second: of CAs, or of CRLs, none of which is left out.
int tls_file_read(struct moon_tls_hub *hub, const char *key, const char *path, struct tls_file *out,
                  struct moon_tls_problem *problem);
int tls_file_read_all(struct moon_tls_hub *hub, const char *key, const char *path, bool is_crl,
                      struct tls_file *out, struct moon_tls_problem *problem);
// Notes when the certificate ends. MOON_ECONFIG: it has, or has not begun.
int tls_check_dates(struct moon_tls_hub *hub, const X509 *x509, const char *key,
                    struct tls_certificate *out, struct moon_tls_problem *problem);
bool tls_file_is_fresh(const struct tls_file *file);
void tls_file_fini(struct tls_file *file);
// The CAs of a file into a store; how many there were. `names` may be NULL.
size_t tls_store_add(X509_STORE *store, const struct tls_file *file, struct tls_seat *seat,
                     STACK_OF(X509_NAME) * names);
// The CRLs of a file; how many there were. From now on certificates are looked up in them.
size_t tls_store_add_crls(X509_STORE *store, const struct tls_file *file, struct tls_seat *seat);
int tls_version(int version, int absent);
extern const char tls_suites[], tls_groups[], tls_ciphers[];

// A context with the settings of the terms, without certificates. NULL: OpenSSL says no, see its queue.
SSL_CTX *tls_context_new(const struct moon_tls_terms *terms, struct tls_seat *seat);
// Whether the files are still those that were read. Blocks.
bool tls_terms_are_read(const struct moon_tls_terms *terms);
// They serve from now on: their id is the one that connections are held to.
void tls_terms_prevail(const struct moon_tls_terms *terms);
// The same settings and files, read anew; of the same lineage.
int tls_terms_reload(const struct moon_tls_terms *terms, struct moon_tls_problem *problem,
                     struct moon_tls_terms **out);

// Whether a pair can serve. 0, or MOON_ECONFIG with the problem, which speaks of certificate->name.
int tls_certificate_check(struct moon_tls_hub *hub, struct tls_certificate *certificate,
                          struct moon_tls_problem *problem);
// The same in a context of the terms; `index` names it in the problem, -1: it is a pair of no list.
int tls_certificate_check_in(struct moon_tls_hub *hub, SSL_CTX *context,
                             struct tls_certificate *certificate, int index,
                             struct moon_tls_problem *problem);
// Reads the files of a pair, the index-th of its list, or what was given in their place. 0 or MOON_ECONFIG; tls_certificate_fini
// either way.
int tls_certificate_read(struct moon_tls_hub *hub, const struct moon_tls_pair *pair, size_t index,
                         struct tls_certificate *out, struct moon_tls_problem *problem);
// Whether that is what reading would give now. Blocks.
bool tls_certificate_is_read(struct moon_tls_hub *hub, const struct tls_certificate *certificate);
void tls_certificate_fini(struct tls_certificate *certificate);
void tls_file_stat(const char *path, struct tls_file *out);

int64_t tls_time_s(const ASN1_TIME *time);

// ---- tls_ocsp.c

struct tls_proof;
struct tls_staple;

// What one worker has seen of a proof.
struct tls_view {
    unsigned version;
    struct tls_staple *staple; // a reference
};

struct tls_proofs *tls_proofs_new(struct moon_world *world);
void tls_proofs_free(struct tls_proofs *proofs);
// A reference to that of the certificate that comes first; the issuer is looked for behind it. `name`: for messages. NULL: the
// text holds no certificate. Thread safe.
struct tls_proof *tls_proof_get(struct tls_proofs *proofs, struct moon_slice pem, const char *name,
                                bool has_file);
void tls_proof_unref(struct tls_proof *proof);
// It is fetched from its responder from now on.
void tls_proof_want(struct tls_proof *proof);
// A response that serves from now on. NULL, or why not, static: "has expired".
const char *tls_proof_take(struct tls_proof *proof, struct moon_slice der);
// What is wrong without being an error, static; NULL: nothing.
const char *tls_proof_warning(const struct tls_proof *proof, bool is_fetched, bool has_file);
void tls_view_fini(struct tls_view *view);
// Hands OpenSSL what there is. False: nothing, or its time is over.
bool tls_view_staple(struct tls_view *view, struct tls_proof *proof, SSL *ssl, int64_t wall_s);

// ---- tls_override.c

struct tls_overrides *tls_overrides_new(void);
void tls_overrides_free(struct tls_overrides *overrides);
// From now on `gift` stands in the place of that certificate's files, as long as they are as they were when it was read.
void tls_override_add(struct tls_overrides *overrides, const struct tls_certificate *certificate,
                      const struct moon_tls_gift *gift);
// What was added since the last of these stays / goes, and what stood there before is back.
void tls_overrides_commit(struct tls_overrides *overrides);
void tls_overrides_undo(struct tls_overrides *overrides);
// The id of what stands in its place now; 0: nothing does. Thread safe.
uint64_t tls_override_find(struct tls_overrides *overrides,
                           const struct tls_certificate *certificate);
// Its paths and times of change are filled in: takes what stands in the place of its files, if anything does.
bool tls_override_take(struct tls_overrides *overrides, struct tls_certificate *certificate);

// ---- tls_pem.c

// A certificate with its chain and its key, of one library.
struct tls_pair {
    X509 *own;
    STACK_OF(X509) * chain;
    EVP_PKEY *key;
};

BIO *tls_pem_open(struct moon_slice bytes);
// The next one; NULL: there is none.
X509 *tls_pem_certificate(BIO *bio, OSSL_LIB_CTX *library);
X509_CRL *tls_pem_crl(BIO *bio, OSSL_LIB_CTX *library);
// NULL: there are certificates, or CRLs, and all can be read to the end; or what is wrong, static.
const char *tls_pem_check(struct moon_slice bytes, bool is_crl);
// NULL and *out, or what is wrong ("key: ..." where it is the key), static.
const char *tls_pair_read(struct tls_pair *out, OSSL_LIB_CTX *library, struct moon_slice cert,
                          struct moon_slice key);
void tls_pair_fini(struct tls_pair *pair);
// Adds a certificate with its chain and its key; results as of tls_pair_read.
const char *tls_context_add(SSL_CTX *context, const struct tls_seat *seat,
                            const struct tls_certificate *certificate);
// As tls_pair_read; the pair is the seat's, good until the next call.
const char *tls_given_read(struct tls_seat *seat, struct moon_slice cert, struct moon_slice key,
                           const struct tls_pair **out);
void tls_given_drop(struct tls_seat *seat);

// ---- tls_server.c

// One worker's contexts of a server, in one state of its files.
struct tls_contexts {
    atomic_uint ref_count;
    struct tls_seat *seat;
    struct tls_host *hosts; // one for each of the terms
    size_t host_count;
};

struct moon_tls_server {
    struct moon_list node; // in hub->servers
    struct moon_tls_hub *hub;
    struct moon_tls_terms **terms;
    size_t term_count;
    struct tls_slot *slots; // of each worker
    size_t slot_count;
    char refused[320]; // why its new files were refused, and how often
    unsigned refused_count;
};

// Contexts for workers that the hub has got meanwhile. False: OpenSSL says no.
bool tls_server_fill(struct moon_tls_server *server);
// New terms of the same number take the place of the old ones; takes the references. False: they stay the caller's.
bool tls_server_swap(struct moon_tls_server *server, struct moon_tls_terms **terms);
void tls_server_log_keys(struct moon_tls_server *server);
struct tls_contexts *tls_server_contexts(struct moon_tls_server *server, size_t worker);
void tls_contexts_unref(struct tls_contexts *contexts);
// The context that a connection begins with.
SSL_CTX *tls_contexts_first(const struct tls_contexts *contexts);
// A certificate of the terms that a connection has got, by name: its index, or TLS_GIVEN_NONE.
int tls_contexts_find(const struct tls_contexts *contexts, size_t host, struct moon_slice name);
const struct tls_certificate *tls_contexts_certificate(const struct tls_contexts *contexts,
                                                       size_t host, int index);
// The id of the terms that a connection has got.
const uint8_t *tls_contexts_id(const struct tls_contexts *contexts, size_t host);

// ---- tls_made.c

struct tls_made_args {
    const char *host;
    const char *title;    // the common name
    const uint8_t *proof; // of TLS-ALPN-01, a SHA-256; NULL: none
    int64_t now_s;        // 1970
};

// A certificate with a new key. False: the host can't stand in one. Thread safe.
bool tls_made_new(const struct tls_made_args *args, X509 **certificate, EVP_PKEY **key);
// What a host shows that has no certificate yet; malloc'd PEM with the key.
bool tls_made_placeholder(const char *host, int64_t now_s, struct moon_slice *pem);

// ---- tls_challenges.c

struct tls_challenges *tls_challenges_new(void);
void tls_challenges_free(struct tls_challenges *challenges);
// In a ClientHello for `sni`: whether the peer asks for a proof that there is. Then it gets nothing else.
bool tls_challenge_answer(struct tls_stream *stream, const char *sni);
// The protocol of such connections, for ALPN.
void tls_challenge_protocol(const unsigned char **out, unsigned char *len);
// ---- tls_choose.c

// Asks the stream's chooser: what the ClientHello callback returns, with the alert where it fails.
int tls_choose_ask(struct tls_stream *stream, SSL *ssl, int *alert);

// ---- tls_tickets.c

struct tls_tickets *tls_tickets_new(struct moon_world *world);
void tls_tickets_free(struct tls_tickets *tickets);
void tls_tickets_sit(struct tls_tickets *tickets, struct tls_seat *seat);
void tls_tickets_stand(struct tls_seat *seat);
// Sessions of connections of this context are resumed by ticket.
void tls_tickets_use(SSL_CTX *context);

// ---- tls_client.c

void tls_clients_fill(struct moon_tls_hub *hub);
// Under the hub's lock.
bool tls_clients_have_files(const struct moon_tls_hub *hub);
// The handshake is done: whether the peer is who was meant. NULL, or why not.
const char *tls_client_judge(const struct tls_stream *stream);

// ---- tls_sessions.c

// Zeroed at first.
struct tls_sessions {
    struct tls_session *sessions; // made with the first
    unsigned next;                // to be replaced
    uint32_t epoch;               // of the files that they were agreed on under
};

void tls_sessions_fini(struct tls_sessions *all);
// Borrowed; NULL: there is none.
SSL_SESSION *tls_sessions_get(struct tls_sessions *all, uint32_t epoch, const char *host,
                              const struct moon_address *address);
// Takes the reference.
void tls_sessions_keep(struct tls_sessions *all, uint32_t epoch, const char *host,
                       const struct moon_address *address, SSL_SESSION *given);

// ---- tls_facts.c

struct moon_tls_facts *tls_facts_new(SSL *ssl, struct moon_slice sni, const uint8_t *id);

// ---- tls_stream.c

// ---- tls_bio.c

// The way from OpenSSL to the stream below.
BIO_METHOD *tls_bio_new(void);
// Gathers a client's first record: who does not send a whole one costs what it has sent. > 0: OpenSSL may have it; 0: more has to
// come; MOON_EOF, -errno.
int tls_hello_gather(struct tls_stream *stream);
void tls_hello_drop(struct tls_stream *stream);
// Once connected: what goes out before the first record, and in one send with it.
void tls_first_take(struct tls_stream *stream);
// What the call to OpenSSL has left in the scratch goes out, or waits.
void tls_scratch_flush(struct tls_stream *stream);
// Offers what waits.
void tls_pending_flush(struct tls_stream *stream);
void tls_pending_drop(struct tls_stream *stream);

enum { TLS_GIVEN_NONE = -1, TLS_GIVEN_TEXT = -2 };

struct tls_stream {
    struct moon_stream base; // first
    struct moon_stream *inner;
    struct moon_loop *loop;
    struct moon_tls_hub *hub;
    struct tls_seat *seat;
    struct tls_contexts *contexts;  // of the server role, until the handshake is done
    SSL *ssl;                       // NULL: nothing to begin with has come
    struct moon_tls_facts *facts;   // once it is
    const char *failure_text;       // static
    char *sni;                      // until the handshake is done; NULL: none. Of a client it stays
    struct moon_tls_client *client; // a reference; NULL: the server role
    moon_tls_choose_fn *choose;     // NULL: nobody
    void *choose_owner;
    char *hello; // a client's first record, until OpenSSL has it; NULL: none
    uint32_t hello_at, hello_len, first_len;
    uint32_t epoch; // of the client
    char *
        first; // of the client role: plain bytes in front of all else, until it is connected; NULL: none
    char *pending; // ciphertext that the stream below did not take; NULL: none
    uint32_t pending_at, pending_len;
    // what of pending's plain bytes was not reported as written: whoever writes next begins with them
    uint32_t pending_plain_len;
    int error;          // it failed with
    uint32_t odd_count; // records since the last that was the caller's
    uint16_t host;      // index of the terms, while there are contexts
    int16_t given; // index of the certificate of the terms that the chooser has named, TLS_GIVEN_
    uint8_t state, failure; // enum tls_state, enum moon_tls_failure
    bool is_dry : 1;        // nothing to decrypt before something comes
    bool wants_write : 1;
    bool is_slow : 1;   // its peer has not taken all that was sent
    bool is_shut : 1;   // close_notify was sent
    bool wants_fin : 1; // behind what is pending
    bool is_plain : 1;  // what came first was no TLS
    bool is_eof : 1;    // of the stream below
    bool is_closed : 1;
    bool is_proof : 1;    // of TLS-ALPN-01: it ends with its handshake
    bool has_hello : 1;   // a ClientHello has been read
    bool is_choosing : 1; // the chooser takes its time
    bool is_stapled : 1;
    uint8_t choice : 2;    // enum moon_tls_choice, what the chooser said last
    struct moon_task task; // frees
    struct moon_task more; // tells of room, or goes on where the chooser waited
};

// A stream without a role yet, and without OpenSSL's part.
struct tls_stream *tls_stream_new(struct moon_tls_hub *hub, struct tls_seat *seat,
                                  struct moon_loop *loop, struct moon_stream *inner);
void tls_stream_begin(struct tls_stream *stream, SSL_CTX *context);
