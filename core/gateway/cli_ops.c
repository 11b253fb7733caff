// What the command line asks of the gateway: check a configuration, run one. The real world is made here.
#include "base/err.h"
#include "conf/settings.h"
#include "gateway/gateway.h"
#include "gateway/last_good.h"
#include "io/world.h"
#include "obs/log.h"
#include "obs/recent.h"
#include "script/script.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

// Where records of the process go: to the terminal, and into the memory of the admin surface.
struct sink {
    struct moon_world *world;
    struct moon_recent *recent;
};

static void print_record(void *owner, enum moon_log_level level, const char *text, size_t len)
{
    const struct sink *sink = owner;
    struct moon_world *world = sink->world;
    char line[1200], at[24];
    uint64_t now_ms = moon_world_wall_ms(world);
    time_t seconds = (time_t)(now_ms / 1000);
    struct tm utc;
    gmtime_r(&seconds, &utc);
    strftime(at, sizeof at, "%Y-%m-%dT%H:%M:%S", &utc);
    int used = snprintf(line, sizeof line, "%s.%03uZ %s %.*s\n", at, (unsigned)(now_ms % 1000),
                        moon_log_level_name(level), (int)len, text);
    moon_world_print(world, line, (size_t)used);
    moon_recent_add(sink->recent, now_ms, level, text, len);
}

// Where the configuration comes from, at the start and at every reload.
struct source {
    struct moon_world *world;
    const char *file;
    bool is_kept; // by a gateway that ran before
};

static int load(void *owner, struct moon_report *report, struct moon_model **model)
{
    const struct source *source = owner;
    return source->is_kept ? moon_last_good_load(source->world, source->file, model, report)
                           : moon_script_evaluate(source->world, source->file, model, report);
}

// The level stands in the settings; read before anything is compiled, because compiling logs.
static enum moon_log_level level_of(const struct moon_model *model)
{
    struct moon_slice level = MOON_SLICE("info");
    for (size_t i = 0; i < moon_model_count(model); i++) {
        const struct moon_object *object = moon_model_at(model, i);
        const struct moon_value *value =
            moon_value_get_kind(&object->value, "log_level", MOON_VALUE_STRING);
        if (value && moon_slice_equal(moon_slice_from(object->kind), MOON_SLICE("settings")))
            level = value->string;
    }
    return moon_log_level_from(level.ptr, level.len);
}

static void count_objects(const struct moon_model *model, struct moon_check_counts *counts)
{
    for (size_t i = 0; i < moon_model_count(model); i++) {
        struct moon_slice kind = moon_slice_from(moon_model_at(model, i)->kind);
        counts->listeners += moon_slice_equal(kind, MOON_SLICE("listener"));
        counts->upstreams += moon_slice_equal(kind, MOON_SLICE("upstream"));
        counts->routes += moon_slice_equal(kind, MOON_SLICE("route"));
    }
}

static int cli_check(void *owner, const struct moon_run_options *options,
                     struct moon_report *report, struct moon_check_counts *counts)
{
    struct moon_world *world = moon_world_new_real();
    struct moon_model *model = NULL;
    struct source source = {world, options->file, false};
    int err = load(&source, report, &model);
    if (!err) {
        count_objects(model, counts);
        err = moon_gateway_check(world, model, owner, report);
    }
    moon_world_free(world);
    return err;
}

// ---- running

// Of `source`. What is wrong with the configuration, not with the machine, sets *args->is_refused.
static int start(struct source *source, struct moon_gateway_args *args, struct moon_report *report,
                 struct moon_gateway **out)
{
    int err = load(source, report, &args->model);
    *args->is_refused = err != 0;
    if (err)
        return err;
    atomic_store(&args->log->level, (int)level_of(args->model));
    return moon_gateway_new(args, report, out);
}

static void log_problems(const struct moon_log *log, const struct moon_report *report)
{
    char *text = moon_report_text(report), *rest = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
        moon_log_error(log, "%s", line);
    free(text);
}

static void add_problems(struct moon_report *report, const struct moon_report *more)
{
    const struct moon_problem *problem;
    for (size_t i = 0; (problem = moon_report_at(more, i)) != NULL; i++)
        moon_report_add(report, problem);
}

// The script is refused, `refusal` says why: what served last does again. It is an error all the same, and is told as one.
static int start_last_good(const char *file, struct moon_gateway_args *args,
                           struct moon_report *refusal, struct moon_report *report,
                           struct moon_gateway **out)
{
    char *path = moon_last_good_path(args->state), date[MOON_LAST_GOOD_DATE_LEN];
    struct source source = {args->world, path, true};
    struct moon_report *own = moon_report_new();
    args->is_last_good = true;
    moon_last_good_date(args->world, path, date);
    int err = start(&source, args, own, out);
    if (err) {
        add_problems(report, refusal);
        add_problems(report, own);
    } else {
        moon_log_error(args->log, "%s is refused; the last good configuration serves, of %s (%s)",
                       file, date, path);
        log_problems(args->log, refusal);
    }
    moon_report_free(own);
    free(path);
    return err;
}

static int start_any(struct source *source, struct moon_gateway_args *args,
                     struct moon_report *report, struct moon_gateway **out)
{
    bool is_refused = false;
    args->is_refused = &is_refused;
    if (!args->state)
        return start(source, args, report, out);
    struct moon_report *first = moon_report_new();
    int err = start(source, args, first, out);
    if (err && is_refused)
        err = start_last_good(source->file, args, first, report, out);
    else
        add_problems(report, first);
    moon_report_free(first);
    return err;
}

static int cli_run(void *owner, const struct moon_run_options *options, struct moon_report *report)
{
    struct moon_world *world = moon_world_new_real();
    struct sink sink = {world, moon_recent_new()};
    struct moon_log log = {MOON_LOG_INFO, print_record, &sink};
    struct moon_gateway *gateway = NULL;
    struct source source = {world, options->file, false};
    struct moon_gateway_args args = {.world = world,
                                     .load = load,
                                     .load_owner = &source,
                                     .filters = owner,
                                     .workers = options->workers,
                                     .admin = options->admin,
                                     .control = options->control,
                                     .state = options->state,
                                     .recent = sink.recent,
                                     .log = &log};
    moon_world_hold_signals(world); // a script may take a while, and who rotates logs does not know
    int err = start_any(&source, &args, report, &gateway);
    if (!err)
        err = moon_gateway_run(gateway);
    moon_gateway_free(gateway);
    moon_recent_free(sink.recent);
    moon_world_free(world);
    return err;
}

static int cli_ask(void *owner, const char *path, struct moon_slice question, char **answer,
                   size_t *len)
{
    enum { TIMEOUT_MS = 120000 };
    (void)owner;
    struct moon_world *world = moon_world_new_real();
    int err = moon_world_ask_local(world, path, question, TIMEOUT_MS, answer, len);
    moon_world_free(world);
    return err;
}

static int cli_sleep(void *owner, uint64_t ms)
{
    (void)owner;
    struct moon_world *world = moon_world_new_real();
    int err = moon_world_sleep(world, ms);
    moon_world_free(world);
    return err;
}

static int cli_explain(void *owner, const struct moon_run_options *options, struct moon_slice query,
                       struct moon_report *report, char **answer)
{
    struct moon_world *world = moon_world_new_real();
    struct moon_model *model = NULL;
    struct source source = {world, options->file, false};
    int err = load(&source, report, &model);
    if (!err)
        err = moon_gateway_explain(&(struct moon_explain_args){world, model, owner, query}, report,
                                   answer);
    moon_world_free(world);
    return err;
}

static char *objects_of(const struct moon_model *model)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    if (!out)
        abort();
    moon_model_write_json(model, NULL, out);
    if (fclose(out) != 0)
        abort();
    return text;
}

static int cli_model(void *owner, const struct moon_run_options *options,
                     struct moon_report *report, char **answer)
{
    struct moon_world *world = moon_world_new_real();
    struct moon_model *model = NULL;
    struct source source = {world, options->file, false};
    int err = load(&source, report, &model);
    if (!err) {
        char *text = objects_of(model);
        err = moon_gateway_check(world, model, owner, report);
        if (err)
            free(text);
        else
            *answer = text;
    }
    moon_world_free(world);
    return err;
}

struct moon_cli_ops moon_gateway_cli_ops(const struct moon_filter_type *const *filters)
{
    return (struct moon_cli_ops){.check = cli_check,
                                 .run = cli_run,
                                 .ask = cli_ask,
                                 .explain = cli_explain,
                                 .model = cli_model,
                                 .sleep = cli_sleep,
                                 .owner = (void *)filters};
}
