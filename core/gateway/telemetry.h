// What the gateway tells about itself: the names that series are counted by, and the access log with its thread. One per gateway;
// it outlives workers and snapshots.
#pragma once

#include "conf/conf.h"

#include <stdbool.h>

struct moon_access_log;
struct moon_log;
struct moon_ring;
struct moon_series_names;
struct moon_telemetry;
struct moon_world;

struct moon_telemetry *moon_telemetry_new(struct moon_world *world, const struct moon_log *log);
// After the workers. Writes what waits in the access log. NULL is fine.
void moon_telemetry_free(struct moon_telemetry *telemetry);
struct moon_series_names *moon_telemetry_names(const struct moon_telemetry *telemetry);
// Opens the access log, if there is one, with a ring for each worker. 0, or -errno with the report filled.
int moon_telemetry_open(struct moon_telemetry *telemetry, const struct moon_access_log *log,
                        unsigned worker_count, struct moon_report *report);
// NULL: there is no access log.
struct moon_ring *moon_telemetry_ring(const struct moon_telemetry *telemetry, unsigned index);
// Real world: the log writer's thread; stop after the workers'. Both do nothing where there is no access log.
int moon_telemetry_start(struct moon_telemetry *telemetry);
void moon_telemetry_stop(struct moon_telemetry *telemetry);
// SIGUSR1: the access log is opened anew by its name. From the control thread.
void moon_telemetry_reopen(struct moon_telemetry *telemetry);
bool moon_telemetry_is_stuck(const struct moon_telemetry *telemetry);
