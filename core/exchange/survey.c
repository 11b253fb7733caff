// See survey.h. On the worker's own thread, between two events: everything may be looked at.
#include "exchange/survey.h"

#include "exchange/exchange_priv.h"
#include "exchange/messages.h"
#include "route/listener.h"
#include "upstream/upstream.h"

#include <stdlib.h>
#include <string.h>

static struct moon_slice listener_of(const struct moon_exchange *ex)
{
    if (!ex->hold || ex->listener < 0)
        return (struct moon_slice){NULL, 0};
    return moon_slice_from(ex->hold->listeners->listeners[ex->listener].name);
}

static struct moon_slice upstream_of(const struct moon_exchange *ex)
{
    return ex->was_forwarded && ex->upstream ? ex->upstream->name : (struct moon_slice){NULL, 0};
}

static bool tell_exchange(const struct moon_exchange *ex, moon_survey_fn *fn, void *owner)
{
    const struct moon_link *link = moon_lane_link(ex->down);
    struct moon_survey_row row = {.number = moon_link_number(link),
                                  .state = "exchange",
                                  .age_ms =
                                      moon_loop_now_ms(ex->res->loop) - moon_link_start_ms(link),
                                  .request_count = moon_link_lane_count(link),
                                  .client = ex->flow.client,
                                  .listener = listener_of(ex),
                                  .upstream = upstream_of(ex)};
    if (row.upstream.ptr)
        row.endpoint = ex->endpoint;
    if (ex->action)
        row.route = moon_slice_from(ex->action->name);
    return fn(owner, &row);
}

static bool tell_tunnel(const struct moon_service *service,
                        const struct moon_relay_identity *identity, moon_survey_fn *fn, void *owner)
{
    struct moon_survey_row row = {.number = identity->number,
                                  .state = identity->state,
                                  .age_ms =
                                      moon_loop_now_ms(service->res->loop) - identity->start_ms,
                                  .request_count = identity->request_count,
                                  .client = identity->client,
                                  .endpoint = identity->endpoint,
                                  .listener = moon_slice_from(identity->listener),
                                  .route = moon_slice_from(identity->route),
                                  .upstream = moon_slice_from(identity->upstream)};
    return fn(owner, &row);
}

bool moon_exchange_survey(const struct moon_service *service, moon_survey_fn *fn, void *owner)
{
    const struct moon_list *exchanges = &service->res->exchanges, *relays = &service->res->relays;
    for (const struct moon_list *at = exchanges->next; at != exchanges; at = at->next) {
        const struct moon_exchange *ex = MOON_CONTAINER(at, const struct moon_exchange, node);
        if (ex->down && !tell_exchange(ex, fn, owner))
            return false;
        if (ex->messages && !tell_tunnel(service, moon_messages_identity(ex->messages), fn, owner))
            return false;
    }
    for (const struct moon_list *at = relays->next; at != relays; at = at->next)
        if (!tell_tunnel(service, moon_relay_identity_at(at), fn, owner))
            return false;
    return true;
}

// ---- what a tunnel keeps

static char *copy(struct moon_slice text)
{
    char *out = text.ptr ? moon_slice_dup(text) : NULL;
    if (text.ptr && !out)
        abort();
    return out;
}

void moon_relay_identify(const struct moon_exchange *ex, struct moon_relay_identity *out)
{
    const struct moon_link *link = moon_lane_link(ex->down);
    *out = (struct moon_relay_identity){.state =
                                            moon_exchange_is_websocket(ex) ? "websocket" : "tunnel",
                                        .number = moon_link_number(link),
                                        .start_ms = moon_link_start_ms(link),
                                        .request_count = moon_link_lane_count(link),
                                        .client = ex->flow.client,
                                        .endpoint = ex->endpoint,
                                        .listener = copy(listener_of(ex)),
                                        .route = copy(moon_slice_from(ex->action->name)),
                                        .upstream = copy(upstream_of(ex))};
}
