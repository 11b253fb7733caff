// See upload.h. It hangs on flow->guest, where no script runs.
#include "admin/upload.h"

#include "admin/admin.h"
#include "admin/control.h"
#include "base/arena.h"
#include "http/head.h"

#include <stdlib.h>
#include <string.h>

enum { UPLOAD_MAX_LEN = 262144 };

struct upload {
    struct moon_flow *flow;
    char *bytes;
    size_t len;
    bool is_whole, is_over;
};

static void upload_free(void *at)
{
    struct upload *upload = at;
    if (upload->bytes)
        memset(upload->bytes, 0, upload->len); // there may be a key in it
    free(upload->bytes);
}

static ssize_t on_body(void *owner, struct moon_slice bytes, bool end)
{
    struct upload *upload = owner;
    if (end) {
        upload->is_whole = true;
        upload->flow->ops->resume(upload->flow);
        return 0;
    }
    if (upload->len + bytes.len > UPLOAD_MAX_LEN) {
        upload->is_over = true;
        return (ssize_t)bytes.len;
    }
    if (!upload->bytes)
        upload->bytes = malloc(UPLOAD_MAX_LEN);
    if (!upload->bytes)
        abort();
    memcpy(upload->bytes + upload->len, bytes.ptr, bytes.len);
    upload->len += bytes.len;
    return (ssize_t)bytes.len;
}

static enum moon_verdict on_access(struct moon_flow *flow, void *conf, void *state)
{
    struct upload *upload = flow->guest;
    (void)conf;
    (void)state;
    if (!upload) {
        if (flow->request->method_id != MOON_METHOD_POST || !moon_admin_may_control(flow))
            return MOON_NEXT;
        flow->guest = upload = moon_arena_zalloc(flow->arena, sizeof *upload);
        upload->flow = flow;
        moon_arena_on_free(flow->arena, upload_free, upload);
        struct moon_body_reader reader = {on_body, upload};
        flow->ops->read_request(flow, &reader);
        return MOON_WAIT;
    }
    if (!upload->is_whole)
        return MOON_WAIT;
    flow->ops->replace_request(flow, MOON_SLICE(""));
    return MOON_NEXT;
}

bool moon_admin_uploaded(const struct moon_flow *flow, struct moon_slice *out)
{
    const struct upload *upload = flow->guest;
    *out = upload ? (struct moon_slice){upload->bytes, upload->len} : MOON_SLICE("");
    return !upload || !upload->is_over;
}

const struct moon_filter_type moon_admin_upload_filter = {.name = "upload", .access = on_access};

const struct moon_filter_type *const moon_admin_filters[] = {&moon_admin_upload_filter, NULL};
