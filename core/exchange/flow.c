// What filters may ask of the exchange that they work on, as filter.h has it. Nothing is done under a hook: resume and abort are
// the task's.
#include "exchange/exchange_priv.h"

#include "io/loop.h"
#include "link/link.h"
#include "link/proxied.h"
#include "link/resources.h"
#include "upstream/upstream.h"

static void flow_resume(struct moon_flow *flow)
{
    struct moon_exchange *ex = (struct moon_exchange *)flow;
    ex->was_resumed = true;
    moon_loop_defer(ex->res->loop, &ex->task);
}

static void flow_respond(struct moon_flow *flow, uint16_t status, struct moon_slice type,
                         struct moon_slice body)
{
    struct moon_exchange *ex = (struct moon_exchange *)flow;
    if (ex->step == STEP_REWRITE || ex->step == STEP_ACCESS || ex->step == STEP_BUILTIN)
        moon_response_local(ex, status, type, body);
}

static void flow_respond_from(struct moon_flow *flow, uint16_t status, struct moon_slice type,
                              const struct moon_body_source *source)
{
    struct moon_exchange *ex = (struct moon_exchange *)flow;
    if (ex->step == STEP_REWRITE || ex->step == STEP_ACCESS || ex->step == STEP_BUILTIN)
        moon_response_local_from(ex, status, type, source);
}

static ssize_t flow_pass(struct moon_flow *flow, enum moon_direction direction,
                         struct moon_slice bytes, bool end)
{
    struct moon_exchange *ex = (struct moon_exchange *)flow;
    return moon_chain_pass(&ex->run, flow, direction, bytes, end);
}

static void flow_abort(struct moon_flow *flow)
{
    struct moon_exchange *ex = (struct moon_exchange *)flow;
    ex->was_aborted = true;
    moon_loop_defer(ex->res->loop, &ex->task);
}

static struct moon_slice flow_id(struct moon_flow *flow)
{
    return moon_exchange_id((struct moon_exchange *)flow);
}

static void flow_local(struct moon_flow *flow, struct moon_address *out)
{
    struct moon_exchange *ex = (struct moon_exchange *)flow;
    *out = (struct moon_address){.family = MOON_FAMILY_NONE};
    if (ex->proxied && !ex->proxied->version) // the kernel has sent it here
        *out = ex->proxied->destination;
    else if (ex->down)
        moon_link_address(moon_lane_link(ex->down), false, out);
}

static struct moon_slice flow_route(struct moon_flow *flow)
{
    const struct moon_exchange *ex = (const struct moon_exchange *)flow;
    return ex->action ? moon_slice_from(ex->action->name) : MOON_SLICE("");
}

static struct moon_slice flow_upstream(struct moon_flow *flow)
{
    const struct moon_exchange *ex = (const struct moon_exchange *)flow;
    return ex->upstream ? ex->upstream->name : MOON_SLICE("");
}

static void flow_endpoint(struct moon_flow *flow, struct moon_address *out)
{
    *out = ((const struct moon_exchange *)flow)->endpoint;
}

static void flow_read_request(struct moon_flow *flow, const struct moon_body_reader *reader)
{
    moon_intake_read((struct moon_exchange *)flow, reader);
}

static void flow_replace_request(struct moon_flow *flow, struct moon_slice bytes)
{
    moon_intake_replace((struct moon_exchange *)flow, bytes);
}

const struct moon_flow_ops moon_exchange_flow_ops = {
    .resume = flow_resume,
    .respond = flow_respond,
    .respond_from = flow_respond_from,
    .pass = flow_pass,
    .abort = flow_abort,
    .id = flow_id,
    .local = flow_local,
    .route = flow_route,
    .upstream = flow_upstream,
    .endpoint = flow_endpoint,
    .read_request = flow_read_request,
    .replace_request = flow_replace_request,
};
