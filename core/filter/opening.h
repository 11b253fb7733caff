// Opening: a connection of a client before its first request, as filters of its listener see it. Their hook `certificate` runs in
// its TLS handshake, when the ClientHello has come: in list order until one gives a certificate. Verdicts:
//
//   MOON_NEXT   it has no opinion: the next one, at last what the name has chosen
//   MOON_DONE   it has given a certificate (ops->give)
//   MOON_WAIT   called again after ops->resume; the handshake rests meanwhile, within its deadline
//   MOON_FAIL   the handshake fails with an alert; with `is_declined` the client hears unrecognized_name
//
// An opening that ends while a hook waits calls the filter's `cancel_opening` once, with what the hook kept.
#pragma once

#include "filter/filter.h"

struct moon_chain;
struct moon_opening;

// A certificate: the name of one of the listener's, or else PEM.
struct moon_opening_gift {
    struct moon_slice name, cert, key;
};

struct moon_opening_ops {
    // Has the hook that waits called again, soon. From anywhere on the worker.
    void (*resume)(struct moon_opening *opening);
    // From the hook. NULL, or why the certificate cannot be had, static: "key: ..." about the key.
    const char *(*give)(struct moon_opening *opening, const struct moon_opening_gift *gift);
};

struct moon_opening {
    const struct moon_opening_ops *ops;
    struct moon_loop *loop;
    unsigned worker; // as that of a flow
    struct moon_address client;
    struct moon_slice listener; // its name
    struct moon_slice sni;      // lower case; empty: none
    struct moon_slice alpn;     // as on the wire: each with its length before it
    bool is_declined;
    // the runner's
    const struct moon_chain *chain;
    uint16_t at; // the filter that runs or waits
    void *state; // what its hook keeps while it waits
    bool is_waiting;
};

// Runs the hooks, or goes on at the one that waited. NEXT: none has given any.
enum moon_verdict moon_opening_certificate(struct moon_opening *opening);
// Harmless where nothing waits.
void moon_opening_cancel(struct moon_opening *opening);
