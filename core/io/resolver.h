// Name resolution. Addresses only so far: a literal is answered at once, a host name with MOON_ENAME.
#pragma once

#include "base/address.h"
#include "base/slice.h"

#include <stddef.h>

struct moon_loop;

// `addresses` is NULL when err is not 0, and dies with the call.
typedef void moon_resolved_fn(void *owner, int err, const struct moon_address *addresses,
                              size_t count);

// May call back before it returns.
void moon_resolve(struct moon_loop *loop, struct moon_slice host, uint16_t port,
                  moon_resolved_fn *fn, void *owner);
