// The plugins that come with the product, as filter types. gateway/ is handed the table; tests hand it their own.
#pragma once

#include "filter/filter.h"

// NULL-terminated.
extern const struct moon_filter_type *const moon_filter_builtins[];

extern const struct moon_filter_type moon_filter_request_headers, moon_filter_response_headers,
    moon_filter_redirect, moon_filter_url_rewrite, moon_filter_direct_response, moon_filter_cors,
    moon_filter_grpc_web;
