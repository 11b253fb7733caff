// Proxied: what those in front of the gateway said of a connection, kept for as long as somebody asks: scripts, and upstreams that
// get a PROXY header themselves. It comes from a PROXY header, or from the kernel that sent the connection here (transparent).
#pragma once

#include "base/address.h"

#include <stdlib.h>

struct moon_proxied {
    unsigned ref_count;
    uint8_t version;           // enum moon_proxy_version; none: there was no header
    struct moon_address proxy; // who sent it
    // MOON_FAMILY_NONE: not told. destination: where the client meant to go
    struct moon_address source, destination;
    size_t tlvs_len;
    char tlvs[]; // for moon_proxy_tlv_next
};

// On the connection's worker. malloc'd, with one reference at first.
static inline struct moon_proxied *moon_proxied_ref(struct moon_proxied *proxied)
{
    proxied->ref_count++;
    return proxied;
}

// NULL is fine.
static inline void moon_proxied_unref(struct moon_proxied *proxied)
{
    if (proxied && --proxied->ref_count == 0)
        free(proxied);
}
