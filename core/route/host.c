// See host.h.
#include "route/host.h"

#include "http/head.h"

#include <string.h>

static bool is_ip_like(struct moon_slice host)
{
    for (size_t i = 0; i < host.len; i++)
        if ((host.ptr[i] < '0' || host.ptr[i] > '9') && host.ptr[i] != '.')
            return false;
    return true;
}

// What is wrong with a host that starts with "*", or NULL.
static const char *wildcard_hint(struct moon_slice host)
{
    struct moon_authority rest;
    if (host.len == 1)
        return "leave it out to take every host";
    if (host.ptr[1] != '.')
        return "\"*\" stands for whole labels: \"*.example.com\"";
    struct moon_slice name = moon_slice_skip(host, 2);
    if (memchr(name.ptr, '*', name.len))
        return "only the leftmost label may be \"*\": \"*.example.com\"";
    if (!moon_authority_parse(name, &rest) || name.ptr[0] == '[' || is_ip_like(name))
        return "a name under \"*.\", such as \"*.example.com\"";
    return rest.port ? "without a port: every port of the host is taken" : NULL;
}

static const char *exact_hint(struct moon_slice host)
{
    struct moon_authority parsed;
    if (memchr(host.ptr, '*', host.len))
        return "only the whole leftmost label may be \"*\": \"*.example.com\"";
    if (memchr(host.ptr, '/', host.len))
        return "a host such as \"api.example.com\", without a scheme and a path";
    if (!moon_authority_parse(host, &parsed))
        return "a host such as \"api.example.com\"; IPv6 addresses stand in brackets";
    return parsed.port ? "without a port: every port of the host is taken" : NULL;
}

const char *moon_host_hint(struct moon_slice host)
{
    if (host.len == 0)
        return "leave it out to take every host";
    return host.ptr[0] == '*' ? wildcard_hint(host) : exact_hint(host);
}

struct moon_slice moon_host_bare(struct moon_slice host)
{
    if (host.len && host.ptr[host.len - 1] == '.')
        host.len--;
    return host.len && host.ptr[0] == '*' ? moon_slice_skip(host, 1) : host;
}

static bool is_wildcard(struct moon_slice bare)
{
    return bare.len && bare.ptr[0] == '.';
}

// Every name that `part` takes `whole` takes, too.
static bool includes(struct moon_slice whole, struct moon_slice part)
{
    if (!is_wildcard(whole))
        return moon_slice_equal(whole, part);
    // ".b" takes "a.b" and ".a.b", but not "b"
    return part.len >= whole.len &&
           moon_slice_equal(moon_slice_skip(part, part.len - whole.len), whole) &&
           (part.len > whole.len || is_wildcard(part));
}

bool moon_hosts_meet(struct moon_slice a, struct moon_slice b)
{
    return a.len == 0 || b.len == 0 || includes(a, b) || includes(b, a);
}
