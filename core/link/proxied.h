// Proxied: what a PROXY header said of a connection, kept for as long as the connection lives, for those who ask later: scripts,
// and upstreams that get a header themselves.
#pragma once

#include "base/address.h"

struct moon_proxied {
    struct moon_address proxy;               // who sent it
    struct moon_address source, destination; // MOON_FAMILY_NONE: not told
    size_t tlvs_len;
    char tlvs[]; // for moon_proxy_tlv_next
};
