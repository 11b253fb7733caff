// See health.h.
#include "upstream/health.h"

#include "base/arena.h"
#include "base/list.h"
#include "http/head.h"
#include "upstream/registry_priv.h"

#include <stdlib.h>
#include <string.h>

enum { INTERVAL_MS = 5000, TIMEOUT_MS = 2000, HEALTHY_COUNT = 2, UNHEALTHY_COUNT = 3 };

// ---- configuration

static const struct moon_schema_key health_keys[] = {
    {.name = "path", .types = MOON_TYPE_STRING, .expected = "a path such as \"/healthz\""},
    {.name = "grpc",
     .types = MOON_TYPE_BOOL | MOON_TYPE_STRING,
     .expected = "true, or the name of a service such as \"shop.Orders\""},
    {.name = "host", .types = MOON_TYPE_STRING, .expected = "a host, for the field Host"},
    {.name = "interval",
     .types = MOON_TYPE_NUMBER,
     .min = 0.05,
     .max = 3600,
     .expected = "seconds, 0.05 to 3600"},
    {.name = "timeout",
     .types = MOON_TYPE_NUMBER,
     .min = 0.01,
     .max = 3600,
     .expected = "seconds, 0.01 to 3600"},
    {.name = "healthy",
     .types = MOON_TYPE_NUMBER,
     .is_integer = true,
     .min = 1,
     .max = 100,
     .expected = "a count, 1 to 100"},
    {.name = "unhealthy",
     .types = MOON_TYPE_NUMBER,
     .is_integer = true,
     .min = 1,
     .max = 100,
     .expected = "a count, 1 to 100"},
    {.name = NULL},
};
const struct moon_schema moon_health_schema = {health_keys, NULL, NULL};

struct reading {
    const struct moon_compile *compile;
    const struct moon_object *object;
    const struct moon_value *health;
};

static bool tell(const struct reading *at, const char *path, const char *hint, const char *message)
{
    moon_report_addf(at->compile->report, at->object->place,
                     moon_object_title(at->compile->model, at->object), path, hint, "%s", message);
    return false;
}

static struct moon_slice copy(struct moon_slice text)
{
    char *own = moon_slice_dup(text);
    if (!own)
        abort();
    return (struct moon_slice){own, text.len};
}

static bool is_path(struct moon_slice path)
{
    enum { ARENA_LEN = 65536 };
    struct moon_target target = {0};
    struct moon_fault fault;
    if (path.len == 0 || path.ptr[0] != '/')
        return false;
    struct moon_arena_pool *pool = moon_arena_pool_new(1);
    struct moon_arena *arena = moon_arena_new(pool, ARENA_LEN);
    bool is_fine = moon_target_parse(arena, path, MOON_SLASH_KEEP, &target, &fault);
    for (size_t i = 0; i < path.len; i++)
        is_fine = is_fine && path.ptr[i] > ' ' && path.ptr[i] != '#' && path.ptr[i] != 0x7f;
    moon_arena_free(arena);
    moon_arena_pool_free(pool);
    return is_fine;
}

// Exactly one of path and grpc says what is asked.
static bool read_kind(const struct reading *at, struct moon_health_check *check)
{
    const struct moon_value *path = moon_value_get(at->health, "path"),
                            *grpc = moon_value_get(at->health, "grpc");
    bool is_off =
        grpc && grpc->kind == MOON_VALUE_BOOL && !moon_value_bool(at->health, "grpc", true);
    if (is_off || !path == !grpc)
        return tell(at, "health", "path = \"/healthz\", or grpc = true",
                    path ? "either path or grpc" : "what is to be asked is missing");
    check->kind = grpc ? MOON_CHECK_GRPC : MOON_CHECK_HTTP;
    if (grpc && grpc->kind == MOON_VALUE_STRING)
        check->service = copy(grpc->string);
    if (!path)
        return true;
    check->path = copy(path->string);
    return is_path(path->string) ||
           tell(at, "health.path", "a path such as \"/healthz\"", "not a path");
}

static bool read_rest(const struct reading *at, struct moon_health_check *check)
{
    struct moon_slice host = moon_value_string(at->health, "host", MOON_SLICE(""));
    struct moon_authority authority;
    check->host = copy(host);
    check->interval_ms = moon_value_ms(at->health, "interval", INTERVAL_MS / 1000.0);
    check->timeout_ms =
        moon_value_ms(at->health, "timeout",
                      (check->interval_ms < TIMEOUT_MS ? check->interval_ms : TIMEOUT_MS) / 1000.0);
    check->healthy_count = (uint8_t)moon_value_number(at->health, "healthy", HEALTHY_COUNT);
    check->unhealthy_count = (uint8_t)moon_value_number(at->health, "unhealthy", UNHEALTHY_COUNT);
    if (check->timeout_ms > check->interval_ms)
        return tell(at, "health.timeout", "at most the interval",
                    "a check would begin before the one before has ended");
    if (moon_value_get(at->health, "host") && !moon_authority_parse(host, &authority))
        return tell(at, "health.host", "a name or an IP address, perhaps with a port",
                    "not a host");
    return true;
}

bool moon_health_check_read(const struct moon_compile *compile, const struct moon_object *object,
                            struct moon_health_check **out)
{
    struct reading at = {compile, object, moon_value_get(&object->value, "health")};
    *out = NULL;
    if (!at.health)
        return true;
    if (moon_value_get(&object->value, "proxy_protocol"))
        return tell(&at, "health", "remove one of them", "not supported yet beside proxy_protocol");
    *out = calloc(1, sizeof **out);
    if (!*out)
        abort();
    return read_kind(&at, *out) && read_rest(&at, *out);
}

void moon_health_check_free(struct moon_health_check *check)
{
    if (!check)
        return;
    free((void *)check->path.ptr);
    free((void *)check->service.ptr);
    free((void *)check->host.ptr);
    free(check);
}

// ---- verdicts

struct moon_health {
    struct moon_list node;
    struct moon_registry *registry;
    unsigned ref_count;
    struct moon_address *down; // in order
    size_t down_count;
    uint64_t checks, failures;
    size_t name_len;
    char name[]; // NUL-terminated
};

int moon_address_compare(const void *a, const void *b)
{
    const struct moon_address *x = a, *y = b;
    if (x->family != y->family)
        return x->family < y->family ? -1 : 1;
    int order = memcmp(x->ip, y->ip, sizeof x->ip);
    return order ? order : (x->port > y->port) - (x->port < y->port);
}

struct moon_health *moon_health_get(struct moon_registry *registry, struct moon_slice name)
{
    struct moon_health *health = NULL;
    pthread_mutex_lock(&registry->lock);
    for (struct moon_list *at = registry->healths.next; at != &registry->healths; at = at->next) {
        struct moon_health *known = MOON_CONTAINER(at, struct moon_health, node);
        if (moon_slice_equal((struct moon_slice){known->name, known->name_len}, name)) {
            health = known;
            break;
        }
    }
    if (!health) {
        health = calloc(1, sizeof *health + name.len + 1);
        if (!health)
            abort();
        health->registry = registry;
        health->name_len = name.len;
        memcpy(health->name, name.ptr, name.len);
        moon_list_add_before(&registry->healths, &health->node);
    }
    health->ref_count++;
    pthread_mutex_unlock(&registry->lock);
    return health;
}

struct moon_health *moon_health_ref(struct moon_health *health)
{
    pthread_mutex_lock(&health->registry->lock);
    health->ref_count++;
    pthread_mutex_unlock(&health->registry->lock);
    return health;
}

void moon_health_unref(struct moon_health *health)
{
    if (!health)
        return;
    struct moon_registry *registry = health->registry;
    pthread_mutex_lock(&registry->lock);
    if (--health->ref_count == 0) {
        moon_list_del(&health->node);
        free(health->down);
        free(health);
    }
    pthread_mutex_unlock(&registry->lock);
}

// With the lock: where the address stands, or would stand.
static size_t place_of(const struct moon_health *health, const struct moon_address *address)
{
    size_t from = 0, to = health->down_count;
    while (from < to) {
        size_t middle = (from + to) / 2;
        if (moon_address_compare(&health->down[middle], address) < 0)
            from = middle + 1;
        else
            to = middle;
    }
    return from;
}

void moon_health_set(struct moon_health *health, const struct moon_address *address, bool is_down)
{
    pthread_mutex_lock(&health->registry->lock);
    size_t at = place_of(health, address), rest = health->down_count - at;
    bool was_down = rest > 0 && moon_address_compare(&health->down[at], address) == 0;
    if (is_down && !was_down) {
        health->down = realloc(health->down, (health->down_count + 1) * sizeof *health->down);
        if (!health->down)
            abort();
        memmove(&health->down[at + 1], &health->down[at], rest * sizeof *health->down);
        health->down[at] = *address;
        health->down_count++;
    } else if (!is_down && was_down) {
        memmove(&health->down[at], &health->down[at + 1], (rest - 1) * sizeof *health->down);
        health->down_count--;
    }
    pthread_mutex_unlock(&health->registry->lock);
}

void moon_health_count(struct moon_health *health, bool is_failure)
{
    pthread_mutex_lock(&health->registry->lock);
    health->checks++;
    health->failures += is_failure;
    pthread_mutex_unlock(&health->registry->lock);
}

size_t moon_health_down(struct moon_health *health, struct moon_address **out)
{
    pthread_mutex_lock(&health->registry->lock);
    size_t count = health->down_count;
    *out = calloc(count + 1, sizeof **out);
    if (!*out)
        abort();
    if (count)
        memcpy(*out, health->down, count * sizeof **out);
    pthread_mutex_unlock(&health->registry->lock);
    return count;
}

struct moon_health_figures *moon_health_figures(struct moon_registry *registry, size_t *count)
{
    struct moon_health_figures *all = NULL;
    size_t n = 0;
    pthread_mutex_lock(&registry->lock);
    for (struct moon_list *at = registry->healths.next; at != &registry->healths; at = at->next) {
        const struct moon_health *health = MOON_CONTAINER(at, struct moon_health, node);
        all = realloc(all, (n + 1) * sizeof *all);
        char *name = strdup(health->name);
        if (!all || !name)
            abort();
        all[n++] = (struct moon_health_figures){name, health->checks, health->failures,
                                                health->down_count};
    }
    pthread_mutex_unlock(&registry->lock);
    *count = n;
    return all;
}
