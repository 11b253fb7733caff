// Routing: request head -> index of an action. Pure lookup: no I/O, no allocation.
//
// Of all the matches of all routes that a request meets, one wins, as the Gateway API has it (reference/gateway-api.md 7.2):
//   1. the host: exact, then the longest wildcard, then none        5. most header matches
//   2. the path: exact, then a regex, then a prefix                 6. most query matches
//   3. of two prefixes the longer                                   7. the first written
//   4. a match that names methods
// The Gateway API leaves the place of a regex open. It stands before prefixes, so that a catch-all "/" does not shadow it (as in
// nginx and Envoy Gateway); all regexes are equal in the path, so that 4 to 7 decide between two.
// A request that no match of a more specific host takes falls on to less specific ones: precedence is among matches that match.
//
// Calls of gRPC are looked up among the matches with `grpc` first, and fall on to the others (reference/gateway-api.md 8): the
// host as above, then the service by its name, then the longest service, the longest method, most headers, the first written.
//
// All that among the routes of one listener (scope.h). The host of 1 is the route's as it was written: the hostname of a listener
// says which hosts get this far, not which of two routes is the more specific.
#pragma once

#include "conf/conf.h"

struct moon_head;
struct moon_route_scratch;
struct moon_routes;

// part: struct moon_routes *; indexes follow the order of the objects
extern const struct moon_section moon_route_section;

const struct moon_routes *moon_snapshot_routes(const struct moon_snapshot *snapshot);
// The name of moongate.route { ... }: `name`, or its first match written out: "GET api.example.com/users"; an exact path has
// "=" before it, a regex "~". Where it matches by nothing but `listeners`, their names: "db,cache". malloc'd.
char *moon_route_name(const struct moon_value *route);

// What lookups work in: one a thread, made beforehand. `text_len`: the longest head or target there may be.
struct moon_route_scratch *moon_route_scratch_new(size_t text_len);
void moon_route_scratch_free(struct moon_route_scratch *scratch);

// Index of the action, for a request of that listener (moon_listeners_find). -1: no route matches. MOON_ELIMIT: an expression gave up before the route was certain, so that any
// answer but an error might be a way around a rule.
int moon_routes_find(const struct moon_routes *routes, int listener, const struct moon_head *head,
                     struct moon_route_scratch *scratch);
// The index of the action for a connection at a listener without HTTP (stream_route.h), asked for by `sni`, lower case, perhaps
// empty; -1: there is none.
int moon_routes_stream(const struct moon_routes *routes, int listener, struct moon_slice sni);
