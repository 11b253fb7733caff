// Admin: what is going on, and orders, over HTTP, as the built-in upstream "builtin:admin" on the control thread.
// Two surfaces (DESIGN 5): reading (/metrics, /healthz, /readyz) for anybody who can connect; control (the rest) only for a
// client on this machine (a unix socket, or loopback) that names a local Host and sends no Origin, so that no web page gets
// at it through a browser.
#pragma once

#include "base/slice.h"
#include "filter/filter.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct moon_counters;
struct moon_histogram;
struct moon_registry;
struct moon_renewals;
struct moon_series;
struct moon_series_names;

enum { MOON_ADMIN_PROBLEM_LEN = 400 };

// Documents of the control surface, JSON.
enum moon_admin_document {
    MOON_ADMIN_STATUS,
    MOON_ADMIN_CONFIG,
    MOON_ADMIN_ROUTES,
    MOON_ADMIN_UPSTREAMS,
    MOON_ADMIN_ERRORS,
    MOON_ADMIN_EXPLAIN,
    MOON_ADMIN_CERTIFICATES,
};

// Somebody who waits for a reload, or for what workers say. `done` is told once, with a malloc'd JSON text that it takes.
struct moon_admin_wait {
    void (*done)(struct moon_admin_wait *wait, bool is_fine, char *json, size_t len);
    void (*forget)(struct moon_admin_wait *wait); // gateway's: it waits no more
    void *order;                                  // gateway's
};

// What gateway/ knows of the process.
struct moon_admin_facts {
    size_t buffer_len, resident_len;
    size_t snapshot_count, generation_count; // alive
    uint64_t reload_fine_count, reload_failed_count;
    bool is_log_stuck;
    size_t staple_count,
        staple_missing_count; // certificates with an OCSP response; that should have one
    uint64_t ocsp_fine_count, ocsp_failed_count; // answers of responders
};

// Filled in by gateway/; all on the control thread.
struct moon_admin_ops {
    bool (*is_draining)(void *owner);
    // How long a data worker has been in one turn of its loop, milliseconds, where that is too long; else 0.
    uint64_t (*stall_ms)(void *owner, size_t index);
    // What the data workers count, one after another; NULL behind the last.
    const struct moon_counters *(*counters)(void *owner, size_t index);
    const struct moon_series *(*series)(void *owner, size_t index);
    const struct moon_histogram *(*turns)(void *owner, size_t index);
    struct moon_series_names *names;
    struct moon_registry *registry; // of endpoints
    const struct moon_renewals *renewals;
    void (*facts)(void *owner, struct moon_admin_facts *facts);
    // A malloc'd text, NUL-terminated. `query` is that of the request, raw.
    char *(*document)(void *owner, enum moon_admin_document which, struct moon_slice query,
                      size_t *len);
    void (*reload)(void *owner, struct moon_admin_wait *wait);
    // The document of connections. False: the query is not understood; then `wait` is never told.
    bool (*connections)(void *owner, struct moon_slice query, struct moon_admin_wait *wait);
    void (*drain)(void *owner);
    // Certificates of that name become what the text (PEM, certificate, chain and key) says. NULL, or why not: in `problem`.
    const char *(*set_certificate)(void *owner, struct moon_slice name, struct moon_slice text,
                                   char problem[static MOON_ADMIN_PROBLEM_LEN]);
    // False: there is no such level.
    bool (*set_log_level)(void *owner, struct moon_slice level);
    void *owner;
};

// What the route to the built-in needs before it, NULL-terminated: reads the bodies of orders.
extern const struct moon_filter_type *const moon_admin_filters[];
// A built-in whose owner is `ops`, which outlives it.
struct moon_builtin moon_admin_builtin(const struct moon_admin_ops *ops);
