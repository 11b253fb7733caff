// Discovery: keeps the addresses of host names among the endpoints fresh. On the control thread alone; workers take the sets it
// publishes. An answer is asked for again when its time to live is over; what was known serves for as long as the resolver
// fails, without limit unless the settings set one.
#pragma once

#include <stdint.h>

struct moon_discovery;
struct moon_log;
struct moon_loop;
struct moon_snapshot;

struct moon_discovery *moon_discovery_new(struct moon_loop *loop, const struct moon_log *log);
// Follows the names of this snapshot from now on, and its settings of the resolver. Takes a reference; names that were
// followed before keep what is known of them.
void moon_discovery_use(struct moon_discovery *discovery, struct moon_snapshot *snapshot);
// Calls fn once: when every name followed now was answered or given up on for the first time, or when within_ms have passed. At
// once where there is nothing to wait for. For whoever would rather begin with addresses than without.
void moon_discovery_settle(struct moon_discovery *discovery, uint64_t within_ms,
                           void (*fn)(void *owner), void *owner);
// NULL is fine.
void moon_discovery_free(struct moon_discovery *discovery);
