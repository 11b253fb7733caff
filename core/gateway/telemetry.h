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

struct moon_telemetry_args {
    const struct moon_access_log *log;
    unsigned worker_count;
    struct moon_place place; // of the settings, for a file that cannot be opened
    struct moon_report *report;
};

// Opens the access log, if there is one, with a ring for each worker. 0, or -errno with the report filled.
int moon_telemetry_open(struct moon_telemetry *telemetry, const struct moon_telemetry_args *args);
// A worker's, from begin to end of a reload that of the coming access log. NULL: there is none.
struct moon_ring *moon_telemetry_ring(const struct moon_telemetry *telemetry, unsigned index);
// Real world: the log writer's thread; stop after the workers'. Both do nothing where there is no access log.
int moon_telemetry_start(struct moon_telemetry *telemetry);
void moon_telemetry_stop(struct moon_telemetry *telemetry);

// ---- a reload; prepare on the builder's thread, which nothing else here runs beside, the rest on control

// Opens the access log where it has another place or size than `before`. As open.
int moon_telemetry_prepare(struct moon_telemetry *telemetry, const struct moon_access_log *before,
                           const struct moon_telemetry_args *args);
// Starts what was prepared, before a worker gets its ring. 0 or -errno.
int moon_telemetry_begin(struct moon_telemetry *telemetry);
// is_fine: all workers have the rings of what was prepared, and the old access log ends. Else what was prepared does. Harmless
// where nothing was.
void moon_telemetry_end(struct moon_telemetry *telemetry, bool is_fine);

// SIGUSR1: the access log is opened anew by its name. From the control thread.
void moon_telemetry_reopen(struct moon_telemetry *telemetry);
bool moon_telemetry_is_stuck(const struct moon_telemetry *telemetry);
