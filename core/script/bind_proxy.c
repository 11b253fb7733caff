// The abi of what stood between the client and the gateway: the PROXY header of the connection, and where the client meant to go.
#include "filter/filter.h"
#include "http/proxy_header.h"
#include "link/proxied.h"
#include "script/abi.h"
#include "script/vm_priv.h"

static const struct moon_flow *flow_of(const void *handle)
{
    const struct moon_abi_exchange *exchange = handle;
    const struct moon_slot *slot = exchange->slot;
    return slot && slot->generation == exchange->generation ? slot->flow : NULL;
}

static void put_address(struct moon_address address, struct moon_abi_address *out)
{
    *out = (struct moon_abi_address){.port = address.port};
    if (address.family == MOON_FAMILY_NONE)
        return;
    moon_address_unmap(&address);
    moon_address_format_ip(&address, out->text);
}

// The header's, or NULL.
static const struct moon_proxied *proxied_of(const struct moon_flow *flow)
{
    return flow->proxied && flow->proxied->version ? flow->proxied : NULL;
}

static struct moon_slice tlvs_of(const struct moon_proxied *proxied)
{
    return (struct moon_slice){proxied->tlvs, proxied->tlvs_len};
}

static int tls_flags(const struct moon_proxied *proxied)
{
    struct moon_proxy_tls tls;
    struct moon_slice value;
    if (!moon_proxy_tlv_find(tlvs_of(proxied), MOON_PROXY_TLV_TLS, &value) ||
        !moon_proxy_tls_read(value, &tls) || !tls.is_tls)
        return 0;
    return MOON_ABI_PROXY_TLS | (tls.has_certificate ? MOON_ABI_PROXY_CERTIFICATE : 0) |
           (tls.is_verified ? MOON_ABI_PROXY_VERIFIED : 0);
}

int moon_abi_proxy_get(const void *handle, struct moon_abi_proxy *out)
{
    const struct moon_flow *flow = flow_of(handle);
    const struct moon_proxied *proxied = flow ? proxied_of(flow) : NULL;
    if (!proxied)
        return flow ? MOON_ABI_NONE : MOON_ABI_ENDED;
    put_address(proxied->proxy, &out->address);
    out->version = proxied->version;
    out->tls = tls_flags(proxied);
    return MOON_ABI_OK;
}

int moon_abi_proxy_tlv(const void *handle, int type, struct moon_abi_text *out)
{
    const struct moon_flow *flow = flow_of(handle);
    const struct moon_proxied *proxied = flow ? proxied_of(flow) : NULL;
    struct moon_proxy_tls tls;
    struct moon_slice value;
    bool is_within = type >= MOON_ABI_PROXY_WITHIN_TLS;
    if (!proxied)
        return flow ? MOON_ABI_NONE : MOON_ABI_ENDED;
    if (!moon_proxy_tlv_find(tlvs_of(proxied), is_within ? MOON_PROXY_TLV_TLS : (uint8_t)type,
                             &value))
        return MOON_ABI_NONE;
    if (is_within && (!moon_proxy_tls_read(value, &tls) ||
                      !moon_proxy_tlv_find(tls.tlvs, (uint8_t)type, &value)))
        return MOON_ABI_NONE;
    *out = (struct moon_abi_text){value.ptr, value.len};
    return MOON_ABI_OK;
}

int moon_abi_destination(const void *handle, struct moon_abi_address *out)
{
    const struct moon_abi_exchange *exchange = handle;
    struct moon_address address = {0};
    if (!flow_of(handle))
        return MOON_ABI_ENDED;
    struct moon_flow *flow = ((struct moon_slot *)exchange->slot)->flow;
    if (flow->proxied && flow->proxied->destination.family)
        address = flow->proxied->destination;
    else
        flow->ops->local(flow, &address);
    put_address(address, out);
    return address.family ? MOON_ABI_OK : MOON_ABI_NONE;
}
