// See upstream_tls.h.
#include "upstream/upstream_tls.h"

#include "io/tls.h"
#include "upstream/registry.h"
#include "upstream/upstream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SAN_MAX_COUNT = 64 };

static const char *const version_choices[] = {"1.2", "1.3", NULL};
static const struct moon_schema_key no_keys[] = {{.name = NULL}};
static const struct moon_schema_key san_item = {
    .types = MOON_TYPE_STRING, .expected = "a name such as \"spiffe://example/users\""};
static const struct moon_schema sans_schema = {no_keys, &san_item, NULL};

static const struct moon_schema_key tls_keys[] = {
    {.name = "verify", .types = MOON_TYPE_BOOL, .expected = "true or false"},
    {.name = "ca", .types = MOON_TYPE_STRING, .expected = "the path of a PEM file of CAs"},
    {.name = "crl", .types = MOON_TYPE_STRING, .expected = "the path of a PEM file of CRLs"},
    {.name = "sni", .types = MOON_TYPE_STRING, .expected = "a host name"},
    {.name = "sans",
     .types = MOON_TYPE_TABLE,
     .table = &sans_schema,
     .expected = "a list of names: { \"spiffe://example/users\" }"},
    {.name = "cert", .types = MOON_TYPE_STRING, .expected = "the path of a PEM file"},
    {.name = "key", .types = MOON_TYPE_STRING, .expected = "the path of a PEM file"},
    {.name = "min_version",
     .types = MOON_TYPE_STRING,
     .choices = version_choices,
     .expected = "\"1.2\" or \"1.3\""},
    {.name = "max_version",
     .types = MOON_TYPE_STRING,
     .choices = version_choices,
     .expected = "\"1.2\" or \"1.3\""},
    {.name = NULL},
};
const struct moon_schema moon_upstream_tls_schema = {tls_keys, NULL, NULL};

struct reading {
    const struct moon_compile *compile;
    const struct moon_object *object;
    const struct moon_value *tls;
    char *ca, *crl, *cert, *key; // malloc'd
};

static bool tell(const struct reading *at, const char *path, const char *hint, const char *message)
{
    char full[96];
    snprintf(full, sizeof full, "tls.%s", path);
    moon_report_addf(at->compile->report, at->object->place,
                     moon_object_title(at->compile->model, at->object), full, hint, "%s", message);
    return false;
}

// Relative to the script's directory; NULL: there is no such key.
static char *path_of(const struct reading *at, const char *key)
{
    struct moon_slice name = moon_value_string(at->tls, key, MOON_SLICE(""));
    const char *file = at->object->place.file, *slash = file ? strrchr(file, '/') : NULL;
    if (name.len == 0)
        return NULL;
    size_t dir_len = slash && name.ptr[0] != '/' ? (size_t)(slash - file) + 1 : 0;
    char *path = malloc(dir_len + name.len + 1);
    if (!path)
        abort();
    if (dir_len)
        memcpy(path, file, dir_len);
    memcpy(path + dir_len, name.ptr, name.len);
    path[dir_len + name.len] = '\0';
    return path;
}

static int version_of(const struct moon_value *table, const char *key)
{
    struct moon_slice text = moon_value_string(table, key, MOON_SLICE(""));
    if (text.len == 0)
        return 0;
    return moon_slice_equal(text, MOON_SLICE("1.3")) ? MOON_TLS_1_3 : MOON_TLS_1_2;
}

// Whom the endpoints are asked for: what `sni` says, else the one host name that they have.
static bool read_host(const struct reading *at, struct moon_upstream *out)
{
    struct moon_slice host = moon_value_string(at->tls, "sni", MOON_SLICE(""));
    for (uint32_t i = 0; host.len == 0 && i < out->origin_count; i++) {
        const struct moon_origin *first = &out->origins[0], *origin = &out->origins[i];
        if (origin->name != first->name)
            return tell(at, "sni", "the host name that the certificates of all endpoints carry",
                        "missing: the endpoints have different names");
    }
    if (host.len == 0 && out->origin_count && out->origins[0].name)
        host = moon_name_host(out->origins[0].name);
    if (host.len)
        out->tls_host = (struct moon_slice){moon_slice_dup(host), host.len};
    return true;
}

static bool read_client(struct reading *at, struct moon_upstream *out)
{
    const struct moon_upstream_parts *parts = at->compile->section->registry;
    const struct moon_value *sans = moon_value_get(at->tls, "sans");
    struct moon_slice wanted[SAN_MAX_COUNT];
    struct moon_tls_problem problem;
    struct moon_tls_client_options options = {.is_unverified =
                                                  !moon_value_bool(at->tls, "verify", true),
                                              .ca = at->ca,
                                              .crl = at->crl,
                                              .sans = wanted,
                                              .min_version = version_of(at->tls, "min_version"),
                                              .max_version = version_of(at->tls, "max_version")};
    if (!at->cert != !at->key)
        return tell(at, at->cert ? "key" : "cert", NULL,
                    "missing: a certificate and its key go together");
    for (uint32_t i = 0; sans && i < sans->table.item_count; i++) {
        if (i == SAN_MAX_COUNT)
            return tell(at, "sans", NULL, "more than 64 names");
        wanted[options.san_count++] = sans->table.items[i].string;
    }
    if (options.is_unverified && (options.ca || options.san_count))
        return tell(at, "verify", "leave it out, or take `ca` and `sans` away",
                    "nobody looks at `ca` and `sans` where it is false");
    if (at->crl && !at->ca)
        return tell(at, "crl", "name the CAs that have signed it in `ca`", "it needs `ca`");
    struct moon_tls_pair pair = {.cert = at->cert, .key = at->key};
    options.pair = at->cert ? &pair : NULL;
    if (moon_tls_client_get(parts->tls, &options, &problem, &out->tls) < 0)
        return tell(at, problem.path, NULL, problem.text);
    return true;
}

bool moon_upstream_tls_read(const struct moon_compile *compile, const struct moon_object *object,
                            struct moon_upstream *out)
{
    struct reading at = {
        .compile = compile, .object = object, .tls = moon_value_get(&object->value, "tls")};
    if (!at.tls)
        return true;
    if (out->builtin)
        return tell(&at, "verify", NULL, "a built-in upstream has no connections");
    at.ca = path_of(&at, "ca");
    at.crl = path_of(&at, "crl");
    at.cert = path_of(&at, "cert");
    at.key = path_of(&at, "key");
    bool is_fine = read_host(&at, out) && read_client(&at, out);
    free(at.ca);
    free(at.crl);
    free(at.cert);
    free(at.key);
    return is_fine;
}
