// TLS: settings with their certificates (terms), what a port's connections are met with (server), and streams that encrypt
// what passes over another stream. OpenSSL stays behind this header.
//
//   files -> terms (one listener's; checked, PEM in memory) -> server (all of a port) -> contexts, one set for each worker
//   a TCP stream -> moon_tls_accept -> handshake -> a stream as any other
//
// Each worker has an OpenSSL library context of its own, and every SSL_CTX lives in one of them: threads that share one stand in
// each other's way (DESIGN 3). All of them are made off the workers: by the builder, or by control when files have changed.
#pragma once

#include "base/slice.h"
#include "io/stream.h"

#include <stdint.h>

struct moon_counters;
struct moon_loop;
struct moon_tls_hub;
struct moon_tls_server;
struct moon_tls_terms;
struct moon_world;

enum moon_tls_verify { MOON_TLS_VERIFY_NONE, MOON_TLS_VERIFY_OPTIONAL, MOON_TLS_VERIFY_REQUIRED };

// In tenths: 12 is TLS 1.2.
enum { MOON_TLS_1_2 = 12, MOON_TLS_1_3 = 13 };

// ---- the hub: what the process knows of TLS. One for each gateway; it outlives terms, servers and streams.

struct moon_tls_hub *moon_tls_hub_new(struct moon_world *world);
// NULL is fine.
void moon_tls_hub_free(struct moon_tls_hub *hub);
// From now on servers have contexts for so many workers; before, for one. Once, before any worker runs.
void moon_tls_hub_set_workers(struct moon_tls_hub *hub, size_t count);
// Whether there is any server, or a client with files.
bool moon_tls_hub_is_used(struct moon_tls_hub *hub);
// Before any worker runs: where secrets of connections are written for programs that read captures (NSS format); NULL: nowhere. 0 or -errno.
int moon_tls_hub_log_keys(struct moon_tls_hub *hub, const char *path);
// Looks whether certificate files have changed, and gives new connections what is in them now: no listener, no connection
// notices. `tell` gets a line for each server that took new ones, and for each file that is refused (the old ones serve on).
// Reads files; on control.
void moon_tls_hub_poll(struct moon_tls_hub *hub,
                       void (*tell)(void *owner, bool is_fine, const char *text), void *owner);

// What is told of a certificate that serves.
struct moon_tls_certificate_facts {
    const char *name,
        // hostname: of its listener, "*.example.org" as ".example.org"; empty: every host
        *hostname;
    const char *const *hosts; // that it is for
    size_t host_count;
    const char *path;    // of its file
    bool is_given;       // it is not what the file holds, but was given by moon_tls_hub_set
    bool is_placeholder; // nobody trusts it: there is none of that host yet
    int64_t expires_s;   // since 1970
};

struct moon_tls_gift;
struct moon_tls_problem;

// Puts a certificate (PEM) in the place of those of that name, of all servers, without a reload: new connections get it from now
// on, until their files change. 0 and how many there were; -ENOENT: none has that name; MOON_ECONFIG and the problem: nothing
// has changed. On control.
int moon_tls_hub_set(struct moon_tls_hub *hub, const struct moon_tls_gift *gift,
                     struct moon_tls_problem *problem, size_t *count);
// Tells of all certificates that serve; nothing of what is told is kept. On control.
void moon_tls_hub_each(struct moon_tls_hub *hub,
                       void (*tell)(void *owner, const struct moon_tls_certificate_facts *facts),
                       void *owner);

// ---- OCSP: what is to be asked of responders, by whoever speaks HTTP, on control

struct tls_proof;

struct moon_tls_question {
    const char *name, *url;    // of the certificate's file, of the responder
    struct moon_slice request; // DER, to be sent by POST as application/ocsp-request
    struct tls_proof *proof;
};

// The next one that is due; false: none. It wants an answer, in the end.
bool moon_tls_ocsp_next(struct moon_tls_hub *hub, struct moon_tls_question *out);
// The response; ptr NULL: none came. NULL: it serves from now on; or what is wrong with it, static: it "has expired". The question is
// over either way.
const char *moon_tls_ocsp_answer(struct moon_tls_question *question, struct moon_slice der);
// Certificates that have a response to staple; that should have one and have none.
void moon_tls_ocsp_count(struct moon_tls_hub *hub, size_t *good, size_t *missing);

// ---- terms

struct moon_tls_pair {
    const char *cert, *key; // paths of PEM files; cert: the chain, its own certificate first
    // Of one that is obtained while the gateway runs, lower case: key and chain are one file then, `cert`. As long as it is
    // not there, or worth nothing, a certificate of our own making stands in its place, which nobody trusts. NULL: none such.
    const char *host;
    bool is_known;    // it was there before: then one that cannot be read is refused
    const char *name; // by which it is known; NULL: its path
    // of a file with an OCSP response in DER; NULL: it is fetched from the responder that the certificate names, if any
    const char *ocsp;
    bool has_no_ocsp; // nothing is stapled
};

struct moon_tls_options {
    struct moon_slice hostname; // lower case, "*.example.org" as ".example.org"; empty: every host
    const struct moon_tls_pair *pairs; // the first is the default
    size_t pair_count;
    int min_version, max_version; // 0: 1.2, 1.3
    // of TLS 1.2, as OpenSSL lists them; NULL: those with forward secrecy and AEAD
    const char *ciphers;
    bool has_tickets;
    bool is_opaque;              // what passes is no HTTP: no protocol is agreed on (ALPN)
    enum moon_tls_verify verify; // of clients
    const char *ca, *crl;        // paths; NULL: none
    unsigned depth;              // of chains of clients; 0: the default
};

struct moon_tls_problem {
    char path[64];  // of the option: "certificates[2].key"
    char text[320]; // which file, and what is wrong with it
};

// Reads and checks the files; the options are copied. One reference and 0, or MOON_ECONFIG and the problem. Blocks.
int moon_tls_terms_load(struct moon_tls_hub *hub, const struct moon_tls_options *options,
                        struct moon_tls_problem *problem, struct moon_tls_terms **out);
struct moon_tls_terms *moon_tls_terms_ref(struct moon_tls_terms *terms);
// NULL is fine.
void moon_tls_terms_unref(struct moon_tls_terms *terms);
// Whether the files are still those that were read, and no certificate has expired meanwhile. Blocks.
bool moon_tls_terms_are_fresh(const struct moon_tls_terms *terms);

// What is not as its owner may think, of a certificate (an index of the options): static, NULL: nothing.
const char *moon_tls_terms_warning(const struct moon_tls_terms *terms, size_t index);

// What decides whom a connection may speak to: the hostname and what is asked of clients. Sessions are bound to it. It is that of
// the files as they serve now, not as they were when the terms were loaded. Thread safe.
enum { MOON_TLS_ID_LEN = 32 };
const uint8_t *moon_tls_terms_id(const struct moon_tls_terms *terms);
bool moon_tls_terms_verify(const struct moon_tls_terms *terms);

// ---- servers

// Of the terms of all listeners of a port, in their order: the name that a client asks for chooses among them, and then among
// the certificates. Takes references of its own. NULL: OpenSSL refuses what it accepted when the terms were loaded.
struct moon_tls_server *moon_tls_server_new(struct moon_tls_hub *hub,
                                            struct moon_tls_terms *const *terms, size_t count);
// NULL is fine. Connections live on.
void moon_tls_server_free(struct moon_tls_server *server);

// ---- clients: what connections of our own are made with. Equal settings over equal files are one client, however often it is
// asked for, so that its pointer tells one identity from another.

struct moon_tls_client;

struct moon_tls_client_options {
    bool is_unverified;               // whoever answers is believed
    const char *ca;                   // path; NULL: the system's
    const char *crl;                  // path; NULL: none; of the CAs in `ca`
    const struct moon_tls_pair *pair; // our own certificate; NULL: none
    // The peer's certificate has one of these among its alternative names, to the letter: "spiffe://example/a", "a.example".
    // None: the name that it was asked for by.
    const struct moon_slice *sans;
    size_t san_count;
    int min_version, max_version; // 0: 1.2, 1.3
};

// Reads and checks the files. One reference and 0, or MOON_ECONFIG and the problem. Blocks where there are files. Thread safe.
int moon_tls_client_get(struct moon_tls_hub *hub, const struct moon_tls_client_options *options,
                        struct moon_tls_problem *problem, struct moon_tls_client **out);
// Looks at the files of clients as moon_tls_hub_poll at those of servers: new connections are made with what is in them now,
// sessions of before are not resumed. On control.
void moon_tls_clients_poll(struct moon_tls_hub *hub,
                           void (*tell)(void *owner, bool is_fine, const char *text), void *owner);
// Of a stream from moon_tls_connect: whether the files have not changed since it was made. On its loop.
bool moon_tls_is_current(const struct moon_stream *stream);
struct moon_tls_client *moon_tls_client_ref(struct moon_tls_client *client);
// NULL is fine.
void moon_tls_client_unref(struct moon_tls_client *client);
// Whether what is in its files is what was read. Blocks.
bool moon_tls_client_is_fresh(struct moon_tls_client *client);

// ---- challenges of ACME (RFC 8555 8): one set for the process. Any listener with TLS answers TLS-ALPN-01 (RFC 8737) by itself.

enum { MOON_TLS_CHALLENGE_LEN = 512 }; // of a key authorization, with its NUL

// Control's. `answer`: the key authorization. False: the host cannot stand in a certificate.
bool moon_tls_challenge_add(struct moon_tls_hub *hub, const char *host, const char *token,
                            const char *answer);
// All of that token; harmless where there is none.
void moon_tls_challenge_del(struct moon_tls_hub *hub, const char *token);
// Anybody's. Whether there are any: costs nothing.
bool moon_tls_has_challenges(const struct moon_tls_hub *hub);
// Whether a ClientHello to that server is answered by a proof: so far, where its names are somebody else's. `sni` in lower case;
// `alpn` as in struct moon_tls_hello.
bool moon_tls_has_proof(const struct moon_tls_server *server, struct moon_slice sni,
                        struct moon_slice alpn);
// The key authorization of a token.
bool moon_tls_challenge_find(struct moon_tls_hub *hub, struct moon_slice token,
                             char out[MOON_TLS_CHALLENGE_LEN]);

// ---- streams

// Why a handshake failed, for counters.
enum moon_tls_failure {
    MOON_TLS_FINE,
    MOON_TLS_PLAINTEXT,   // what came is no TLS
    MOON_TLS_CLOSED,      // the peer went away
    MOON_TLS_REFUSED,     // the peer sent an alert
    MOON_TLS_CERTIFICATE, // the peer's certificate is missing, or not accepted
    MOON_TLS_PROTOCOL,    // the rest: nothing in common, broken messages
    MOON_TLS_DECLINED,    // whoever chooses the certificate wants no connection by that name
    MOON_TLS_UNCHOSEN,    // whoever chooses the certificate has failed
};

// What is known of a connection once its handshake is done; refcounted on its worker.
struct moon_tls_facts {
    unsigned ref_count;
    const char *version, *cipher; // static: "TLSv1.3"
    bool is_resumed;
    bool is_stapled;             // an OCSP response went to the client
    bool is_proof;               // for ACME: nothing is said over it, it reads its end
    bool is_verified;            // the client has shown a certificate that was accepted
    uint8_t id[MOON_TLS_ID_LEN]; // of the terms
    struct moon_slice sni, alpn; // sni is lower case
    // of the peer's certificate; empty: it has shown none
    struct moon_slice subject; // RFC 2253
    struct moon_slice cn;   // the last common name of the subject as it is, in UTF-8; empty: none
    struct moon_slice sans; // "DNS:a.example,URI:spiffe://example/a"
    struct moon_slice fingerprint; // SHA-256, hexadecimal
    struct moon_slice serial;      // hexadecimal
};

struct moon_tls_facts *moon_tls_facts_ref(struct moon_tls_facts *facts);
// NULL is fine.
void moon_tls_facts_unref(struct moon_tls_facts *facts);

// Puts TLS over a stream that was accepted. The stream that is returned owns it, and is "connecting" until its handshake is
// done: moon_stream_connected tells, as for a stream from moon_loop_connect. Its owner is told MOON_READY_WRITE then, or
// MOON_READY_ERROR; nothing is told before it is set. `worker`: an index below what the hub was told; on its loop.
struct moon_stream *moon_tls_accept(struct moon_tls_server *server, size_t worker,
                                    struct moon_loop *loop, struct moon_stream *inner);
// Puts TLS over a stream that connects or is connected. `host` (NUL-terminated, copied): whom to ask for, a name or an IP
// address; the peer's certificate must be its. `alpn`: the protocols that are offered, each behind a byte with its length
// (RFC 7301 3.1). Results as of moon_tls_accept; sessions are resumed where they can be.
struct moon_stream *moon_tls_connect(struct moon_tls_client *client, size_t worker,
                                     struct moon_loop *loop, struct moon_stream *inner,
                                     const char *host, struct moon_slice alpn);
// Of a stream from moon_tls_connect whose owner is not set yet: a few bytes, copied, that go out in clear in front of the handshake.
void moon_tls_send_first(struct moon_stream *stream, struct moon_slice bytes);

// ---- choosing: who sets a chooser has a say about the certificate of a handshake, and may take its time.

struct moon_tls_hello {
    size_t
        // which of the server's the name has chosen, as they were given to moon_tls_server_new
        terms;
    struct moon_slice sni; // lower case; empty: none
    // what the client offers as it sends it: each with a byte before it that says how long it is; well-formed (RFC 7301 3.1)
    struct moon_slice alpn;
};

enum moon_tls_choice {
    MOON_TLS_CHOICE_MADE,     // go on, with what was given, else with what the name has chosen
    MOON_TLS_CHOICE_LATER,    // call again after moon_tls_choose_again
    MOON_TLS_CHOICE_DECLINED, // the alert unrecognized_name
    MOON_TLS_CHOICE_FAILED,   // the alert internal_error
};

// What a chooser gives: the name of a certificate of the terms, or else the texts of one.
struct moon_tls_gift {
    struct moon_slice name, cert, key;
};

typedef enum moon_tls_choice moon_tls_choose_fn(void *owner, const struct moon_tls_hello *hello);

// Asked once for each ClientHello, until it has chosen; never under a call of the owner's. Of a stream from moon_tls_accept,
// before its handshake. A peer that goes away meanwhile fails the handshake at once.
void moon_tls_set_chooser(struct moon_stream *stream, moon_tls_choose_fn *choose, void *owner);
// From the chooser: the connection gets this certificate and no other. NULL, or why not, static ("key: ..." about the key): then
// the handshake cannot be made. Texts are parsed once for each worker, as long as they are among the last 256.
const char *moon_tls_give(struct moon_stream *stream, const struct moon_tls_gift *gift);
// It was LATER: the chooser is asked again, soon.
void moon_tls_choose_again(struct moon_stream *stream);

// NULL: the stream is no TLS stream of ours.
const char *moon_tls_why(const struct moon_stream *stream);
enum moon_tls_failure moon_tls_failure_of(const struct moon_stream *stream);
// What went wrong in words, static or of the stream; never NULL.
const char *moon_tls_failure_text(const struct moon_stream *stream);
// The stream below, whose owner is nobody then; the TLS stream closes without a word. For plain answers.
struct moon_stream *moon_tls_strip(struct moon_stream *stream);
