// The PROXY header (haproxy's proxy-protocol.txt, 2.4): what a proxy in front of us says of the client, before any other byte of a
// connection. Version 1 is a line of text, version 2 is binary and may carry more in typed values (TLVs).
//
// Bytes in, values out: no I/O, no allocation.
#pragma once

#include "base/address.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    MOON_PROXY_READ_MAX_LEN = 4096, // a longer header is refused
    MOON_PROXY_WRITE_LEN = 108,     // room for any header that is written
};

enum moon_proxy_version { MOON_PROXY_NONE, MOON_PROXY_V1, MOON_PROXY_V2 };

struct moon_proxy_header {
    uint8_t version; // enum moon_proxy_version
    // The proxy speaks for itself (LOCAL), or does not know (UNKNOWN, UNSPEC): the connection's own addresses hold.
    bool is_local;
    struct moon_address source, destination; // MOON_FAMILY_NONE: not told, or of unix sockets
    struct moon_slice tlvs;                  // in the input; whole, each fits
};

// The length of the header at the front of `in`; 0: more is needed to know; MOON_EPROTO: there is none, or it is malformed, too
// long, or its checksum is wrong.
ssize_t moon_proxy_header_read(struct moon_slice in, struct moon_proxy_header *out);
// Takes the next TLV off *rest. False: none is left.
bool moon_proxy_tlv_next(struct moon_slice *rest, uint8_t *type, struct moon_slice *value);
// Writes one without TLVs to `to`, which has MOON_PROXY_WRITE_LEN bytes; returns its length. A source without family: LOCAL
// (version 2) or UNKNOWN. Where one address is IPv6 both are written so.
size_t moon_proxy_header_write(enum moon_proxy_version version, struct moon_address source,
                               struct moon_address destination, char *to);
