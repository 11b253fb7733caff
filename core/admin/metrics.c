// Sums the workers up and writes the text. Lines of series are put together by hand: at 10,000 routes there are 190,000.
#include "admin/metrics.h"

#include "admin/admin.h"
#include "base/address.h"
#include "obs/counters.h"
#include "obs/escape.h"
#include "obs/series.h"
#include "upstream/registry.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { LABEL_LEN = 256, LINE_ROOM_LEN = 1024, LINE_REST_LEN = 64 };

struct text {
    char *ptr;
    size_t len, cap;
    bool is_broken; // out of memory
};

// ---- text

// Whether `len` more bytes fit.
static bool reserve(struct text *text, size_t len)
{
    if (text->cap - text->len >= len)
        return !text->is_broken;
    size_t cap = (text->cap + len) * 2;
    char *ptr = text->is_broken ? NULL : realloc(text->ptr, cap);
    if (!ptr) {
        text->is_broken = true;
        return false;
    }
    text->ptr = ptr;
    text->cap = cap;
    return true;
}

static void put(struct text *text, struct moon_slice bytes)
{
    if (bytes.len == 0 || !reserve(text, bytes.len))
        return;
    memcpy(text->ptr + text->len, bytes.ptr, bytes.len);
    text->len += bytes.len;
}

#define PUT(text, literal) put((text), MOON_SLICE(literal))

static void put_number(struct text *text, uint64_t number)
{
    char digits[MOON_U64_DIGITS];
    put(text, moon_slice_from_u64(number, digits));
}

__attribute__((format(printf, 2, 3))) static void putf(struct text *text, const char *format, ...)
{
    va_list args;
    if (!reserve(text, LINE_ROOM_LEN))
        return;
    va_start(args, format);
    int len = vsnprintf(text->ptr + text->len, LINE_ROOM_LEN, format, args);
    va_end(args);
    if (len > 0)
        text->len += len < LINE_ROOM_LEN ? (size_t)len : LINE_ROOM_LEN - 1;
}

static void head(struct text *text, const char *name, const char *type, const char *help)
{
    putf(text, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

// ---- counters of workers

struct metric {
    const char *name, *type, *help;
    size_t offset;
};

static const struct metric metrics[] = {
#define X(name, type, help) {#name, type, help, offsetof(struct moon_counters, name)},
    MOON_COUNTERS(X)
#undef X
};

static uint64_t sum(const struct moon_admin_ops *ops, const struct metric *metric)
{
    uint64_t total = 0;
    const struct moon_counters *counters;
    for (size_t i = 0; (counters = ops->counters(ops->owner, i)) != NULL; i++) {
        const _Atomic uint64_t *value = (const void *)((const char *)counters + metric->offset);
        total += atomic_load_explicit((_Atomic uint64_t *)value, memory_order_relaxed);
    }
    return total;
}

// Counters that are one family: by the start of their names. The rest of the name is the label's value.
struct labelled {
    const char *start, *family, *label;
};

static const struct labelled families_of_counters[] = {
    {"responses_", "moongate_responses_total", "class"},
    {"refused_", "moongate_connections_refused_total", "reason"},
    {"tls_failures_", "moongate_tls_handshake_failures_total", "reason"},
    {"h2_ended_", "moongate_h2_ended_total", "reason"},
    {"detected_", "moongate_connections_detected_total", "protocol"},
};

static const struct labelled *labelled_of(const char *name)
{
    for (size_t i = 0; i < sizeof families_of_counters / sizeof *families_of_counters; i++)
        if (strncmp(name, families_of_counters[i].start, strlen(families_of_counters[i].start)) ==
            0)
            return &families_of_counters[i];
    return NULL;
}

static void write_counters(struct text *text, const struct moon_admin_ops *ops)
{
    char name[64];
    const struct labelled *before = NULL;
    for (size_t i = 0; i < sizeof metrics / sizeof *metrics; i++) {
        const struct metric *metric = &metrics[i];
        const struct labelled *labelled = labelled_of(metric->name);
        unsigned long long value = sum(ops, metric);
        snprintf(name, sizeof name, "moongate_%s", metric->name);
        if (!labelled || labelled != before)
            head(text, labelled ? labelled->family : name, metric->type, metric->help);
        if (labelled)
            putf(text, "%s{%s=\"%s\"} %llu\n", labelled->family, labelled->label,
                 metric->name + strlen(labelled->start), value);
        else
            putf(text, "%s %llu\n", name, value);
        before = labelled;
    }
}

// ---- histograms

enum { BOUND_COUNT = 15 };

static const uint64_t bounds_us[BOUND_COUNT] = {500,     1000,    2500,    5000,     10000,
                                                25000,   50000,   100000,  250000,   500000,
                                                1000000, 2500000, 5000000, 10000000, 60000000};

// Behind the label: the rest of a bucket's line up to its value.
#define BOUND(text)                                            \
    {                                                          \
        ",le=\"" text "\"} ", sizeof(",le=\"" text "\"} ") - 1 \
    }
static const struct moon_slice bound_texts[BOUND_COUNT] = {
    BOUND("0.0005"), BOUND("0.001"), BOUND("0.0025"), BOUND("0.005"), BOUND("0.01"),
    BOUND("0.025"),  BOUND("0.05"),  BOUND("0.1"),    BOUND("0.25"),  BOUND("0.5"),
    BOUND("1"),      BOUND("2.5"),   BOUND("5"),      BOUND("10"),    BOUND("60"),
};

struct label {
    char text[2 * LABEL_LEN];
    size_t len;
};

// name="value", the value escaped and cut.
static void label_set(struct label *label, const char *name, struct moon_slice value)
{
    label->len = (size_t)snprintf(label->text, LABEL_LEN / 2, "%s=\"", name);
    label->len += moon_escape_label(value, label->text + label->len, LABEL_LEN);
    label->text[label->len++] = '"';
}

static void put_series(struct text *text, struct moon_slice name, const char *suffix,
                       const struct label *label)
{
    put(text, name);
    put(text, moon_slice_from(suffix));
    PUT(text, "{");
    put(text, (struct moon_slice){label->text, label->len});
}

// name_suffix{label, the beginning of a line; the buffer holds LINE_ROOM_LEN, which name, suffix and label stay below.
static struct moon_slice line_start(char *to, const char *name, const char *suffix,
                                    const struct label *label)
{
    char *end = stpcpy(stpcpy(to, name), suffix);
    *end++ = '{';
    memcpy(end, label->text, label->len);
    return (struct moon_slice){to, (size_t)(end - to) + label->len};
}

// A line of which everything but the value is known; there is room for it.
static void put_line(struct text *text, struct moon_slice start, struct moon_slice rest,
                     uint64_t value)
{
    char digits[MOON_U64_DIGITS], *to = text->ptr + text->len;
    struct moon_slice number = moon_slice_from_u64(value, digits);
    memcpy(to, start.ptr, start.len);
    to += start.len;
    memcpy(to, rest.ptr, rest.len);
    to += rest.len;
    memcpy(to, number.ptr, number.len);
    to += number.len;
    *to++ = '\n';
    text->len = (size_t)(to - text->ptr);
}

static void put_histogram(struct text *text, const char *name, const struct label *label,
                          const struct moon_histogram_sum *values)
{
    char line[LINE_ROOM_LEN];
    uint64_t below[BOUND_COUNT];
    struct moon_slice start = line_start(line, name, "_bucket", label);
    if (!reserve(text, (BOUND_COUNT + 3) * (start.len + LINE_REST_LEN)))
        return;
    moon_histogram_sum_below_each(values, bounds_us, BOUND_COUNT, below);
    for (size_t i = 0; i < BOUND_COUNT; i++)
        put_line(text, start, bound_texts[i], below[i]);
    put_line(text, start, MOON_SLICE(",le=\"+Inf\"} "), values->count);
    start = line_start(line, name, "_sum", label);
    put_line(text, start, MOON_SLICE("} "), values->sum_us / 1000000u);
    text->ptr[text->len - 1] = '.'; // a fraction follows
    for (uint64_t rest = values->sum_us % 1000000u, unit = 100000u; unit; rest %= unit, unit /= 10)
        text->ptr[text->len++] = (char)('0' + rest / unit);
    text->ptr[text->len++] = '\n';
    start = line_start(line, name, "_count", label);
    put_line(text, start, MOON_SLICE("} "), values->count);
}

// ---- series

typedef const struct moon_histogram *histogram_of(const struct moon_series *series, uint32_t id);

struct family {
    enum moon_series_kind kind;
    const char *name, *help, *label;
    histogram_of *histogram;
};

static const struct family families[] = {
    {MOON_SERIES_ROUTE, "moongate_request_duration_seconds",
     "From the first byte of a request to the end of its response", "route", moon_series_route},
    {MOON_SERIES_UPSTREAM, "moongate_upstream_duration_seconds",
     "From sending a request upstream, connecting included, to the response head", "upstream",
     moon_series_upstream},
};

static void write_histograms(struct text *text, const struct moon_admin_ops *ops,
                             const struct family *family)
{
    uint32_t count = moon_series_names_count(ops->names, family->kind);
    head(text, family->name, "histogram", family->help);
    for (uint32_t id = 0; id < count; id++) {
        struct moon_histogram_sum values = {0};
        const struct moon_series *series;
        struct label label;
        for (size_t i = 0; (series = ops->series(ops->owner, i)) != NULL; i++)
            moon_histogram_sum_add(&values, family->histogram(series, id));
        if (values.count == 0)
            continue;
        label_set(&label, family->label, moon_series_names_get(ops->names, family->kind, id));
        put_histogram(text, family->name, &label, &values);
    }
}

// One route's requests by upstream, as the workers' lists are walked.
struct tally {
    uint32_t upstream;
    uint64_t counts[MOON_SERIES_CLASS_COUNT];
};

enum { TALLY_MAX_COUNT = 256 }; // upstreams of one route; what is beyond counts as "other"

static struct tally *tally_of(struct tally *tallies, size_t *count, uint32_t upstream)
{
    for (size_t i = 0; i < *count; i++)
        if (tallies[i].upstream == upstream)
            return &tallies[i];
    if (*count == TALLY_MAX_COUNT - 1 && upstream != MOON_SERIES_OTHER)
        return tally_of(tallies, count, MOON_SERIES_OTHER);
    tallies[*count] = (struct tally){.upstream = upstream};
    return &tallies[(*count)++];
}

static size_t tally_route(const struct moon_admin_ops *ops, uint32_t route, struct tally *tallies)
{
    const struct moon_series *series;
    size_t count = 0;
    for (size_t i = 0; (series = ops->series(ops->owner, i)) != NULL; i++) {
        const struct moon_series_pair *pair = moon_series_pairs(series, route);
        for (; pair; pair = moon_series_pair_next(pair)) {
            struct tally *tally = tally_of(tallies, &count, moon_series_pair_upstream(pair));
            for (unsigned class = 0; class < MOON_SERIES_CLASS_COUNT; class ++)
                tally->counts[class] += moon_series_pair_count(pair, class);
        }
    }
    return count;
}

static void put_tally(struct text *text, const struct moon_admin_ops *ops,
                      const struct label *route, const struct tally *tally)
{
    struct label upstream;
    label_set(&upstream, "upstream",
              moon_series_names_get(ops->names, MOON_SERIES_UPSTREAM, tally->upstream));
    for (unsigned class = 0; class < MOON_SERIES_CLASS_COUNT; class ++) {
        if (tally->counts[class] == 0)
            continue;
        put_series(text, MOON_SLICE("moongate_requests_total"), "", route);
        PUT(text, ",");
        put(text, (struct moon_slice){upstream.text, upstream.len});
        PUT(text, ",class=\"");
        put_number(text, class + 1);
        PUT(text, "xx\"} ");
        put_number(text, tally->counts[class]);
        PUT(text, "\n");
    }
}

static void write_requests(struct text *text, const struct moon_admin_ops *ops)
{
    struct tally tallies[TALLY_MAX_COUNT];
    uint32_t routes = moon_series_names_count(ops->names, MOON_SERIES_ROUTE);
    head(text, "moongate_requests_total", "counter",
         "Requests that have ended, by the status sent; 499 and 444 count as 4xx");
    for (uint32_t id = 0; id < routes; id++) {
        struct label route;
        size_t count = tally_route(ops, id, tallies);
        if (count)
            label_set(&route, "route", moon_series_names_get(ops->names, MOON_SERIES_ROUTE, id));
        for (size_t i = 0; i < count; i++)
            put_tally(text, ops, &route, &tallies[i]);
    }
}

// ---- endpoints

static void put_endpoint(struct text *text, const char *name, const struct label *label,
                         uint64_t value)
{
    put_series(text, moon_slice_from(name), "", label);
    PUT(text, "} ");
    put_number(text, value);
    PUT(text, "\n");
}

static void label_endpoint(struct label *label, const struct moon_endpoint_figures *figures)
{
    char address[MOON_ADDRESS_TEXT_LEN] = "other";
    if (figures->address.family != MOON_FAMILY_NONE)
        moon_address_format(&figures->address, address);
    label_set(label, "endpoint", moon_slice_from(address));
}

static void put_attempts(struct text *text, const struct moon_endpoint_figures *figures)
{
    static const char *const classes[] = {"none", "1xx", "2xx", "3xx", "4xx", "5xx"};
    struct label label;
    label_endpoint(&label, figures);
    for (int i = 0; i < MOON_TALLY_CLASS_COUNT; i++) {
        if (figures->classes[i] == 0)
            continue;
        put_series(text, MOON_SLICE("moongate_endpoint_requests_total"), "", &label);
        putf(text, ",class=\"%s\"} %llu\n", classes[i], (unsigned long long)figures->classes[i]);
    }
}

static void write_endpoints(struct text *text, const struct moon_admin_ops *ops)
{
    static const char connections[] = "moongate_endpoint_connections",
                      failures[] = "moongate_endpoint_connect_failures_total";
    size_t count;
    struct label label;
    struct moon_endpoint_figures *all = moon_registry_figures(ops->registry, &count);
    head(text, "moongate_endpoint_requests_total", "counter",
         "Attempts by the status that came; \"none\": no response did");
    for (size_t i = 0; i < count; i++)
        put_attempts(text, &all[i]);
    head(text, connections, "gauge", "Connections to the endpoint, open or opening");
    for (size_t i = 0; i < count; i++) {
        label_endpoint(&label, &all[i]);
        put_endpoint(text, connections, &label, all[i].connections);
    }
    head(text, failures, "counter", "Connections that could not be made");
    for (size_t i = 0; i < count; i++) {
        label_endpoint(&label, &all[i]);
        put_endpoint(text, failures, &label, all[i].connect_failures);
    }
    free(all);
}

// ---- the process

static void write_turns(struct text *text, const struct moon_admin_ops *ops)
{
    static const char name[] = "moongate_loop_turn_seconds";
    const struct moon_histogram *turns;
    head(text, name, "histogram", "Turns of a worker's event loop: how long what is ready waits");
    for (size_t i = 0; (turns = ops->turns(ops->owner, i)) != NULL; i++) {
        struct moon_histogram_sum values = {0};
        struct label label;
        char worker[24];
        snprintf(worker, sizeof worker, "%zu", i);
        moon_histogram_sum_add(&values, turns);
        label_set(&label, "worker", moon_slice_from(worker));
        put_histogram(text, name, &label, &values);
    }
}

static void write_stalled(struct text *text, const struct moon_admin_ops *ops)
{
    head(text, "moongate_worker_stalled", "gauge",
         "1 while a worker has been in one turn of its loop for a second or more");
    for (size_t i = 0; ops->counters(ops->owner, i); i++)
        putf(text, "moongate_worker_stalled{worker=\"%zu\"} %d\n", i,
             ops->stall_ms(ops->owner, i) != 0);
}

static void write_gauge(struct text *text, const char *name, const char *help, uint64_t value)
{
    head(text, name, "gauge", help);
    putf(text, "%s %llu\n", name, (unsigned long long)value);
}

static void write_facts(struct text *text, const struct moon_admin_ops *ops)
{
    struct moon_admin_facts facts = {0};
    ops->facts(ops->owner, &facts);
    write_gauge(text, "moongate_buffer_bytes", "Bytes in connection buffers", facts.buffer_len);
    write_gauge(text, "process_resident_memory_bytes", "Memory that the process occupies",
                facts.resident_len);
    write_gauge(text, "moongate_snapshots_live", "Compiled configurations in memory",
                facts.snapshot_count);
    write_gauge(text, "moongate_generations_live", "Generations of script code in memory",
                facts.generation_count);
    write_gauge(text, "moongate_access_log_stuck", "1 while the access log cannot be written",
                facts.is_log_stuck);
    head(text, "moongate_reloads_total", "counter", "Reloads asked for, by result");
    putf(text, "moongate_reloads_total{result=\"fine\"} %llu\n",
         (unsigned long long)facts.reload_fine_count);
    putf(text, "moongate_reloads_total{result=\"failed\"} %llu\n",
         (unsigned long long)facts.reload_failed_count);
}

struct moon_slice moon_metrics_write(const struct moon_admin_ops *ops)
{
    struct text text = {0};
    write_counters(&text, ops);
    write_requests(&text, ops);
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        write_histograms(&text, ops, &families[i]);
    write_endpoints(&text, ops);
    write_turns(&text, ops);
    write_stalled(&text, ops);
    write_facts(&text, ops);
    if (!text.is_broken)
        return (struct moon_slice){text.ptr, text.len};
    free(text.ptr);
    return (struct moon_slice){NULL, 0};
}
