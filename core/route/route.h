// Routing: request head -> index of an action. Pure lookup: no I/O, no allocation on the hit path.
// So far: path prefixes by whole segments, the longest wins (reference/gateway-api.md 7); ties go to the first written.
#pragma once

#include "conf/conf.h"

struct moon_head;
struct moon_routes;

// part: struct moon_routes *; indexes follow the order of the objects
extern const struct moon_section moon_route_section;

const struct moon_routes *moon_snapshot_routes(const struct moon_snapshot *snapshot);
// Index of the action, -1: none matches.
int moon_routes_find(const struct moon_routes *routes, const struct moon_head *head);
