// See listener_acme.h. Reads no file: certificates that are not there yet are no error.
#include "route/listener_acme.h"

#include "base/address.h"
#include "conf/conf.h"
#include "route/host.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HOSTS_MAX_COUNT = 1000, HOST_MAX_LEN = 253, PATH_MAX_LEN = 200, URL_MAX_LEN = 2048 };

static const char shipped_directory[] = "https://acme-v02.api.letsencrypt.org/directory";
static const char *const challenge_choices[] = {"http-01", "tls-alpn-01", NULL};

static const struct moon_schema_key no_keys[] = {{.name = NULL}};
static const struct moon_schema_key host_item = {.types = MOON_TYPE_STRING,
                                                 .expected = "a host such as \"www.example.com\""};
static const struct moon_schema hosts_schema = {no_keys, &host_item, NULL};
static const struct moon_schema_key eab_keys[] = {
    {.name = "kid",
     .types = MOON_TYPE_STRING,
     .is_required = true,
     .expected = "the key identifier that the CA gave you"},
    {.name = "secret",
     .types = MOON_TYPE_STRING,
     .is_required = true,
     .expected = "the HMAC key that the CA gave you, in base64url"},
    {.name = NULL},
};
static const struct moon_schema eab_schema = {eab_keys, NULL, NULL};

static const struct moon_schema_key acme_keys[] = {
    {.name = "hosts",
     .types = MOON_TYPE_TABLE,
     .table = &hosts_schema,
     .expected = "{ \"www.example.com\" }"},
    {.name = "email", .types = MOON_TYPE_STRING, .expected = "\"admin@example.com\""},
    {.name = "directory",
     .types = MOON_TYPE_STRING,
     .expected = "the https URL of a CA's ACME directory"},
    {.name = "storage", .types = MOON_TYPE_STRING, .expected = "the path of a directory"},
    {.name = "challenge",
     .types = MOON_TYPE_STRING,
     .choices = challenge_choices,
     .expected = "\"http-01\" or \"tls-alpn-01\""},
    {.name = "ca", .types = MOON_TYPE_STRING, .expected = "the path of a PEM file of CAs"},
    {.name = "eab",
     .types = MOON_TYPE_TABLE,
     .table = &eab_schema,
     .expected = "{ kid = \"...\", secret = \"...\" }"},
    {.name = NULL},
};
const struct moon_schema moon_listener_acme_schema = {acme_keys, NULL, NULL};

__attribute__((format(printf, 4, 5))) static bool refuse(struct moon_acme_problem *problem,
                                                         const char *path, const char *hint,
                                                         const char *format, ...)
{
    va_list args;
    if (!problem)
        return false;
    snprintf(problem->path, sizeof problem->path, "%s", path);
    problem->hint = hint;
    va_start(args, format);
    vsnprintf(problem->text, sizeof problem->text, format, args);
    va_end(args);
    return false;
}

static char *copy(struct moon_slice text)
{
    char *out = moon_slice_dup(text);
    if (!out)
        abort();
    return out;
}

static char *copy_of(const struct moon_value *table, const char *key)
{
    struct moon_slice text = moon_value_string(table, key, MOON_SLICE(""));
    return text.len ? copy(text) : NULL;
}

// ---- hosts

// What is wrong with it, as a hint.
static const char *host_fault(struct moon_slice host)
{
    struct moon_address address;
    if (host.len && host.ptr[0] == '*')
        return "a wildcard needs DNS-01, which is not supported; name the hosts one by one";
    if (moon_address_parse_ip(host, 443, &address))
        return "a host name; CAs give no certificates for IP addresses this way";
    const char *hint = moon_host_hint(host);
    return !hint && host.len > HOST_MAX_LEN ? "a host name has at most 253 bytes" : hint;
}

static bool has_host(const struct moon_acme_terms *terms, const char *host)
{
    for (size_t i = 0; i < terms->host_count; i++)
        if (terms->hosts[i] && strcmp(terms->hosts[i], host) == 0)
            return true;
    return false;
}

static bool add_host(struct moon_acme_terms *terms, struct moon_slice text, const char *path,
                     struct moon_acme_problem *problem)
{
    const char *hint = host_fault(text);
    if (hint)
        return refuse(problem, path, hint, "no certificate can be had for \"%.*s\"",
                      MOON_SLICE_ARG(text));
    char *host = copy(moon_host_bare(text));
    for (char *at = host; *at; at++)
        if (*at >= 'A' && *at <= 'Z')
            *at |= 0x20;
    if (has_host(terms, host)) {
        free(host);
        return refuse(problem, path, NULL, "\"%.*s\" is there already", MOON_SLICE_ARG(text));
    }
    terms->hosts[terms->host_count++] = host;
    return true;
}

static bool read_hosts(const struct moon_object *listener, const struct moon_value *acme,
                       struct moon_acme_terms *out, struct moon_acme_problem *problem)
{
    const struct moon_value *list = moon_value_get(acme, "hosts");
    struct moon_slice hostname = moon_value_string(&listener->value, "hostname", MOON_SLICE(""));
    size_t count = list ? list->table.item_count : hostname.len ? 1 : 0;
    char path[32];
    if (count == 0 || count > HOSTS_MAX_COUNT)
        return refuse(problem, "hosts", "{ \"www.example.com\" }, or a hostname of the listener",
                      count  ? "more than 1000 hosts"
                      : list ? "an empty list"
                             : "missing: whose certificates are to be obtained?");
    out->hosts = calloc(count, sizeof *out->hosts);
    if (!out->hosts)
        abort();
    for (size_t i = 0; i < count; i++) {
        snprintf(path, sizeof path, list ? "hosts[%zu]" : "hosts", i + 1);
        if (!add_host(out, list ? list->table.items[i].string : hostname, path, problem))
            return false;
    }
    return true;
}

// ---- the rest

static bool is_plain(struct moon_slice text)
{
    for (size_t i = 0; i < text.len; i++)
        if ((unsigned char)text.ptr[i] <= ' ' || (unsigned char)text.ptr[i] >= 0x7f)
            return false;
    return true;
}

static bool read_directory(const struct moon_value *acme, struct moon_acme_terms *out,
                           struct moon_acme_problem *problem)
{
    static const struct moon_slice https = MOON_SLICE("https://");
    struct moon_slice url =
        moon_value_string(acme, "directory", moon_slice_from(shipped_directory));
    if (!moon_slice_starts(url, https) || url.len == https.len || url.len > URL_MAX_LEN ||
        !is_plain(url))
        return refuse(problem, "directory", shipped_directory, "not an https URL: \"%.*s\"",
                      MOON_SLICE_ARG(url));
    out->directory = copy(url);
    return true;
}

static bool read_email(const struct moon_value *acme, struct moon_acme_terms *out,
                       struct moon_acme_problem *problem)
{
    struct moon_slice email = moon_value_string(acme, "email", MOON_SLICE(""));
    const char *at = email.len ? memchr(email.ptr, '@', email.len) : NULL;
    if (email.len &&
        (!at || at == email.ptr || at + 1 == email.ptr + email.len || !is_plain(email)))
        return refuse(problem, "email", "\"admin@example.com\"", "not an address: \"%.*s\"",
                      MOON_SLICE_ARG(email));
    out->email = copy_of(acme, "email");
    return true;
}

static char *path_at(const struct moon_object *listener, const struct moon_value *acme,
                     const char *key, const char *absent)
{
    struct moon_slice name = moon_value_string(acme, key, moon_slice_from(absent ? absent : ""));
    return name.len ? moon_path_beside(&listener->place, name) : NULL;
}

// Files of one CA lie apart from those of another: certificates of a test CA do not serve when the real one is named.
static char *storage_of(char *base, const char *directory)
{
    char *out;
    const char *name = directory + strlen("https://");
    if (asprintf(&out, "%s/%.*s", base, PATH_MAX_LEN, name) < 0)
        abort();
    for (char *at = out + strlen(base) + 1; *at; at++)
        if (!isalnum((unsigned char)*at) && *at != '.' && *at != '-')
            *at = '_';
    free(base);
    return out;
}

static bool read_files(const struct moon_object *listener, const struct moon_value *acme,
                       struct moon_acme_terms *out, struct moon_acme_problem *problem)
{
    char *base = path_at(listener, acme, "storage", "acme");
    if (!base)
        return refuse(problem, "storage", "the path of a directory", "an empty path");
    out->storage = storage_of(base, out->directory);
    out->ca = path_at(listener, acme, "ca", NULL);
    return true;
}

static void read_account(const struct moon_value *acme, struct moon_acme_terms *out)
{
    const struct moon_value *eab = moon_value_get(acme, "eab");
    struct moon_slice challenge = moon_value_string(acme, "challenge", MOON_SLICE(""));
    out->eab_kid = copy_of(eab, "kid");
    out->eab_secret = copy_of(eab, "secret");
    for (size_t i = 0; challenge_choices[i]; i++)
        if (moon_slice_equal(challenge, moon_slice_from(challenge_choices[i])))
            out->challenge = challenge_choices[i];
}

bool moon_acme_terms_read(const struct moon_object *listener, struct moon_acme_terms *out,
                          struct moon_acme_problem *problem)
{
    const struct moon_value *acme = moon_listener_acme(listener);
    *out = (struct moon_acme_terms){0};
    read_account(acme, out);
    if (read_directory(acme, out, problem) && read_email(acme, out, problem) &&
        read_files(listener, acme, out, problem) && read_hosts(listener, acme, out, problem))
        return true;
    moon_acme_terms_fini(out);
    return false;
}

void moon_acme_terms_fini(struct moon_acme_terms *terms)
{
    for (size_t i = 0; i < terms->host_count; i++)
        free(terms->hosts[i]);
    free((void *)terms->hosts);
    free(terms->directory);
    free(terms->email);
    free(terms->ca);
    free(terms->storage);
    free(terms->eab_kid);
    free(terms->eab_secret);
    *terms = (struct moon_acme_terms){0};
}

char *moon_acme_terms_path(const struct moon_acme_terms *terms, const char *host)
{
    char *out;
    if (asprintf(&out, "%s/%s.pem", terms->storage, host) < 0)
        abort();
    return out;
}

const struct moon_value *moon_listener_acme(const struct moon_object *listener)
{
    return moon_value_get(moon_value_get(&listener->value, "tls"), "acme");
}
