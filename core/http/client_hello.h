// The ClientHello (RFC 8446 4.1.2, RFC 5246 7.4.1.2) at the front of a TLS connection, for who passes it on unread: the name that
// is asked for (RFC 6066 3) and the protocols that are offered (RFC 7301). What else it says is the endpoint's matter.
//
// Bytes in, values out: no I/O, no allocation.
#pragma once

#include "base/slice.h"

enum {
    MOON_HELLO_MAX_LEN = 16384,  // a longer message is refused
    MOON_HELLO_PEEK_LEN = 20480, // and one that takes more bytes with the heads of its records
    MOON_HELLO_NAME_LEN = 255,
};

struct moon_client_hello {
    struct moon_slice sni;  // lower case, without a dot at its end; empty: none
    struct moon_slice alpn; // as it is sent: names, each behind its length; moon_alpn_next
    uint16_t version;       // the highest that is offered, as on the wire: 0x0304 is TLS 1.3
};

// Reads it from the records at the front of `bytes`. A message in several records is put together in place: `bytes` is not what came
// any more then, and what `out` has lies in it. 1: it is whole; 0: more is needed to know; MOON_EPROTO: it is none, or is malformed;
// MOON_ELIMIT: it is too long.
int moon_client_hello_read(char *bytes, size_t len, struct moon_client_hello *out);
// Takes the next protocol off *rest; what is there to grease (RFC 8701) is passed over. False: none is left.
bool moon_alpn_next(struct moon_slice *rest, struct moon_slice *protocol);
