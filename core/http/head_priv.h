// What request_head.c, response_head.c, h2_head.c and trailers.c share: reading the field lines of a head through
// llhttp, and the fields that mean the same in both directions. Private to this room.
#pragma once

#include "http/head.h"

// One more field as it was received; its name is a valid token. 0 or -ENOMEM.
int moon_headers_add_received(struct moon_headers *h, struct moon_arena *arena,
                              struct moon_slice name, struct moon_slice value, bool is_verbatim);

struct moon_fields_args {
    struct moon_arena *arena;
    const struct moon_head_limits *limits;
    struct moon_slice text; // the whole head, from its start line on
    bool is_request;
    uint64_t singletons; // bit per header id: a second one is a fault
    struct moon_fault *fault;
};

// Runs llhttp over the head and fills *headers. 0, or -1 with *fault.
int moon_fields_read(const struct moon_fields_args *args, struct moon_headers *headers);

// Splits one field line (without its CRLF) and checks it without llhttp: for trailers, and to tell why
// llhttp refused. NULL, or what is wrong; *name and *value are set only when a colon was found.
const char *moon_field_line_check(struct moon_slice line, struct moon_slice *name,
                                  struct moon_slice *value);

// Sets keep_alive and has_upgrade from Connection and Upgrade. False when Connection names too many
// options.
bool moon_head_read_connection(struct moon_head *head);

// Content-Length: canonical digits, at most 2^63-1.
bool moon_content_length_parse(struct moon_slice value, uint64_t *out);

// HTTP-version of RFC 9112 2.3: true with its two digits.
bool moon_version_parse(struct moon_slice text, unsigned *major, unsigned *minor);

enum { MOON_UPGRADE_MAX_LEN = 128 }; // longer Upgrade values are not upgrades

// The steps of request_head.c that do not ask how the request came. Each 0, or -1 with *fault.
extern const uint64_t moon_request_singletons; // bit per header id
int moon_request_check_method(struct moon_head *out, struct moon_fault *fault);
// out->target.path is the target as received.
int moon_request_check_target(struct moon_arena *arena, const struct moon_head_limits *limits,
                              struct moon_head *out, struct moon_fault *fault);
// Framing by the fields, and Expect.
int moon_request_check_body(struct moon_head *out, struct moon_fault *fault);
bool moon_authority_is_same(const struct moon_authority *a, const struct moon_authority *b,
                            uint16_t default_port);
extern const uint64_t moon_response_singletons; // bit per header id
// As fields.c answers for a second field of that id.
const char *moon_header_repeated(enum moon_header_id id);
