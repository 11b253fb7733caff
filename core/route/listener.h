// Listeners: where the gateway takes connections, as the configuration defines them.
#pragma once

#include "base/address.h"
#include "conf/conf.h"

struct moon_listener {
    struct moon_address address; // port 0: any free one
    const char *name;            // for logs; never NULL
    struct moon_place place;
};

struct moon_listeners {
    struct moon_listener *listeners;
    size_t count;
};

extern const struct moon_section moon_listener_section; // part: struct moon_listeners *

const struct moon_listeners *moon_snapshot_listeners(const struct moon_snapshot *snapshot);
