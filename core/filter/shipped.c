// The table of built-in plugins.
#include "filter/shipped.h"

#include <stddef.h>

const struct moon_filter_type *const moon_filter_builtins[] = {
    &moon_filter_request_headers, &moon_filter_response_headers,
    &moon_filter_redirect,        &moon_filter_url_rewrite,
    &moon_filter_direct_response, &moon_filter_cors,
    &moon_filter_grpc_web,        NULL,
};
