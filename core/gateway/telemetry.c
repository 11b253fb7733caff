// Owner of the series' names and of the log writer.
#include "gateway/telemetry.h"

#include "admin/log_writer.h"
#include "base/err.h"
#include "exchange/access.h"
#include "io/loop.h"
#include "io/world.h"
#include "obs/log.h"
#include "obs/series.h"

#include <errno.h>
#include <stdlib.h>

struct moon_telemetry {
    struct moon_world *world;
    const struct moon_log *log;
    struct moon_series_names *names;
    struct moon_log_writer *writer;
    struct moon_thread *thread;
};

struct moon_telemetry *moon_telemetry_new(struct moon_world *world, const struct moon_log *log)
{
    struct moon_telemetry *telemetry = calloc(1, sizeof *telemetry);
    if (!telemetry)
        abort();
    telemetry->world = world;
    telemetry->log = log;
    telemetry->names = moon_series_names_new(MOON_SERIES_MAX);
    return telemetry;
}

void moon_telemetry_free(struct moon_telemetry *telemetry)
{
    if (!telemetry)
        return;
    moon_telemetry_stop(telemetry);
    moon_log_writer_free(telemetry->writer);
    moon_series_names_free(telemetry->names);
    free(telemetry);
}

struct moon_series_names *moon_telemetry_names(const struct moon_telemetry *telemetry)
{
    return telemetry->names;
}

int moon_telemetry_open(struct moon_telemetry *telemetry, const struct moon_access_log *log,
                        unsigned worker_count, struct moon_report *report)
{
    if (!log->format)
        return 0;
    struct moon_log_writer_args args = {.world = telemetry->world,
                                        .file = log->file,
                                        .buffer_len = log->buffer_len,
                                        .ring_count = worker_count,
                                        .log = telemetry->log};
    int err = moon_log_writer_new(&args, &telemetry->writer);
    if (err == -ENOTSUP) {
        moon_log_warn(telemetry->log, "there is no access log in this world");
        return 0;
    }
    if (err)
        moon_report_addf(report, (struct moon_place){NULL, 0}, "settings", "access_log.file",
                         "a file that can be written to, or \"stdout\"", "cannot open \"%.*s\": %s",
                         MOON_SLICE_ARG(log->file), moon_err_text(err));
    return err;
}

struct moon_ring *moon_telemetry_ring(const struct moon_telemetry *telemetry, unsigned index)
{
    return telemetry->writer ? moon_log_writer_ring(telemetry->writer, index) : NULL;
}

static void writer_thread(void *arg)
{
    moon_loop_run(arg);
}

int moon_telemetry_start(struct moon_telemetry *telemetry)
{
    if (!telemetry->writer)
        return 0;
    return moon_thread_start(telemetry->world, writer_thread,
                             moon_log_writer_loop(telemetry->writer), &telemetry->thread);
}

void moon_telemetry_stop(struct moon_telemetry *telemetry)
{
    if (!telemetry->thread)
        return;
    moon_loop_stop(moon_log_writer_loop(telemetry->writer));
    moon_thread_join(telemetry->thread);
    telemetry->thread = NULL;
}

void moon_telemetry_reopen(struct moon_telemetry *telemetry)
{
    if (telemetry->writer)
        moon_log_writer_reopen(telemetry->writer);
    else
        moon_log_info(telemetry->log, "SIGUSR1: there is no access log to reopen");
}

bool moon_telemetry_is_stuck(const struct moon_telemetry *telemetry)
{
    return telemetry->writer && moon_log_writer_is_stuck(telemetry->writer);
}
