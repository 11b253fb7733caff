// Match: one way for a request to meet a route: path, methods, headers and query parameters, all of which must hold.
// Read from moongate.route { ... } by match_read.c, tested by match.c, found through index.c. Immutable once read; everything
// it points to lives in the arena of the routes, its expressions are freed by moon_match_fini.
#pragma once

#include "conf/conf.h"

#include <stdbool.h>
#include <stdint.h>

struct moon_arena;
struct moon_head;
struct moon_regex;
struct moon_route_scratch;

// A path or host with more is refused, so that a lookup looks at no more.
enum { MOON_PATH_SEGMENTS_MAX = 128 };

enum moon_path_kind { MOON_PATH_EXACT, MOON_PATH_REGEX, MOON_PATH_PREFIX }; // first comes first

// A header or a query parameter.
struct moon_condition {
    struct moon_slice name;   // of a header in lower case
    struct moon_slice value;  // of an expression its pattern
    struct moon_regex *regex; // owned; NULL: equality
    uint8_t header_id;        // enum moon_header_id
    bool is_query;
};

// A service or a method of gRPC.
struct moon_grpc_part {
    struct moon_slice text;   // a name or a pattern; empty: any
    struct moon_regex *regex; // owned; NULL: equality
};

// What a gRPC match asks of "/service/method", where the path does not say it already.
struct moon_grpc_match {
    struct moon_grpc_part service, method;
};

struct moon_match {
    struct moon_slice path;                  // of a prefix without a slash at its end; a pattern
    struct moon_regex *regex;                // owned; of the path
    const struct moon_slice *hosts;          // lower case; "*.example.org" stands as ".example.org"
    const struct moon_slice *extensions;     // methods that share MOON_METHOD_EXTENSION; sorted
    const struct moon_condition *conditions; // equalities first, headers first, by name
    uint32_t host_count;                     // 0: every host
    uint32_t extension_count, condition_count, equality_count, header_count;
    uint16_t methods; // bits by enum moon_method; 0: every method
    uint8_t kind;     // enum moon_path_kind
    // NULL: no gRPC match. Service and method are an exact path, a service alone a prefix, all else with a name a regex
    const struct moon_grpc_match *grpc;
    int index;       // of the object
    uint32_t serial; // of the match among all
};

// match_read.c
// The keys of moongate.route { ... } that say which requests it takes.
extern const struct moon_schema moon_match_schema;

struct moon_match_reading {
    const struct moon_compile *compile;
    struct moon_arena *arena;
    struct moon_match *matches; // realloc'd
    size_t count, cap;
};

// Appends the matches of compile->objects[index]. False with the problems in the report.
bool moon_match_read(struct moon_match_reading *reading, size_t index);
void moon_match_fini(struct moon_match *match);
// Order of content: 0 when both take the same requests of one host. What is only written in another order is the same.
int moon_match_compare(const struct moon_match *a, const struct moon_match *b);

// match.c
// The method is one of the match's, where it has MOON_METHOD_EXTENSION.
bool moon_match_has_extension(const struct moon_match *match, struct moon_slice method);
// The conditions hold and, of a regex match, the path does. 1, 0, or MOON_ELIMIT when an expression gave up.
int moon_match_meets(const struct moon_match *match, const struct moon_head *head,
                     struct moon_route_scratch *scratch);
