// What is told of a request when it has ended: its series are counted, its line goes into the access log. Compiled from
// moongate.settings { access_log =, metrics = }.
#pragma once

#include "conf/conf.h"

struct moon_exchange;
struct moon_format;
struct moon_record;
struct moon_series_sample;
struct moon_service;

struct moon_access_log {
    struct moon_slice file;           // a path, or "stdout"; empty: there is no access log
    size_t buffer_len;                // of each worker's ring
    const struct moon_format *format; // NULL: there is no access log
    uint32_t series_max;              // names that are counted apart, of each kind
};

// Part: struct moon_access_log *. It stands before the sections whose names are counted (`series` set): it bounds them.
extern const struct moon_section moon_access_section;

const struct moon_access_log *moon_snapshot_access_log(const struct moon_snapshot *snapshot);
// Whether names get the same ids in both: of a part that is kept they are those of the first.
bool moon_access_counts_same(const struct moon_snapshot *a, const struct moon_snapshot *b);

// In the log phase, once for each exchange whose request was understood or refused.
void moon_access_record(struct moon_exchange *ex);
// The same for what carries no request: a connection of a TCP route, a session of a UDP route.
void moon_access_record_stream(struct moon_service *service, struct moon_record *record,
                               const struct moon_series_sample *sample);
