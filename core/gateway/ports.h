// Ports: the addresses the gateway has bound, each with one socket a worker. They belong to the gateway and outlive reloads:
// a reload makes a table for the new listeners that takes over what stays, opens what is new, and leaves what goes behind.
#pragma once

#include "base/address.h"

#include <stdbool.h>
#include <stddef.h>

struct moon_listeners;
struct moon_log;
struct moon_report;
struct moon_socket;
struct moon_world;

struct moon_port {
    struct moon_address configured, bound; // differ where a free port was asked for
    // of a unix socket, in the place of an address; NULL: none
    char *path;
    bool is_datagram;
    // One a worker. Handles once the workers have them: a worker closes its own.
    struct moon_socket **sockets;
    bool is_kept; // taken over from the table before
};

struct moon_ports {
    struct moon_port *items; // of the binds of the listeners, in their order
    size_t count;
    unsigned worker_count;
};

struct moon_ports_args {
    struct moon_world *world;
    const struct moon_listeners *listeners;
    const struct moon_ports *before; // NULL: none
    unsigned worker_count;
    const struct moon_log *log;
    struct moon_report *report;
};

// 0, or an error with the report filled: then whatever was opened is closed again and `before` is as it was.
int moon_ports_open(const struct moon_ports_args *args, struct moon_ports *out);
// The listeners serve now: kept ports that are transparent no more lose that, which until here a refused reload would have missed,
// and unix sockets get their new mode. Not once the workers drain, for they have closed theirs.
void moon_ports_settle(const struct moon_ports *ports, const struct moon_listeners *listeners,
                       const struct moon_log *log);
// Whether `before` has it and `now` has not taken it over.
bool moon_port_is_gone(const struct moon_port *port, const struct moon_ports *now);
// Frees the table; `close` says that nobody has taken the sockets of ports that were not kept.
void moon_ports_fini(struct moon_ports *ports, const struct moon_ports *successor, bool close);
