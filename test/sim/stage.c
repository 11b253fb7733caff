// Stages: see stage.h. The gateway is the product's own code, from the evaluation of its script to its last freed byte.
#include "test/sim/stage.h"

#include "conf/report.h"
#include "gateway/gateway.h"
#include "io/world.h"
#include "obs/counters.h"
#include "script/script.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void print_record(void *owner, enum moon_log_level level, const char *text, size_t len)
{
    struct moon_world *world = owner;
    printf("%8llu %s %.*s\n", (unsigned long long)moon_sim_now_ms(world),
           moon_log_level_name(level), (int)len, text);
}

static void drop_record(void *owner, enum moon_log_level level, const char *text, size_t len)
{
    (void)owner;
    (void)level;
    (void)text;
    (void)len;
}

void stage_init(struct stage *stage, uint64_t seed, const struct moon_sim_faults *faults,
                bool is_verbose)
{
    *stage = (struct stage){.world = moon_world_new_sim(seed, faults)};
    stage->loop = moon_loop_new(stage->world);
    stage->log.level = is_verbose ? MOON_LOG_DEBUG : MOON_LOG_ERROR;
    stage->log.write = is_verbose ? print_record : drop_record;
    stage->log.owner = stage->world;
    moon_sim_set_outside(stage->loop);
}

void stage_start(struct stage *stage, const char *script, unsigned workers)
{
    struct moon_report *report = moon_report_new();
    struct moon_model *model = NULL;
    moon_sim_add_file(stage->world, "/gateway.lua", script, strlen(script));
    int err = moon_script_evaluate(stage->world, "/gateway.lua", &model, report);
    struct moon_gateway_args args = {.world = stage->world,
                                     .model = model,
                                     .filters = stage->filters,
                                     .workers = workers,
                                     .log = &stage->log};
    if (!err)
        err = moon_gateway_new(&args, report, &stage->gateway);
    if (err) {
        char *text = moon_report_text(report);
        fprintf(stderr, "%s\n%s", script, text);
        free(text);
        exit(1);
    }
    moon_report_free(report);
    moon_gateway_address(stage->gateway, 0, &stage->address);
}

struct moon_socket *stage_listen(struct stage *stage, uint16_t port)
{
    struct moon_address at = {MOON_FAMILY_IPV4, {10, 0, 0, 2}, port};
    struct moon_socket *socket;
    if (moon_world_listen(stage->world, &at, 1, &socket) < 0)
        abort();
    return socket;
}

static bool is_over(void *arg)
{
    struct stage *stage = arg;
    return moon_gateway_is_over(stage->gateway);
}

static const char *left_behind(const struct moon_gateway *gateway)
{
    const struct moon_counters *counters;
    for (size_t i = 0; (counters = moon_gateway_counters(gateway, i)) != NULL; i++) {
        if (counters->exchanges_live)
            return "exchanges_live";
        if (counters->arenas_live)
            return "arenas_live";
        if (counters->connections_live)
            return "connections_live";
        if (counters->upstream_connections_live)
            return "upstream_connections_live";
        if (counters->upstream_idle)
            return "upstream_idle";
        if (counters->pipes_live)
            return "pipes_live";
        if (counters->calls_live)
            return "calls_live";
        if (counters->tunnels_live)
            return "tunnels_live";
    }
    return moon_gateway_buffer_len(gateway) ? "buffers" : NULL;
}

void stage_drain(struct stage *stage)
{
    if (!stage->is_draining)
        moon_gateway_drain(stage->gateway);
    stage->is_draining = true;
}

const char *stage_stop(struct stage *stage, uint64_t within_ms)
{
    if (!stage->gateway)
        return NULL;
    const char *what = "the drain does not end";
    stage_drain(stage);
    if (moon_sim_run(stage->world, is_over, stage, within_ms))
        what = left_behind(stage->gateway);
    moon_gateway_free(stage->gateway);
    stage->gateway = NULL;
    return what;
}

const char *stage_fini(struct stage *stage)
{
    moon_loop_free(stage->loop);
    size_t live_count = moon_sim_live_count(stage->world);
    moon_world_free(stage->world);
    return live_count ? "streams, sockets, pipes or mailboxes" : NULL;
}

unsigned stage_scale(void)
{
    const char *text = getenv("MOONGATE_TEST_SCALE");
    long scale = text ? strtol(text, NULL, 10) : 1;
    return scale > 1 ? (unsigned)scale : 1;
}
