// Compiles moongate.listener { ... } objects.
#include "route/listener.h"

#include "base/err.h"

#include <stdlib.h>
#include <string.h>

static const char *const protocol_choices[] = {"http", NULL};

static const struct moon_schema_key listener_keys[] = {
    {.name = "port",
     .types = MOON_TYPE_NUMBER,
     .is_required = true,
     .is_integer = true,
     .min = 0,
     .max = 65535,
     .expected = "a port, 1 to 65535 (0: any free one)"},
    {.name = "address", .types = MOON_TYPE_STRING, .expected = "an IP address such as \"0.0.0.0\""},
    {.name = "protocol",
     .types = MOON_TYPE_STRING,
     .choices = protocol_choices,
     .expected = "\"http\""},
    {.name = "name", .types = MOON_TYPE_STRING, .expected = "a name"},
    {.name = "hostname", .types = MOON_TYPE_STRING, .is_later = true},
    {.name = "tls", .types = MOON_TYPE_TABLE, .is_later = true},
    {.name = "plugins", .types = MOON_TYPE_TABLE, .is_later = true},
    {.name = NULL},
};
static const struct moon_schema listener_schema = {listener_keys, NULL, NULL};

static void listeners_unref(void *part)
{
    struct moon_listeners *all = part;
    if (!all)
        return;
    for (size_t i = 0; i < all->count; i++) {
        free((void *)all->listeners[i].name);
        free((void *)all->listeners[i].place.file);
    }
    free(all->listeners);
    free(all);
}

static const struct moon_listener *find(const struct moon_listeners *all,
                                        const struct moon_address *address)
{
    for (size_t i = 0; i < all->count; i++)
        if (address->port && moon_address_equal(&all->listeners[i].address, address))
            return &all->listeners[i];
    return NULL;
}

static bool compile_one(const struct moon_compile *compile, const struct moon_object *object,
                        struct moon_listeners *all)
{
    struct moon_listener *listener = &all->listeners[all->count];
    const char *title = moon_object_title(compile->model, object);
    struct moon_slice address = moon_value_string(&object->value, "address", MOON_SLICE("0.0.0.0"));
    struct moon_slice name = moon_value_string(&object->value, "name", MOON_SLICE("http"));
    uint16_t port = (uint16_t)moon_value_number(&object->value, "port", 0);
    if (!moon_address_parse_ip(address, port, &listener->address)) {
        moon_report_addf(compile->report, object->place, title, "address",
                         "an IP address such as \"0.0.0.0\" or \"::1\"", "not an address: \"%.*s\"",
                         MOON_SLICE_ARG(address));
        return false;
    }
    const struct moon_listener *other = find(all, &listener->address);
    if (other) {
        moon_report_addf(compile->report, object->place, title, "port",
                         "several listeners on one port are not supported yet",
                         "port %u is taken by the listener of line %u", port, other->place.line);
        return false;
    }
    listener->name = strndup(name.ptr, name.len);
    listener->place = object->place;
    listener->place.file = object->place.file ? strdup(object->place.file) : NULL;
    all->count++;
    return true;
}

static int listeners_compile(const struct moon_compile *compile, void **part)
{
    struct moon_listeners *all = calloc(1, sizeof *all);
    bool is_fine = true;
    if (!all)
        abort();
    all->listeners = calloc(compile->object_count + 1, sizeof *all->listeners);
    if (!all->listeners)
        abort();
    for (size_t i = 0; i < compile->object_count; i++)
        is_fine = compile_one(compile, compile->objects[i], all) && is_fine;
    if (is_fine && all->count == 0) {
        moon_report_addf(compile->report, (struct moon_place){NULL, 0}, NULL, NULL,
                         "add moongate.listener { port = 8080 }", "there is no listener");
        is_fine = false;
    }
    if (!is_fine) {
        listeners_unref(all);
        return MOON_ECONFIG;
    }
    *part = all;
    return 0;
}

const struct moon_section moon_listener_section = {
    .name = "listeners",
    .kind = "listener",
    .schema = &listener_schema,
    .compile = listeners_compile,
    .unref = listeners_unref,
};

const struct moon_listeners *moon_snapshot_listeners(const struct moon_snapshot *snapshot)
{
    return moon_snapshot_part(snapshot, moon_listener_section.name);
}
