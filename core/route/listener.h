// Listeners: where the gateway takes connections and for which hosts, as the configuration defines them. Several may share an
// address with a port (a bind; once open, a port of gateway/): of those the one whose hostname fits best has the request.
//
//   bind (an address with a port) + Host -> listener: the exact hostname, then the longest wildcard, then the one without
//   bind + SNI -> the same among those of TLS
//
// Pure lookup: no I/O, no allocation. Indexes of listeners follow the order of the objects.
#pragma once

#include "base/address.h"
#include "conf/conf.h"
#include "route/front.h"

#include <stdbool.h>
#include <stdint.h>

struct moon_head;
struct moon_host_table;
struct moon_index;
struct moon_route_scratch;
struct moon_tls_server;
struct moon_tls_terms;

enum { MOON_BIND_TEXT_LEN = 128 };

struct moon_listener {
    const char *name;           // for logs and routes; never NULL
    struct moon_slice hostname; // lower case, "*.example.org" as ".example.org"; empty: every host
    struct moon_place place;
    struct moon_front front;
    struct moon_tls_terms *tls; // NULL: plain
    bool is_passthrough;        // of TLS, and the endpoint answers it
    bool sends_client_cert;     // X-Forwarded-Client-Cert
    bool is_lenient;            // its producer applies objects one by one
    bool is_named;              // by the configuration: routes may refer to it
};

// Listeners of a bind that requests are parted among by their hosts.
struct moon_bind_hosts {
    struct moon_match *matches; // for the index
    struct moon_index *index;   // NULL: there is none, or one alone that takes every host
    int only;                   // that one; -1: none
};

struct moon_bind {
    struct moon_address address; // port 0: any free one, shared with no other listener
    const char *path;            // of a unix socket, which has no address; NULL: none
    int *members;                // indexes of its listeners
    uint32_t member_count;
    unsigned protocols;                   // of its members: bits 1 << MOON_PROTOCOL_
    struct moon_bind_hosts plain, secure; // of requests that come in clear, and over TLS
    struct moon_host_table *names;        // who of HTTPS and TLS is meant; NULL: there is no TLS
    int opaque;                           // who has bytes that are none of the rest; -1: nobody
    struct moon_tls_server *tls;          // of all members that end TLS, or NULL: there are none
};

struct moon_listeners {
    struct moon_listener *listeners;
    size_t count;
    struct moon_bind *binds; // in the order in which they are named first
    size_t bind_count;
};

// Part: struct moon_listeners *. Its registry is the struct moon_tls_hub *.
extern const struct moon_section moon_listener_section;

const struct moon_listeners *moon_snapshot_listeners(const struct moon_snapshot *snapshot);
// The listener that has a request which came in there, over TLS or not, or -1: none takes its host.
int moon_listeners_find(const struct moon_listeners *all, uint32_t bind, bool is_secure,
                        const struct moon_head *head, struct moon_route_scratch *scratch);
// The listener with protocol "https" or "tls" that is meant by that name (lower case; empty: none was said), or -1.
int moon_listeners_find_name(const struct moon_listeners *all, uint32_t bind,
                             struct moon_slice sni);
// Whether a request that came in there over TLS is for a name that TLS listeners of the port have: another connection is needed.
bool moon_listeners_is_elsewhere(const struct moon_listeners *all, uint32_t bind,
                                 const struct moon_head *head);
// The listener whose terms are those of that index of the bind's server.
int moon_bind_ender(const struct moon_listeners *all, const struct moon_bind *bind, size_t terms);
static inline bool moon_bind_speaks(const struct moon_bind *bind, enum moon_protocol protocol)
{
    return bind->protocols >> protocol & 1;
}
// What the members of a bind share; their protocol may be one of several.
static inline const struct moon_front *moon_bind_front(const struct moon_listeners *all,
                                                       const struct moon_bind *bind)
{
    return &all->listeners[bind->members[0]].front;
}

// "127.0.0.1:80", or "unix:/run/x.sock"; `address`: as it was bound.
void moon_bind_format(const struct moon_bind *bind, const struct moon_address *address,
                      char out[static MOON_BIND_TEXT_LEN]);
// Whether a connection whose handshake was on `id` (io/tls.h), asked for by `sni` (perhaps empty), may carry requests to that
// listener: not where it was made for another, unless the client named none and neither asks for a client's certificate.
bool moon_listener_takes(const struct moon_listener *listener, const uint8_t *id, bool is_verified,
                         struct moon_slice sni);
// The names of the listeners of a bind, with ", " between them; malloc'd.
char *moon_bind_names(const struct moon_listeners *all, const struct moon_bind *bind);
