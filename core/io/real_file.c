// Appending, and replacing a whole file, in the real world. What is no regular file (a pipe, a terminal) is asked with poll first and written in pieces
// that fit a pipe, because its O_NONBLOCK may be shared with other processes and is left alone.
#include "io/real_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { READER_WAIT_MS = 100 };

struct moon_file {
    int fd;
    bool is_regular;
};

int real_file_open(struct moon_world *world, const char *path, struct moon_file **out)
{
    (void)world;
    struct stat at;
    bool is_stdout = strcmp(path, "stdout") == 0;
    // O_NONBLOCK: or opening a FIFO would wait for its reader
    int fd = is_stdout ? fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3)
                       : open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0640);
    if (fd < 0)
        return -errno;
    struct moon_file *file = calloc(1, sizeof *file);
    if (!file)
        abort();
    file->fd = fd;
    file->is_regular = fstat(fd, &at) == 0 && S_ISREG(at.st_mode);
    *out = file;
    return 0;
}

void moon_file_close(struct moon_file *file)
{
    if (!file)
        return;
    close(file->fd);
    free(file);
}

static ssize_t append_piece(struct moon_file *file, struct moon_slice part)
{
    struct pollfd ready = {.fd = file->fd, .events = POLLOUT};
    if (poll(&ready, 1, READER_WAIT_MS) <= 0)
        return 0;
    ssize_t n = write(file->fd, part.ptr, part.len < PIPE_BUF ? part.len : PIPE_BUF);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    return n;
}

ssize_t moon_file_append(struct moon_file *file, const struct moon_slice parts[2])
{
    if (!file->is_regular)
        return append_piece(file, parts[0].len ? parts[0] : parts[1]);
    struct iovec iov[2] = {{(void *)parts[0].ptr, parts[0].len},
                           {(void *)parts[1].ptr, parts[1].len}};
    for (;;) {
        ssize_t n = writev(file->fd, iov, 2);
        if (n >= 0)
            return n;
        if (errno != EINTR)
            return -errno;
    }
}

bool moon_file_take_back(struct moon_file *file, size_t len)
{
    struct stat at;
    if (!file->is_regular)
        return false;
    off_t end = lseek(file->fd, 0, SEEK_CUR); // O_APPEND: behind what we wrote last
    if (end < (off_t)len || fstat(file->fd, &at) < 0 || at.st_size != end)
        return false;
    return ftruncate(file->fd, end - (off_t)len) == 0;
}

size_t real_resident_len(const struct moon_world *world)
{
    (void)world;
    char text[128];
    char *resident;
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0)
        return 0;
    text[n] = '\0';
    strtoul(text, &resident, 10); // all pages, then those that are in memory
    return strtoul(resident, NULL, 10) * (size_t)sysconf(_SC_PAGESIZE);
}

// ---- a whole file

static int write_all(int fd, struct moon_slice text)
{
    while (text.len) {
        ssize_t n = write(fd, text.ptr, text.len);
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n > 0)
            text = moon_slice_skip(text, (size_t)n);
    }
    return fsync(fd) < 0 ? -errno : 0;
}

// The new name is on the disk, too. Directories that can't be synced keep it in their own time.
static void sync_directory_of(char *path)
{
    char *slash = strrchr(path, '/');
    if (slash)
        slash[slash == path] = '\0';
    int fd = open(slash ? path : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    (void)fsync(fd);
    close(fd);
}

int real_write_file(struct moon_world *world, const char *path, struct moon_slice text)
{
    (void)world;
    char *temporary;
    if (asprintf(&temporary, "%s.XXXXXX", path) < 0)
        abort();
    int fd = mkostemp(temporary, O_CLOEXEC), err = fd < 0 ? -errno : write_all(fd, text);
    if (fd >= 0 && close(fd) < 0 && !err)
        err = -errno;
    if (!err && rename(temporary, path) < 0)
        err = -errno;
    if (err && fd >= 0)
        unlink(temporary);
    if (!err)
        sync_directory_of(temporary);
    free(temporary);
    return err;
}

int real_make_directory(struct moon_world *world, const char *path)
{
    (void)world;
    struct stat at;
    char *copy = strdup(path);
    if (!copy)
        abort();
    for (char *slash = strchr(copy + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        (void)mkdir(copy, 0700); // what is wrong shows at the last
        *slash = '/';
    }
    free(copy);
    if (mkdir(path, 0700) == 0)
        return 0;
    int err = -errno;
    return err == -EEXIST && stat(path, &at) == 0 && S_ISDIR(at.st_mode) ? 0 : err;
}
