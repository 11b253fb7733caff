// Upload: the body of an order, read before the built-in is asked, which never sees one. Bounded; only of those who may.
#pragma once

#include "base/slice.h"

#include <stdbool.h>

struct moon_flow;

extern const struct moon_filter_type moon_admin_upload_filter;

// What came; empty: nothing. False: it was longer than an order may be.
bool moon_admin_uploaded(const struct moon_flow *flow, struct moon_slice *out);
