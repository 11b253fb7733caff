// Networks: sets of IP addresses that share a prefix, "10.0.0.0/8". Plain data.
#pragma once

#include "base/address.h"

struct moon_network {
    struct moon_address address; // MOON_FAMILY_NONE: peers without an IP address (unix sockets)
    uint8_t prefix_len;          // bits
};

// "10.0.0.0/8", "::1/128", an address alone, or "unix:". False: none of these, or bits are set behind the prefix.
bool moon_network_parse(struct moon_slice text, struct moon_network *out);
// IPv4 addresses within IPv6 (::ffff:10.0.0.1) count as what they are.
bool moon_network_has(const struct moon_network *network, const struct moon_address *address);
