// Ten thousand scenarios, each decided by its seed: clients, backends, workers, bodies, latency, short reads and writes, resets,
// refused and hanging connects, slow peers, small socket buffers, a drain at any time. What must hold in all of them:
//
// - every body is right to the byte, both ways, and no client sees a byte of another's response
// - a message that was cut short never ends cleanly
// - every request ends in bounded time: answered, or with its connection
// - where nothing goes wrong every request is answered by its backend
// - a request whose method is not idempotent reaches backends once at the most, others three times
// - nothing is left behind, and a seed run twice leaves the same trace
//
//   scenarios_test             all seeds, fewer where MOONGATE_TEST_SCALE says that programs run slower
//   scenarios_test SEED        that seed alone, with the gateway's log
//   scenarios_test FROM TO     those seeds
#include "test/sim/scenario.h"

#include "gateway/gateway.h"
#include "io/world.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SEED_COUNT = 10000,
    AGAIN_EVERY = 100, // seeds run twice
    PROBLEMS_MAX = 10,
    SCENARIO_MAX_MS = 1800000,
    DRAIN_MAX_MS = 60000,
    BUFFERS_LEN = 2 << 20,
};

void scenario_fail(struct scenario *scenario, const char *format, ...)
{
    va_list args;
    if (scenario->problem[0])
        return;
    va_start(args, format);
    vsnprintf(scenario->problem, sizeof scenario->problem, format, args);
    va_end(args);
}

uint64_t scenario_below(struct scenario *scenario, uint64_t bound)
{
    return moon_sim_random_u64(scenario->stage.world) % bound;
}

struct request *scenario_request(struct scenario *scenario, uint64_t tag)
{
    for (unsigned i = 0; i < scenario->client_count; i++)
        for (unsigned k = 0; k < scenario->clients[i].request_count; k++)
            if (scenario->clients[i].requests[k].tag == tag)
                return &scenario->clients[i].requests[k];
    return NULL;
}

// ---- what chance decides

static bool chance(struct scenario *scenario, unsigned percent)
{
    return scenario_below(scenario, 100) < percent;
}

// Mostly short, seldom long enough for splice.
static size_t draw_len(struct scenario *scenario, bool is_long)
{
    static const size_t bounds[] = {1, 10, 200, 200, 3000, 3000, 20000, 70000, 200000};
    enum { COUNT = sizeof bounds / sizeof *bounds, LONG_COUNT = 3 };
    size_t at = is_long ? COUNT - LONG_COUNT + scenario_below(scenario, LONG_COUNT)
                        : scenario_below(scenario, COUNT);
    return (size_t)scenario_below(scenario, bounds[at] + 1);
}

static struct moon_sim_faults draw_faults(struct scenario *scenario)
{
    static const size_t buffers[] = {0, 0, 1000, 4096, 16384, 200000};
    struct moon_sim_faults faults = {0};
    if (chance(scenario, 80)) {
        faults.latency_min_ms = (uint32_t)scenario_below(scenario, 3);
        faults.latency_max_ms = faults.latency_min_ms + (uint32_t)scenario_below(scenario, 40);
    }
    faults.socket_buffer_len = buffers[scenario_below(scenario, 6)];
    if (chance(scenario, 60))
        faults.short_read_permille = (uint32_t)scenario_below(scenario, 500);
    if (scenario->is_calm)
        return faults;
    if (chance(scenario, 50))
        faults.reset_permille = (uint32_t)scenario_below(scenario, 30);
    if (chance(scenario, 30))
        faults.refuse_permille = (uint32_t)scenario_below(scenario, 300);
    if (chance(scenario, 20))
        faults.hang_permille = (uint32_t)scenario_below(scenario, 200);
    return faults;
}

static void draw_plan(struct scenario *scenario, struct plan *plan)
{
    static const enum message_framing framings[] = {FRAMING_LENGTH, FRAMING_LENGTH, FRAMING_CHUNKED,
                                                    FRAMING_CHUNKED, FRAMING_CLOSE};
    bool is_early = scenario->theme == THEME_EARLY;
    plan->framing = framings[scenario_below(scenario, 5)];
    plan->len = draw_len(scenario, scenario->theme == THEME_LONG || scenario->theme == THEME_LEAVE);
    plan->cut_len = plan->len ? (size_t)scenario_below(scenario, plan->len) : 0;
    plan->end = chance(scenario, 15) ? PLAN_CLOSE : PLAN_WHOLE;
    plan->wait_ms = chance(scenario, 30) ? (unsigned)scenario_below(scenario, 500) : 0;
    plan->has_interim = chance(scenario, 10);
    plan->is_empty = chance(scenario, 5);
    if (scenario->is_calm)
        return;
    plan->is_early = chance(scenario, is_early ? 70 : 10);
    if (chance(scenario, is_early ? 60 : 25))
        plan->end = (enum plan_end)scenario_below(scenario, PLAN_END_COUNT);
    if (is_early && chance(scenario, 40)) {
        plan->end = PLAN_RESET;
        plan->framing = FRAMING_CLOSE;
    }
    bool is_cut = plan->end == PLAN_CUT || plan->end == PLAN_RESET;
    if (is_cut && plan->len == 0)
        plan->end = PLAN_DROP; // there is nothing to cut
    if (plan->end == PLAN_CUT && plan->framing == FRAMING_CLOSE)
        plan->end = PLAN_RESET; // its end is all there is to tell
    if (is_cut)
        plan->is_empty = false;
}

static void draw_request(struct scenario *scenario, struct request *request)
{
    static const char *const methods[] = {"GET",  "GET", "GET", "HEAD",   "POST",
                                          "POST", "PUT", "PUT", "DELETE", "PATCH"};
    request->tag = moon_sim_random_u64(scenario->stage.world);
    request->method = methods[scenario_below(scenario, 10)];
    request->minor = chance(scenario, 95);
    bool is_long = scenario->theme == THEME_EARLY || scenario->theme == THEME_LONG;
    if (scenario->theme == THEME_REUSE && chance(scenario, 60))
        request->method = chance(scenario, 50) ? "GET" : "PUT";
    bool has_body = request->method[0] == 'P' || chance(scenario, is_long ? 70 : 5);
    request->framing = !has_body                                ? FRAMING_NONE
                       : request->minor && chance(scenario, 40) ? FRAMING_CHUNKED
                                                                : FRAMING_LENGTH;
    request->len = has_body ? draw_len(scenario, is_long) : 0;
    request->has_trailers = chance(scenario, 20);
    request->expects_continue = has_body && request->minor && chance(scenario, 10);
    // Where nothing may go wrong, without a body: the gateway discards a long one only for a while.
    request->is_nowhere = chance(scenario, 5) && !(scenario->is_calm && has_body);
    draw_plan(scenario, &request->plan);
}

static void draw_client(struct scenario *scenario, struct client *client)
{
    client->scenario = scenario;
    client->request_count = 1 + (unsigned)scenario_below(scenario, REQUEST_MAX_COUNT);
    client->depth = chance(scenario, 30) ? 1 + (unsigned)scenario_below(scenario, 5) : 1;
    for (unsigned i = 0; i < client->request_count; i++)
        draw_request(scenario, &client->requests[i]);
    if (scenario->theme == THEME_LEAVE)
        client->leave_after_len = 1 + (size_t)scenario_below(scenario, 100000);
    if (chance(scenario, scenario->theme == THEME_LONG ? 50 : 20)) {
        client->slow_len = 2000 + (size_t)scenario_below(scenario, 30000);
        client->slow_ms = 1 + (size_t)scenario_below(scenario, 40);
    }
}

// ---- the stage

static void on_drain(struct moon_timer *timer)
{
    struct scenario *scenario = MOON_CONTAINER(timer, struct scenario, drain_timer);
    stage_drain(&scenario->stage);
}

static void start_gateway(struct scenario *scenario)
{
    char script[1024], endpoints[256] = "";
    size_t used = 0;
    for (unsigned i = 0; i < scenario->backend_count; i++)
        used += (size_t)snprintf(endpoints + used, sizeof endpoints - used, "'10.0.0.2:%u', ",
                                 FIRST_PORT + i);
    // Drawn one by one: C does not say in which order arguments are evaluated.
    const char *splice = chance(scenario, 70) ? "true" : "false";
    unsigned keepalive = chance(scenario, 80) ? 0 : 1 + (unsigned)scenario_below(scenario, 4);
    unsigned idle_s = 1 + (unsigned)scenario_below(scenario, 20);
    unsigned upstream_idle_s = 1 + (unsigned)scenario_below(scenario, 5);
    snprintf(script, sizeof script,
             "local moongate = require 'moongate'\n"
             "moongate.settings { splice = %s, keepalive_requests = %u, timeouts = { connect = 1, "
             "response = 3, body = 3, idle = %u, upstream_idle = %u, drain = 10, linger = 1 }, "
             "limits = { buffer_bytes = %d } }\n"
             "moongate.listener { port = 8080, address = '10.0.0.1' }\n"
             "moongate.upstream { name = 'b', endpoints = { %s } }\n"
             "moongate.route { path = '/b', backends = 'b' }\n",
             splice, keepalive, idle_s, upstream_idle_s, BUFFERS_LEN, endpoints);
    stage_start(&scenario->stage, script, 1 + (unsigned)scenario_below(scenario, 3));
}

static void set_up(struct scenario *scenario)
{
    static const struct moon_sim_faults perfect;
    stage_init(&scenario->stage, scenario->seed, &perfect, scenario->is_verbose);
    moon_list_init(&scenario->connections);
    scenario->theme = (enum theme)scenario_below(scenario, THEME_COUNT);
    scenario->is_calm =
        chance(scenario, 35) && scenario->theme != THEME_LEAVE && scenario->theme != THEME_CROWD;
    if (scenario->theme == THEME_CROWD)
        moon_sim_set_descriptor_limit(scenario->stage.world,
                                      8 + (size_t)scenario_below(scenario, 16));
    scenario->has_drain = !scenario->is_calm && chance(scenario, 40);
    scenario->backend_count = 1 + (unsigned)scenario_below(scenario, BACKEND_MAX_COUNT);
    scenario->client_count = 1 + (unsigned)scenario_below(scenario, CLIENT_MAX_COUNT);
    if (!scenario->is_calm && chance(scenario, scenario->theme == THEME_REUSE ? 90 : 30))
        scenario->idle_close_ms =
            1 + (unsigned)scenario_below(scenario, scenario->theme == THEME_REUSE ? 30 : 300);
    for (unsigned i = 0; i < scenario->backend_count; i++) {
        scenario->backends[i].scenario = scenario;
        scenario->backends[i].slow_permille = chance(scenario, 20) ? 500 : 0;
        backend_start(&scenario->backends[i], (uint16_t)(FIRST_PORT + i));
    }
    start_gateway(scenario);
    struct moon_sim_faults faults = draw_faults(scenario);
    moon_sim_set_faults(scenario->stage.world, &faults);
    for (unsigned i = 0; i < scenario->client_count; i++) {
        draw_client(scenario, &scenario->clients[i]);
        client_start(&scenario->clients[i], scenario_below(scenario, 200));
    }
    scenario->drain_timer.fn = on_drain;
    if (scenario->has_drain)
        moon_loop_timer_add(scenario->stage.loop, &scenario->drain_timer,
                            scenario_below(scenario, 2000));
}

static bool is_done(void *arg)
{
    const struct scenario *scenario = arg;
    for (unsigned i = 0; i < scenario->client_count; i++)
        if (!client_is_done(&scenario->clients[i]))
            return scenario->problem[0] != '\0';
    return true;
}

// The trace hash; `problem` is empty when all held.
static uint64_t run(uint64_t seed, bool is_verbose, char *problem, size_t cap)
{
    struct scenario *scenario = calloc(1, sizeof *scenario);
    if (!scenario)
        abort();
    scenario->seed = seed;
    scenario->is_verbose = is_verbose;
    set_up(scenario);
    if (!moon_sim_run(scenario->stage.world, is_done, scenario, SCENARIO_MAX_MS))
        scenario_fail(scenario, "a request never ends");
    moon_loop_timer_del(scenario->stage.loop, &scenario->drain_timer);
    const char *left = stage_stop(&scenario->stage, DRAIN_MAX_MS);
    if (left)
        scenario_fail(scenario, "left behind: %s", left);
    for (unsigned i = 0; i < scenario->client_count; i++)
        client_fini(&scenario->clients[i]);
    backends_fini(scenario);
    uint64_t hash = moon_sim_trace_hash(scenario->stage.world);
    if (is_verbose)
        printf("%u answered (%u by the gateway itself), %u lost, %llu ms, trace %016llx\n",
               scenario->answered_count, scenario->error_count, scenario->lost_count,
               (unsigned long long)moon_sim_now_ms(scenario->stage.world),
               (unsigned long long)hash);
    left = stage_fini(&scenario->stage);
    if (left)
        scenario_fail(scenario, "left behind: %s", left);
    snprintf(problem, cap, "%s", scenario->problem);
    free(scenario);
    return hash;
}

static bool run_seed(uint64_t seed, bool is_verbose)
{
    char problem[256], again[256];
    uint64_t hash = run(seed, is_verbose, problem, sizeof problem);
    if (!problem[0] && seed % AGAIN_EVERY == 0 && run(seed, false, again, sizeof again) != hash)
        snprintf(problem, sizeof problem, "run twice, it leaves another trace");
    if (problem[0])
        printf("seed %llu: %s\n    alone: scenarios_test %llu\n", (unsigned long long)seed, problem,
               (unsigned long long)seed);
    return !problem[0];
}

int main(int argc, char **argv)
{
    uint64_t from = 1, to = stage_scale() > 1 ? SEED_COUNT / 10 : SEED_COUNT;
    unsigned failed_count = 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc > 1)
        from = to = strtoull(argv[1], NULL, 10);
    if (argc > 2)
        to = strtoull(argv[2], NULL, 10);
    uint64_t seed = from;
    for (; seed <= to && failed_count < PROBLEMS_MAX; seed++)
        failed_count += !run_seed(seed, argc == 2);
    printf("%llu seeds, %u failed\n", (unsigned long long)(seed - from), failed_count);
    return failed_count != 0;
}
