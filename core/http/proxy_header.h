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
    MOON_PROXY_WRITE_LEN = 108,     // room for any header that is written, without TLVs
    MOON_PROXY_ID_MAX_LEN = 128,    // of a connection
};

// Types of TLVs, as their registry has them (proxy-protocol.txt 2.2, and what AWS has of its own).
enum moon_proxy_tlv {
    MOON_PROXY_TLV_ALPN = 0x01,
    MOON_PROXY_TLV_AUTHORITY = 0x02, // the host name that the client asked for
    MOON_PROXY_TLV_CRC32C = 0x03,
    MOON_PROXY_TLV_NOOP = 0x04,
    MOON_PROXY_TLV_ID = 0x05,  // unique, of the connection
    MOON_PROXY_TLV_TLS = 0x20, // see struct moon_proxy_tls; within it:
    MOON_PROXY_TLV_TLS_VERSION = 0x21,
    MOON_PROXY_TLV_TLS_CN = 0x22,
    MOON_PROXY_TLV_TLS_CIPHER = 0x23,
    MOON_PROXY_TLV_TLS_SIGNATURE = 0x24,
    MOON_PROXY_TLV_TLS_KEY = 0x25,
    MOON_PROXY_TLV_NETNS = 0x30,
    MOON_PROXY_TLV_AWS = 0xea, // a byte 1, then the id of a VPC endpoint
};

enum moon_proxy_version { MOON_PROXY_NONE, MOON_PROXY_V1, MOON_PROXY_V2 };

struct moon_proxy_header {
    uint8_t version; // enum moon_proxy_version
    // The proxy speaks for itself (LOCAL), or does not know (UNKNOWN, UNSPEC): the connection's own addresses hold.
    bool is_local;
    struct moon_address source, destination; // MOON_FAMILY_NONE: not told, or of unix sockets
    struct moon_slice tlvs;                  // in the input; whole, each fits
};

// The client's TLS with the proxy: what MOON_PROXY_TLV_TLS holds.
struct moon_proxy_tls {
    bool is_tls;
    bool has_certificate; // it has shown one: on this connection,
    bool is_resumed;      // or before, in its session
    bool is_verified;     // and it was accepted
    struct moon_slice tlvs;
};

// The length of the header at the front of `in`; 0: more is needed to know; MOON_EPROTO: there is none, or it is malformed, too
// long, or its checksum is wrong.
ssize_t moon_proxy_header_read(struct moon_slice in, struct moon_proxy_header *out);
// Takes the next TLV off *rest. False: none is left.
bool moon_proxy_tlv_next(struct moon_slice *rest, uint8_t *type, struct moon_slice *value);
// The first of that type. False: there is none.
bool moon_proxy_tlv_find(struct moon_slice tlvs, uint8_t type, struct moon_slice *value);
// Reads the value of a MOON_PROXY_TLV_TLS, whose length was checked with the header.
bool moon_proxy_tls_read(struct moon_slice value, struct moon_proxy_tls *out);
// Writes one without TLVs to `to`, which has MOON_PROXY_WRITE_LEN bytes; returns its length. A source without family: LOCAL
// (version 2) or UNKNOWN. Where one address is IPv6 both are written so.
size_t moon_proxy_header_write(enum moon_proxy_version version, struct moon_address source,
                               struct moon_address destination, char *to);

// Appends to TLVs of `len` bytes in `room`; returns their new length, the same where it does not fit.
size_t moon_proxy_tlv_put(char *to, size_t len, size_t room, uint8_t type, struct moon_slice value);
// The front of a MOON_PROXY_TLV_TLS at `to`, behind which its TLVs are put; returns its length.
size_t moon_proxy_tls_put(char *to, const struct moon_proxy_tls *tls);
// The same for a header of version 2 that was written to `to` and names a source: TLVs behind it, and last of all its checksum.
size_t moon_proxy_header_add(char *to, size_t len, size_t room, uint8_t type,
                             struct moon_slice value);
size_t moon_proxy_header_seal(char *to, size_t len, size_t room);
