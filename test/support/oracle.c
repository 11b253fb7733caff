// See oracle.h.
#include "test/support/oracle.h"

#include <llhttp.h>

_Static_assert(LLHTTP_STRICT_MODE == 1, "llhttp must be compiled and used in strict mode");

static int on_name(llhttp_t *parser, const char *at, size_t len)
{
    struct oracle *oracle = parser->data;
    if (oracle->count == ORACLE_MAX_COUNT)
        return HPE_USER;
    oracle->names[oracle->count] = (struct moon_slice){at, len};
    oracle->values[oracle->count++] = (struct moon_slice){at + len, 0};
    return 0;
}

static int on_value(llhttp_t *parser, const char *at, size_t len)
{
    struct oracle *oracle = parser->data;
    struct moon_slice *value = &oracle->values[oracle->count - 1];
    if (len == 0)
        return 0;
    oracle->is_folded |= value->len > 0;
    *value = moon_slice_trim((struct moon_slice){at, len});
    return 0;
}

static int on_complete(llhttp_t *parser)
{
    (void)parser;
    return HPE_PAUSED;
}

void oracle_read(struct oracle *oracle, struct moon_slice head, bool is_request)
{
    static const llhttp_settings_t settings = {
        .on_header_field = on_name,
        .on_header_value = on_value,
        .on_headers_complete = on_complete,
    };
    llhttp_t parser;
    *oracle = (struct oracle){0};
    llhttp_init(&parser, is_request ? HTTP_REQUEST : HTTP_RESPONSE, &settings);
    parser.data = oracle;
    llhttp_errno_t err = llhttp_execute(&parser, head.ptr, head.len);
    oracle->why = err == HPE_PAUSED ? "" : llhttp_get_error_reason(&parser);
    oracle->is_accepted = err == HPE_PAUSED && !oracle->is_folded &&
                          llhttp_get_error_pos(&parser) == head.ptr + head.len;
}
