// Scopes: which routes a listener has. A route that names listeners is theirs alone; one that names none is everybody's, as far
// as the hostname of a listener goes. That needs no telling here: a request of a listener has a host that its hostname takes, so
// that a route meets it when the route's own hosts do. So all listeners that no route names share one scope, with one index.
#pragma once

#include "conf/conf.h"

#include <stdbool.h>
#include <stdint.h>

struct moon_index;
struct moon_match;

struct moon_scope {
    const struct moon_match *matches; // in the order in which they were written
    size_t count;
    struct moon_match *own;   // the same, where they are not all there are
    struct moon_index *index; // of those without gRPC, once they are known to be fine
    struct moon_index *grpc;  // of those with; NULL: there are none
};

struct moon_scopes {
    struct moon_scope *items; // the first is that of listeners which no route names
    uint32_t count;
    uint32_t *of_listener;
    bool is_first_used; // some listener has the first
};

// Reads `listeners` of the routes and parts the matches, which outlive the scopes, by it. True, or false with the problems in the
// report; wants moon_scopes_fini either way.
bool moon_scopes_read(const struct moon_compile *compile, const struct moon_match *matches,
                      size_t count, struct moon_scopes *out);
void moon_scopes_index(struct moon_scopes *scopes);
void moon_scopes_fini(struct moon_scopes *scopes);
