// Stream routes: routes of listeners that speak no HTTP. At a listener of TCP or UDP all that comes in is theirs, and a listener has
// one (the Gateway API's TCPRoute and UDPRoute). At one of TLS they are parted by the name that is asked for (TLSRoute): `hosts`, the
// exact one first, then the longest wildcard, then the route without.
#pragma once

#include "conf/conf.h"

#include <stdbool.h>

struct moon_host_table;
struct moon_listeners;

// Whether moongate.route { ... } is one: a listener that it names speaks no HTTP. `listeners` may be NULL: then it is none.
bool moon_route_is_stream(const struct moon_listeners *listeners, const struct moon_object *route);

// Of each listener its route's object.
struct moon_stream_routes {
    size_t count;
    int *all;                       // whoever takes every name, or all there is; -1: none
    struct moon_host_table **named; // NULL: nobody takes names
    struct moon_slice *hosts;       // that the tables are of; malloc'd texts
    size_t host_count;
};

// Checks and reads them all; wants moon_stream_routes_fini either way. False: problems were told.
bool moon_stream_routes_read(const struct moon_compile *compile, struct moon_stream_routes *out);
void moon_stream_routes_fini(struct moon_stream_routes *routes);
// The index of the object for a connection of that listener; -1: none. `sni` in lower case; empty where there is none.
int moon_stream_routes_find(const struct moon_stream_routes *routes, int listener,
                            struct moon_slice sni);
