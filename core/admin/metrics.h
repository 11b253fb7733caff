// The text of /metrics (Prometheus text format 0.0.4), in pieces, so that neither memory nor the time that control takes at once
// depends on how many series there are. Reads atomics and nothing else: no worker is asked, none is held up.
#pragma once

#include "base/slice.h"

#include <stdbool.h>

struct moon_admin_ops;
struct moon_metrics;

// One scrape. `ops` outlives it.
struct moon_metrics *moon_metrics_new(const struct moon_admin_ops *ops);
// NULL is fine.
void moon_metrics_free(struct moon_metrics *metrics);
// The next piece, about 60 KiB and less than a tenth of a millisecond's work; it may be empty, and lives until the next call.
// 0, or -ENOMEM.
int moon_metrics_next(struct moon_metrics *metrics, struct moon_slice *piece);
// There are no more pieces.
bool moon_metrics_is_over(const struct moon_metrics *metrics);
