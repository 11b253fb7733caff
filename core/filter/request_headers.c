// request-headers: sets, adds and removes fields of the request before it is routed on (Gateway API, RequestHeaderModifier).
#include "filter/header_edits.h"
#include "filter/shipped.h"
#include "http/head.h"

static int compile(const struct moon_filter_compile *at, const struct moon_value *value,
                   void **conf)
{
    return moon_header_edits_compile(at, value, true, (struct moon_header_edits **)conf);
}

static void unref(void *conf)
{
    moon_header_edits_free(conf);
}

static enum moon_verdict rewrite(struct moon_flow *flow, void *conf, void *state)
{
    (void)state;
    int err = moon_header_edits_apply(conf, &flow->request->headers, flow->arena);
    return err ? MOON_FAIL : MOON_NEXT;
}

const struct moon_filter_type moon_filter_request_headers = {
    .name = "request-headers",
    .schema = &moon_header_edits_schema,
    .compile = compile,
    .unref = unref,
    .rewrite = rewrite,
};
