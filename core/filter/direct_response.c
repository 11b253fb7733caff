// direct-response: the same answer to every request, from the configuration.
#include "conf/schema.h"
#include "filter/header_edits.h"
#include "filter/shipped.h"
#include "http/head.h"

#include <stdlib.h>

struct direct_response {
    struct moon_header_edits *headers;
    struct moon_slice body, type;
    uint16_t status;
};

static const struct moon_schema_key keys[] = {
    {.name = "status",
     .types = MOON_TYPE_NUMBER,
     .is_integer = true,
     .min = 200,
     .max = 599,
     .expected = "a final status, 200 to 599"},
    {.name = "body", .types = MOON_TYPE_STRING, .expected = "a text"},
    {.name = "content_type",
     .types = MOON_TYPE_STRING,
     .expected = "a media type such as \"text/html\""},
    {.name = "headers",
     .types = MOON_TYPE_TABLE,
     .table = &moon_header_values_schema,
     .expected = "{ [\"name\"] = \"value\" }"},
    {.name = NULL},
};
static const struct moon_schema schema = {keys, NULL, NULL};

static int compile(const struct moon_filter_compile *at, const struct moon_value *value,
                   void **conf)
{
    struct direct_response *own = moon_filter_alloc(1, sizeof *own);
    struct moon_slice type = moon_value_string(value, "content_type", MOON_SLICE(""));
    *conf = own;
    own->status = (uint16_t)moon_value_number(value, "status", 200);
    own->body = moon_filter_copy(moon_value_string(value, "body", MOON_SLICE("")));
    own->type = moon_filter_copy(moon_slice_trim(type));
    int err = moon_header_edits_compile_set(at, value, "headers", &own->headers);
    if (!moon_header_value_is_valid(type))
        err = moon_filter_problem(at, "content_type", "a media type such as \"text/html\"",
                                  "it holds control characters");
    bool is_bodiless = own->status == 204 || own->status == 205 || own->status == 304;
    if (is_bodiless && own->body.len)
        err = moon_filter_problem(at, "body", NULL, "an answer with status %u has no body",
                                  own->status);
    return err;
}

static void unref(void *conf)
{
    struct direct_response *own = conf;
    moon_header_edits_free(own->headers);
    moon_filter_copy_free(own->body);
    moon_filter_copy_free(own->type);
    free(own);
}

static enum moon_verdict access(struct moon_flow *flow, void *conf, void *state)
{
    const struct direct_response *own = conf;
    (void)state;
    flow->ops->respond(flow, own->status, own->type, own->body);
    int err = moon_header_edits_apply(own->headers, &flow->response->headers, flow->arena);
    return err ? MOON_FAIL : MOON_DONE;
}

const struct moon_filter_type moon_filter_direct_response = {
    .name = "direct-response",
    .schema = &schema,
    .answers = true,
    .compile = compile,
    .unref = unref,
    .access = access,
};
