// Draining the rings.
//
//   ASLEEP --a ring wakes us--> TICKING: every 250 ms (at once when a ring is half full) --drained, two ticks found nothing-->
//   ASLEEP; while a write fails it stays TICKING
//
// Two empty ticks, because a worker that commits a line while we fall asleep may not see it: the second tick finds that line.
//
// Invariant: only whole lines are given back to a ring, but for `cut`: the ring whose line stands half in a pipe. Its rest
// goes out before anything else.
#include "admin/log_writer.h"

#include "base/err.h"
#include "io/file.h"
#include "io/loop.h"
#include "io/mailbox.h"
#include "io/world.h"
#include "obs/log.h"
#include "obs/ring.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { TICK_MS = 250, EMPTY_TICK_COUNT = 2 };

// A worker's wake-up: posted by the worker, at most once until it was taken.
struct source {
    struct moon_log_writer *writer;
    struct moon_ring *ring;
    struct moon_message message;
    atomic_bool is_posted;
};

struct moon_log_writer {
    struct moon_log_writer_args args;
    struct moon_loop *loop;
    struct moon_mailbox *mailbox;
    struct moon_file *file;
    char *path;
    struct source *sources;
    struct moon_message reopen;
    atomic_bool is_reopen_posted;
    struct moon_timer timer;
    struct source *cut;
    unsigned empty_tick_count;
    atomic_bool is_stuck;
};

// ---- writing

// Length of the whole lines among the first `len` bytes.
static size_t whole_lines_len(const struct moon_slice parts[2], size_t len)
{
    for (int i = 1; i >= 0; i--) {
        size_t before = i == 1 ? parts[0].len : 0;
        if (len <= before)
            continue;
        const char *end = memrchr(parts[i].ptr, '\n', len - before);
        if (end)
            return before + (size_t)(end - parts[i].ptr) + 1;
    }
    return 0;
}

// `len` bytes of what a ring holds were written: settles where in a line that stopped. The bytes that stay written.
static size_t settle(struct moon_log_writer *writer, struct source *source,
                     const struct moon_slice parts[2], size_t len)
{
    size_t whole = whole_lines_len(parts, len);
    if (whole < len && moon_file_take_back(writer->file, len - whole))
        len = whole;
    writer->cut = whole < len ? source : NULL;
    moon_ring_consume(source->ring, len);
    return len;
}

static void note_failure(struct moon_log_writer *writer, int err)
{
    if (atomic_exchange(&writer->is_stuck, true))
        return;
    moon_log_warn(writer->args.log, "access log \"%s\": %s; lines wait, then they are dropped",
                  writer->path, err ? moon_err_text(err) : "its reader does not keep up");
}

static void note_success(struct moon_log_writer *writer)
{
    if (atomic_load(&writer->is_stuck)) {
        atomic_store(&writer->is_stuck, false);
        moon_log_info(writer->args.log, "access log \"%s\": writing again", writer->path);
    }
}

// Writes all that a ring holds. False when the file takes no more.
static bool drain_ring(struct moon_log_writer *writer, struct source *source)
{
    struct moon_slice parts[2];
    while (moon_ring_peek(source->ring, parts) > 0) {
        ssize_t n = moon_file_append(writer->file, parts);
        if (n > 0 && settle(writer, source, parts, (size_t)n) > 0)
            continue;
        note_failure(writer, n > 0 ? -ENOSPC : (int)n); // not even one line
        return false;
    }
    return true;
}

// True when something was written or waits: there may be more soon.
static bool drain(struct moon_log_writer *writer)
{
    struct moon_slice parts[2];
    bool was_busy = false;
    if (writer->cut && !drain_ring(writer, writer->cut))
        return true;
    for (unsigned i = 0; i < writer->args.ring_count; i++) {
        struct source *source = &writer->sources[i];
        if (moon_ring_peek(source->ring, parts) == 0)
            continue;
        was_busy = true;
        if (!drain_ring(writer, source))
            return true;
    }
    if (was_busy)
        note_success(writer);
    return was_busy;
}

// ---- the loop

static void on_timer(struct moon_timer *timer)
{
    struct moon_log_writer *writer = MOON_CONTAINER(timer, struct moon_log_writer, timer);
    if (drain(writer))
        writer->empty_tick_count = 0;
    else if (++writer->empty_tick_count == 1)
        for (unsigned i = 0; i < writer->args.ring_count; i++)
            moon_ring_sleep(writer->sources[i].ring);
    if (writer->empty_tick_count < EMPTY_TICK_COUNT)
        moon_loop_timer_add(writer->loop, timer, TICK_MS);
}

static void reopen(struct moon_log_writer *writer)
{
    struct moon_file *file = NULL;
    int err = moon_file_open(writer->args.world, writer->path, &file);
    if (err) {
        moon_log_warn(writer->args.log,
                      "access log \"%s\" cannot be reopened: %s; the old file stays", writer->path,
                      moon_err_text(err));
        return;
    }
    moon_file_close(writer->file);
    writer->file = file;
    moon_log_info(writer->args.log, "access log \"%s\" reopened", writer->path);
    drain(writer);
}

// A worker woke us: its ring has the first line after a pause, or is half full.
static void on_message(void *owner, struct moon_message *message)
{
    struct moon_log_writer *writer = owner;
    if (message == &writer->reopen) {
        atomic_store(&writer->is_reopen_posted, false);
        reopen(writer);
        return;
    }
    struct source *source = MOON_CONTAINER(message, struct source, message);
    struct moon_slice parts[2];
    atomic_store(&source->is_posted, false);
    bool is_urgent = moon_ring_peek(source->ring, parts) > writer->args.buffer_len / 4;
    if (is_urgent && !atomic_load(&writer->is_stuck))
        drain(writer);
    if (writer->empty_tick_count) {
        writer->empty_tick_count = 0;
        moon_loop_timer_add(writer->loop, &writer->timer, TICK_MS);
    }
}

// On a worker.
static void wake(void *owner)
{
    struct source *source = owner;
    if (!atomic_exchange(&source->is_posted, true))
        moon_mailbox_post(source->writer->mailbox, &source->message);
}

// ---- public

int moon_log_writer_new(const struct moon_log_writer_args *args, struct moon_log_writer **out)
{
    struct moon_log_writer *writer = calloc(1, sizeof *writer);
    if (!writer)
        abort();
    writer->args = *args;
    writer->path = moon_slice_dup(args->file);
    writer->sources = calloc(args->ring_count, sizeof *writer->sources);
    writer->loop = moon_loop_new(args->world);
    int err = writer->loop ? moon_file_open(args->world, writer->path, &writer->file) : -EMFILE;
    if (err) {
        moon_log_writer_free(writer);
        return err;
    }
    writer->mailbox = moon_mailbox_new(writer->loop, on_message, writer);
    for (unsigned i = 0; i < args->ring_count; i++) {
        struct source *source = &writer->sources[i];
        source->writer = writer;
        source->ring = moon_ring_new(args->buffer_len, wake, source);
        moon_ring_sleep(source->ring);
    }
    writer->empty_tick_count = EMPTY_TICK_COUNT;
    writer->timer.fn = on_timer;
    *out = writer;
    return 0;
}

static size_t lines_count(const struct moon_ring *ring)
{
    struct moon_slice parts[2];
    size_t count = 0;
    moon_ring_peek(ring, parts);
    for (int i = 0; i < 2; i++)
        for (size_t at = 0; at < parts[i].len; at++)
            count += parts[i].ptr[at] == '\n';
    return count;
}

void moon_log_writer_free(struct moon_log_writer *writer)
{
    size_t lost = 0;
    if (!writer)
        return;
    if (writer->file && writer->mailbox)
        drain(writer);
    for (unsigned i = 0; writer->mailbox && i < writer->args.ring_count; i++) {
        lost += lines_count(writer->sources[i].ring);
        moon_ring_free(writer->sources[i].ring);
    }
    if (lost)
        moon_log_warn(writer->args.log, "access log \"%s\": %zu lines could not be written",
                      writer->path, lost);
    if (writer->loop)
        moon_loop_timer_del(writer->loop, &writer->timer);
    moon_mailbox_free(writer->mailbox);
    moon_loop_free(writer->loop);
    moon_file_close(writer->file);
    free(writer->sources);
    free(writer->path);
    free(writer);
}

struct moon_ring *moon_log_writer_ring(struct moon_log_writer *writer, unsigned index)
{
    return writer->sources[index].ring;
}

struct moon_loop *moon_log_writer_loop(struct moon_log_writer *writer)
{
    return writer->loop;
}

void moon_log_writer_reopen(struct moon_log_writer *writer)
{
    if (!atomic_exchange(&writer->is_reopen_posted, true))
        moon_mailbox_post(writer->mailbox, &writer->reopen);
}

bool moon_log_writer_is_stuck(const struct moon_log_writer *writer)
{
    return atomic_load(&writer->is_stuck);
}
