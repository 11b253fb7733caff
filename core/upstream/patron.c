// See patron.h. What does not fit into MOON_PATRON_INTRO_LEN is left out, TLV by TLV.
#include "upstream/patron.h"

#include "http/proxy_header.h"
#include "io/stream.h"
#include "io/tls.h"
#include "link/proxied.h"

#include <stdbool.h>

enum { TLS_VALUE_LEN = 512 };

const struct moon_address *moon_patron_destination(const struct moon_patron *patron)
{
    const struct moon_proxied *proxied = patron->proxied;
    return proxied && proxied->destination.family ? &proxied->destination : NULL;
}

struct intro {
    char *to;
    size_t len;
};

static void say(struct intro *intro, uint8_t type, struct moon_slice value)
{
    if (value.len)
        intro->len =
            moon_proxy_header_add(intro->to, intro->len, MOON_PATRON_INTRO_LEN, type, value);
}

static void say_tls(struct intro *intro, const struct moon_tls_facts *facts)
{
    char value[TLS_VALUE_LEN];
    struct moon_proxy_tls tls = {.is_tls = true,
                                 .has_certificate = facts->fingerprint.len > 0,
                                 .is_resumed = facts->is_resumed,
                                 .is_verified = facts->is_verified};
    size_t len = moon_proxy_tls_put(value, &tls);
    len = moon_proxy_tlv_put(value, len, sizeof value, MOON_PROXY_TLV_TLS_VERSION,
                             moon_slice_from(facts->version));
    len = moon_proxy_tlv_put(value, len, sizeof value, MOON_PROXY_TLV_TLS_CIPHER,
                             moon_slice_from(facts->cipher));
    if (facts->is_verified && facts->cn.len)
        len = moon_proxy_tlv_put(value, len, sizeof value, MOON_PROXY_TLV_TLS_CN, facts->cn);
    say(intro, MOON_PROXY_TLV_ALPN, facts->alpn);
    say(intro, MOON_PROXY_TLV_AUTHORITY, facts->sni);
    say(intro, MOON_PROXY_TLV_TLS, (struct moon_slice){value, len});
}

// Whether what was told in front of us holds behind us.
static bool goes_on(uint8_t type, bool is_tls)
{
    switch (type) {
    case MOON_PROXY_TLV_CRC32C: // of that header
    case MOON_PROXY_TLV_NOOP:
    case MOON_PROXY_TLV_NETNS: // of that host
        return false;
    case MOON_PROXY_TLV_ALPN:
    case MOON_PROXY_TLV_AUTHORITY:
    case MOON_PROXY_TLV_TLS:
        return !is_tls; // our own handshake is nearer
    default:
        return true;
    }
}

static void say_more(struct intro *intro, const struct moon_patron *patron, uint8_t kind)
{
    const struct moon_tls_facts *facts = moon_stream_tls(patron->stream);
    const struct moon_proxied *proxied = patron->proxied;
    struct moon_slice told = proxied ? (struct moon_slice){proxied->tlvs, proxied->tlvs_len}
                                     : (struct moon_slice){NULL, 0},
                      value;
    bool has_id = moon_proxy_tlv_find(told, MOON_PROXY_TLV_ID, &value);
    uint8_t type;
    if (facts)
        say_tls(intro, facts);
    if ((kind & MOON_PATRON_NAMED) && !has_id)
        say(intro, MOON_PROXY_TLV_ID, patron->id);
    while (moon_proxy_tlv_next(&told, &type, &value))
        if (goes_on(type, facts != NULL))
            say(intro, type, value);
}

// A client that came with a header itself is told of as that one said.
static void addresses_of(const struct moon_patron *patron, struct moon_address *source,
                         struct moon_address *destination)
{
    if (patron->proxied && patron->proxied->source.family) {
        *source = patron->proxied->source;
        *destination = patron->proxied->destination;
    } else {
        const struct moon_address *to = moon_patron_destination(patron);
        moon_stream_address(patron->stream, true, source);
        if (to)
            *destination = *to;
        else
            moon_stream_address(patron->stream, false, destination);
    }
    moon_address_unmap(source);
    moon_address_unmap(destination);
}

size_t moon_patron_introduce(const struct moon_patron *patron, uint8_t kind,
                             char to[static MOON_PATRON_INTRO_LEN])
{
    enum moon_proxy_version version = (enum moon_proxy_version)(kind & MOON_PATRON_VERSION);
    struct moon_address source = {0}, destination = {0};
    if (patron)
        addresses_of(patron, &source, &destination);
    struct intro intro = {to, moon_proxy_header_write(version, source, destination, to)};
    bool is_told = source.family && destination.family; // behind LOCAL nothing is looked at
    if (version != MOON_PROXY_V2)
        return intro.len;
    if (is_told)
        say_more(&intro, patron, kind);
    if (kind & MOON_PATRON_SEALED)
        intro.len = moon_proxy_header_seal(to, intro.len, MOON_PATRON_INTRO_LEN);
    return intro.len;
}
