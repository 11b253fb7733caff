// Path prefixes as a hash of whole prefixes: a lookup tries the path at each of its segment ends, from the longest to "/".
// So it costs one hash pass over the path and one probe a segment, whatever the number of routes.
#include "route/route.h"

#include "base/arena.h"
#include "base/err.h"
#include "http/head.h"

#include <stdlib.h>
#include <string.h>

// a path with more segments is matched by its first 128
enum { DEPTH_MAX = 128, PATH_ARENA_LEN = 65536 };

struct entry {
    struct moon_slice prefix; // without a slash at its end; empty for "/"
    uint64_t hash;
    int index;
    struct moon_place place;
};

struct moon_routes {
    struct entry *entries;
    size_t count;
    int *slots; // open addressing: entry + 1, 0 when free
    size_t slot_count;
};

static const char *const prefix_hint = "a path that starts with \"/\", such as \"/users\"";

static const struct moon_schema_key route_keys[] = {
    {.name = "path",
     .types = MOON_TYPE_STRING,
     .expected = "a path that starts with \"/\", such as \"/users\""},
    {.name = "hosts", .types = MOON_TYPE_TABLE, .is_later = true},
    {.name = "methods", .types = MOON_TYPE_TABLE, .is_later = true},
    {.name = "headers", .types = MOON_TYPE_TABLE, .is_later = true},
    {.name = "query", .types = MOON_TYPE_TABLE, .is_later = true},
    {.name = "matches", .types = MOON_TYPE_TABLE, .is_later = true},
    {.name = NULL},
};
static const struct moon_schema route_schema = {route_keys, NULL, NULL};

enum { HASH_SEED = 1469598103 };

static uint64_t hash_byte(uint64_t hash, char byte)
{
    return (hash ^ (unsigned char)byte) * 0x100000001b3u;
}

static size_t slot_at(const struct moon_routes *routes, uint64_t hash)
{
    return (size_t)((hash ^ (hash >> 29)) & (routes->slot_count - 1));
}

static const struct entry *find(const struct moon_routes *routes, struct moon_slice prefix,
                                uint64_t hash)
{
    for (size_t at = slot_at(routes, hash); routes->slots[at];
         at = (at + 1) & (routes->slot_count - 1)) {
        const struct entry *entry = &routes->entries[routes->slots[at] - 1];
        if (entry->hash == hash && moon_slice_equal(entry->prefix, prefix))
            return entry;
    }
    return NULL;
}

// `OPTIONS *` asks the server as a whole.
static int find_root(const struct moon_routes *routes)
{
    const struct entry *entry = find(routes, MOON_SLICE(""), HASH_SEED);
    return entry ? entry->index : -1;
}

int moon_routes_find(const struct moon_routes *routes, const struct moon_head *head)
{
    struct moon_slice path = head->target.path;
    struct {
        uint32_t len;
        uint64_t hash;
    } ends[DEPTH_MAX];
    unsigned depth = 0;
    uint64_t hash = HASH_SEED;
    if (routes->count == 0 || path.len == 0 || path.ptr[0] != '/')
        return routes->count && path.len == 1 && path.ptr[0] == '*' ? find_root(routes) : -1;
    for (size_t i = 0; i < path.len && depth < DEPTH_MAX; i++) {
        if (path.ptr[i] == '/') {
            ends[depth].len = (uint32_t)i;
            ends[depth++].hash = hash;
        }
        hash = hash_byte(hash, path.ptr[i]);
    }
    const struct entry *entry = find(routes, path, hash);
    while (!entry && depth > 0) {
        depth--;
        entry = find(routes, (struct moon_slice){path.ptr, ends[depth].len}, ends[depth].hash);
    }
    return entry ? entry->index : -1;
}

static void routes_unref(void *part)
{
    struct moon_routes *routes = part;
    if (!routes)
        return;
    for (size_t i = 0; i < routes->count; i++)
        free((void *)routes->entries[i].prefix.ptr);
    free(routes->entries);
    free(routes->slots);
    free(routes);
}

static bool is_canonical(const struct moon_compile *compile, const struct moon_object *object,
                         struct moon_slice path)
{
    const char *title = moon_object_title(compile->model, object), *reason = NULL;
    if (path.len == 0 || path.ptr[0] != '/' || memchr(path.ptr, '?', path.len) ||
        memchr(path.ptr, '#', path.len)) {
        moon_report_addf(compile->report, object->place, title, "path", prefix_hint,
                         "found \"%.*s\", which is not a path", MOON_SLICE_ARG(path));
        return false;
    }
    struct moon_arena_pool *pool = moon_arena_pool_new(4);
    struct moon_arena *arena = moon_arena_new(pool, PATH_ARENA_LEN);
    struct moon_slice canonical = moon_path_normalise(arena, path, MOON_SLASH_REJECT, &reason);
    bool is_same = canonical.ptr && moon_slice_equal(canonical, path);
    if (!canonical.ptr)
        moon_report_addf(compile->report, object->place, title, "path", prefix_hint,
                         "no request ever has the path \"%.*s\": %s", MOON_SLICE_ARG(path), reason);
    else if (!is_same)
        moon_report_addf(compile->report, object->place, title, "path", NULL,
                         "found \"%.*s\"; requests are matched in canonical form, write \"%.*s\"",
                         MOON_SLICE_ARG(path), MOON_SLICE_ARG(canonical));
    moon_arena_free(arena);
    moon_arena_pool_free(pool);
    return is_same;
}

static bool compile_one(const struct moon_compile *compile, size_t index,
                        struct moon_routes *routes)
{
    const struct moon_object *object = compile->objects[index];
    struct moon_slice path = moon_value_string(&object->value, "path", MOON_SLICE("/"));
    if (!is_canonical(compile, object, path))
        return false;
    uint64_t hash = HASH_SEED;
    size_t len = path.ptr[path.len - 1] == '/' ? path.len - 1 : path.len;
    for (size_t i = 0; i < len; i++)
        hash = hash_byte(hash, path.ptr[i]);
    const struct entry *other = find(routes, (struct moon_slice){path.ptr, len}, hash);
    if (other) {
        moon_report_addf(compile->report, object->place, moon_object_title(compile->model, object),
                         "path", NULL, "\"%.*s\" has a route already, in line %u",
                         MOON_SLICE_ARG(path), other->place.line);
        return false;
    }
    char *copy = strndup(path.ptr, len);
    if (!copy)
        abort();
    routes->entries[routes->count++] =
        (struct entry){{copy, len}, hash, (int)index, {NULL, object->place.line}};
    size_t at = slot_at(routes, hash);
    while (routes->slots[at])
        at = (at + 1) & (routes->slot_count - 1);
    routes->slots[at] = (int)routes->count;
    return true;
}

static int routes_compile(const struct moon_compile *compile, void **part)
{
    struct moon_routes *routes = calloc(1, sizeof *routes);
    bool is_fine = true;
    if (!routes)
        abort();
    routes->slot_count = 16;
    while (routes->slot_count < compile->object_count * 2)
        routes->slot_count *= 2;
    routes->entries = calloc(compile->object_count + 1, sizeof *routes->entries);
    routes->slots = calloc(routes->slot_count, sizeof *routes->slots);
    if (!routes->entries || !routes->slots)
        abort();
    for (size_t i = 0; i < compile->object_count; i++)
        is_fine = compile_one(compile, i, routes) && is_fine;
    if (!is_fine) {
        routes_unref(routes);
        return MOON_ECONFIG;
    }
    *part = routes;
    return 0;
}

const struct moon_section moon_route_section = {
    .name = "routes",
    .kind = "route",
    .schema = &route_schema,
    .compile = routes_compile,
    .unref = routes_unref,
};

const struct moon_routes *moon_snapshot_routes(const struct moon_snapshot *snapshot)
{
    return moon_snapshot_part(snapshot, moon_route_section.name);
}
