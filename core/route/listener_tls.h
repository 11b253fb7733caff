// Reads the `tls` of a listener { ... }.
#pragma once

#include "conf/conf.h"

struct moon_tls_terms;

extern const struct moon_schema moon_listener_tls_schema;

// Loads what the table names. `hostname` is the listener's, lower case. The section's registry is the hub. True and one
// reference, or false with the report filled.
bool moon_listener_tls_read(const struct moon_compile *compile, const struct moon_object *object,
                            struct moon_slice hostname, struct moon_tls_terms **out);
