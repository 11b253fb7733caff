// The real world: sockets, files, threads, limits of the process and of the machine.
#include "base/err.h"
#include "io/real_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

// LuaJIT bounds the recursion of Lua and lets that of its C library go as deep: string.gsub whose function calls string.gsub takes
// 60 MiB before it is refused. What is not touched costs nothing.
enum { BACKLOG = 4096, PORT_TRIES = 16, STACK_LEN = 96 << 20, READ_MIN_LEN = 16384 };

struct moon_thread {
    pthread_t id;
    void (*fn)(void *arg);
    void *arg;
};

static void world_free(struct moon_world *world)
{
    free(world);
}

// ---- addresses

socklen_t real_to_sockaddr(const struct moon_address *address, struct sockaddr_storage *out)
{
    memset(out, 0, sizeof *out);
    if (address->family == MOON_FAMILY_IPV6) {
        struct sockaddr_in6 *at = (struct sockaddr_in6 *)out;
        at->sin6_family = AF_INET6;
        at->sin6_port = htons(address->port);
        memcpy(&at->sin6_addr, address->ip, 16);
        return sizeof *at;
    }
    struct sockaddr_in *at = (struct sockaddr_in *)out;
    at->sin_family = AF_INET;
    at->sin_port = htons(address->port);
    memcpy(&at->sin_addr, address->ip, 4);
    return sizeof *at;
}

void real_from_sockaddr(const struct sockaddr_storage *from, struct moon_address *out)
{
    *out = (struct moon_address){0};
    if (from->ss_family == AF_INET) {
        const struct sockaddr_in *at = (const struct sockaddr_in *)from;
        out->family = MOON_FAMILY_IPV4;
        out->port = ntohs(at->sin_port);
        memcpy(out->ip, &at->sin_addr, 4);
    } else if (from->ss_family == AF_INET6) {
        const struct sockaddr_in6 *at = (const struct sockaddr_in6 *)from;
        out->family = MOON_FAMILY_IPV6;
        out->port = ntohs(at->sin6_port);
        memcpy(out->ip, &at->sin6_addr, 16);
    }
}

// ---- listening

void real_set_tcp_options(int fd)
{
    static const int on = 1, idle_s = 60, interval_s = 15, count = 4, unacked_ms = 60000;
    // Unsent bytes that the kernel holds for a peer that does not take them: its own bound grows to megabytes, and a thousand such
    // peers are all the TCP memory of a machine. What is in flight does not count, so that no path is too long for it, and a
    // link moves no more than this in a turn anyway. Epoll tells of room below half of it.
    static const int unsent_len = 262144;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unacked_ms, sizeof unacked_ms);
    setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent_len, sizeof unsent_len);
}

// A bound socket, not listening yet; `is_shared` says SO_REUSEPORT. -errno or the descriptor.
static int bind_at(const struct moon_address *at, bool is_shared)
{
    static const int on = 1;
    struct sockaddr_storage address;
    socklen_t len = real_to_sockaddr(at, &address);
    int fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (is_shared)
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&address, len) == 0)
        return fd;
    int err = -errno;
    close(fd);
    return err;
}

// Another process that shares its port with SO_REUSEPORT would let us in; a bind without it tells. Listening too: an address
// that is only bound by a socket with SO_REUSEADDR is free to bind but not to listen on.
static int probe(const struct moon_address *at)
{
    if (at->port == 0)
        return 0;
    int fd = bind_at(at, false);
    if (fd < 0)
        return fd;
    int err = listen(fd, 1) < 0 ? -errno : 0;
    close(fd);
    return err;
}

static void socket_address(const struct moon_socket *socket, struct moon_address *out)
{
    struct sockaddr_storage at = {0};
    socklen_t len = sizeof at;
    *out = (struct moon_address){0};
    if (getsockname(((const struct real_socket *)socket)->fd, (struct sockaddr *)&at, &len) == 0)
        real_from_sockaddr(&at, out);
}

static void socket_free(struct moon_socket *socket)
{
    struct real_socket *real = real_socket(socket);
    close(real->fd);
    if (real->path)
        unlink(real->path);
    free(real->path);
    free(real);
}

// As it is, nothing is asked of the kernel: taking it back needs no right, but neither does leaving it out.
static int socket_set_transparent(struct moon_socket *socket, bool is_transparent)
{
    int fd = real_socket(socket)->fd, wanted = is_transparent, now = 0;
    struct sockaddr_storage at = {0};
    socklen_t len = sizeof at, now_len = sizeof now;
    getsockname(fd, (struct sockaddr *)&at, &len);
    bool is_v6 = at.ss_family == AF_INET6;
    if (!is_v6 && at.ss_family != AF_INET)
        return is_transparent ? -ENOTSUP : 0;
    int level = is_v6 ? IPPROTO_IPV6 : IPPROTO_IP, name = is_v6 ? IPV6_TRANSPARENT : IP_TRANSPARENT;
    if (getsockopt(fd, level, name, &now, &now_len) == 0 && !now == !wanted)
        return 0;
    return setsockopt(fd, level, name, &wanted, sizeof wanted) < 0 ? -errno : 0;
}

static int socket_set_mode(struct moon_socket *socket, unsigned mode)
{
    const char *path = real_socket(socket)->path;
    return !path ? -ENOTSUP : chmod(path, mode) < 0 ? -errno : 0;
}

static const struct moon_socket_ops socket_ops = {.address = socket_address,
                                                  .free = socket_free,
                                                  .set_transparent = socket_set_transparent,
                                                  .set_mode = socket_set_mode};

struct moon_socket *real_socket_new(int fd, const char *path)
{
    struct real_socket *socket = calloc(1, sizeof *socket);
    if (!socket)
        abort();
    socket->base.ops = &socket_ops;
    socket->fd = fd;
    socket->path = path ? strdup(path) : NULL;
    return &socket->base;
}

static int listen_all(struct moon_address at, size_t count, struct moon_socket **out)
{
    size_t done = 0;
    int err = 0;
    for (; done < count; done++) {
        int fd = bind_at(&at, true);
        if (fd < 0) {
            err = fd;
            break;
        }
        real_set_tcp_options(fd);
        out[done] = real_socket_new(fd, NULL);
        if (listen(fd, BACKLOG) < 0) {
            err = -errno;
            done++;
            break;
        }
        if (at.port == 0)
            moon_socket_address(out[0], &at);
    }
    for (size_t i = 0; err && i < done; i++) {
        moon_socket_free(out[i]);
        out[i] = NULL;
    }
    return err;
}

// One of the service manager's sockets, for every worker: they share its queue.
static int listen_inherited(int fd, size_t count, struct moon_socket **out)
{
    real_set_tcp_options(fd);
    if (listen(fd, BACKLOG) < 0)
        return -errno;
    for (size_t i = 0; i < count; i++) {
        int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        if (copy < 0) {
            int err = -errno;
            while (i > 0)
                moon_socket_free(out[--i]);
            return err;
        }
        out[i] = real_socket_new(copy, NULL);
    }
    return 0;
}

static int world_listen(struct moon_world *world, const struct moon_address *at, size_t count,
                        struct moon_socket **out)
{
    int inherited = real_inherited((struct real_world *)world, at);
    if (inherited >= 0)
        return listen_inherited(inherited, count, out);
    int err = probe(at);
    if (err)
        return err;
    for (int i = 0; i < PORT_TRIES; i++) {
        err = listen_all(*at, count, out);
        if (!err || at->port)
            return err;
    }
    return err;
}

static int world_sleep(struct moon_world *world, uint64_t ms)
{
    (void)world;
    struct timespec rest = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};
    while (nanosleep(&rest, &rest) < 0)
        if (errno != EINTR)
            return -errno;
    return 0;
}

static void world_yield(void)
{
    sched_yield(); // never fails on Linux
}

static void world_hold_signals(void)
{
    sigset_t held;
    sigemptyset(&held);
    sigaddset(&held, SIGHUP);
    sigaddset(&held, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &held, NULL);
}

// ---- files and the terminal

// All that is there, in malloc'd memory with a NUL behind it, whatever the length was before: pipes and what the kernel makes up
// say 0, and a file may grow while it is read.
static int read_all(int fd, size_t cap, size_t max_len, char **out, size_t *out_len)
{
    char *text = malloc(cap + 1);
    size_t len = 0;
    for (;;) {
        ssize_t n = text ? read(fd, text + len, cap - len) : -1;
        int err = !text                                ? -ENOMEM
                  : n < 0                              ? -errno
                  : n > 0 && len + (size_t)n > max_len ? -EFBIG
                                                       : 0;
        if (err == -EINTR)
            continue;
        if (err) {
            free(text);
            return err;
        }
        if (n == 0)
            break;
        len += (size_t)n;
        if (len < cap)
            continue;
        cap = cap < READ_MIN_LEN ? READ_MIN_LEN : cap * 2;
        char *larger = realloc(text, cap + 1);
        if (!larger)
            free(text);
        text = larger;
    }
    text[len] = '\0';
    *out = text;
    *out_len = len;
    return 0;
}

static int world_read_file(struct moon_world *world, const char *path, size_t max_len, char **out,
                           size_t *out_len)
{
    (void)world;
    struct stat at;
    int fd = open(path, O_RDONLY | O_CLOEXEC), err = 0;
    if (fd < 0)
        return -errno;
    if (fstat(fd, &at) < 0 || S_ISDIR(at.st_mode))
        err = S_ISDIR(at.st_mode) ? -EISDIR : -errno;
    else if ((size_t)at.st_size > max_len)
        err = -EFBIG;
    if (!err)
        err = read_all(fd, (size_t)at.st_size + 1, max_len, out, out_len);
    close(fd);
    return err;
}

const char *moon_world_library_version(void)
{
    return uv_version_string();
}

static uint64_t world_wall_ms(const struct moon_world *world)
{
    (void)world;
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    return (uint64_t)at.tv_sec * 1000u + (uint64_t)at.tv_nsec / 1000000u;
}

static void world_print(struct moon_world *world, const char *text, size_t len)
{
    (void)world;
    ssize_t n = write(STDERR_FILENO, text, len);
    (void)n;
}

// ---- the machine

static bool read_number(const char *path, double *out)
{
    char text[64] = "";
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    bool is_there = fgets(text, sizeof text, file) != NULL;
    fclose(file);
    char *end;
    *out = strtod(text, &end);
    return is_there && end != text;
}

static size_t world_memory_len(const struct moon_world *world)
{
    (void)world;
    double bound;
    size_t len = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    if (read_number("/sys/fs/cgroup/memory.max", &bound) && bound > 0 && bound < (double)len)
        len = (size_t)bound;
    return len;
}

// CPUs that the cgroup's quota is worth (v2: "max 100000" or "200000 100000"); 0: unbounded.
static double quota_cpus(void)
{
    double quota, period = 0;
    char text[64] = "";
    FILE *file = fopen("/sys/fs/cgroup/cpu.max", "re");
    if (file) {
        bool is_there = fgets(text, sizeof text, file) != NULL;
        fclose(file);
        char *rest, *end;
        quota = strtod(text, &rest); // "max": unbounded
        period = strtod(rest, &end);
        return is_there && rest != text && end != rest && period > 0 ? quota / period : 0;
    }
    if (read_number("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", &quota) && quota > 0 &&
        read_number("/sys/fs/cgroup/cpu/cpu.cfs_period_us", &period) && period > 0)
        return quota / period;
    return 0;
}

static unsigned world_cpu_count(const struct moon_world *world)
{
    (void)world;
    cpu_set_t set;
    unsigned count = sched_getaffinity(0, sizeof set, &set) == 0 ? (unsigned)CPU_COUNT(&set) : 1;
    double quota = quota_cpus();
    if (quota > 0 && quota < count)
        count = quota < 1 ? 1 : (unsigned)(quota + 0.5);
    return count ? count : 1;
}

static void world_trim_memory(struct moon_world *world)
{
    (void)world;
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}

// ---- threads

static void *thread_main(void *arg)
{
    struct moon_thread *thread = arg;
    thread->fn(thread->arg);
    return NULL;
}

static int world_thread_start(struct moon_world *world, void (*fn)(void *arg), void *arg,
                              struct moon_thread **out)
{
    (void)world;
    struct moon_thread *thread = calloc(1, sizeof *thread);
    sigset_t all, before;
    pthread_attr_t attributes;
    if (!thread)
        abort();
    thread->fn = fn;
    thread->arg = arg;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); // signals are the control thread's
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_LEN);
    int err = pthread_create(&thread->id, &attributes, thread_main, thread);
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (err) {
        free(thread);
        return -err;
    }
    *out = thread;
    return 0;
}

void moon_thread_join(struct moon_thread *thread)
{
    if (!thread)
        return;
    pthread_join(thread->id, NULL);
    free(thread);
}

static const struct moon_world_ops world_ops = {
    .free = world_free,
    .loop_new = real_loop_new,
    .listen = world_listen,
    .bind = real_bind,
    .listen_path = real_listen_path,
    .listen_local = real_listen_local,
    .ask_local = real_ask_local,
    .notify = real_notify,
    .sleep = world_sleep,
    .yield = world_yield,
    .hold_signals = world_hold_signals,
    .write_file = real_write_file,
    .make_directory = real_make_directory,
    .file_open = real_file_open,
    .resident_len = real_resident_len,
    .mailbox_new = real_mailbox_new,
    .memory_len = world_memory_len,
    .trim_memory = world_trim_memory,
    .wall_ms = world_wall_ms,
    .print = world_print,
    .cpu_count = world_cpu_count,
    .read_file = world_read_file,
    .thread_start = world_thread_start,
};

// The main thread's grows as it is used, up to the limit.
static void raise_stack(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_STACK, &limit) < 0 || limit.rlim_cur >= STACK_LEN)
        return;
    limit.rlim_cur = limit.rlim_max < STACK_LEN ? limit.rlim_max : STACK_LEN;
    setrlimit(RLIMIT_STACK, &limit);
}

struct moon_world *moon_world_new_real(void)
{
    struct real_world *world = calloc(1, sizeof *world);
    struct rlimit limit;
    if (!world)
        abort();
    signal(SIGPIPE, SIG_IGN);
    raise_stack();
    real_inherit(world);
    world->base.ops = &world_ops;
    world->base.descriptor_limit = 1024;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
        getrlimit(RLIMIT_NOFILE, &limit);
        world->base.descriptor_limit = limit.rlim_cur;
    }
    return &world->base;
}
