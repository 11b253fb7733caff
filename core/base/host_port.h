// The text of a host name with a port, "users.internal:8000", as endpoints have it.
#pragma once

#include "base/slice.h"

#include <stdbool.h>
#include <stdint.h>

// A host name is one of RFC 1123, with underscores, a dot at its end where it is fully qualified; not what could only be a
// broken address (its last label is a number). The port is from 1 on. *host is a slice of the text.
bool moon_host_port_parse(struct moon_slice text, struct moon_slice *host, uint16_t *port);
