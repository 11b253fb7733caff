// A transport address as plain data, 20 bytes: IPv4 or IPv6 with port. Parsing and printing only, no resolving.
#pragma once

#include "base/slice.h"

#include <stdbool.h>
#include <stdint.h>

enum moon_family { MOON_FAMILY_NONE, MOON_FAMILY_IPV4, MOON_FAMILY_IPV6 };

struct moon_address {
    uint8_t family; // enum moon_family
    uint8_t ip[16]; // network order; IPv4 in the first four
    uint16_t port;  // host order
};

enum { MOON_ADDRESS_TEXT_LEN = 64 };

// "10.0.0.1:80" or "[::1]:80"; a port is required. False: neither (a host name, a bad port, anything after it).
bool moon_address_parse(struct moon_slice text, struct moon_address *out);
// An IP literal without port or brackets, e.g. "10.0.0.1", "::1".
bool moon_address_parse_ip(struct moon_slice text, uint16_t port, struct moon_address *out);
bool moon_address_equal(const struct moon_address *a, const struct moon_address *b);
// For tables; not keyed, so not for what strangers choose without a seed of the table's own.
uint32_t moon_address_hash(const struct moon_address *a);
bool moon_address_is_loopback(const struct moon_address *a);
// Makes an IPv4 address of one within IPv6 (::ffff:10.0.0.1), and the other way round; others stay.
void moon_address_unmap(struct moon_address *a);
void moon_address_map(struct moon_address *a);
// Writes "10.0.0.1" or "::1" (no brackets) and a NUL; returns the length.
size_t moon_address_format_ip(const struct moon_address *a, char out[MOON_ADDRESS_TEXT_LEN]);
// Writes "10.0.0.1:80" or "[::1]:80" and a NUL; returns the length.
size_t moon_address_format(const struct moon_address *a, char out[MOON_ADDRESS_TEXT_LEN]);
