// Pipes for splice(2): 256 KiB each where the kernel lets us, at most 64 a loop, kept in a free list while empty.
#include "base/err.h"
#include "io/real_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

enum { PIPE_CAPACITY_LEN = 262144 };

struct moon_pipe {
    struct moon_pipe *next;
    int read_fd, write_fd;
    size_t len; // bytes inside
};

int real_pipe_open(struct moon_loop *base, struct moon_pipe **out)
{
    struct real_loop *loop = real_loop(base);
    int fds[2];
    if (loop->pipes) {
        *out = loop->pipes;
        loop->pipes = loop->pipes->next;
        return 0;
    }
    if (loop->pipe_count >= REAL_PIPE_COUNT || pipe2(fds, O_NONBLOCK | O_CLOEXEC) < 0)
        return -EMFILE;
    fcntl(fds[1], F_SETPIPE_SZ,
          PIPE_CAPACITY_LEN); // refused over the user's limit: then it stays 64 KiB
    struct moon_pipe *pipe = calloc(1, sizeof *pipe);
    if (!pipe)
        abort();
    pipe->read_fd = fds[0];
    pipe->write_fd = fds[1];
    loop->pipe_count++;
    *out = pipe;
    return 0;
}

static void pipe_free(struct real_loop *loop, struct moon_pipe *pipe)
{
    close(pipe->read_fd);
    close(pipe->write_fd);
    loop->pipe_count--;
    free(pipe);
}

void real_pipe_close(struct moon_loop *base, struct moon_pipe *pipe)
{
    struct real_loop *loop = real_loop(base);
    if (pipe->len) {
        pipe_free(loop, pipe);
        return;
    }
    pipe->next = loop->pipes;
    loop->pipes = pipe;
}

void real_pipes_free(struct real_loop *loop)
{
    while (loop->pipes) {
        struct moon_pipe *pipe = loop->pipes;
        loop->pipes = pipe->next;
        pipe_free(loop, pipe);
    }
}

// Results as a read, or a write, of the socket. MSG_MORE is left to the caller's framing: the last part must not linger.
ssize_t real_pipe_splice(int from, int to, struct moon_pipe *pipe, bool is_in, size_t max_len)
{
    ssize_t n;
    do
        n = is_in
                ? splice(from, NULL, pipe->write_fd, NULL, max_len,
                         SPLICE_F_MOVE | SPLICE_F_NONBLOCK)
                : splice(pipe->read_fd, NULL, to, NULL, max_len, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == EAGAIN ? 0 : -errno;
    if (n == 0)
        return is_in ? MOON_EOF : 0;
    pipe->len = is_in ? pipe->len + (size_t)n : pipe->len - (size_t)n;
    return n;
}
