// Authorities: what is accepted holds no forbidden byte, and host and port written again read the
// same.
#include "fuzz.h"

#include "http/target.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct moon_slice in = {(const char *)bytes, len};
    struct moon_authority a, again;
    if (!moon_authority_parse(in, &a))
        return 0;
    HOLDS(a.host.ptr == in.ptr && a.host.len > 0 && a.host.len <= 255);
    for (size_t i = 0; i < in.len; i++) {
        HOLDS((uint8_t)in.ptr[i] > 0x20 && (uint8_t)in.ptr[i] < 0x7f);
        HOLDS(!memchr(",@#/?%\\*;\"<>{}|^`'()!$&+=", in.ptr[i], 25));
    }
    HOLDS(a.port || a.host.len == in.len);
    char text[300];
    int written = a.port ? snprintf(text, sizeof text, "%.*s:%u", MOON_SLICE_ARG(a.host), a.port)
                         : snprintf(text, sizeof text, "%.*s", MOON_SLICE_ARG(a.host));
    HOLDS(moon_slice_equal((struct moon_slice){text, (size_t)written}, in));
    HOLDS(moon_authority_parse((struct moon_slice){text, (size_t)written}, &again));
    HOLDS(moon_slice_equal(a.host, again.host) && a.port == again.port);
    return 0;
}
