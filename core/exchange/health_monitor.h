// The health monitor: probes the endpoints of every upstream with `health`, on control's loop, and has those left out that are down.
//
//   new endpoint --first probe--> up or down;  up --`unhealthy` failures in a row--> down --`healthy` passes in a row--> up
//
// An endpoint serves until it is known to be down. Where all are down, the upstream has no endpoint: 503.
#pragma once

#include <stddef.h>

struct moon_buffer_budget;
struct moon_health_monitor;
struct moon_log;
struct moon_loop;
struct moon_registry;
struct moon_snapshot;

struct moon_health_monitor_args {
    struct moon_loop *loop;
    struct moon_registry *registry;
    struct moon_buffer_budget *buffers;
    const struct moon_log *log;
    unsigned worker; // control's index, for TLS
};

struct moon_health_monitor *moon_health_monitor_new(const struct moon_health_monitor_args *args);
// Checks what this snapshot says from now on; verdicts stay.
void moon_health_monitor_use(struct moon_health_monitor *monitor, struct moon_snapshot *snapshot);
// NULL is fine.
void moon_health_monitor_free(struct moon_health_monitor *monitor);
