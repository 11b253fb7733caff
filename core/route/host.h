// Host names as routes and listeners take them: "api.example.com", or "*.example.org" for one or more labels below it.
#pragma once

#include "base/slice.h"

#include <stdbool.h>

// What is wrong with a host as it was written, as a hint of what would be right; NULL: nothing.
const char *moon_host_hint(struct moon_slice host);
// A host without fault as it is compared: no dot at its end, and "*.example.org" as ".example.org". Its case stays.
struct moon_slice moon_host_bare(struct moon_slice host);
// Whether two bare hosts in lower case have a name in common; the empty one stands for every host (Gateway API 6.1).
bool moon_hosts_meet(struct moon_slice a, struct moon_slice b);
