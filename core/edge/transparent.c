// See transparent.h. REDIRECT rewrites the destination, and tells what it was; TPROXY leaves it as it was, so it is the
// connection's own end.
#include "edge/transparent.h"

#include "io/loop.h"
#include "link/proxied.h"
#include "link/resources.h"
#include "route/front.h"
#include "upstream/outbound.h"

#include <string.h>

static bool is_any(const struct moon_address *address)
{
    static const uint8_t zeros[sizeof address->ip] = {0};
    return memcmp(address->ip, zeros, address->family == MOON_FAMILY_IPV4 ? 4 : 16) == 0;
}

// Whether that is the port itself. Of one bound to every address and left as it was by TPROXY, nobody could tell.
static bool is_port(const struct moon_address *bound, const struct moon_address *address)
{
    struct moon_address plain = *bound;
    moon_address_unmap(&plain);
    return plain.port == address->port && (is_any(bound) || moon_address_equal(&plain, address));
}

// MOON_FAMILY_NONE: nowhere else.
static void read_destination(const struct moon_transparent *at, const struct moon_stream *stream,
                             struct moon_address *out)
{
    struct moon_address local;
    bool is_elsewhere = false;
    moon_stream_address(stream, false, &local);
    moon_address_unmap(&local);
    switch (at->front->transparent) {
    case MOON_TRANSPARENT_NONE:
        break;
    case MOON_TRANSPARENT_REDIRECT:
        is_elsewhere = moon_stream_origin(stream, out);
        moon_address_unmap(out);
        is_elsewhere = is_elsewhere && !moon_address_equal(out, &local);
        break;
    case MOON_TRANSPARENT_TPROXY:
        *out = local;
        is_elsewhere = !is_port(at->bound, &local);
        break;
    }
    if (!is_elsewhere)
        *out = (struct moon_address){0};
}

bool moon_transparent_read(const struct moon_transparent *at, const struct moon_stream *stream,
                           struct moon_proxied **out)
{
    struct moon_address destination = {0}, peer;
    *out = NULL;
    read_destination(at, stream, &destination);
    if (destination.family == MOON_FAMILY_NONE)
        return true;
    moon_stream_address(stream, true, &peer);
    moon_address_unmap(&peer);
    if (moon_outbound_has(at->outbound, &peer, &destination, moon_loop_now_ms(at->res->loop)))
        return false;
    struct moon_proxied *proxied = calloc(1, sizeof *proxied);
    if (!proxied)
        abort();
    proxied->ref_count = 1;
    proxied->destination = destination;
    *out = proxied;
    return true;
}
