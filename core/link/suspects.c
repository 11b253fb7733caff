// See suspects.h.
#include "link/suspects.h"

#include "base/address.h"

#include <string.h>

static uint64_t net_of(const struct moon_address *address)
{
    uint64_t net = 0;
    memcpy(&net, address->ip, address->family == MOON_FAMILY_IPV4 ? 4 : sizeof net);
    return net;
}

static unsigned place_of(uint64_t net)
{
    return (unsigned)((net * UINT64_C(0x9e3779b97f4a7c15)) >> 58); // 64 of them
}
_Static_assert(MOON_SUSPECT_COUNT == 64, "place_of");

void moon_suspects_add(struct moon_suspects *suspects, const struct moon_address *address,
                       uint64_t now_ms)
{
    uint64_t net = net_of(address);
    if (address->family == MOON_FAMILY_NONE)
        return;
    suspects->at[place_of(net)].net = net;
    suspects->at[place_of(net)].until_ms = now_ms + MOON_SUSPECT_MS;
}

bool moon_suspects_has(const struct moon_suspects *suspects, const struct moon_address *address,
                       uint64_t now_ms)
{
    uint64_t net = net_of(address);
    unsigned place = place_of(net);
    return address->family != MOON_FAMILY_NONE && suspects->at[place].net == net &&
           now_ms < suspects->at[place].until_ms;
}
