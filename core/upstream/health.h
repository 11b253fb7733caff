// Health of endpoints by active checks: what an upstream's configuration asks for, and the process-wide verdicts, which belong to
// the name of the upstream and the address, so that they survive reloads. Whoever checks (exchange/health_monitor.h, on control)
// sets them and has the upstream publish its endpoints anew; endpoints that are down are left out of the set, so that
// workers look at nothing for a request.
#pragma once

#include "base/address.h"
#include "conf/conf.h"
#include "conf/schema.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct moon_health;
struct moon_registry;

enum moon_check_kind {
    MOON_CHECK_HTTP, // GET: a status from 200 to 399
    MOON_CHECK_GRPC, // grpc.health.v1.Health/Check: SERVING
};

struct moon_health_check {
    enum moon_check_kind kind;
    struct moon_slice path;    // HTTP: with its query
    struct moon_slice service; // gRPC: empty: the server as a whole
    struct moon_slice host;    // what Host says; empty: the name of the upstream
    uint32_t interval_ms, timeout_ms;
    // how many in a row turn a verdict; the first check of an endpoint decides alone
    uint8_t healthy_count, unhealthy_count;
};

// Of moongate.upstream { health = { ... } }.
extern const struct moon_schema moon_health_schema;

// Reads the key; *out NULL: there is none. False with the problem in the report.
bool moon_health_check_read(const struct moon_compile *compile, const struct moon_object *object,
                            struct moon_health_check **out);
// NULL is fine.
void moon_health_check_free(struct moon_health_check *check);

// ---- verdicts; thread safe, under the registry's lock

// Those of the upstream of that name; made where there are none.
struct moon_health *moon_health_get(struct moon_registry *registry, struct moon_slice name);
struct moon_health *moon_health_ref(struct moon_health *health);
// NULL is fine.
void moon_health_unref(struct moon_health *health);
void moon_health_set(struct moon_health *health, const struct moon_address *address, bool is_down);
void moon_health_count(struct moon_health *health, bool is_failure);
// The addresses that are down, in order (moon_address_compare); malloc'd, the count is returned.
size_t moon_health_down(struct moon_health *health, struct moon_address **out);
int moon_address_compare(const void *a, const void *b);

struct moon_health_figures {
    char *name; // of the upstream; malloc'd
    uint64_t checks, failures, down;
};

// Of all upstreams that are checked; malloc'd, as their names.
struct moon_health_figures *moon_health_figures(struct moon_registry *registry, size_t *count);
