// Unix sockets of the real world: the control surface of a gateway, and the command line that asks it.
#include "base/err.h"
#include "io/real_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 64, TRAFFIC_BACKLOG = 4096, ANSWER_MAX_LEN = 256 << 20, ANSWER_STEP_LEN = 65536 };

static int address_of(const char *path, struct sockaddr_un *out)
{
    *out = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof out->sun_path)
        return -ENAMETOOLONG;
    memcpy(out->sun_path, path, strlen(path));
    return 0;
}

static int connect_to(const struct sockaddr_un *at)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)at, sizeof *at) == 0)
        return fd;
    int err = -errno;
    close(fd);
    return err;
}

// Removes what a gateway that is gone has left. -EADDRINUSE when one answers; other files are never touched.
static int clear_stale(const char *path, const struct sockaddr_un *at)
{
    struct stat file;
    if (lstat(path, &file) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (!S_ISSOCK(file.st_mode))
        return -EEXIST;
    int fd = connect_to(at);
    if (fd >= 0) {
        close(fd);
        return -EADDRINUSE;
    }
    if (fd != -ECONNREFUSED)
        return fd;
    return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
}

// The mode is set before anybody can connect: bind creates the file, listen comes after. The descriptor, or -errno.
static int listen_at(const char *path, unsigned mode, int backlog)
{
    struct sockaddr_un at;
    int err = address_of(path, &at);
    if (!err)
        err = clear_stale(path, &at);
    if (err)
        return err;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (fchmod(fd, mode) == 0 && bind(fd, (struct sockaddr *)&at, sizeof at) == 0 &&
        chmod(path, mode) == 0 && listen(fd, backlog) == 0)
        return fd;
    err = -errno;
    close(fd);
    return err;
}

int real_listen_local(struct moon_world *world, const char *path, struct moon_socket **out)
{
    (void)world;
    int fd = listen_at(path, 0600, BACKLOG);
    if (fd < 0)
        return fd;
    *out = real_socket_new(fd, path);
    return 0;
}

int real_listen_path(struct moon_world *world, const char *path, unsigned mode, size_t count,
                     struct moon_socket **out)
{
    (void)world;
    int fd = listen_at(path, mode, TRAFFIC_BACKLOG);
    if (fd < 0)
        return fd;
    out[0] = real_socket_new(fd, path);
    for (size_t i = 1; i < count; i++) {
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

static int send_all(int fd, struct moon_slice bytes)
{
    while (bytes.len) {
        ssize_t n = send(fd, bytes.ptr, bytes.len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        bytes = moon_slice_skip(bytes, (size_t)n);
    }
    return 0;
}

static int read_all(int fd, int timeout_ms, char **out, size_t *out_len)
{
    char *text = NULL;
    size_t len = 0, cap = 0;
    int err = 0;
    while (!err) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        if (len + 1 >= cap) {
            char *larger = len < ANSWER_MAX_LEN ? realloc(text, cap + ANSWER_STEP_LEN) : NULL;
            err = larger ? 0 : -EFBIG;
            text = larger ? larger : text;
            cap += larger ? ANSWER_STEP_LEN : 0;
            continue;
        }
        int count = poll(&ready, 1, timeout_ms);
        if (count < 0 && errno == EINTR)
            continue;
        ssize_t n = count > 0 ? recv(fd, text + len, cap - len - 1, 0) : -1;
        if (n == 0)
            break;
        if (n < 0)
            err = count == 0 ? -ETIMEDOUT : -errno;
        else
            len += (size_t)n;
    }
    if (err) {
        free(text);
        return err;
    }
    text[len] = '\0';
    *out = text;
    *out_len = len;
    return 0;
}

int real_ask_local(struct moon_world *world, const char *path, struct moon_slice question,
                   int timeout_ms, char **out, size_t *out_len)
{
    (void)world;
    struct sockaddr_un at;
    int err = address_of(path, &at);
    int fd = err ? err : connect_to(&at);
    if (fd < 0)
        return fd;
    err = send_all(fd, question);
    if (!err)
        err = read_all(fd, timeout_ms, out, out_len);
    close(fd);
    return err;
}
