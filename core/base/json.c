// See json.h.
#include "base/json.h"

#include <stdbool.h>
#include <stdint.h>

// Bytes of the UTF-8 sequence at `p`, 0 when it is none (RFC 3629: no surrogates, no overlong forms).
static size_t sequence_len(const unsigned char *p, size_t len)
{
    size_t count = p[0] < 0x80                   ? 1
                   : p[0] >= 0xc2 && p[0] < 0xe0 ? 2
                   : (p[0] & 0xf0) == 0xe0       ? 3
                   : p[0] >= 0xf0 && p[0] < 0xf5 ? 4
                                                 : 0;
    if (count == 0 || count > len)
        return 0;
    for (size_t i = 1; i < count; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    bool is_bad = (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
                  (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f);
    return is_bad ? 0 : count;
}

void moon_json_text(FILE *out, struct moon_slice text)
{
    fputc('"', out);
    for (size_t i = 0; i < text.len;) {
        const unsigned char *p = (const unsigned char *)text.ptr + i;
        size_t len = sequence_len(p, text.len - i);
        if (*p == '"' || *p == '\\')
            fprintf(out, "\\%c", *p);
        else if (*p == '\n')
            fputs("\\n", out);
        else if (*p < 0x20 || *p == 0x7f)
            fprintf(out, "\\u%04x", *p);
        else if (len == 0)
            fputs("\\ufffd", out);
        else
            fwrite(p, 1, len, out);
        i += len ? len : 1;
    }
    fputc('"', out);
}

void moon_json_member(FILE *out, const char *key, const char *text)
{
    moon_json_text(out, moon_slice_from(key));
    fputc(':', out);
    if (text)
        moon_json_text(out, moon_slice_from(text));
    else
        fputs("null", out);
}

void moon_json_number(FILE *out, double number)
{
    bool is_small = number > -1e15 && number < 1e15;
    if (number - number != 0) // neither infinite nor a NaN is a JSON number
        fputs("null", out);
    else if (is_small && (double)(int64_t)number == number)
        fprintf(out, "%.0f", number);
    else
        fprintf(out, "%.17g", number);
}
