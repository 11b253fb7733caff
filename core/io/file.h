// Files that are appended to, and what the process is like. Never on a worker: a disk may block.
#pragma once

#include "base/slice.h"

#include <sys/types.h>

struct moon_file;
struct moon_world;

// Opens for appending, creating it (0640) where it is missing; "stdout" is the standard output. 0 or -errno (-ENXIO: a FIFO
// that nobody reads; -ENOTSUP: the simulated world keeps no log).
int moon_file_open(struct moon_world *world, const char *path, struct moon_file **out);
// NULL is fine.
void moon_file_close(struct moon_file *file);
// Appends two runs of bytes, one behind the other (either may be empty). Bytes written, perhaps fewer; 0: a pipe is full;
// -errno. Blocks as long as a disk does, but for the reader of a pipe 100 ms at the most.
ssize_t moon_file_append(struct moon_file *file, const struct moon_slice parts[2]);
// Takes the last `len` bytes back that were appended. False where that can't be (a pipe, or another process has written since).
bool moon_file_take_back(struct moon_file *file, size_t len);

// Bytes of memory that the process occupies; 0 where that is not known. Thread safe.
size_t moon_process_resident_len(const struct moon_world *world);
