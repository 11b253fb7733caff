// Preread: a connection of a TCP or TLS route before a byte of it is taken, as filters see it: whose it is, what it asks for, its
// first bytes; they say where it goes, or that it ends. There is no exchange, and nothing of filter.h but the verdicts holds here.
//
// A hook is called with it, and again whenever bytes have come or `resume` was called, until it returns anything but MOON_WAIT.
// MOON_NEXT: the next filter has it, behind the last one the route; MOON_DONE: it is closed; MOON_FAIL: it is closed as a fault.
#pragma once

#include "base/address.h"
#include "base/slice.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct moon_preread;
struct moon_tls_facts;

struct moon_preread_ops {
    // What has come, at most `len` bytes; they stay where they are. >= 0, -errno. Of TLS that ends here at most one record.
    ssize_t (*peek)(struct moon_preread *preread, char *to, size_t len);
    // The hook that waits is called again, soon; never before it returns.
    void (*resume)(struct moon_preread *preread);
};

struct moon_preread {
    const struct moon_preread_ops *ops;
    unsigned worker;                         // as of struct moon_flow
    uint64_t number;                         // of the connection, unique in the worker
    struct moon_address client, destination; // destination: where the client meant to go
    struct moon_slice listener, route;
    struct moon_slice sni, alpn;        // http/client_hello.h; empty: none
    const struct moon_tls_facts *facts; // of TLS that has ended here; NULL: of none
    bool is_tls;
    bool has_ended; // no more bytes will come than are there
    char *upstream; // malloc'd, in the place of the route's backends; NULL: those hold
    // Of the filter that waits: its own, and what drops it where the connection ends meanwhile; NULL: nobody waits.
    void *guest;
    void (*cancel)(struct moon_preread *preread);
};
