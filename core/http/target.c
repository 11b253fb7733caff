// Request targets (RFC 9112 3.2): origin form, absolute form of http and https, asterisk form.
// Pure.
#include "http/target.h"

#include "http/chars.h"
#include "http/head.h"

static bool refuse(struct moon_fault *fault, const char *reason)
{
    *fault = (struct moon_fault){400, reason};
    return false;
}

// Length of "http://" or "https://" at the start of text; 0 when there is neither.
static size_t scheme_len(struct moon_slice text)
{
    static const struct moon_slice schemes[] = {{"http://", 7}, {"https://", 8}};
    for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++) {
        struct moon_slice start = {text.ptr, schemes[i].len};
        if (text.len >= schemes[i].len && moon_slice_equal_fold(start, schemes[i]))
            return schemes[i].len;
    }
    return 0;
}

// Takes the authority off *text.
static bool take_authority(struct moon_slice *text, struct moon_target *out,
                           struct moon_fault *fault)
{
    size_t scheme = scheme_len(*text);
    if (scheme == 0)
        return refuse(fault, memchr(text->ptr, ':', text->len)
                                 ? "foreign scheme in the request target"
                                 : "malformed request target");
    *text = moon_slice_skip(*text, scheme);
    size_t len = 0;
    while (len < text->len && text->ptr[len] != '/' && text->ptr[len] != '?')
        len++;
    out->authority_text = (struct moon_slice){text->ptr, len};
    if (!moon_authority_parse(out->authority_text, &out->authority))
        return refuse(fault, "malformed authority in the request target");
    out->form = MOON_TARGET_ABSOLUTE;
    *text = moon_slice_skip(*text, len);
    return true;
}

static bool check_bytes(struct moon_slice text, struct moon_fault *fault)
{
    for (size_t i = 0; i < text.len; i++) {
        if (moon_char_is(text.ptr[i], MOON_CHAR_TARGET))
            continue;
        return refuse(fault, text.ptr[i] == '#' ? "fragment in the request target"
                                                : "forbidden byte in the request target");
    }
    return true;
}

bool moon_target_parse(struct moon_arena *arena, struct moon_slice text,
                       enum moon_escaped_slash slash, struct moon_target *out,
                       struct moon_fault *fault)
{
    const char *reason = NULL;
    *out = (struct moon_target){0};
    if (text.len == 0)
        return refuse(fault, "empty request target");
    if (!check_bytes(text, fault))
        return false;
    if (text.len == 1 && text.ptr[0] == '*') {
        out->form = MOON_TARGET_ASTERISK;
        out->path = text;
        out->is_verbatim = true;
        return true;
    }
    if (text.ptr[0] != '/' && !take_authority(&text, out, fault))
        return false;
    const char *mark = text.len ? memchr(text.ptr, '?', text.len) : NULL;
    struct moon_slice path = {text.ptr, mark ? (size_t)(mark - text.ptr) : text.len};
    out->has_query = mark != NULL;
    out->query =
        mark ? moon_slice_skip(text, path.len + 1) : (struct moon_slice){text.ptr + text.len, 0};
    if (path.len == 0)
        path = MOON_SLICE("/");
    out->path = moon_path_normalise(arena, path, slash, &reason);
    if (!out->path.ptr)
        return refuse(fault, reason);
    out->is_verbatim = out->path.ptr == text.ptr;
    return true;
}
