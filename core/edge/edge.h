// The edge of one worker: takes connections from its sockets and turns each into a server link whose requests become exchanges.
#pragma once

#include "exchange/survey.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct moon_census;
struct moon_edge;
struct moon_service;
struct moon_socket;

// Downstream connections of the whole process against what its descriptors allow; touched once a connection, not once a request.
struct moon_connection_budget {
    atomic_size_t used_count;
    atomic_size_t max_count;    // may change; connections over a smaller one stay
    struct moon_census *census; // of the listeners' own limits
};

// `service` and `budget` outlive the edge.
struct moon_edge *moon_edge_new(struct moon_service *service,
                                struct moon_connection_budget *budget);
// Closes what is open, without a word. NULL is fine.
void moon_edge_free(struct moon_edge *edge);
// Takes connections from a socket until moon_edge_drain, which closes it; `bind`: whose it is among the listeners of the newest
// snapshot. 0, or -errno: then the socket stays the caller's.
int moon_edge_listen(struct moon_edge *edge, struct moon_socket *socket, uint32_t bind);
// A newer snapshot has another number for it. A socket that the edge does not have is left alone.
void moon_edge_rebind(struct moon_edge *edge, const struct moon_socket *socket, uint32_t bind);
// Stops taking connections from one of its sockets: serves what has arrived already, closes the socket, and drains the
// connections that came through it; what they still ask stands on the snapshot of now. A socket that it does not have is left alone.
void moon_edge_unlisten(struct moon_edge *edge, const struct moon_socket *socket);
// Takes what has arrived already, then closes its sockets, so that new clients are refused at once; idle connections close, others after the answer under way.
void moon_edge_drain(struct moon_edge *edge);
// What listeners ask of clients may have changed: connections whose handshake is not worth a request any more drain.
void moon_edge_settle(struct moon_edge *edge);
// Closes every connection now.
void moon_edge_close_all(struct moon_edge *edge);
// The connections without an exchange, as moon_exchange_survey: one after another, the oldest first.
bool moon_edge_survey(const struct moon_edge *edge, moon_survey_fn *fn, void *owner);
size_t moon_edge_connection_count(const struct moon_edge *edge);
