// What the admin surfaces show of the gateway and ask of it. On the control thread; no worker is asked, its counters are read.
#include "base/json.h"
#include "conf/conf.h"
#include "gateway/certificates.h"
#include "gateway/explain.h"
#include "gateway/gateway_priv.h"
#include "io/file.h"
#include "io/loop.h"
#include "io/tls.h"
#include "io/world.h"
#include "obs/heartbeat.h"
#include "obs/log.h"
#include "obs/recent.h"
#include "obs/renewals.h"
#include "route/listener.h"

#include <stdlib.h>

enum { STALL_MS = 1000 };

static bool is_draining(void *owner)
{
    struct moon_gateway *gateway = owner;
    return atomic_load(&gateway->is_draining);
}

static uint64_t stall_ms(void *owner, size_t index)
{
    struct moon_gateway *gateway = owner;
    if (index >= gateway->seat_count)
        return 0;
    uint64_t ms = moon_heartbeat_turn_ms(moon_worker_heartbeat(gateway->seats[index].worker),
                                         moon_loop_now_ns(gateway->control.loop));
    return ms >= STALL_MS ? ms : 0;
}

static const struct moon_counters *counters(void *owner, size_t index)
{
    return moon_gateway_counters(owner, index);
}

static const struct moon_series *series(void *owner, size_t index)
{
    struct moon_gateway *gateway = owner;
    return index < gateway->seat_count ? moon_worker_series(gateway->seats[index].worker) : NULL;
}

static const struct moon_histogram *turns(void *owner, size_t index)
{
    struct moon_gateway *gateway = owner;
    return index < gateway->seat_count ? moon_worker_turns(gateway->seats[index].worker) : NULL;
}

static void find_facts(void *owner, struct moon_admin_facts *facts)
{
    struct moon_gateway *gateway = owner;
    facts->buffer_len = moon_gateway_buffer_len(gateway);
    facts->resident_len = moon_process_resident_len(gateway->args.world);
    facts->snapshot_count = 1 + gateway->reload.retired_count;
    facts->generation_count = facts->snapshot_count; // no code is kept apart from its snapshot yet
    facts->reload_fine_count = gateway->reload.fine_count;
    facts->reload_failed_count = gateway->reload.failed_count;
    facts->ocsp_fine_count = gateway->ocsp_fine_count;
    facts->ocsp_failed_count = gateway->ocsp_failed_count;
    moon_tls_ocsp_count(gateway->tls, &facts->staple_count, &facts->staple_missing_count);
    facts->is_log_stuck = moon_telemetry_is_stuck(gateway->telemetry);
}

// ---- documents

static void write_status(const struct moon_gateway *gateway, FILE *out)
{
    uint64_t now_ms = moon_loop_now_ms(gateway->control.loop);
    fputc('{', out);
    moon_json_member(out, "version", MOON_VERSION);
    fprintf(out,
            ",\"generation\":%llu,\"workers\":%u,\"uptime_ms\":%llu,\"draining\":%s,"
            "\"reloads\":{\"fine\":%llu,\"failed\":%llu},\"retired_generations\":%zu,",
            (unsigned long long)moon_snapshot_number(gateway->snapshot), gateway->seat_count,
            (unsigned long long)(now_ms - gateway->start_ms),
            atomic_load(&gateway->is_draining) ? "true" : "false",
            (unsigned long long)gateway->reload.fine_count,
            (unsigned long long)gateway->reload.failed_count, gateway->reload.retired_count);
    moon_json_member(out, "source", gateway->args.is_last_good ? "last-good" : "script");
    fputc(',', out);
    moon_json_member(
        out, "log_level",
        moon_log_level_name((enum moon_log_level)atomic_load(&gateway->args.log->level)));
    fputs(",\"ports\":[", out);
    for (size_t i = 0; i < gateway->ports.count; i++) {
        const struct moon_port *port = &gateway->ports.items[i];
        struct moon_bind bind = {.path = port->path};
        char text[MOON_BIND_TEXT_LEN];
        moon_bind_format(&bind, &port->bound, text);
        fputs(i ? "," : "", out);
        moon_json_text(out, moon_slice_from(text));
    }
    fputs("]}\n", out);
}

static void write_objects(const struct moon_gateway *gateway, const char *kind, FILE *out)
{
    fprintf(out, "{\"generation\":%llu,\"objects\":",
            (unsigned long long)moon_snapshot_number(gateway->snapshot));
    moon_model_write_json(moon_snapshot_model(gateway->snapshot), kind, out);
    fputs("}\n", out);
}

static void write_explanation(const struct moon_gateway *gateway, struct moon_slice query,
                              FILE *out)
{
    struct moon_explain_question question;
    char *text;
    moon_explain_read_query(query, &question, &text);
    moon_explain_write_json(gateway->snapshot, &gateway->ports, &question, out);
    free(text);
}

static char *document(void *owner, enum moon_admin_document which, struct moon_slice query,
                      size_t *len)
{
    struct moon_gateway *gateway = owner;
    char *text = NULL;
    FILE *out = open_memstream(&text, len);
    if (!out)
        abort();
    switch (which) {
    case MOON_ADMIN_STATUS:
        write_status(gateway, out);
        break;
    case MOON_ADMIN_CONFIG:
        write_objects(gateway, NULL, out);
        break;
    case MOON_ADMIN_ROUTES:
        write_objects(gateway, "route", out);
        break;
    case MOON_ADMIN_UPSTREAMS:
        write_objects(gateway, "upstream", out);
        break;
    case MOON_ADMIN_ERRORS:
        if (gateway->args.recent)
            moon_recent_write_json(gateway->args.recent, out);
        else
            fputs("[]\n", out);
        break;
    case MOON_ADMIN_EXPLAIN:
        write_explanation(gateway, query, out);
        break;
    case MOON_ADMIN_CERTIFICATES:
        moon_certificates_write(gateway, out);
        break;
    }
    if (fclose(out) != 0)
        abort();
    return text;
}

// ---- orders

struct order {
    struct moon_reload_waiter waiter; // first
    struct moon_admin_wait *wait;
};

static void on_reloaded(struct moon_reload_waiter *waiter, const struct moon_reload_result *result)
{
    struct order *order = (struct order *)waiter;
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    if (!out)
        abort();
    fprintf(out, "{\"fine\":%s,\"generation\":%llu,\"took_ms\":%llu,\"compile_us\":%llu,\"kept\":[",
            result->is_fine ? "true" : "false", (unsigned long long)result->number,
            (unsigned long long)result->took_ms, (unsigned long long)result->compile_us);
    const char *comma = "";
    for (unsigned i = 0; moon_reload_parts[i]; i++) {
        if (!(result->kept & 1u << i))
            continue;
        fprintf(out, "%s\"%s\"", comma, moon_reload_parts[i]);
        comma = ",";
    }
    fputs("],\"problems\":", out);
    moon_report_write_json(result->report, out);
    char *lines = moon_report_text(result->report);
    fputc(',', out);
    moon_json_member(out, "text", lines);
    free(lines);
    fputs("}\n", out);
    if (fclose(out) != 0)
        abort();
    order->wait->done(order->wait, result->is_fine, text, len);
    free(order);
}

static void forget_reload(struct moon_admin_wait *wait)
{
    struct order *order = wait->order;
    moon_reload_forget(&order->waiter);
    free(order);
}

static void reload(void *owner, struct moon_admin_wait *wait)
{
    struct order *order = calloc(1, sizeof *order);
    if (!order)
        abort();
    order->waiter.done = on_reloaded;
    order->wait = wait;
    wait->order = order;
    wait->forget = forget_reload;
    moon_gateway_reload(owner, &order->waiter);
}

static bool connections(void *owner, struct moon_slice query, struct moon_admin_wait *wait)
{
    struct moon_gateway *gateway = owner;
    return moon_surveys_ask(&gateway->surveys, query, wait);
}

static void drain(void *owner)
{
    struct moon_gateway *gateway = owner;
    if (!atomic_load(&gateway->is_draining))
        moon_gateway_drain(gateway);
}

static const char *set_certificate(void *owner, struct moon_slice name, struct moon_slice text,
                                   char problem[static MOON_ADMIN_PROBLEM_LEN])
{
    struct moon_slice texts[] = {name, text, text};
    return moon_certificates_set(owner, texts, problem);
}

static bool set_log_level(void *owner, struct moon_slice level)
{
    struct moon_gateway *gateway = owner;
    enum moon_log_level value = moon_log_level_from(level.ptr, level.len);
    if (!moon_slice_equal(level, moon_slice_from(moon_log_level_name(value))))
        return false;
    atomic_store(&gateway->args.log->level, (int)value);
    return true;
}

void moon_admin_ops_init(struct moon_gateway *gateway)
{
    gateway->admin_ops = (struct moon_admin_ops){.is_draining = is_draining,
                                                 .stall_ms = stall_ms,
                                                 .counters = counters,
                                                 .series = series,
                                                 .turns = turns,
                                                 .names = moon_telemetry_names(gateway->telemetry),
                                                 .registry = gateway->registry,
                                                 .renewals = gateway->renewals,
                                                 .facts = find_facts,
                                                 .document = document,
                                                 .reload = reload,
                                                 .connections = connections,
                                                 .drain = drain,
                                                 .set_certificate = set_certificate,
                                                 .set_log_level = set_log_level,
                                                 .owner = gateway};
}
