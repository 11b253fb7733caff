// The text of /metrics (Prometheus text format 0.0.4). Reads atomics and nothing else: no worker is asked, none is held up.
#pragma once

#include "base/slice.h"

struct moon_admin_ops;

// malloc'd text, the caller's to free; as long as there are series, whatever that takes. ptr NULL: out of memory.
struct moon_slice moon_metrics_write(const struct moon_admin_ops *ops);
