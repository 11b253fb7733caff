// See listener_tls.h.
#include "route/listener_tls.h"

#include "base/err.h"
#include "io/tls.h"
#include "route/listener.h"
#include "route/listener_acme.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PAIRS_MAX_COUNT = 2048 };

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
    {.name = "name",
     .types = MOON_TYPE_STRING,
     .expected = "a name, for functions and orders that speak of it; default: `cert`"},
    {.name = "ocsp",
     .types = MOON_TYPE_STRING | MOON_TYPE_BOOL,
     .expected = "the path of an OCSP response in DER, or false"},
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
    {.name = "acme",
     .types = MOON_TYPE_TABLE,
     .table = &moon_listener_acme_schema,
     .expected = "{ hosts = { \"www.example.com\" }, email = \"admin@example.com\" }"},
    {.name = "mode",
     .types = MOON_TYPE_STRING,
     .choices = mode_choices,
     .expected = "\"terminate\" or \"passthrough\""},
    {.name = NULL},
};
const struct moon_schema moon_listener_tls_schema = {tls_keys, NULL, NULL};

// ---- reading

struct reading {
    const struct moon_compile *compile;
    const struct moon_object *object;
    struct moon_acme_terms acme;
    char *paths[2 + 3 * PAIRS_MAX_COUNT]; // malloc'd
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
    at->paths[at->path_count++] = moon_path_beside(&at->object->place, name);
    return at->paths[at->path_count - 1];
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

static bool read_pair(struct reading *at, const struct moon_value *table, struct moon_tls_pair *out)
{
    out->cert = path_at(at, table, "cert");
    out->key = path_at(at, table, "key");
    if (!out->cert || !out->key)
        return tell(at, "certificates", NULL, "an empty path");
    out->name =
        moon_value_string(table, "name", moon_value_string(table, "cert", MOON_SLICE(""))).ptr;
    const struct moon_value *ocsp = moon_value_get(table, "ocsp");
    out->ocsp = ocsp && ocsp->kind == MOON_VALUE_STRING ? path_of(at, ocsp->string) : NULL;
    out->has_no_ocsp = !moon_value_bool(table, "ocsp", true);
    return out->name[0] || tell(at, "certificates", NULL, "an empty name");
}

// Names that were given stand for one certificate each.
static bool check_names(struct reading *at, const struct moon_value *list,
                        const struct moon_tls_pair *pairs, size_t count)
{
    char path[64];
    for (size_t i = 1; i < count; i++)
        for (size_t k = 0; k < i; k++) {
            if (strcmp(pairs[i].name, pairs[k].name) != 0 ||
                !moon_value_get(&list->table.items[i], "name"))
                continue;
            snprintf(path, sizeof path, "certificates[%zu].name", i + 1);
            return tell(at, path, "names of certificates are unique in a listener",
                        "another certificate has this name");
        }
    return true;
}

static bool read_pairs(struct reading *at, const struct moon_value *list,
                       struct moon_tls_pair *pairs, size_t *count)
{
    enum { PAIR_MAX_COUNT = 1024 };
    size_t own_count = list ? list->table.item_count : 0;
    if ((list && own_count == 0) || own_count > PAIR_MAX_COUNT)
        return tell(at, "certificates", "{ { cert = \"site.crt\", key = \"site.key\" } }",
                    own_count ? "more than 1024 certificates" : "an empty list");
    for (size_t i = 0; i < own_count; i++)
        if (!read_pair(at, &list->table.items[i], &pairs[i]))
            return false;
    *count = own_count;
    return !list || check_names(at, list, pairs, own_count);
}

// Who vouches for the directory is looked at now; nobody is asked anything.
static bool check_directory_ca(const struct reading *at)
{
    struct moon_tls_client_options options = {.ca = at->acme.ca};
    struct moon_tls_problem problem;
    struct moon_tls_client *client = NULL;
    struct moon_tls_hub *hub = (struct moon_tls_hub *)at->compile->section->registry;
    if (at->acme.ca && moon_tls_client_get(hub, &options, &problem, &client) < 0)
        return tell(at, "acme.ca", NULL, problem.text);
    moon_tls_client_unref(client);
    return true;
}

// Behind the others, so that those are shown first.
static bool read_acme(struct reading *at, struct moon_tls_pair *pairs, size_t *count)
{
    struct moon_acme_problem problem;
    char path[48];
    if (!moon_acme_terms_read(at->object, &at->acme, &problem)) {
        snprintf(path, sizeof path, "acme.%s", problem.path);
        return tell(at, path, problem.hint, problem.text);
    }
    for (size_t i = 0; i < at->acme.host_count; i++) {
        char *file = moon_acme_terms_path(&at->acme, at->acme.hosts[i]);
        at->paths[at->path_count++] = file;
        pairs[(*count)++] = (struct moon_tls_pair){.cert = file, .host = at->acme.hosts[i]};
    }
    return check_directory_ca(at);
}

static bool read_options(struct reading *at, const struct moon_value *tls,
                         struct moon_tls_pair *pairs, struct moon_tls_options *out)
{
    const struct moon_value *list = moon_value_get(tls, "certificates");
    struct moon_slice ciphers = moon_value_string(tls, "ciphers", MOON_SLICE(""));
    if (!list && !moon_value_get(tls, "acme"))
        return tell(at, NULL,
                    "certificates = { { cert = \"site.crt\", key = \"site.key\" } }, or acme = "
                    "{ hosts = { \"www.example.com\" } }",
                    "no certificates");
    if (!read_pairs(at, list, pairs, &out->pair_count) ||
        (moon_value_get(tls, "acme") && !read_acme(at, pairs, &out->pair_count)))
        return false;
    out->pairs = pairs;
    out->min_version = version_of(tls, "min_version");
    out->max_version = version_of(tls, "max_version");
    out->ciphers = ciphers.len ? ciphers.ptr : NULL;
    out->has_tickets = moon_value_bool(tls, "tickets", true);
    if (out->min_version == MOON_TLS_1_3 && out->max_version == MOON_TLS_1_2)
        return tell(at, "min_version", NULL, "is above max_version");
    return read_client(at, moon_value_get(tls, "client"), out);
}

static void warn(const struct reading *at, const struct moon_tls_terms *terms, size_t index)
{
    const char *warning = moon_tls_terms_warning(terms, index);
    char path[64];
    snprintf(path, sizeof path, "tls.certificates[%zu]", index + 1);
    if (warning)
        moon_report_warn(at->compile->report,
                         &(struct moon_problem){at->object->place,
                                                moon_object_title(at->compile->model, at->object),
                                                path, warning, NULL});
}

static bool load(struct reading *at, struct moon_listener *listener)
{
    const struct moon_value *tls = moon_value_get(&at->object->value, "tls");
    struct moon_tls_hub *hub = (struct moon_tls_hub *)at->compile->section->registry;
    struct moon_tls_options options = {.hostname = listener->hostname,
                                       .is_opaque = listener->front.protocol == MOON_PROTOCOL_TLS};
    struct moon_tls_problem problem;
    struct moon_tls_pair *pairs = calloc(PAIRS_MAX_COUNT, sizeof *pairs);
    if (!pairs)
        abort();
    bool is_fine = read_options(at, tls, pairs, &options);
    if (is_fine && moon_tls_terms_load(hub, &options, &problem, &listener->tls) < 0)
        is_fine = tell(at, problem.path, NULL, problem.text);
    for (size_t i = 0; is_fine && i < options.pair_count; i++)
        warn(at, listener->tls, i);
    while (at->path_count)
        free(at->paths[--at->path_count]);
    moon_acme_terms_fini(&at->acme);
    free(pairs);
    return is_fine;
}

// What has no meaning where the endpoint answers.
static bool check_passthrough(const struct reading *at)
{
    const struct moon_value *tls = moon_value_get(&at->object->value, "tls");
    bool is_fine = true;
    for (const struct moon_schema_key *key = tls_keys; key->name; key++)
        if (strcmp(key->name, "mode") != 0 && moon_value_get(tls, key->name))
            is_fine = tell(at, key->name, "remove it, or end TLS here: mode = \"terminate\"",
                           "has no meaning with mode \"passthrough\"");
    return is_fine;
}

static bool read_mode(struct reading *at, struct moon_listener *listener)
{
    const struct moon_value *tls = moon_value_get(&at->object->value, "tls");
    struct moon_slice mode = moon_value_string(tls, "mode", MOON_SLICE("terminate"));
    listener->is_passthrough = moon_slice_equal(mode, MOON_SLICE("passthrough"));
    if (!listener->is_passthrough)
        return load(at, listener);
    if (listener->front.protocol != MOON_PROTOCOL_TLS)
        return tell(at, "mode", "protocol = \"tls\" passes connections on by the name they ask for",
                    "requests are read here: TLS cannot pass");
    return check_passthrough(at);
}

bool moon_listener_tls_read(const struct moon_compile *compile, const struct moon_object *object,
                            struct moon_listener *listener)
{
    struct reading *at = calloc(1, sizeof *at);
    if (!at)
        abort();
    at->compile = compile;
    at->object = object;
    bool is_fine = read_mode(at, listener);
    free(at);
    return is_fine;
}
