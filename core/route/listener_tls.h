// Reads the `tls` of a listener { ... }.
#pragma once

#include "conf/conf.h"

struct moon_listener;

extern const struct moon_schema moon_listener_tls_schema;

// Reads the mode, and loads what the table names into terms, whose reference is the listener's. Its hostname and protocol are read
// already. The section's registry is the hub. False with the report filled.
bool moon_listener_tls_read(const struct moon_compile *compile, const struct moon_object *object,
                            struct moon_listener *listener);
