// Patron: the client connection that an upstream connection is for, where that begins with a PROXY header; and what the header
// says of it. Version 2 tells of the client's TLS, too: what the gateway knows of its own handshake, else what a PROXY header in
// front has said. Whatever else that one said goes on as it is, but for what only its sender's host understands.
#pragma once

#include "base/slice.h"

#include <stddef.h>
#include <stdint.h>

struct moon_address;
struct moon_proxied;
struct moon_stream;

struct moon_patron {
    uint64_t number; // unique in the worker
    const struct moon_stream *stream;
    const struct moon_proxied *proxied; // NULL: it came without a PROXY header
    struct moon_slice id;               // of what the connection is made for; empty: not told
};

// Where it meant to go, as those in front of us said: borrowed; NULL: nobody said.
const struct moon_address *moon_patron_destination(const struct moon_patron *patron);

enum {
    MOON_PATRON_INTRO_LEN = 4096, // as much as is read
    // kinds of introduction: an enum moon_proxy_version, with
    MOON_PATRON_VERSION = 15,
    MOON_PATRON_SEALED = 16, // a checksum
    MOON_PATRON_NAMED = 32,  // the id
};

// Writes the PROXY header to `to`; returns its length. NULL: of the gateway itself.
size_t moon_patron_introduce(const struct moon_patron *patron, uint8_t kind,
                             char to[static MOON_PATRON_INTRO_LEN]);
