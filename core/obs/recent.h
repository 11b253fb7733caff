// The newest warnings and errors of the process log, kept for whoever asks what went wrong. Thread safe.
#pragma once

#include "obs/log.h"

#include <stdint.h>
#include <stdio.h>

struct moon_recent;

struct moon_recent *moon_recent_new(void);
void moon_recent_free(struct moon_recent *recent);
// Records below a warning are passed over; long texts are cut.
void moon_recent_add(struct moon_recent *recent, uint64_t wall_ms, enum moon_log_level level,
                     const char *text, size_t len);
// A JSON list of { time_ms, level, message }, the newest first.
void moon_recent_write_json(struct moon_recent *recent, FILE *out);
