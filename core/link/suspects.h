// Addresses whose HTTP/2 connections were ended as attacks a moment ago. A new connection from there is served as any other, only
// that less of what is worth nothing is borne with at its beginning (http/h2_guard.c): who comes back thousands of times a second
// to spend a full allowance each time has a tenth of it. Nobody is refused, for many may share an address.
// Of one worker; a newer suspect takes the place of an older one with the same hash.
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct moon_address;

enum { MOON_SUSPECT_COUNT = 64, MOON_SUSPECT_MS = 10000 };

// Zeroed: none.
struct moon_suspects {
    struct {
        uint64_t net; // IPv4, or the first half of IPv6
        uint64_t until_ms;
    } at[MOON_SUSPECT_COUNT];
};

// A client of a unix socket has no address: it is never one.
void moon_suspects_add(struct moon_suspects *suspects, const struct moon_address *address,
                       uint64_t now_ms);
bool moon_suspects_has(const struct moon_suspects *suspects, const struct moon_address *address,
                       uint64_t now_ms);
