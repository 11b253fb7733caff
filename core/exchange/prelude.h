// Prelude: the filters of a TCP or TLS route look at a connection before it goes anywhere (filter/preread.h): one after another, each
// may wait, all of them together so long (timeouts.preread).
//
//   new -> [filter -> wait -> ready -> filter] ... -> done
//                      '-- time is over: what waits is dropped -> done
#pragma once

#include "base/address.h"
#include "base/slice.h"
#include "filter/filter.h"

struct moon_chain;
struct moon_prelude;
struct moon_resources;
struct moon_stream;

struct moon_prelude_args {
    struct moon_resources *res;
    struct moon_stream *stream; // of the client; stays the caller's, who tells of its readiness
    const struct moon_chain *chain;
    uint64_t number;
    struct moon_address client, destination;
    struct moon_slice listener, route; // outlive it, as the chain
    struct moon_slice sni, alpn;       // copied
    bool is_tls;
    // Told once, never under moon_prelude_new; it has freed itself. MOON_NEXT, with the name of an upstream where one was chosen (valid
    // during the call); MOON_DONE, MOON_FAIL: it is to be closed, as after MOON_WAIT: its time was over.
    void (*done)(void *owner, enum moon_verdict verdict, struct moon_slice upstream);
    void *owner;
};

// Begins soon.
struct moon_prelude *moon_prelude_new(const struct moon_prelude_args *args);
// Something has come from the client, or it has ended its side.
void moon_prelude_ready(struct moon_prelude *prelude, unsigned ready);
// Breaks it off without telling. NULL is fine; not after `done`.
void moon_prelude_free(struct moon_prelude *prelude);
