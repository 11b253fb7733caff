// Stream routes: routes of listeners that speak no HTTP. They have no matches: all that comes in at their listeners is theirs, and a
// listener has one (the Gateway API's TCPRoute and UDPRoute). Room for hosts, once TLS is passed through by name.
#pragma once

#include "conf/conf.h"

#include <stdbool.h>

struct moon_listeners;

// Whether moongate.route { ... } is one: a listener that it names speaks no HTTP. `listeners` may be NULL: then it is none.
bool moon_route_is_stream(const struct moon_listeners *listeners, const struct moon_object *route);
// Checks them all, and gives the index of its route's object, or -1, for each listener (malloc'd, the caller's). False: problems
// were told.
bool moon_stream_routes_read(const struct moon_compile *compile, int **of_listener);
