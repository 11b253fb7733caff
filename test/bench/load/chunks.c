// Chunked bodies (RFC 9112 7.1) counted: no extensions, no trailers, as proxies send them.
#include "load.h"

enum { AT_SIZE, AT_SIZE_LF, AT_DATA, AT_DATA_CR, AT_DATA_LF, AT_LAST_CR, AT_LAST_LF };

static int hex_of(char byte)
{
    return byte >= '0' && byte <= '9'   ? byte - '0'
           : byte >= 'a' && byte <= 'f' ? byte - 'a' + 10
           : byte >= 'A' && byte <= 'F' ? byte - 'A' + 10
                                        : -1;
}

// One byte that is no data. False: it does not belong there.
static bool take(struct chunks *chunks, char byte)
{
    int digit = hex_of(byte);
    switch (chunks->state) {
    case AT_SIZE:
        if (digit >= 0)
            chunks->left = chunks->left * 16 + (uint64_t)digit;
        else
            chunks->state = AT_SIZE_LF;
        return digit >= 0 || byte == '\r';
    case AT_SIZE_LF:
        chunks->state = chunks->left ? AT_DATA : AT_LAST_CR;
        return byte == '\n';
    case AT_DATA_CR:
        chunks->state = AT_DATA_LF;
        return byte == '\r';
    case AT_DATA_LF:
        chunks->state = AT_SIZE;
        return byte == '\n';
    case AT_LAST_CR:
        chunks->state = AT_LAST_LF;
        return byte == '\r';
    case AT_LAST_LF:
        chunks->is_over = true;
        return byte == '\n';
    }
    return false;
}

bool chunks_take(struct chunks *chunks, const char *bytes, size_t len)
{
    for (size_t i = 0; i < len;) {
        if (chunks->is_over)
            return false;
        if (chunks->state == AT_DATA) {
            size_t part = len - i < chunks->left ? len - i : (size_t)chunks->left;
            chunks->left -= part;
            chunks->body_len += part;
            i += part;
            if (chunks->left == 0)
                chunks->state = AT_DATA_CR;
        } else if (!take(chunks, bytes[i++])) {
            return false;
        }
    }
    return true;
}
