// Transparent: listeners whose connections the kernel has sent here in place of where their clients meant to go (netfilter's
// REDIRECT and TPROXY). Where that was is kept with the connection, for scripts and for upstreams of "original:dst".
#pragma once

#include <stdbool.h>

struct moon_address;
struct moon_front;
struct moon_outbound;
struct moon_proxied;
struct moon_resources;
struct moon_stream;

struct moon_transparent {
    const struct moon_front *front;
    const struct moon_address *bound; // the port
    struct moon_outbound *outbound;
    struct moon_resources *res;
};

// Of a stream as it was accepted: where it meant to go, as a reference; NULL: it was meant for us, and came straight. False: it is a
// connection of this gateway's own, which the kernel has sent back.
bool moon_transparent_read(const struct moon_transparent *at, const struct moon_stream *stream,
                           struct moon_proxied **out);
