// First bytes: which protocol a connection speaks, told by what its client has sent so far.
//
// Pure: no I/O, no allocation.
#pragma once

#include "base/slice.h"

enum moon_first {
    MOON_FIRST_MORE,   // more is needed to know
    MOON_FIRST_TLS,    // a record of a TLS handshake
    MOON_FIRST_H2,     // the preface of HTTP/2 (RFC 9113 3.4)
    MOON_FIRST_HTTP1,  // a method that HTTP/1 knows, and a blank
    MOON_FIRST_OPAQUE, // none of them
};

// The answer to more bytes is the same once it is not MOON_FIRST_MORE, which there is for no more than 24 bytes.
enum moon_first moon_first_bytes(struct moon_slice bytes);
