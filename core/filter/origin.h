// Origins (RFC 6454, Fetch) and the patterns that cors allows. Pure; slices point into what was parsed.
#pragma once

#include "base/slice.h"

struct moon_origin {
    struct moon_slice scheme;
    struct moon_slice
        // of a pattern with a wildcard: what the host ends with (".example.com"), empty for any
        host;
    uint16_t port; // the default one of http and https filled in; 0: none known
    bool is_wildcard;
};

// scheme "://" host [":" port], nothing behind it. "null" is none.
bool moon_origin_parse(struct moon_slice text, struct moon_origin *out);
// The same; the host may be "*", or begin with "*." for one label or more.
bool moon_origin_parse_pattern(struct moon_slice text, struct moon_origin *out);
// Schemes and hosts in any case.
bool moon_origin_matches(const struct moon_origin *pattern, const struct moon_origin *origin);
