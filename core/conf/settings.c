// Compiles moongate.settings { ... }; absent keys take the defaults here, which are safe and fast as shipped.
#include "conf/settings.h"

#include "base/err.h"

#include <stdio.h>
#include <stdlib.h>

#define COUNT(key, least, most, text)                                                          \
    {                                                                                          \
        .name = key, .types = MOON_TYPE_NUMBER, .is_integer = true, .min = least, .max = most, \
        .expected = text                                                                       \
    }
#define SWITCH(key)                                                       \
    {                                                                     \
        .name = key, .types = MOON_TYPE_BOOL, .expected = "true or false" \
    }

static const struct moon_schema_key timeout_keys[] = {
    MOON_SCHEMA_SECONDS("connect"),       MOON_SCHEMA_SECONDS("response"),
    MOON_SCHEMA_SECONDS("idle"),          MOON_SCHEMA_SECONDS("request_head"),
    MOON_SCHEMA_SECONDS("upstream_idle"), MOON_SCHEMA_SECONDS("upstream_ping"),
    MOON_SCHEMA_SECONDS("body"),          MOON_SCHEMA_SECONDS("drain"),
    MOON_SCHEMA_SECONDS("linger"),        MOON_SCHEMA_SECONDS("handshake"),
    MOON_SCHEMA_SECONDS("preread"),       {.name = NULL},
};
static const struct moon_schema timeout_schema = {timeout_keys, NULL, NULL};

static const struct moon_schema_key limit_keys[] = {
    COUNT("header_bytes", 1024, 49152, "bytes, 1024 to 49152"),
    COUNT("header_count", 1, 1000, "a count, 1 to 1000"),
    COUNT("target_bytes", 256, 49152, "bytes, 256 to 49152"),
    COUNT("buffer_bytes", 1048576, 1099511627776.0, "bytes, 1 MiB at least"),
    COUNT("connections", 1, 10000000, "a count, 1 to 10000000"),
    {.name = NULL},
};
static const struct moon_schema limit_schema = {limit_keys, NULL, NULL};

static const struct moon_schema_key no_keys[] = {{.name = NULL}};
static const struct moon_schema_key server_item = {
    .types = MOON_TYPE_STRING, .expected = "an IP address, or one with a port: \"127.0.0.1:5353\""};
static const struct moon_schema servers_schema = {no_keys, &server_item, NULL};
static const struct moon_schema_key resolver_keys[] = {
    {.name = "servers",
     .types = MOON_TYPE_TABLE,
     .table = &servers_schema,
     .expected = "a list of IP addresses"},
    MOON_SCHEMA_SECONDS("timeout"),
    MOON_SCHEMA_SECONDS("negative"),
    MOON_SCHEMA_SECONDS("stale"),
    {.name = NULL},
};
static const struct moon_schema resolver_schema = {resolver_keys, NULL, NULL};

static const struct moon_schema_key tls_keys[] = {
    {.name = "key_log", .types = MOON_TYPE_STRING, .expected = "a path"},
    {.name = NULL},
};
static const struct moon_schema tls_schema = {tls_keys, NULL, NULL};

static const char *const log_levels[] = {"debug", "info", "warn", "error", NULL};

static const struct moon_schema_key settings_keys[] = {
    COUNT("workers", 0, 1024, "a count, 1 to 1024 (0: one a CPU)"),
    COUNT("body_rate", 0, 1e9, "bytes a second (0: none is asked)"),
    COUNT("keepalive_requests", 0, 4e9, "a count (0: no bound)"),
    COUNT("trusted_hops", 0, 100, "a count, 0 to 100"),
    {.name = "timeouts",
     .types = MOON_TYPE_TABLE,
     .table = &timeout_schema,
     .expected = "a table of seconds"},
    {.name = "limits",
     .types = MOON_TYPE_TABLE,
     .table = &limit_schema,
     .expected = "a table of bounds"},
    {.name = "log_level",
     .types = MOON_TYPE_STRING,
     .choices = log_levels,
     .expected = "\"debug\", \"info\", \"warn\" or \"error\""},
    SWITCH("via"),
    SWITCH("forwarded"),
    SWITCH("request_id"),
    SWITCH("splice"),
    {.name = "admin", .types = MOON_TYPE_TABLE, .is_later = true},
    {.name = "resolver",
     .types = MOON_TYPE_TABLE,
     .table = &resolver_schema,
     .expected = "{ servers = { \"127.0.0.1:53\" } }"},
    {.name = "tls",
     .types = MOON_TYPE_TABLE,
     .table = &tls_schema,
     .expected = "{ key_log = \"keys.log\" }"},
    {.name = "state", .types = MOON_TYPE_STRING, .expected = "the path of a directory"},
    {.name = NULL},
};
static const struct moon_schema settings_schema = {settings_keys, NULL, NULL};

static uint32_t count_of(const struct moon_value *table, const char *key, uint32_t absent)
{
    return (uint32_t)moon_value_number(table, key, absent);
}

static void read_timeouts(const struct moon_value *table, struct moon_settings *settings)
{
    settings->timeouts.connect_ms = moon_value_ms(table, "connect", 5);
    settings->timeouts.response_ms = moon_value_ms(table, "response", 60);
    settings->timeouts.idle_ms = moon_value_ms(table, "idle", 75);
    settings->timeouts.request_head_ms = moon_value_ms(table, "request_head", 10);
    settings->timeouts.upstream_idle_ms = moon_value_ms(table, "upstream_idle", 60);
    settings->timeouts.upstream_ping_ms = moon_value_ms(table, "upstream_ping", 10);
    settings->timeouts.body_ms = moon_value_ms(table, "body", 30);
    settings->timeouts.drain_ms = moon_value_ms(table, "drain", 30);
    settings->timeouts.linger_ms = moon_value_ms(table, "linger", 2);
    settings->timeouts.handshake_ms = moon_value_ms(table, "handshake", 10);
    settings->timeouts.preread_ms = moon_value_ms(table, "preread", 30);
}

enum { DNS_PORT = 53 };

static bool read_resolver(const struct moon_compile *compile, const struct moon_value *table,
                          struct moon_settings *settings)
{
    const struct moon_value *servers = moon_value_get(table, "servers");
    uint32_t count = servers ? servers->table.item_count : 0;
    bool is_fine = true;
    settings->resolver.timeout_ms = moon_value_ms(table, "timeout", 1);
    settings->resolver.negative_ms = moon_value_ms(table, "negative", 5);
    settings->resolver.stale_ms = moon_value_ms(table, "stale", 0);
    settings->resolver.servers = calloc((size_t)count + 1, sizeof *settings->resolver.servers);
    if (!settings->resolver.servers)
        abort();
    settings->resolver.server_count = count;
    for (uint32_t i = 0; i < count; i++) {
        struct moon_slice text = servers->table.items[i].string;
        struct moon_address *out = &settings->resolver.servers[i];
        char path[48];
        if (moon_address_parse(text, out) || moon_address_parse_ip(text, DNS_PORT, out))
            continue;
        snprintf(path, sizeof path, "resolver.servers[%u]", i + 1);
        moon_report_addf(compile->report, compile->objects[0]->place, "settings", path,
                         "an IP address, or one with a port: \"127.0.0.1:5353\"",
                         "not an address: \"%.*s\"", MOON_SLICE_ARG(text));
        is_fine = false;
    }
    return is_fine;
}

static void settings_unref(void *part)
{
    struct moon_settings *settings = part;
    if (settings) {
        free((void *)settings->log_level.ptr);
        free(settings->state);
        free(settings->tls_key_log);
        free(settings->resolver.servers);
    }
    free(settings);
}

static int settings_compile(const struct moon_compile *compile, void **part)
{
    struct moon_settings *settings = calloc(1, sizeof *settings);
    const struct moon_value *value = compile->object_count ? &compile->objects[0]->value : NULL;
    const struct moon_value *limits = moon_value_get(value, "limits");
    if (!settings)
        abort();
    settings->workers = count_of(value, "workers", 0);
    settings->limits.header_bytes = count_of(limits, "header_bytes", 32768);
    settings->limits.header_count = count_of(limits, "header_count", 100);
    settings->limits.target_bytes = count_of(limits, "target_bytes", 16384);
    settings->limits.buffer_bytes = (uint64_t)moon_value_number(limits, "buffer_bytes", 0);
    settings->limits.connections = count_of(limits, "connections", 0);
    read_timeouts(moon_value_get(value, "timeouts"), settings);
    settings->body_rate = count_of(value, "body_rate", 240);
    settings->keepalive_requests = count_of(value, "keepalive_requests", 0);
    settings->via = moon_value_bool(value, "via", false);
    settings->forwarded = moon_value_bool(value, "forwarded", false);
    settings->request_id = moon_value_bool(value, "request_id", false);
    settings->trusted_hops = count_of(value, "trusted_hops", 0);
    settings->splice = moon_value_bool(value, "splice", true);
    struct moon_slice level = moon_value_string(value, "log_level", MOON_SLICE("info"));
    settings->log_level = (struct moon_slice){moon_slice_dup(level), level.len};
    struct moon_slice state = moon_value_string(value, "state", MOON_SLICE(""));
    settings->state = state.len ? moon_slice_dup(state) : NULL;
    struct moon_slice key_log =
        moon_value_string(moon_value_get(value, "tls"), "key_log", MOON_SLICE(""));
    settings->tls_key_log = key_log.len ? moon_slice_dup(key_log) : NULL;
    if (!read_resolver(compile, moon_value_get(value, "resolver"), settings)) {
        settings_unref(settings);
        return MOON_ECONFIG;
    }
    *part = settings;
    return 0;
}

const struct moon_section moon_settings_section = {
    .name = "settings",
    .kind = "settings",
    .schema = &settings_schema,
    .is_single = true,
    .compile = settings_compile,
    .unref = settings_unref,
};

const struct moon_settings *moon_snapshot_settings(const struct moon_snapshot *snapshot)
{
    return moon_snapshot_part(snapshot, moon_settings_section.name);
}
