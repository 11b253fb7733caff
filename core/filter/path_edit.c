// Path edits. Both parts of a new path are canonical; the whole is normalised once more all the same, so that no edit can make
// what a client could not have sent.
#include "filter/path_edit.h"

#include "base/arena.h"
#include "conf/schema.h"
#include "http/target.h"

#include <string.h>

enum { ARENA_LEN = 65536 };

static const struct moon_schema_key keys[] = {
    {.name = "prefix",
     .types = MOON_TYPE_STRING,
     .is_required = true,
     .expected = "a path such as \"/new\", or \"\" to take the prefix away"},
    {.name = NULL},
};
const struct moon_schema moon_path_edit_schema = {keys, NULL, NULL};

// The text itself must be what requests are matched and forwarded in.
static int check_path(const struct moon_filter_compile *at, const char *key, struct moon_slice path)
{
    const char *reason = NULL;
    int err = 0;
    if (path.len == 0 || path.ptr[0] != '/' || memchr(path.ptr, '?', path.len) ||
        memchr(path.ptr, '#', path.len))
        return moon_filter_problem(at, key, "a path starts with \"/\" and has no query",
                                   "found \"%.*s\", which is not a path", MOON_SLICE_ARG(path));
    struct moon_arena_pool *pool = moon_arena_pool_new(4);
    struct moon_arena *arena = moon_arena_new(pool, ARENA_LEN);
    struct moon_slice canonical = moon_path_normalise(arena, path, MOON_SLASH_REJECT, &reason);
    if (!canonical.ptr)
        err =
            moon_filter_problem(at, key, NULL, "found \"%.*s\": %s", MOON_SLICE_ARG(path), reason);
    else if (!moon_slice_equal(canonical, path))
        err = moon_filter_problem(at, key, NULL, "found \"%.*s\"; in canonical form it is \"%.*s\"",
                                  MOON_SLICE_ARG(path), MOON_SLICE_ARG(canonical));
    moon_arena_free(arena);
    moon_arena_pool_free(pool);
    return err;
}

int moon_path_edit_compile(const struct moon_filter_compile *at, const struct moon_value *value,
                           struct moon_path_edit *edit)
{
    const struct moon_value *path = moon_value_get(value, "path");
    *edit = (struct moon_path_edit){MOON_PATH_KEEP, {NULL, 0}};
    if (!path)
        return 0;
    bool is_prefix = path->kind == MOON_VALUE_TABLE;
    const char *key = is_prefix ? "path.prefix" : "path";
    struct moon_slice text =
        is_prefix ? moon_value_string(path, "prefix", MOON_SLICE("")) : path->string;
    if (is_prefix && !at->has_prefix)
        return moon_filter_problem(at, key, "give the route one path prefix: path = \"/old\"",
                                   "the route matches no path prefix that could be replaced");
    int err = is_prefix && text.len == 0 ? 0 : check_path(at, key, text);
    if (err)
        return err;
    if (is_prefix && text.len && text.ptr[text.len - 1] == '/')
        text.len--;
    edit->kind = is_prefix ? MOON_PATH_PREFIX : MOON_PATH_FULL;
    edit->text = moon_filter_copy(text);
    return 0;
}

// prefix + rest, "/" when both are empty; ptr NULL when out of memory.
static struct moon_slice join(struct moon_arena *arena, struct moon_slice prefix,
                              struct moon_slice rest)
{
    if (prefix.len + rest.len == 0)
        return MOON_SLICE("/");
    if (prefix.len == 0)
        return rest;
    if (rest.len == 0)
        return prefix;
    char *text = moon_arena_try_bytes(arena, prefix.len + rest.len);
    if (!text)
        return (struct moon_slice){NULL, 0};
    memcpy(text, prefix.ptr, prefix.len);
    memcpy(text + prefix.len, rest.ptr, rest.len);
    return (struct moon_slice){text, prefix.len + rest.len};
}

struct moon_slice moon_path_edit_apply(const struct moon_path_edit *edit, struct moon_arena *arena,
                                       struct moon_slice path, struct moon_slice matched,
                                       const char **reason)
{
    struct moon_slice changed = {NULL, 0};
    switch (edit->kind) {
    case MOON_PATH_KEEP:
        return path;
    case MOON_PATH_FULL:
        changed = edit->text;
        break;
    case MOON_PATH_PREFIX:
        if (!moon_slice_starts(path, matched))
            return path;
        changed = join(arena, edit->text, moon_slice_skip(path, matched.len));
        break;
    }
    *reason = "path too long";
    if (!changed.ptr)
        return changed;
    // What is escaped in the path has been allowed already.
    return moon_path_normalise(arena, changed, MOON_SLASH_KEEP, reason);
}
