// The end of a request as others see it. Everything that a line needs is gathered here, on the worker, and written straight
// into the worker's ring; what the format does not name is not looked up.
#include "exchange/access.h"

#include "base/arena.h"
#include "base/err.h"
#include "exchange/exchange_priv.h"
#include "obs/counters.h"
#include "obs/format.h"
#include "obs/ring.h"
#include "obs/series.h"
#include "upstream/upstream.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    STATUS_CLIENT_GONE = 499, // nothing was sent: the client went away
    STATUS_BROKEN_OFF = 444,  // nothing was sent: the gateway broke the exchange off
    SERIES_DEFAULT = 2000,
};

// ---- configuration

static const struct moon_schema_key field_item = {.types = MOON_TYPE_STRING,
                                                  .expected = "the name of a field"};
static const struct moon_schema_key no_keys[] = {{.name = NULL}};
static const struct moon_schema fields_schema = {no_keys, &field_item, NULL};

static const struct moon_schema_key log_keys[] = {
    {.name = "file",
     .types = MOON_TYPE_STRING,
     .is_required = true,
     .expected = "a path, or \"stdout\""},
    {.name = "format",
     .types = MOON_TYPE_STRING,
     .expected = "\"json\", \"combined\", or a text with $fields"},
    {.name = "fields",
     .types = MOON_TYPE_TABLE,
     .table = &fields_schema,
     .expected = "a list of names of fields"},
    {.name = "buffer_bytes",
     .types = MOON_TYPE_NUMBER,
     .is_integer = true,
     .min = MOON_RING_MIN_LEN,
     .max = 1 << 30,
     .expected = "bytes, 262144 to 1073741824"},
    {.name = NULL},
};
static const struct moon_schema log_schema = {log_keys, NULL, NULL};

static const struct moon_schema_key metrics_keys[] = {
    {.name = "series",
     .types = MOON_TYPE_NUMBER,
     .is_integer = true,
     .min = 0,
     .max = 65000,
     .expected = "a count, 0 to 65000"},
    {.name = "endpoints", // read by upstream/
     .types = MOON_TYPE_NUMBER,
     .is_integer = true,
     .min = 0,
     .max = 65000,
     .expected = "a count, 0 to 65000"},
    {.name = NULL},
};
static const struct moon_schema metrics_schema = {metrics_keys, NULL, NULL};

static const struct moon_schema_key settings_keys[] = {
    {.name = "access_log",
     .types = MOON_TYPE_TABLE,
     .table = &log_schema,
     .expected = "a table, { file = \"access.log\", format = \"json\" }"},
    {.name = "metrics",
     .types = MOON_TYPE_TABLE,
     .table = &metrics_schema,
     .expected = "a table, { series = 2000 }"},
    {.name = NULL},
};
static const struct moon_schema settings_schema = {settings_keys, NULL, NULL};

// A name that is not known, or a format that is too long.
static void report(const struct moon_compile *compile, const char *path, struct moon_slice bad)
{
    const struct moon_object *object = compile->objects[0];
    char hint[160];
    const char *nearest = bad.len ? moon_nearest_name(bad, moon_format_names) : NULL;
    if (nearest)
        snprintf(hint, sizeof hint, "did you mean \"%s\"?", nearest);
    else
        snprintf(hint, sizeof hint, "lua/README.md lists the fields");
    if (bad.len)
        moon_report_addf(compile->report, object->place, "settings", path, hint,
                         "there is no field \"%.*s\"", MOON_SLICE_ARG(bad));
    else
        moon_report_addf(compile->report, object->place, "settings", path,
                         "at most 64 fields and 10 KiB of text in one line",
                         "the format is too long, or holds a control character");
}

static struct moon_format *compile_json(const struct moon_compile *compile,
                                        const struct moon_value *fields)
{
    struct moon_slice names[MOON_FORMAT_ITEM_COUNT], bad = {"", 0};
    uint32_t count = fields ? fields->table.item_count : 0;
    struct moon_format *format = NULL;
    for (uint32_t i = 0; i < count && i < MOON_FORMAT_ITEM_COUNT; i++)
        names[i] = fields->table.items[i].string;
    if (!fields)
        format =
            moon_format_new_json(moon_format_json_default, moon_format_json_default_count, &bad);
    else if (count <= MOON_FORMAT_ITEM_COUNT)
        format = moon_format_new_json(names, count, &bad);
    if (!format)
        report(compile, "access_log.fields", bad);
    return format;
}

static struct moon_format *compile_text(const struct moon_compile *compile, struct moon_slice text)
{
    struct moon_slice bad = {"", 0};
    struct moon_format *format = NULL;
    bool is_one_line = true;
    if (moon_slice_equal(text, MOON_SLICE("combined")))
        text = moon_format_combined;
    for (size_t i = 0; i < text.len; i++)
        is_one_line = is_one_line && ((unsigned char)text.ptr[i] >= 0x20 || text.ptr[i] == '\t');
    if (is_one_line)
        format = moon_format_new_text(text, &bad);
    if (!format)
        report(compile, "access_log.format", bad);
    return format;
}

// "json", "combined", or a template, which names a field at least.
static struct moon_format *compile_format(const struct moon_compile *compile,
                                          const struct moon_value *value)
{
    struct moon_slice text = moon_value_string(value, "format", MOON_SLICE("json"));
    const struct moon_value *fields = moon_value_get(value, "fields");
    const struct moon_object *object = compile->objects[0];
    bool is_json = moon_slice_equal(text, MOON_SLICE("json"));
    if (fields && !is_json) {
        moon_report_addf(compile->report, object->place, "settings", "access_log.fields",
                         "a text names its fields itself: \"$method $path\"",
                         "fields go with format = \"json\"");
        return NULL;
    }
    if (is_json)
        return compile_json(compile, fields);
    if (!moon_slice_equal(text, MOON_SLICE("combined")) && !memchr(text.ptr, '$', text.len)) {
        moon_report_addf(compile->report, object->place, "settings", "access_log.format",
                         "\"json\", \"combined\", or a text with $fields",
                         "there is no format \"%.*s\"", MOON_SLICE_ARG(text));
        return NULL;
    }
    return compile_text(compile, text);
}

static void access_unref(void *part)
{
    struct moon_access_log *log = part;
    if (!log)
        return;
    free((void *)log->file.ptr);
    moon_format_free((struct moon_format *)log->format);
    free(log);
}

static int access_compile(const struct moon_compile *compile, void **part)
{
    const struct moon_value *settings = compile->object_count ? &compile->objects[0]->value : NULL;
    const struct moon_value *value = moon_value_get(settings, "access_log");
    struct moon_access_log *log = calloc(1, sizeof *log);
    if (!log)
        abort();
    log->series_max =
        (uint32_t)moon_value_number(moon_value_get(settings, "metrics"), "series", SERIES_DEFAULT);
    if (compile->section->series)
        moon_series_names_set_max(compile->section->series, log->series_max);
    if (value) {
        struct moon_slice file = moon_value_string(value, "file", MOON_SLICE(""));
        log->file = (struct moon_slice){moon_slice_dup(file), file.len};
        log->buffer_len = (size_t)moon_value_number(value, "buffer_bytes", 1 << 20);
        log->format = compile_format(compile, value);
    }
    if (value && !log->format) {
        access_unref(log);
        return MOON_ECONFIG;
    }
    *part = log;
    return 0;
}

const struct moon_section moon_access_section = {
    .name = "access",
    .kind = "settings",
    .schema = &settings_schema,
    .compile = access_compile,
    .unref = access_unref,
};

const struct moon_access_log *moon_snapshot_access_log(const struct moon_snapshot *snapshot)
{
    return moon_snapshot_part(snapshot, moon_access_section.name);
}

bool moon_access_counts_same(const struct moon_snapshot *a, const struct moon_snapshot *b)
{
    const struct moon_access_log *x = moon_snapshot_access_log(a), *y = moon_snapshot_access_log(b);
    return !x || !y ? x == y : x->series_max == y->series_max;
}

// ---- recording

// What was sent; where nothing was, who ended the exchange.
static uint16_t status_of(const struct moon_exchange *ex)
{
    if (ex->is_head_sent)
        return ex->response.status;
    return ex->is_client_gone ? STATUS_CLIENT_GONE : STATUS_BROKEN_OFF;
}

// NULL: none was asked.
static const struct moon_upstream *upstream_of(const struct moon_exchange *ex)
{
    return ex->was_forwarded ? ex->upstream : NULL;
}

static void count(struct moon_exchange *ex, uint64_t us)
{
    const struct moon_upstream *upstream = upstream_of(ex);
    struct moon_series_sample sample = {.route = ex->action ? ex->action->series : MOON_SERIES_NONE,
                                        .upstream = upstream ? upstream->series : MOON_SERIES_NONE,
                                        .status = status_of(ex),
                                        .has_upstream_us = ex->has_upstream_us,
                                        .us = us,
                                        .upstream_us = ex->upstream_us};
    moon_series_count(ex->res->series, &sample);
}

static struct moon_slice field_of(const struct moon_headers *headers, enum moon_header_id id)
{
    return moon_headers_has(headers, id) ? moon_headers_get(headers, id)->value
                                         : (struct moon_slice){NULL, 0};
}

static const struct moon_slice *headers_of(struct moon_exchange *ex,
                                           const struct moon_format *format)
{
    size_t count_all = moon_format_header_count(format);
    if (!count_all)
        return NULL;
    struct moon_slice *values = moon_arena_alloc(ex->flow.arena, count_all * sizeof *values);
    for (size_t i = 0; i < count_all; i++) {
        const struct moon_format_header *header = moon_format_header(format, i);
        const struct moon_head *head = header->is_response ? &ex->response : &ex->request;
        values[i] = head->headers.count
                        ? moon_headers_join(&head->headers, ex->flow.arena, header->name)
                        : (struct moon_slice){NULL, 0};
    }
    return values;
}

static void gather(struct moon_exchange *ex, const struct moon_format *format,
                   struct moon_record *record)
{
    const struct moon_head *request = &ex->request;
    bool is_asked = ex->asked_path.ptr != NULL; // filters may have changed it since
    record->method = request->method;
    record->scheme = moon_slice_from(ex->flow.scheme);
    record->host = is_asked ? ex->asked_host : request->host_text;
    record->path = is_asked ? ex->asked_path : request->target.path;
    record->query = is_asked ? ex->asked_query : request->target.query;
    if (request->method.ptr)
        record->protocol = request->is_h2   ? MOON_SLICE("HTTP/2")
                           : request->minor ? MOON_SLICE("HTTP/1.1")
                                            : MOON_SLICE("HTTP/1.0");
    record->client = ex->flow.client.family ? &ex->flow.client : NULL; // none: a unix socket
    record->endpoint = ex->endpoint.family ? &ex->endpoint : NULL;
    record->request_len = ex->flow.request_body_len;
    record->response_len = ex->flow.response_body_len;
    record->attempt_count = ex->attempt_count;
    record->status = status_of(ex);
    record->has_upstream_us = ex->has_upstream_us;
    record->upstream_us = ex->upstream_us;
    record->is_complete = ex->flow.is_complete;
    if (ex->action)
        record->route = moon_slice_from(ex->action->name);
    const struct moon_upstream *upstream = upstream_of(ex);
    if (upstream)
        record->upstream = upstream->name;
    record->grpc_status = ex->grpc_told;
    if (moon_format_has(format, MOON_FORMAT_user_agent))
        record->user_agent = field_of(&request->headers, MOON_H_USER_AGENT);
    if (moon_format_has(format, MOON_FORMAT_referer))
        record->referer = field_of(&request->headers, MOON_H_REFERER);
    if (moon_format_has(format, MOON_FORMAT_id))
        record->id = moon_exchange_id(ex);
    if (moon_format_has(format, MOON_FORMAT_time) || moon_format_has(format, MOON_FORMAT_time_clf))
        record->wall_ms = moon_loop_wall_ms(ex->res->loop);
    record->headers = headers_of(ex, format);
}

// Where the next line goes; NULL: nowhere, and it is counted if it is lost.
static char *reserve_line(struct moon_service *service)
{
    struct moon_resources *res = service->res;
    if (!res->access_ring || !service->hold->log_format)
        return NULL;
    char *to = moon_ring_reserve(res->access_ring);
    if (!to)
        moon_count_up(&res->counters->access_log_dropped_total);
    return to;
}

static void write_line(struct moon_service *service, const struct moon_record *record, char *to)
{
    struct moon_resources *res = service->res;
    moon_ring_commit(res->access_ring,
                     moon_format_write(service->hold->log_format, &service->log_clock, record, to));
    moon_count_up(&res->counters->access_log_lines_total);
}

void moon_access_record(struct moon_exchange *ex)
{
    if (!ex->was_asked)
        return;
    uint64_t us = (moon_loop_now_ns(ex->res->loop) - ex->start_ns) / 1000;
    if (ex->res->series)
        count(ex, us);
    char *to = reserve_line(ex->service);
    if (!to)
        return;
    struct moon_record record = {.us = us};
    gather(ex, ex->service->hold->log_format, &record);
    write_line(ex->service, &record, to);
}

void moon_access_record_stream(struct moon_service *service, struct moon_record *record,
                               const struct moon_series_sample *sample)
{
    const struct moon_slice no_headers[MOON_FORMAT_ITEM_COUNT] = {{NULL, 0}};
    if (service->res->series)
        moon_series_count(service->res->series, sample);
    char *to = reserve_line(service);
    if (!to)
        return;
    record->wall_ms = moon_loop_wall_ms(service->res->loop);
    record->headers = no_headers;
    write_line(service, record, to);
}
