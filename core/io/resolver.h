// Name resolution: one question at a time, asked of the network as often as the caller likes. No cache, no retries beyond a
// query's own: those are discovery's (core/upstream). A resolver belongs to a loop and never blocks it.
#pragma once

#include "base/address.h"
#include "base/slice.h"
#include "io/loop.h"

#include <stddef.h>
#include <stdint.h>

struct moon_resolver;

struct moon_resolver_options {
    const struct moon_address *servers; // asked in this order; none: as the system is configured
    size_t server_count;
    uint32_t timeout_ms; // of one try at one server, before the next
};

// What became of a question; dies with the call.
struct moon_resolved {
    // 0; MOON_ENAME: the name is not there or has no address of this family, by the word of its server; MOON_ECANCELED: the
    // resolver is being freed; else nothing is known (no answer, a refusal, a broken answer)
    int err;
    const struct moon_address *addresses; // their port is 0; no order
    size_t count;
    uint32_t ttl_s; // of the answer, the least one; may be 0
};

typedef void moon_resolved_fn(void *owner, const struct moon_resolved *resolved);

struct moon_resolver_ops {
    void (*resolve)(struct moon_resolver *resolver, struct moon_slice host, enum moon_family family,
                    moon_resolved_fn *fn, void *owner);
    void (*free)(struct moon_resolver *resolver);
};

struct moon_resolver {
    const struct moon_resolver_ops *ops;
};

// NULL when the world has none or it cannot be set up. Options are copied.
static inline struct moon_resolver *moon_resolver_new(struct moon_loop *loop,
                                                      const struct moon_resolver_options *options)
{
    return loop->ops->resolver_new ? loop->ops->resolver_new(loop, options) : NULL;
}

// Every question still open is answered MOON_ECANCELED first. NULL is fine.
static inline void moon_resolver_free(struct moon_resolver *resolver)
{
    if (resolver)
        resolver->ops->free(resolver);
}

// Asks for the addresses of one family. The host's file of names goes first. May call back before it returns.
static inline void moon_resolve(struct moon_resolver *resolver, struct moon_slice host,
                                enum moon_family family, moon_resolved_fn *fn, void *owner)
{
    resolver->ops->resolve(resolver, host, family, fn, owner);
}
