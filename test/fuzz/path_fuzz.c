// Paths and targets: normalising is idempotent and its result holds nothing that could be read two
// ways. First byte: choices.
#include "fuzz.h"

#include "http/head.h"

static bool holds(struct moon_slice s, const char *text)
{
    size_t len = strlen(text);
    for (size_t i = 0; i + len <= s.len; i++) {
        if (memcmp(s.ptr + i, text, len) == 0)
            return true;
    }
    return false;
}

static bool ends(struct moon_slice s, const char *text)
{
    size_t len = strlen(text);
    return s.len >= len && memcmp(s.ptr + s.len - len, text, len) == 0;
}

static void check_canonical(struct moon_slice path, enum moon_escaped_slash slash)
{
    HOLDS(path.len > 0 && path.ptr[0] == '/');
    HOLDS(!holds(path, "/../") && !holds(path, "/./") && !ends(path, "/..") && !ends(path, "/."));
    HOLDS(!holds(path, "/..;") && !holds(path, "/.;") && !holds(path, "%00") &&
          !holds(path, "%2E") && !holds(path, "\\"));
    HOLDS(slash == MOON_SLASH_KEEP || (!holds(path, "%2F") && !holds(path, "%5C")));
    for (size_t i = 0; i < path.len; i++)
        HOLDS((uint8_t)path.ptr[i] > 0x20 && (uint8_t)path.ptr[i] < 0x7f && path.ptr[i] != '#' &&
              path.ptr[i] != '?');
}

static void check_path(struct moon_arena *arena, struct moon_slice in,
                       enum moon_escaped_slash slash)
{
    const char *reason = NULL;
    struct moon_slice path = moon_path_normalise(arena, in, slash, &reason);
    HOLDS(path.ptr || reason);
    if (!path.ptr)
        return;
    check_canonical(path, slash);
    struct moon_slice again = moon_path_normalise(arena, path, slash, &reason);
    HOLDS(again.ptr == path.ptr && again.len == path.len);
}

static void check_target(struct moon_arena *arena, struct moon_slice in,
                         enum moon_escaped_slash slash)
{
    struct moon_target target;
    struct moon_fault fault = {0, NULL};
    if (!moon_target_parse(arena, in, slash, &target, &fault)) {
        HOLDS(fault.status == 400 && fault.reason);
        return;
    }
    if (target.form == MOON_TARGET_ASTERISK)
        return;
    check_canonical(target.path, slash);
    HOLDS(target.form != MOON_TARGET_ABSOLUTE || target.authority.host.len > 0);
    HOLDS(target.has_query || target.query.len == 0);
    HOLDS(!holds(target.query, "#") && !holds(target.query, " "));
    if (target.is_verbatim && target.has_query)
        HOLDS(target.query.ptr == target.path.ptr + target.path.len + 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct moon_slice in = {(const char *)bytes, len};
    enum moon_escaped_slash slash = (enum moon_escaped_slash)(fuzz_choice(&in) % 3);
    struct fuzz_arena f = fuzz_arena_new();
    check_path(f.arena, in, slash);
    check_target(f.arena, in, slash);
    fuzz_arena_free(&f);
    return 0;
}
