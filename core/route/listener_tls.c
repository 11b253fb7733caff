// See listener_tls.h.
#include "route/listener_tls.h"

#include "base/err.h"
#include "io/tls.h"
#include "route/listener.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const version_choices[] = {"1.2", "1.3", NULL};
static const char *const mode_choices[] = {"terminate", "passthrough", NULL};
static const char *const verify_choices[] = {"none", "optional", "required", NULL};

static const struct moon_schema_key pair_keys[] = {
    {.name = "cert",
     .types = MOON_TYPE_STRING,
     .is_required = true,
     .expected = "the path of a PEM file: the certificate, and its chain behind it"},
    {.name = "key",
     .types = MOON_TYPE_STRING,
     .is_required = true,
     .expected = "the path of a PEM file: the private key"},
    {.name = NULL},
};
static const struct moon_schema pair_schema = {pair_keys, NULL, NULL};
static const struct moon_schema_key pair_item = {.types = MOON_TYPE_TABLE,
                                                 .table = &pair_schema,
                                                 .expected =
                                                     "{ cert = \"site.crt\", key = \"site.key\" }"};
static const struct moon_schema_key no_keys[] = {{.name = NULL}};
static const struct moon_schema pairs_schema = {no_keys, &pair_item, NULL};

static const struct moon_schema_key client_keys[] = {
    {.name = "verify",
     .types = MOON_TYPE_STRING,
     .choices = verify_choices,
     .expected = "\"required\", \"optional\" or \"none\""},
    {.name = "ca", .types = MOON_TYPE_STRING, .expected = "the path of a PEM file of CAs"},
    {.name = "crl", .types = MOON_TYPE_STRING, .expected = "the path of a PEM file of CRLs"},
    {.name = "header", .types = MOON_TYPE_BOOL, .expected = "true or false"},
    {.name = "depth",
     .types = MOON_TYPE_NUMBER,
     .is_integer = true,
     .min = 1,
     .max = 16,
     .expected = "a count, 1 to 16"},
    {.name = NULL},
};
static const struct moon_schema client_schema = {client_keys, NULL, NULL};

static const struct moon_schema_key tls_keys[] = {
    {.name = "certificates",
     .types = MOON_TYPE_TABLE,
     .table = &pairs_schema,
     .expected = "{ { cert = \"site.crt\", key = \"site.key\" } }"},
    {.name = "min_version",
     .types = MOON_TYPE_STRING,
     .choices = version_choices,
     .expected = "\"1.2\" or \"1.3\""},
    {.name = "max_version",
     .types = MOON_TYPE_STRING,
     .choices = version_choices,
     .expected = "\"1.2\" or \"1.3\""},
    {.name = "ciphers",
     .types = MOON_TYPE_STRING,
     .expected = "a list for TLS 1.2, as OpenSSL writes it: \"ECDHE+AESGCM\""},
    {.name = "tickets", .types = MOON_TYPE_BOOL, .expected = "true or false"},
    {.name = "client",
     .types = MOON_TYPE_TABLE,
     .table = &client_schema,
     .expected = "{ verify = \"required\", ca = \"clients.pem\" }"},
    {.name = "mode",
     .types = MOON_TYPE_STRING,
     .choices = mode_choices,
     .expected = "\"terminate\" or \"passthrough\""},
    {.name = "acme", .types = MOON_TYPE_TABLE, .is_later = true},
    {.name = NULL},
};
const struct moon_schema moon_listener_tls_schema = {tls_keys, NULL, NULL};

// ---- reading

struct reading {
    const struct moon_compile *compile;
    const struct moon_object *object;
    char *paths[2 + 2 * 1024]; // malloc'd
    size_t path_count;
};

static bool tell(const struct reading *at, const char *path, const char *hint, const char *message)
{
    char full[96];
    snprintf(full, sizeof full, "tls%s%s", path ? "." : "", path ? path : "");
    moon_report_addf(at->compile->report, at->object->place,
                     moon_object_title(at->compile->model, at->object), full, hint, "%s", message);
    return false;
}

// Relative to the script's directory.
static const char *path_of(struct reading *at, struct moon_slice name)
{
    const char *file = at->object->place.file, *slash = file ? strrchr(file, '/') : NULL;
    size_t dir_len = slash && name.ptr[0] != '/' ? (size_t)(slash - file) + 1 : 0;
    char *path = malloc(dir_len + name.len + 1);
    if (!path)
        abort();
    if (dir_len)
        memcpy(path, file, dir_len);
    memcpy(path + dir_len, name.ptr, name.len);
    path[dir_len + name.len] = '\0';
    at->paths[at->path_count++] = path;
    return path;
}

static const char *path_at(struct reading *at, const struct moon_value *table, const char *key)
{
    struct moon_slice name = moon_value_string(table, key, MOON_SLICE(""));
    return name.len ? path_of(at, name) : NULL;
}

static int version_of(const struct moon_value *table, const char *key)
{
    struct moon_slice text = moon_value_string(table, key, MOON_SLICE(""));
    if (text.len == 0)
        return 0;
    return moon_slice_equal(text, MOON_SLICE("1.3")) ? MOON_TLS_1_3 : MOON_TLS_1_2;
}

static bool read_client(struct reading *at, const struct moon_value *table,
                        struct moon_tls_options *out)
{
    struct moon_slice verify = moon_value_string(table, "verify", MOON_SLICE("required"));
    if (!table || moon_slice_equal(verify, MOON_SLICE("none")))
        return true;
    out->verify = moon_slice_equal(verify, MOON_SLICE("optional")) ? MOON_TLS_VERIFY_OPTIONAL
                                                                   : MOON_TLS_VERIFY_REQUIRED;
    out->ca = path_at(at, table, "ca");
    out->crl = path_at(at, table, "crl");
    out->depth = (unsigned)moon_value_number(table, "depth", 0);
    return out->ca || tell(at, "client.ca", "the path of a PEM file of CAs",
                           "missing: whose certificates are accepted?");
}

static bool read_options(struct reading *at, const struct moon_value *tls,
                         struct moon_tls_pair *pairs, struct moon_tls_options *out)
{
    enum { PAIR_MAX_COUNT = 1024 };
    const struct moon_value *list = moon_value_get(tls, "certificates");
    struct moon_slice ciphers = moon_value_string(tls, "ciphers", MOON_SLICE(""));
    size_t count = list ? list->table.item_count : 0;
    if (!list)
        return tell(at, "certificates", "expected { { cert = \"site.crt\", key = \"site.key\" } }",
                    "missing");
    if (count == 0 || count > PAIR_MAX_COUNT)
        return tell(at, "certificates", "{ { cert = \"site.crt\", key = \"site.key\" } }",
                    count ? "more than 1024 certificates" : "an empty list");
    for (size_t i = 0; i < count; i++) {
        pairs[i].cert = path_at(at, &list->table.items[i], "cert");
        pairs[i].key = path_at(at, &list->table.items[i], "key");
        if (!pairs[i].cert || !pairs[i].key)
            return tell(at, "certificates", NULL, "an empty path");
    }
    out->pairs = pairs;
    out->pair_count = count;
    out->min_version = version_of(tls, "min_version");
    out->max_version = version_of(tls, "max_version");
    out->ciphers = ciphers.len ? ciphers.ptr : NULL;
    out->has_tickets = moon_value_bool(tls, "tickets", true);
    if (out->min_version == MOON_TLS_1_3 && out->max_version == MOON_TLS_1_2)
        return tell(at, "min_version", NULL, "is above max_version");
    return read_client(at, moon_value_get(tls, "client"), out);
}

static bool load(const struct moon_compile *compile, const struct moon_object *object,
                 struct moon_listener *listener)
{
    const struct moon_value *tls = moon_value_get(&object->value, "tls");
    const struct moon_value *list = moon_value_get(tls, "certificates");
    struct moon_tls_hub *hub = (struct moon_tls_hub *)compile->section->registry;
    struct moon_tls_options options = {.hostname = listener->hostname,
                                       .is_opaque = listener->front.protocol == MOON_PROTOCOL_TLS};
    struct moon_tls_problem problem;
    struct reading *at = calloc(1, sizeof *at);
    struct moon_tls_pair *pairs = calloc(list ? list->table.item_count + 1 : 1, sizeof *pairs);
    if (!at || !pairs)
        abort();
    at->compile = compile;
    at->object = object;
    bool is_fine = read_options(at, tls, pairs, &options);
    if (is_fine && moon_tls_terms_load(hub, &options, &problem, &listener->tls) < 0)
        is_fine = tell(at, problem.path, NULL, problem.text);
    while (at->path_count)
        free(at->paths[--at->path_count]);
    free(pairs);
    free(at);
    return is_fine;
}

// What has no meaning where the endpoint answers.
static bool check_passthrough(const struct moon_compile *compile, const struct moon_object *object)
{
    const struct moon_value *tls = moon_value_get(&object->value, "tls");
    struct reading at = {.compile = compile, .object = object};
    bool is_fine = true;
    for (const struct moon_schema_key *key = tls_keys; key->name; key++)
        if (strcmp(key->name, "mode") != 0 && moon_value_get(tls, key->name))
            is_fine = tell(&at, key->name, "remove it, or end TLS here: mode = \"terminate\"",
                           "has no meaning with mode \"passthrough\"");
    return is_fine;
}

bool moon_listener_tls_read(const struct moon_compile *compile, const struct moon_object *object,
                            struct moon_listener *listener)
{
    const struct moon_value *tls = moon_value_get(&object->value, "tls");
    struct moon_slice mode = moon_value_string(tls, "mode", MOON_SLICE("terminate"));
    struct reading at = {.compile = compile, .object = object};
    listener->is_passthrough = moon_slice_equal(mode, MOON_SLICE("passthrough"));
    if (!listener->is_passthrough)
        return load(compile, object, listener);
    if (listener->front.protocol != MOON_PROTOCOL_TLS)
        return tell(&at, "mode",
                    "protocol = \"tls\" passes connections on by the name they ask for",
                    "requests are read here: TLS cannot pass");
    return check_passthrough(compile, object);
}
