// response-headers: sets, adds and removes fields of every response, the gateway's own included (Gateway API,
// ResponseHeaderModifier).
#include "filter/header_edits.h"
#include "filter/shipped.h"
#include "http/head.h"

static int compile(const struct moon_filter_compile *at, const struct moon_value *value,
                   void **conf)
{
    return moon_header_edits_compile(at, value, false, (struct moon_header_edits **)conf);
}

static void unref(void *conf)
{
    moon_header_edits_free(conf);
}

static enum moon_verdict header_filter(struct moon_flow *flow, void *conf, void *state)
{
    (void)state;
    int err = moon_header_edits_apply(conf, &flow->response->headers, flow->arena);
    return err ? MOON_FAIL : MOON_NEXT;
}

const struct moon_filter_type moon_filter_response_headers = {
    .name = "response-headers",
    .schema = &moon_header_edits_schema,
    .compile = compile,
    .unref = unref,
    .header_filter = header_filter,
};
