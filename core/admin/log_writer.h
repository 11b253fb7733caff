// The log writer: takes the access log's lines out of the workers' rings and appends them to its file. It has a loop of its own,
// which gateway/ runs on a thread (or which the simulated world steps), so that a disk never stops a worker.
//
// Lines reach the file within a quarter of a second, in large blocks. While the file cannot be written (the disk is full, the
// reader of a pipe is slow) lines wait in the rings, and further ones are dropped and counted by their worker; it is tried
// again four times a second. Lines are whole: what was written of a line that did not fit is taken back.
#pragma once

#include "base/slice.h"

#include <stdbool.h>
#include <stddef.h>

struct moon_log;
struct moon_log_writer;
struct moon_loop;
struct moon_ring;
struct moon_world;

struct moon_log_writer_args {
    struct moon_world *world;
    struct moon_slice file; // a path, or "stdout"; copied
    size_t buffer_len;      // of each ring
    unsigned ring_count;    // one a worker
    const struct moon_log *log;
};

// 0 or -errno: the file cannot be opened.
int moon_log_writer_new(const struct moon_log_writer_args *args, struct moon_log_writer **out);
// Its loop does not run any more, nor does any worker. Writes what waits, as far as the file takes it at once. NULL is fine.
void moon_log_writer_free(struct moon_log_writer *writer);
// For the worker of that index.
struct moon_ring *moon_log_writer_ring(struct moon_log_writer *writer, unsigned index);
struct moon_loop *moon_log_writer_loop(struct moon_log_writer *writer);
// Opens the file anew by its name, soon; what waits goes into the new one. When that fails the old one stays. Thread safe.
void moon_log_writer_reopen(struct moon_log_writer *writer);
// Whether the last write failed. Thread safe.
bool moon_log_writer_is_stuck(const struct moon_log_writer *writer);
