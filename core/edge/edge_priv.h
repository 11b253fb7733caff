// The insides of the edge, shared by its files:
//   edge.c  acceptors: taking connections, the way out    connection.c  one connection, from the accepted stream to its end
#pragma once

#include "base/list.h"
#include "edge/edge.h"
#include "exchange/exchange.h"
#include "io/loop.h"

struct moon_acceptor;
struct moon_connection;
struct moon_front;
struct moon_hold;
struct moon_speakers;
struct moon_stream;
struct moon_udp;

// Lives until its socket is closed and its last connection is gone.
struct moon_acceptor {
    struct moon_acceptor *next;
    struct moon_edge *edge;
    struct moon_socket *socket; // NULL: closed
    struct moon_arrival arrival;
    struct moon_address bound; // names the port; of a unix socket, a number in its place
    struct moon_udp *udp;      // has the socket; NULL: it is of connections
    size_t connection_count;
    struct moon_task task; // takes further connections in the next turn
    bool is_closing;       // a connection that still comes gets one answer
};

struct moon_edge {
    struct moon_service *service;
    struct moon_connection_budget *budget;
    struct moon_acceptor *acceptors;
    struct moon_acceptor *leaving; // of datagrams: those that drain
    struct moon_list connections;
    size_t connection_count;
    struct moon_speakers *speakers;
    struct moon_timer retry;
    bool is_paused, is_draining;
};

// ---- edge.c

// The snapshot that its connections stand on.
struct moon_hold *moon_acceptor_hold(const struct moon_acceptor *acceptor);
const struct moon_front *moon_acceptor_front(const struct moon_acceptor *acceptor);
// One connection of it is no more; may free it.
void moon_acceptor_forget(struct moon_acceptor *acceptor);
// A descriptor is free: accepting goes on where it has paused.
void moon_edge_resume(struct moon_edge *edge);

// ---- connection.c

// Takes a stream as it was accepted; what it counts as is reserved.
void moon_connection_start(struct moon_acceptor *acceptor, struct moon_stream *stream);
// Of a node of edge->connections; each may end it.
void moon_connection_drain(struct moon_list *node);
void moon_connection_close(struct moon_list *node);
const struct moon_acceptor *moon_connection_acceptor(const struct moon_list *node);
// False: no listener of its port takes requests over its handshake any more.
bool moon_connection_is_at_home(const struct moon_list *node);
// As moon_edge_survey, of this one.
bool moon_connection_survey(const struct moon_list *node, moon_survey_fn *fn, void *owner);
