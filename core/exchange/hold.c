// See hold.h. The last reference to the snapshot itself is dropped by gateway/, off the workers: freeing 10,000 routes takes a while.
#include "exchange/hold.h"

#include "exchange/access.h"
#include "exchange/action.h"
#include "exchange/listener_plugins.h"
#include "route/listener.h"
#include "route/route.h"
#include "upstream/upstream.h"

#include <stdlib.h>

struct moon_hold *moon_hold_new(struct moon_snapshot *snapshot)
{
    struct moon_hold *hold = calloc(1, sizeof *hold);
    if (!hold)
        abort();
    hold->snapshot = moon_snapshot_ref(snapshot);
    hold->listeners = moon_snapshot_listeners(snapshot);
    hold->listener_plugins = moon_snapshot_listener_plugins(snapshot);
    hold->routes = moon_snapshot_routes(snapshot);
    hold->actions = moon_snapshot_actions(snapshot);
    hold->upstreams = moon_snapshot_upstreams(snapshot);
    hold->log_format = moon_snapshot_access_log(snapshot)->format;
    hold->is_current = true;
    return hold;
}

static void free_unused(struct moon_hold *hold)
{
    if (hold->is_current || hold->exchange_count)
        return;
    moon_snapshot_unref(hold->snapshot);
    free(hold);
}

struct moon_hold *moon_hold_ref(struct moon_hold *hold)
{
    hold->exchange_count++;
    return hold;
}

void moon_hold_unref(struct moon_hold *hold)
{
    if (!hold)
        return;
    hold->exchange_count--;
    free_unused(hold);
}

void moon_hold_retire(struct moon_hold *hold)
{
    if (!hold)
        return;
    hold->is_current = false;
    free_unused(hold);
}
