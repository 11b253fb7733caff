// Reads the `tls` of an upstream { ... }.
#pragma once

#include "conf/conf.h"

struct moon_upstream;

extern const struct moon_schema moon_upstream_tls_schema;

// Fills tls and tls_host, where the object has the key. The endpoints are read already; the section's registry is a const
// struct moon_upstream_parts *. False with the report filled.
bool moon_upstream_tls_read(const struct moon_compile *compile, const struct moon_object *object,
                            struct moon_upstream *out);
