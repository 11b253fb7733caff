// Owner of the series' names and of the log writers. A log writer serves one place and one size of rings; a reload that names another
// one makes another writer, and the old one writes what it has, on its own thread, and frees itself.
//
//   prepared (builder: the file is open) --> running --workers have its rings--> current --another is--> retired --> done
//        '--the reload is refused--> freed
#include "gateway/telemetry.h"

#include "admin/log_writer.h"
#include "base/err.h"
#include "exchange/access.h"
#include "io/loop.h"
#include "io/world.h"
#include "obs/log.h"
#include "obs/series.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

// A log writer with its thread.
struct log_seat {
    struct moon_log_writer *writer;
    struct moon_thread *thread; // NULL: not started, or joined
    struct log_seat *next;      // among the retired
    struct moon_world *world;
    // is_left: control touches the writer and its loop no more; is_done: the thread has freed the writer, and is at its end
    atomic_bool is_retired, is_left, is_done;
};

struct moon_telemetry {
    struct moon_world *world;
    const struct moon_log *log;
    struct moon_series_names *names;
    struct log_seat *current;          // NULL: there is no access log
    struct log_seat *coming, *retired; // of the reload under way, of earlier ones
    // `coming` takes the place of `current`, also where it is NULL
    bool is_changing;
    struct log_seat *prepared; // the same on the builder's thread, until begin
    bool is_prepared;
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

// Nothing of it runs any more.
static void seat_free(struct log_seat *seat)
{
    if (!seat)
        return;
    moon_thread_join(seat->thread);
    if (!atomic_load(&seat->is_done))
        moon_log_writer_free(seat->writer);
    free(seat);
}

void moon_telemetry_free(struct moon_telemetry *telemetry)
{
    if (!telemetry)
        return;
    moon_telemetry_stop(telemetry);
    seat_free(telemetry->current);
    seat_free(telemetry->coming);
    seat_free(telemetry->prepared);
    moon_series_names_free(telemetry->names);
    free(telemetry);
}

struct moon_series_names *moon_telemetry_names(const struct moon_telemetry *telemetry)
{
    return telemetry->names;
}

// ---- opening

static int open_log(struct moon_telemetry *telemetry, const struct moon_telemetry_args *args,
                    struct log_seat **out)
{
    const struct moon_access_log *log = args->log;
    *out = NULL;
    if (!log->format)
        return 0;
    struct moon_log_writer_args writer_args = {.world = telemetry->world,
                                               .file = log->file,
                                               .buffer_len = log->buffer_len,
                                               .ring_count = args->worker_count,
                                               .log = telemetry->log};
    struct moon_log_writer *writer = NULL;
    int err = moon_log_writer_new(&writer_args, &writer);
    if (err == -ENOTSUP) {
        moon_log_warn(telemetry->log, "there is no access log in this world");
        return 0;
    }
    if (err) {
        moon_report_addf(args->report, args->place, "settings", "access_log.file",
                         "a file that can be written to, or \"stdout\"", "cannot open \"%.*s\": %s",
                         MOON_SLICE_ARG(log->file), moon_err_text(err));
        return err;
    }
    struct log_seat *seat = calloc(1, sizeof *seat);
    if (!seat)
        abort();
    seat->writer = writer;
    seat->world = telemetry->world;
    *out = seat;
    return 0;
}

int moon_telemetry_open(struct moon_telemetry *telemetry, const struct moon_telemetry_args *args)
{
    return open_log(telemetry, args, &telemetry->current);
}

static struct moon_ring *ring_of(const struct log_seat *seat, unsigned index)
{
    return seat ? moon_log_writer_ring(seat->writer, index) : NULL;
}

struct moon_ring *moon_telemetry_ring(const struct moon_telemetry *telemetry, unsigned index)
{
    return ring_of(telemetry->is_changing ? telemetry->coming : telemetry->current, index);
}

// ---- the thread

static void writer_thread(void *arg)
{
    struct log_seat *seat = arg;
    moon_loop_run(moon_log_writer_loop(seat->writer));
    if (!atomic_load(&seat->is_retired))
        return; // freed by who stopped it
    // Who stops a loop still wakes it when it has seen that already.
    while (!atomic_load(&seat->is_left))
        moon_world_yield(seat->world);
    moon_log_writer_free(seat->writer);
    atomic_store(&seat->is_done, true);
}

static int start(struct moon_telemetry *telemetry, struct log_seat *seat)
{
    return seat ? moon_thread_start(telemetry->world, writer_thread, seat, &seat->thread) : 0;
}

int moon_telemetry_start(struct moon_telemetry *telemetry)
{
    return start(telemetry, telemetry->current);
}

static void stop(struct log_seat *seat)
{
    if (!seat || !seat->thread)
        return;
    moon_loop_stop(moon_log_writer_loop(seat->writer));
    moon_thread_join(seat->thread);
    seat->thread = NULL;
}

// Frees the retired: those that are at their end, or all, which waits for them.
static void sweep(struct moon_telemetry *telemetry, bool all)
{
    for (struct log_seat **at = &telemetry->retired, *seat; (seat = *at) != NULL;) {
        if (!all && !atomic_load(&seat->is_done)) {
            at = &seat->next;
            continue;
        }
        *at = seat->next;
        seat_free(seat);
    }
}

void moon_telemetry_stop(struct moon_telemetry *telemetry)
{
    stop(telemetry->current);
    stop(telemetry->coming);
    sweep(telemetry, true);
}

// ---- reload

static bool is_same_log(const struct moon_access_log *a, const struct moon_access_log *b)
{
    if (!a->format || !b->format)
        return !a->format && !b->format;
    return moon_slice_equal(a->file, b->file) && a->buffer_len == b->buffer_len;
}

int moon_telemetry_prepare(struct moon_telemetry *telemetry, const struct moon_access_log *before,
                           const struct moon_telemetry_args *args)
{
    if (is_same_log(before, args->log))
        return 0;
    int err = open_log(telemetry, args, &telemetry->prepared);
    telemetry->is_prepared = !err;
    return err;
}

static void take_prepared(struct moon_telemetry *telemetry)
{
    telemetry->coming = telemetry->prepared;
    telemetry->is_changing = telemetry->is_prepared;
    telemetry->prepared = NULL;
    telemetry->is_prepared = false;
}

int moon_telemetry_begin(struct moon_telemetry *telemetry)
{
    take_prepared(telemetry);
    return start(telemetry, telemetry->coming);
}

// Its thread writes what it has, and frees it: a disk never stops control.
static void retire(struct moon_telemetry *telemetry, struct log_seat *seat)
{
    if (!seat)
        return;
    if (!seat->thread) {
        seat_free(seat);
        return;
    }
    struct moon_loop *loop = moon_log_writer_loop(seat->writer);
    atomic_store(&seat->is_retired, true);
    moon_loop_stop(loop);
    atomic_store(&seat->is_left, true);
    seat->next = telemetry->retired;
    telemetry->retired = seat;
}

void moon_telemetry_end(struct moon_telemetry *telemetry, bool is_fine)
{
    sweep(telemetry, false);
    if (telemetry->is_prepared) // refused before it began
        take_prepared(telemetry);
    if (!telemetry->is_changing)
        return;
    retire(telemetry, is_fine ? telemetry->current : telemetry->coming);
    if (is_fine)
        telemetry->current = telemetry->coming;
    telemetry->coming = NULL;
    telemetry->is_changing = false;
}

void moon_telemetry_reopen(struct moon_telemetry *telemetry)
{
    if (telemetry->current)
        moon_log_writer_reopen(telemetry->current->writer);
    else
        moon_log_info(telemetry->log, "SIGUSR1: there is no access log to reopen");
}

bool moon_telemetry_is_stuck(const struct moon_telemetry *telemetry)
{
    return telemetry->current && moon_log_writer_is_stuck(telemetry->current->writer);
}
