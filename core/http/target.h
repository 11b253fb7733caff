// Request targets and authorities (RFC 9112 3.2, RFC 3986). One canonical form of the path is what is routed, judged and
// forwarded: dot segments resolved, unreserved characters decoded, `//` kept; what could be read two ways is refused.
#pragma once

#include "base/slice.h"

#include <stdbool.h>
#include <stdint.h>

struct moon_arena;
struct moon_fault;

enum moon_escaped_slash {
    MOON_SLASH_REJECT,
    MOON_SLASH_KEEP,
    MOON_SLASH_DECODE
}; // %2f, %5c and '\'

enum moon_target_form { MOON_TARGET_ORIGIN, MOON_TARGET_ABSOLUTE, MOON_TARGET_ASTERISK };

struct moon_authority {
    struct moon_slice host; // as given, brackets kept for IPv6; lower case is the router's business
    uint16_t port;          // 0: none given
};

struct moon_target {
    enum moon_target_form form;
    struct moon_slice path;  // canonical, starts with '/'; "*" for the asterisk form
    struct moon_slice query; // without '?'; has_query tells "/?" from "/"
    bool has_query;
    bool is_verbatim;                 // path and query stand in the received target unchanged
    struct moon_authority authority;  // absolute form only
    struct moon_slice authority_text; // the same, as written
};

// host [":" port] of RFC 3986 3.2.2 without userinfo: reg-name, IPv4 or bracketed IPv6; no ',' '@' '#' '/' '?' '%' or
// controls, no empty host, no empty or out-of-range port, no empty label but a trailing dot.
bool moon_authority_parse(struct moon_slice text, struct moon_authority *out);

// Canonical path of `path` (starts with '/', no query). Gives `path` itself when it is canonical already, else a copy in the
// arena. ptr NULL: refused, *reason (static) says why.
struct moon_slice moon_path_normalise(struct moon_arena *arena, struct moon_slice path,
                                      enum moon_escaped_slash slash, const char **reason);

// A request target of any form but authority-form. True, or false with the answer in *fault (400).
// Scheme of the absolute form: http and https only.
bool moon_target_parse(struct moon_arena *arena, struct moon_slice text,
                       enum moon_escaped_slash slash, struct moon_target *out,
                       struct moon_fault *fault);
