// Sums the workers up and writes the text, piece by piece.
//
//   stages: counters -> requests of each route -> histograms of each route, each upstream -> endpoints -> checked upstreams
//   -> the process -> obtained certificates
//
// Invariant: a series stands in one piece, of one reading; pieces are of different moments.
#include "admin/metrics.h"

#include "admin/admin.h"
#include "admin/text.h"
#include "base/address.h"
#include "obs/counters.h"
#include "obs/histogram.h"
#include "obs/renewals.h"
#include "obs/series.h"
#include "upstream/health.h"
#include "upstream/registry.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    PIECE_LEN =
        60 *
        1024, // a piece ends with the step that takes it over this; a link takes 64 KiB at once
    PIECE_STEP_COUNT = 512, // or with this many steps: ids that count nothing cost time, too
};

struct moon_metrics {
    const struct moon_admin_ops *ops;
    struct moon_text text; // of the piece
    size_t stage, at;      // the next step: an id, an index
    uint32_t id_count;     // of the stage
    struct moon_endpoint_figures *endpoints;
    size_t endpoint_count;
    struct moon_health_figures *health;
    size_t health_count;
};

// ---- counters of workers

struct metric {
    const char *name, *type, *help;
    size_t offset;
};

static const struct metric counted[] = {
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

static void write_counters(struct moon_text *text, const struct moon_admin_ops *ops)
{
    char name[64];
    const struct labelled *before = NULL;
    for (size_t i = 0; i < sizeof counted / sizeof *counted; i++) {
        const struct metric *metric = &counted[i];
        const struct labelled *labelled = labelled_of(metric->name);
        unsigned long long value = sum(ops, metric);
        snprintf(name, sizeof name, "moongate_%s", metric->name);
        if (!labelled || labelled != before)
            moon_text_head(text, labelled ? labelled->family : name, metric->type, metric->help);
        if (labelled)
            moon_text_putf(text, "%s{%s=\"%s\"} %llu\n", labelled->family, labelled->label,
                           metric->name + strlen(labelled->start), value);
        else
            moon_text_putf(text, "%s %llu\n", name, value);
        before = labelled;
    }
}

// ---- series

// Whether there is a name for the step. Names that come later belong to the next scrape.
static bool has_id(struct moon_metrics *metrics, enum moon_series_kind kind)
{
    if (metrics->at == 0)
        metrics->id_count = moon_series_names_count(metrics->ops->names, kind);
    return metrics->at < metrics->id_count;
}

typedef const struct moon_histogram *histogram_of(const struct moon_series *series, uint32_t id);

struct family {
    enum moon_series_kind kind;
    const char *name, *help, *label;
    histogram_of *histogram;
};

static const struct family of_routes = {
    MOON_SERIES_ROUTE, "moongate_request_duration_seconds",
    "From the first byte of a request to the end of its response", "route", moon_series_route};
static const struct family of_upstreams = {
    MOON_SERIES_UPSTREAM, "moongate_upstream_duration_seconds",
    "From sending a request upstream, connecting included, to the response head", "upstream",
    moon_series_upstream};

static bool write_histogram(struct moon_metrics *metrics, const struct family *family)
{
    const struct moon_admin_ops *ops = metrics->ops;
    struct moon_histogram_sum values = {0};
    const struct moon_series *series;
    struct moon_label label;
    uint32_t id = (uint32_t)metrics->at;
    if (id == 0)
        moon_text_head(&metrics->text, family->name, "histogram", family->help);
    if (!has_id(metrics, family->kind))
        return false;
    for (size_t i = 0; (series = ops->series(ops->owner, i)) != NULL; i++)
        moon_histogram_sum_add(&values, family->histogram(series, id));
    if (values.count == 0)
        return true;
    moon_label_set(&label, family->label, moon_series_names_get(ops->names, family->kind, id));
    moon_text_histogram(&metrics->text, family->name, &label, &values);
    return true;
}

static bool write_route_histogram(struct moon_metrics *metrics)
{
    return write_histogram(metrics, &of_routes);
}

static bool write_upstream_histogram(struct moon_metrics *metrics)
{
    return write_histogram(metrics, &of_upstreams);
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

static void put_tally(struct moon_text *text, const struct moon_admin_ops *ops,
                      const struct moon_label *route, const struct tally *tally)
{
    struct moon_label upstream;
    moon_label_set(&upstream, "upstream",
                   moon_series_names_get(ops->names, MOON_SERIES_UPSTREAM, tally->upstream));
    for (unsigned class = 0; class < MOON_SERIES_CLASS_COUNT; class ++) {
        if (tally->counts[class] == 0)
            continue;
        moon_text_series(text, MOON_SLICE("moongate_requests_total"), route);
        MOON_TEXT_PUT(text, ",");
        moon_text_put(text, (struct moon_slice){upstream.text, upstream.len});
        MOON_TEXT_PUT(text, ",class=\"");
        moon_text_number(text, class + 1);
        MOON_TEXT_PUT(text, "xx\"} ");
        moon_text_number(text, tally->counts[class]);
        MOON_TEXT_PUT(text, "\n");
    }
}

static bool write_requests(struct moon_metrics *metrics)
{
    const struct moon_admin_ops *ops = metrics->ops;
    struct tally tallies[TALLY_MAX_COUNT];
    struct moon_label route;
    uint32_t id = (uint32_t)metrics->at;
    if (id == 0)
        moon_text_head(&metrics->text, "moongate_requests_total", "counter",
                       "Requests that have ended, by the status sent; 499 and 444 count as 4xx");
    if (!has_id(metrics, MOON_SERIES_ROUTE))
        return false;
    size_t count = tally_route(ops, id, tallies);
    if (count)
        moon_label_set(&route, "route", moon_series_names_get(ops->names, MOON_SERIES_ROUTE, id));
    for (size_t i = 0; i < count; i++)
        put_tally(&metrics->text, ops, &route, &tallies[i]);
    return true;
}

// ---- endpoints

static void label_endpoint(struct moon_label *label, const struct moon_endpoint_figures *figures)
{
    char address[MOON_ADDRESS_TEXT_LEN] = "other";
    if (figures->address.family != MOON_FAMILY_NONE)
        moon_address_format(&figures->address, address);
    moon_label_set(label, "endpoint", moon_slice_from(address));
}

static void put_endpoint(struct moon_text *text, const char *name,
                         const struct moon_endpoint_figures *figures, uint64_t value)
{
    struct moon_label label;
    label_endpoint(&label, figures);
    moon_text_series(text, moon_slice_from(name), &label);
    MOON_TEXT_PUT(text, "} ");
    moon_text_number(text, value);
    MOON_TEXT_PUT(text, "\n");
}

static void put_attempts(struct moon_text *text, const struct moon_endpoint_figures *figures)
{
    static const char *const classes[] = {"none", "1xx", "2xx", "3xx", "4xx", "5xx"};
    struct moon_label label;
    label_endpoint(&label, figures);
    for (int i = 0; i < MOON_TALLY_CLASS_COUNT; i++) {
        if (figures->classes[i] == 0)
            continue;
        moon_text_series(text, MOON_SLICE("moongate_endpoint_requests_total"), &label);
        moon_text_putf(text, ",class=\"%s\"} %llu\n", classes[i],
                       (unsigned long long)figures->classes[i]);
    }
}

// Opens a family of the endpoints; false: there is none at `at`.
static bool has_endpoint(struct moon_metrics *metrics, const char *name, const char *type,
                         const char *help)
{
    if (metrics->at == 0)
        moon_text_head(&metrics->text, name, type, help);
    return metrics->at < metrics->endpoint_count;
}

static bool write_endpoint_requests(struct moon_metrics *metrics)
{
    if (metrics->at == 0)
        metrics->endpoints =
            moon_registry_figures(metrics->ops->registry, &metrics->endpoint_count);
    if (!has_endpoint(metrics, "moongate_endpoint_requests_total", "counter",
                      "Attempts by the status that came; \"none\": no response did"))
        return false;
    put_attempts(&metrics->text, &metrics->endpoints[metrics->at]);
    return true;
}

static bool write_endpoint_connections(struct moon_metrics *metrics)
{
    static const char name[] = "moongate_endpoint_connections";
    if (!has_endpoint(metrics, name, "gauge", "Connections to the endpoint, open or opening"))
        return false;
    const struct moon_endpoint_figures *figures = &metrics->endpoints[metrics->at];
    put_endpoint(&metrics->text, name, figures, figures->connections);
    return true;
}

static bool write_endpoint_failures(struct moon_metrics *metrics)
{
    static const char name[] = "moongate_endpoint_connect_failures_total";
    if (!has_endpoint(metrics, name, "counter", "Connections that could not be made"))
        return false;
    const struct moon_endpoint_figures *figures = &metrics->endpoints[metrics->at];
    put_endpoint(&metrics->text, name, figures, figures->connect_failures);
    return true;
}

// ---- families of named things: checked upstreams, hosts whose certificates are obtained

static void put_named(struct moon_text *text, const char *name, const struct moon_label *label,
                      uint64_t value)
{
    moon_text_series(text, moon_slice_from(name), label);
    MOON_TEXT_PUT(text, "} ");
    moon_text_number(text, value);
    MOON_TEXT_PUT(text, "\n");
}

static const struct metric health_families[] = {
    {"moongate_upstream_endpoints_down", "gauge", "Endpoints that health checks leave out",
     offsetof(struct moon_health_figures, down)},
    {"moongate_upstream_health_checks_total", "counter", "Health checks that were judged",
     offsetof(struct moon_health_figures, checks)},
    {"moongate_upstream_health_failures_total", "counter", "Those that failed",
     offsetof(struct moon_health_figures, failures)},
};

// Steps go through the upstreams of one family, then of the next.
static bool write_health(struct moon_metrics *metrics)
{
    if (metrics->at == 0)
        metrics->health = moon_health_figures(metrics->ops->registry, &metrics->health_count);
    size_t count = metrics->health_count;
    if (metrics->at == count * (sizeof health_families / sizeof *health_families))
        return false;
    const struct metric *family = &health_families[metrics->at / count];
    const struct moon_health_figures *figures = &metrics->health[metrics->at % count];
    struct moon_label label;
    uint64_t value;
    memcpy(&value, (const char *)figures + family->offset, sizeof value);
    if (metrics->at % count == 0)
        moon_text_head(&metrics->text, family->name, family->type, family->help);
    moon_label_set(&label, "upstream", moon_slice_from(figures->name));
    put_named(&metrics->text, family->name, &label, value);
    return true;
}

static const struct metric renewal_families[] = {
    {"moongate_acme_expiry_seconds", "gauge",
     "When the host's certificate ends, seconds since 1970; 0: there is none yet",
     offsetof(struct moon_renewal, expires_s)},
    {"moongate_acme_obtained_total", "counter", "Certificates obtained",
     offsetof(struct moon_renewal, obtained_total)},
    {"moongate_acme_failures_total", "counter", "Tries that brought no certificate",
     offsetof(struct moon_renewal, failures_total)},
};

static bool write_renewals(struct moon_metrics *metrics)
{
    const struct metric *family = &renewal_families[metrics->at];
    const struct moon_renewal *renewal;
    if (metrics->at == sizeof renewal_families / sizeof *renewal_families ||
        !moon_renewals_at(metrics->ops->renewals, 0))
        return false;
    moon_text_head(&metrics->text, family->name, family->type, family->help);
    for (size_t i = 0; (renewal = moon_renewals_at(metrics->ops->renewals, i)) != NULL; i++) {
        struct moon_label label;
        uint64_t value;
        memcpy(&value, (const char *)renewal + family->offset, sizeof value);
        moon_label_set(&label, "host", moon_slice_from(renewal->host));
        put_named(&metrics->text, family->name, &label, value);
    }
    return true;
}

// ---- the process

static void write_turns(struct moon_text *text, const struct moon_admin_ops *ops)
{
    static const char name[] = "moongate_loop_turn_seconds";
    const struct moon_histogram *turns;
    moon_text_head(text, name, "histogram",
                   "Turns of a worker's event loop: how long what is ready waits");
    for (size_t i = 0; (turns = ops->turns(ops->owner, i)) != NULL; i++) {
        struct moon_histogram_sum values = {0};
        struct moon_label label;
        char worker[24];
        snprintf(worker, sizeof worker, "%zu", i);
        moon_histogram_sum_add(&values, turns);
        moon_label_set(&label, "worker", moon_slice_from(worker));
        moon_text_histogram(text, name, &label, &values);
    }
}

static void write_stalled(struct moon_text *text, const struct moon_admin_ops *ops)
{
    moon_text_head(text, "moongate_worker_stalled", "gauge",
                   "1 while a worker has been in one turn of its loop for a second or more");
    for (size_t i = 0; ops->counters(ops->owner, i); i++)
        moon_text_putf(text, "moongate_worker_stalled{worker=\"%zu\"} %d\n", i,
                       ops->stall_ms(ops->owner, i) != 0);
}

static void write_gauge(struct moon_text *text, const char *name, const char *help, uint64_t value)
{
    moon_text_head(text, name, "gauge", help);
    moon_text_putf(text, "%s %llu\n", name, (unsigned long long)value);
}

static void write_facts(struct moon_text *text, const struct moon_admin_ops *ops)
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
    moon_text_head(text, "moongate_tls_staples", "gauge",
                   "Certificates with an OCSP response, or without");
    moon_text_putf(text, "moongate_tls_staples{state=\"valid\"} %zu\n", facts.staple_count);
    moon_text_putf(text, "moongate_tls_staples{state=\"missing\"} %zu\n",
                   facts.staple_missing_count);
    moon_text_head(text, "moongate_ocsp_fetches_total", "counter",
                   "OCSP responses asked for, by result");
    moon_text_putf(text, "moongate_ocsp_fetches_total{result=\"fine\"} %llu\n",
                   (unsigned long long)facts.ocsp_fine_count);
    moon_text_putf(text, "moongate_ocsp_fetches_total{result=\"failed\"} %llu\n",
                   (unsigned long long)facts.ocsp_failed_count);
    moon_text_head(text, "moongate_reloads_total", "counter", "Reloads asked for, by result");
    moon_text_putf(text, "moongate_reloads_total{result=\"fine\"} %llu\n",
                   (unsigned long long)facts.reload_fine_count);
    moon_text_putf(text, "moongate_reloads_total{result=\"failed\"} %llu\n",
                   (unsigned long long)facts.reload_failed_count);
}

static bool write_process(struct moon_metrics *metrics)
{
    write_turns(&metrics->text, metrics->ops);
    write_stalled(&metrics->text, metrics->ops);
    write_facts(&metrics->text, metrics->ops);
    return false;
}

static bool write_workers(struct moon_metrics *metrics)
{
    write_counters(&metrics->text, metrics->ops);
    return false;
}

// ---- pieces

// Each writes one step; false: it has no more, and what it wrote now, if anything, belongs to none.
static bool (*const stages[])(struct moon_metrics *metrics) = {
    write_workers,           write_requests,
    write_route_histogram,   write_upstream_histogram,
    write_endpoint_requests, write_endpoint_connections,
    write_endpoint_failures, write_health,
    write_process,           write_renewals,
};

enum { STAGE_COUNT = sizeof stages / sizeof *stages };

struct moon_metrics *moon_metrics_new(const struct moon_admin_ops *ops)
{
    struct moon_metrics *metrics = calloc(1, sizeof *metrics);
    if (!metrics)
        abort();
    metrics->ops = ops;
    return metrics;
}

void moon_metrics_free(struct moon_metrics *metrics)
{
    if (!metrics)
        return;
    moon_text_fini(&metrics->text);
    free(metrics->endpoints);
    for (size_t i = 0; i < metrics->health_count; i++)
        free(metrics->health[i].name);
    free(metrics->health);
    free(metrics);
}

bool moon_metrics_is_over(const struct moon_metrics *metrics)
{
    return metrics->stage == STAGE_COUNT;
}

int moon_metrics_next(struct moon_metrics *metrics, struct moon_slice *piece)
{
    metrics->text.len = 0;
    for (size_t i = 0; i < PIECE_STEP_COUNT && metrics->text.len < PIECE_LEN; i++) {
        if (moon_metrics_is_over(metrics))
            break;
        if (stages[metrics->stage](metrics)) {
            metrics->at++;
            continue;
        }
        metrics->stage++;
        metrics->at = 0;
    }
    *piece = (struct moon_slice){metrics->text.ptr, metrics->text.len};
    return metrics->text.is_broken ? -ENOMEM : 0;
}
