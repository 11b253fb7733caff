// Census: how many connections a port has, and each client of it, over all workers, for listeners with limits; and how many of
// them are in their TLS handshake. One per gateway; the locks are taken when a connection comes and goes, where there is a limit, and never for a request.
//
// Clients are told apart by address, IPv6 ones by their /64: who has one address of it has them all.
#pragma once

#include "base/address.h"

#include <stdbool.h>
#include <stdint.h>

struct moon_census;

struct moon_census *moon_census_new(void);
// NULL is fine.
void moon_census_free(struct moon_census *census);

enum moon_census_kind { MOON_CENSUS_CONNECTIONS, MOON_CENSUS_HANDSHAKES };

// One connection's entries of a kind; zeroed at first but for the kind, embedded in it.
struct moon_census_entry {
    uint8_t kind;             // enum moon_census_kind: each is counted apart
    struct moon_address port; // as it is bound
    struct moon_address client;
    bool is_counted, is_client_counted;
};

// Counts it for its port, unless that has `bound` already: false. 0: unbounded. Thread safe, as those below.
bool moon_census_enter(struct moon_census *census, struct moon_census_entry *entry,
                       const struct moon_address *port, uint32_t bound);
// The same for its client on that port, after the above.
bool moon_census_enter_client(struct moon_census *census, struct moon_census_entry *entry,
                              const struct moon_address *port, const struct moon_address *client,
                              uint32_t bound);
// Harmless where nothing is counted.
void moon_census_leave(struct moon_census *census, struct moon_census_entry *entry);
