// The world: everything outside the process, real or simulated (DESIGN 2). It makes loops, binds sockets, reads files and
// starts threads. One per gateway; thread safe only where said.
#pragma once

#include "base/address.h"
#include "base/slice.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct moon_loop;
struct moon_socket;
struct moon_world;
struct moon_thread;

// libuv, epoll and the kernel. Ignores SIGPIPE. Raises RLIMIT_NOFILE to the hard limit.
struct moon_world *moon_world_new_real(void);
// Every loop and socket of it is freed first. NULL is fine.
void moon_world_free(struct moon_world *world);

struct moon_loop *moon_loop_new(struct moon_world *world);

// Binds `count` sockets to one address (SO_REUSEPORT, one for each worker) after a probe bind without it, so that an address
// in use is refused. A socket that the service manager has bound to that address (LISTEN_FDS) is taken instead. Port 0 takes a free one for all of them. TCP_NODELAY, keepalive and backlog are set. 0 or -errno.
int moon_world_listen(struct moon_world *world, const struct moon_address *at, size_t count,
                      struct moon_socket **out);
// Tells the service manager, if there is one: "READY=1", "STOPPING=1" (sd_notify(3)).
void moon_world_notify(struct moon_world *world, const char *state);
// A unix socket that only the process's user may connect to; freeing it removes the file. One that nobody serves any more is
// replaced. 0; -EADDRINUSE when another process serves it; -EEXIST when something else has the name; another -errno.
int moon_world_listen_local(struct moon_world *world, const char *path, struct moon_socket **out);
// The same for traffic: sockets for every worker that share one queue, with that mode of the file; it goes with the first.
int moon_world_listen_path(struct moon_world *world, const char *path, unsigned mode, size_t count,
                           struct moon_socket **out);
// Sends a question to a unix socket and reads the answer to its end, blocking: for the command line. *out is malloc'd and
// NUL-terminated. 0 or -errno (-ETIMEDOUT: nothing came for timeout_ms).
int moon_world_ask_local(struct moon_world *world, const char *path, struct moon_slice question,
                         int timeout_ms, char **out, size_t *out_len);
// Blocks the calling thread: for the command line. 0, or -ENOTSUP in the simulated world.
int moon_world_sleep(struct moon_world *world, uint64_t ms);
// Lets other threads that wait for this thread's CPU have it first; returns at once where there are none.
void moon_world_yield(struct moon_world *world);
// From here on SIGHUP and SIGUSR1, which end a process that does not know them, wait until a loop takes them (moon_loop_signal).
void moon_world_hold_signals(struct moon_world *world);
// Whether it takes connections to addresses that are not ours (IP_TRANSPARENT). 0 or -errno: -EPERM without CAP_NET_ADMIN or CAP_NET_RAW.
int moon_socket_set_transparent(struct moon_socket *socket, bool is_transparent);
// Of the file of a unix socket. 0 or -errno.
int moon_socket_set_mode(struct moon_socket *socket, unsigned mode);
void moon_socket_address(const struct moon_socket *socket, struct moon_address *out);
// Closes it; not while a loop accepts from it. NULL is fine.
void moon_socket_free(struct moon_socket *socket);

// Descriptors the process may hold (RLIMIT_NOFILE after raising); the simulated world answers its own figure.
size_t moon_world_descriptor_limit(const struct moon_world *world);
// Physical memory, capped by the cgroup's limit.
size_t moon_world_memory_len(const struct moon_world *world);
// Gives what has been freed back to the system, as far as the allocator can. It takes the lock of every heap, for
// milliseconds when much was freed: rarely, never on a worker.
void moon_world_trim_memory(struct moon_world *world);
// "1.44.2": the event library underneath.
const char *moon_world_library_version(void);
// Milliseconds since 1970-01-01 UTC. Thread safe.
uint64_t moon_world_wall_ms(const struct moon_world *world);
// Writes text to the standard error stream; what can't be written is lost. Thread safe.
void moon_world_print(struct moon_world *world, const char *text, size_t len);
// Workers worth starting: CPUs of the affinity mask, capped by the cgroup's quota. At least 1.
unsigned moon_world_cpu_count(const struct moon_world *world);

// A whole file, NUL-terminated, malloc'd; not on a worker. 0 or -errno (-EFBIG over max_len).
int moon_world_read_file(struct moon_world *world, const char *path, size_t max_len, char **out,
                         size_t *out_len);
// Puts a file there whole or not at all, only for the process's user (0600): a new file, synced, takes the place of the old one.
// Blocks; not on a worker. Thread safe. 0 or -errno (-ENOTSUP in the simulated world).
int moon_world_write_file(struct moon_world *world, const char *path, struct moon_slice text);
// Makes a directory, and those above it, for the process's user alone (0700), where they are not there. Blocks. 0 or -errno
// (-ENOTSUP in the simulated world).
int moon_world_make_directory(struct moon_world *world, const char *path);

// Real world only: the simulated one steps its loops itself and answers -ENOTSUP.
int moon_thread_start(struct moon_world *world, void (*fn)(void *arg), void *arg,
                      struct moon_thread **out);
void moon_thread_join(struct moon_thread *thread);
