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

// ---- terms

struct moon_tls_pair {
    const char *cert, *key; // paths of PEM files; cert: the chain, its own certificate first
};

struct moon_tls_options {
    struct moon_slice hostname; // lower case, "*.example.org" as ".example.org"; empty: every host
    const struct moon_tls_pair *pairs; // the first is the default
    size_t pair_count;
    int min_version, max_version; // 0: 1.2, 1.3
    // of TLS 1.2, as OpenSSL lists them; NULL: those with forward secrecy and AEAD
    const char *ciphers;
    bool has_tickets;
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

// What decides whom a connection may speak to: the hostname and what is asked of clients. Sessions are bound to it.
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

// ---- streams

// Why a handshake failed, for counters.
enum moon_tls_failure {
    MOON_TLS_FINE,
    MOON_TLS_PLAINTEXT,   // what came is no TLS
    MOON_TLS_CLOSED,      // the peer went away
    MOON_TLS_REFUSED,     // the peer sent an alert
    MOON_TLS_CERTIFICATE, // the peer's certificate is missing, or not accepted
    MOON_TLS_PROTOCOL,    // the rest: nothing in common, broken messages
};

// What is known of a connection once its handshake is done; refcounted on its worker.
struct moon_tls_facts {
    unsigned ref_count;
    const char *version, *cipher; // static: "TLSv1.3"
    bool is_resumed;
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
// address; the peer's certificate must be its. Results as of moon_tls_accept; sessions are resumed where they can be.
struct moon_stream *moon_tls_connect(struct moon_tls_client *client, size_t worker,
                                     struct moon_loop *loop, struct moon_stream *inner,
                                     const char *host);
// Of a stream from moon_tls_connect whose owner is not set yet: a few bytes, copied, that go out in clear in front of the handshake.
void moon_tls_send_first(struct moon_stream *stream, struct moon_slice bytes);
// NULL: the stream is no TLS stream of ours.
const char *moon_tls_why(const struct moon_stream *stream);
enum moon_tls_failure moon_tls_failure_of(const struct moon_stream *stream);
// What went wrong in words, static or of the stream; never NULL.
const char *moon_tls_failure_text(const struct moon_stream *stream);
// The stream below, whose owner is nobody then; the TLS stream closes without a word. For plain answers.
struct moon_stream *moon_tls_strip(struct moon_stream *stream);
