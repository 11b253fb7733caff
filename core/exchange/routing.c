// Where a request goes: its listener and route, and behind `access` one of the route's upstreams. What leads nowhere is answered.
#include "exchange/exchange_priv.h"

#include "base/err.h"
#include "exchange/listener_plugins.h"
#include "io/tls.h"
#include "route/listener.h"
#include "route/route.h"
#include "upstream/upstream.h"

// RFC 9110 7.4: a host that other terms were made for is not served over this connection (A70).
static bool is_at_home(const struct moon_exchange *ex)
{
    const struct moon_tls_facts *tls = ex->flow.tls;
    return !tls || moon_listener_takes(&ex->hold->listeners->listeners[ex->listener], tls->id,
                                       tls->is_verified, tls->sni);
}

bool moon_exchange_find_route(struct moon_exchange *ex, const struct moon_chain **front)
{
    struct moon_route_scratch *scratch = ex->service->route_scratch;
    ex->listener = moon_listeners_find(ex->hold->listeners, ex->arrival->bind, ex->flow.tls != NULL,
                                       &ex->request, scratch);
    bool is_elsewhere = ex->flow.tls && moon_listeners_is_elsewhere(
                                            ex->hold->listeners, ex->arrival->bind, &ex->request);
    if (ex->listener < 0 && !is_elsewhere) {
        moon_exchange_answer(ex, 404, "no listener takes this host");
        return false;
    }
    if (is_elsewhere || !is_at_home(ex)) {
        ex->has_fault = true; // another connection is needed: this one ends
        moon_exchange_answer(ex, 421, "the TLS connection was made for another host");
        return false;
    }
    *front = moon_listener_plugins_at(ex->hold->listener_plugins, ex->listener);
    int index = moon_routes_find(ex->hold->routes, ex->listener, &ex->request, scratch);
    if (index == MOON_ELIMIT) {
        moon_exchange_answer(ex, 500, "a regex of the routes gave up on this request");
        return false;
    }
    if (index < 0 && !*front) {
        moon_exchange_answer(ex, 404, "no route matches");
        return false;
    }
    if (index < 0)
        return true;
    ex->action = moon_actions_at(ex->hold->actions, index);
    if (ex->request.target.path.len >= ex->action->prefix_len)
        ex->flow.matched_prefix =
            (struct moon_slice){ex->request.target.path.ptr, ex->action->prefix_len};
    return true;
}

const struct moon_upstream *moon_exchange_choose_upstream(struct moon_exchange *ex)
{
    if (!ex->action) {
        moon_exchange_answer(ex, 404, "no route matches");
        return NULL;
    }
    const struct moon_backend *backend = moon_pool_split(ex->service->pool, &ex->action->split);
    const struct moon_upstream *upstream =
        backend && backend->upstream != MOON_BACKEND_MISSING
            ? moon_upstreams_at(ex->hold->upstreams, (size_t)backend->upstream)
            : NULL;
    if (upstream)
        return upstream;
    const char *cause = "no backend of the route has a weight";
    if (backend)
        cause = "the route refers to an upstream that does not exist";
    else if (ex->action->chain.may_answer && ex->action->split.count == 0)
        cause = "the route has no backends and no plugin answered";
    ex->grpc_status = MOON_GRPC_UNAVAILABLE; // reference/gateway-api.md 8
    moon_exchange_answer(ex, 500, cause);
    return NULL;
}
