// Admin: what is going on, over HTTP, as the built-in upstream "builtin:admin". Read-only so far: /healthz, /readyz, /metrics.
// gateway/ runs it on the control thread, behind a listener of its own.
#pragma once

#include "filter/filter.h"

#include <stdbool.h>
#include <stddef.h>

struct moon_counters;

// Filled in by gateway/.
struct moon_admin_ops {
    bool (*is_ready)(void *owner);
    // Workers' counters, one after another; NULL behind the last.
    const struct moon_counters *(*counters)(void *owner, size_t index);
    size_t (*buffer_len)(void *owner);
    void *owner;
};

// A built-in whose owner is `ops`, which outlives it.
struct moon_builtin moon_admin_builtin(const struct moon_admin_ops *ops);
