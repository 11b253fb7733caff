// See first_bytes.h.
#include "http/first_bytes.h"

#include "http/h2.h"
#include "http/head.h"

enum { HANDSHAKE = 0x16, MAJOR = 3, MINOR_MAX = 4, METHOD_MAX_LEN = 16 };

static enum moon_first tls_or_not(struct moon_slice bytes)
{
    if (bytes.len > 1 && bytes.ptr[1] != MAJOR)
        return MOON_FIRST_OPAQUE;
    if (bytes.len > 2)
        return (unsigned char)bytes.ptr[2] <= MINOR_MAX ? MOON_FIRST_TLS : MOON_FIRST_OPAQUE;
    return MOON_FIRST_MORE;
}

// Methods are of capital letters, some with a hyphen.
static bool may_be_method(struct moon_slice bytes)
{
    for (size_t i = 0; i < bytes.len; i++)
        if ((bytes.ptr[i] < 'A' || bytes.ptr[i] > 'Z') && bytes.ptr[i] != '-')
            return false;
    return true;
}

static enum moon_first request_or_not(struct moon_slice bytes)
{
    struct moon_slice start = {bytes.ptr, bytes.len < METHOD_MAX_LEN ? bytes.len : METHOD_MAX_LEN};
    const char *blank = memchr(start.ptr, ' ', start.len);
    if (blank) {
        struct moon_slice method = {start.ptr, (size_t)(blank - start.ptr)};
        return moon_method_from(method) != MOON_METHOD_OTHER ? MOON_FIRST_HTTP1 : MOON_FIRST_OPAQUE;
    }
    if (start.len < METHOD_MAX_LEN && may_be_method(start))
        return MOON_FIRST_MORE;
    return MOON_FIRST_OPAQUE;
}

enum moon_first moon_first_bytes(struct moon_slice bytes)
{
    if (bytes.len == 0)
        return MOON_FIRST_MORE;
    if (bytes.ptr[0] == HANDSHAKE)
        return tls_or_not(bytes);
    int is_preface = moon_h2_is_preface(bytes);
    if (is_preface >= 0)
        return is_preface ? MOON_FIRST_H2 : MOON_FIRST_MORE;
    return request_or_not(bytes);
}
