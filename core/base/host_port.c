// See host_port.h.
#include "base/host_port.h"

enum { NAME_MAX_LEN = 253 };

static bool is_name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
}

// A host name (RFC 1123, underscores too) whose last label is not a number: that would be a broken address.
static bool is_host_name(struct moon_slice text)
{
    size_t label_len = 0;
    bool is_number = true;
    if (text.len && text.ptr[text.len - 1] == '.') // fully qualified
        text.len--;
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] == '.') {
            if (label_len == 0)
                return false;
            label_len = 0;
            is_number = true;
            continue;
        }
        is_number = is_number && text.ptr[i] >= '0' && text.ptr[i] <= '9';
        if (!is_name_char(text.ptr[i]) || ++label_len > 63)
            return false;
    }
    return label_len > 0 && !is_number && text.len <= NAME_MAX_LEN;
}

bool moon_host_port_parse(struct moon_slice text, struct moon_slice *host, uint16_t *port)
{
    uint32_t number = 0;
    size_t colon = text.len;
    while (colon > 0 && text.ptr[colon - 1] != ':')
        colon--;
    if (colon == 0 || colon == text.len || text.len - colon > 5)
        return false;
    for (size_t i = colon; i < text.len; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9')
            return false;
        number = number * 10 + (uint32_t)(text.ptr[i] - '0');
    }
    *host = (struct moon_slice){text.ptr, colon - 1};
    *port = (uint16_t)number;
    return number > 0 && number <= UINT16_MAX && is_host_name(*host);
}
