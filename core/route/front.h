// Front: what a port asks of connections before any of their bytes is a request: the protocol they speak, whether a PROXY header
// comes first and from whom, and how many there may be. All listeners of a port have the same, but for the protocol where the first
// bytes of a connection tell which one it is: HTTPS and TLS are told apart by the name that is asked for, the others by what
// comes, on ports that detect.
#pragma once

#include "base/network.h"
#include "conf/conf.h"

#include <stdbool.h>
#include <stdint.h>

enum moon_protocol {
    MOON_PROTOCOL_HTTP,
    MOON_PROTOCOL_HTTPS,
    MOON_PROTOCOL_TCP,
    MOON_PROTOCOL_UDP,
    MOON_PROTOCOL_TLS, // as TCP: passed through, or ended here, routed by name
};

// How the kernel sends connections here that were meant for elsewhere.
enum moon_transparent_kind {
    MOON_TRANSPARENT_NONE,
    MOON_TRANSPARENT_REDIRECT, // by netfilter's REDIRECT, or DNAT
    MOON_TRANSPARENT_TPROXY,
};

struct moon_front {
    enum moon_protocol protocol;
    enum moon_transparent_kind transparent;
    bool has_proxy_header;
    bool detects;                 // the first bytes tell the protocol
    struct moon_network *trusted; // who may send one
    uint32_t trusted_count;
    struct {
        uint32_t connections, per_client; // open at once, all workers together; 0: unbounded
        uint32_t handshakes, handshakes_per_client; // of TLS, under way at once
    } limits;
    uint32_t mode; // of the file of a unix socket
};

extern const char *const moon_protocol_choices[], *const moon_transparent_choices[];
extern const struct moon_schema moon_front_proxy_schema, moon_front_limits_schema;

static inline bool moon_protocol_is_http(enum moon_protocol protocol)
{
    return protocol == MOON_PROTOCOL_HTTP || protocol == MOON_PROTOCOL_HTTPS;
}

static inline bool moon_protocol_is_tls(enum moon_protocol protocol)
{
    return protocol == MOON_PROTOCOL_HTTPS || protocol == MOON_PROTOCOL_TLS;
}

const char *moon_protocol_name(enum moon_protocol protocol);
// Reads protocol, detect, proxy_protocol, limits, mode and transparent of moongate.listener { ... }. False, with the problems told; wants
// moon_front_fini either way.
bool moon_front_read(const struct moon_compile *compile, const struct moon_object *object,
                     struct moon_front *out);
void moon_front_fini(struct moon_front *front);
// The first key in which two listeners of one port may not differ and do, or NULL.
const char *moon_front_difference(const struct moon_object *a, const struct moon_object *b);
bool moon_front_trusts(const struct moon_front *front, const struct moon_address *peer);
