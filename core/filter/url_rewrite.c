// url-rewrite: another host, another path towards the backend (Gateway API, URLRewrite). What the client had asked for stays in
// X-Forwarded-Host. The query is kept.
#include "base/arena.h"
#include "base/err.h"
#include "conf/schema.h"
#include "filter/path_edit.h"
#include "filter/shipped.h"
#include "http/head.h"

#include <stdlib.h>

struct url_rewrite {
    struct moon_slice hostname; // empty: kept
    struct moon_authority authority;
    struct moon_path_edit path;
};

static const struct moon_schema_key keys[] = {
    {.name = "hostname",
     .types = MOON_TYPE_STRING,
     .expected = "a host, with a port if you like: \"users.internal\""},
    {.name = "path",
     .types = MOON_TYPE_STRING | MOON_TYPE_TABLE,
     .table = &moon_path_edit_schema,
     .expected = MOON_PATH_EDIT_EXPECTED},
    {.name = NULL},
};
static const struct moon_schema schema = {keys, NULL, NULL};

static int compile(const struct moon_filter_compile *at, const struct moon_value *value,
                   void **conf)
{
    struct url_rewrite *own = moon_filter_alloc(1, sizeof *own);
    struct moon_slice hostname = moon_value_string(value, "hostname", MOON_SLICE(""));
    *conf = own;
    own->hostname = moon_filter_copy(hostname);
    int err = moon_path_edit_compile(at, value, &own->path);
    if (moon_value_get(value, "hostname") && !moon_authority_parse(own->hostname, &own->authority))
        err = moon_filter_problem(at, "hostname", "a name or an IP address, perhaps with a port",
                                  "found \"%.*s\", which is not a host", MOON_SLICE_ARG(hostname));
    if (!err && own->hostname.len == 0 && own->path.kind == MOON_PATH_KEEP)
        err = moon_filter_problem(at, NULL, "give it a hostname or a path",
                                  "url-rewrite changes nothing");
    return err;
}

static void unref(void *conf)
{
    struct url_rewrite *own = conf;
    moon_filter_copy_free(own->hostname);
    moon_filter_copy_free(own->path.text);
    free(own);
}

static int set_host(struct moon_flow *flow, const struct url_rewrite *own)
{
    struct moon_head *request = flow->request;
    request->host = own->authority;
    request->host_text = own->hostname;
    return moon_headers_set(&request->headers, flow->arena, moon_header_name(MOON_H_HOST),
                            own->hostname);
}

static int set_path(struct moon_flow *flow, const struct moon_path_edit *edit)
{
    const char *reason;
    struct moon_target *target = &flow->request->target;
    if (edit->kind == MOON_PATH_KEEP || target->form == MOON_TARGET_ASTERISK)
        return 0;
    struct moon_slice path =
        moon_path_edit_apply(edit, flow->arena, target->path, flow->matched_prefix, &reason);
    if (!path.ptr)
        return MOON_ELIMIT;
    if (path.ptr == target->path.ptr)
        return 0;
    target->path = path;
    target->is_verbatim = false;
    flow->matched_prefix = edit->kind == MOON_PATH_PREFIX ? edit->text : MOON_SLICE("");
    return 0;
}

static enum moon_verdict rewrite(struct moon_flow *flow, void *conf, void *state)
{
    const struct url_rewrite *own = conf;
    (void)state;
    int err = own->hostname.len ? set_host(flow, own) : 0;
    if (!err)
        err = set_path(flow, &own->path);
    return err ? MOON_FAIL : MOON_NEXT;
}

const struct moon_filter_type moon_filter_url_rewrite = {
    .name = "url-rewrite",
    .schema = &schema,
    .excludes = "redirect",
    .compile = compile,
    .unref = unref,
    .rewrite = rewrite,
};
