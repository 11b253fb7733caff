// Outbound: the connections that this process has just made to original destinations ("original:dst"), by both their ends. Where the
// kernel's rules do not spare the gateway's own traffic, such a connection is sent back to a listener of ours, which would send it
// on in turn, without an end: one that comes in from there is known by this.
//
// An entry is good for two seconds, the time it takes to be accepted, and there is a bound of them: over it the oldest of their kind
// go. Thread safe; the lock is taken once for each such connection, and for each that a transparent listener accepts.
#pragma once

#include "base/address.h"

#include <stdbool.h>
#include <stdint.h>

struct moon_outbound;

struct moon_outbound *moon_outbound_new(void);
// NULL is fine.
void moon_outbound_free(struct moon_outbound *outbound);
void moon_outbound_note(struct moon_outbound *outbound, const struct moon_address *local,
                        const struct moon_address *destination, uint64_t now_ms);
// Whether one was made between these two just now.
bool moon_outbound_has(struct moon_outbound *outbound, const struct moon_address *local,
                       const struct moon_address *destination, uint64_t now_ms);
