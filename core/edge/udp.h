// UDP: one worker's side of a port of datagrams. Datagrams of one source address are a session: it has one endpoint, to which they
// go from a socket of its own, and what comes back there goes back to the source. It ends when nothing has come for a while.
//
//   port socket --source--> session (new: route, backend by weight, endpoint) --its socket--> endpoint        and back
//
// Sessions are bounded by the limits of the listener, of the process's descriptors and of the upstream: over one, datagrams of new
// sources are dropped, and counted. A worker has the sources that the kernel's hash over SO_REUSEPORT gives it.
#pragma once

#include "exchange/survey.h"

#include <stdbool.h>
#include <stddef.h>

struct moon_arrival;
struct moon_connection_budget;
struct moon_service;
struct moon_socket;
struct moon_udp;

struct moon_udp_args {
    struct moon_service *service;
    struct moon_connection_budget *budget; // a session counts as a connection
    const struct moon_arrival *arrival;    // outlives it
    const struct moon_address *bound;      // names the port; outlives it
    struct moon_socket *socket;            // taken where this works
    // Told when it drains and its last session is over; it may be freed then.
    void (*drained)(void *owner);
    void *owner;
};

// 0, or -errno: then the socket stays the caller's.
int moon_udp_new(const struct moon_udp_args *args, struct moon_udp **out);
// No new sessions; those that are there end as soon as they are silent for a second.
void moon_udp_drain(struct moon_udp *udp);
// Ends every session now, and closes the socket. NULL is fine. Not under `drained`.
void moon_udp_free(struct moon_udp *udp);
const struct moon_socket *moon_udp_socket(const struct moon_udp *udp);
size_t moon_udp_session_count(const struct moon_udp *udp);
bool moon_udp_survey(const struct moon_udp *udp, moon_survey_fn *fn, void *owner);
