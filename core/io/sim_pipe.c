// Pipes of the simulated world: bytes in memory, bounded like the kernel's, at most 64 a loop.
#include "base/err.h"
#include "io/sim_priv.h"

#include <errno.h>
#include <stdlib.h>

// Behind the opaque struct moon_pipe.
struct sim_pipe {
    size_t head, len;
    char bytes[SIM_PIPE_LEN];
};

int sim_pipe_open(struct moon_loop *base, struct moon_pipe **out)
{
    struct sim_loop *loop = sim_loop(base);
    if (loop->pipe_count >= SIM_PIPE_COUNT || !sim_descriptor_take(sim_world_of(loop), loop, 2))
        return -EMFILE;
    struct sim_pipe *pipe = malloc(sizeof *pipe);
    if (!pipe)
        abort();
    pipe->head = pipe->len = 0;
    loop->pipe_count++;
    *out = (struct moon_pipe *)pipe;
    return 0;
}

void sim_pipe_close(struct moon_loop *base, struct moon_pipe *pipe)
{
    struct sim_loop *loop = sim_loop(base);
    loop->pipe_count--;
    sim_descriptor_give(sim_world_of(loop), loop, 2);
    free(pipe);
}

ssize_t sim_pipe_in(struct moon_stream *s, struct moon_pipe *opaque, size_t max_len)
{
    struct sim_pipe *pipe = (struct sim_pipe *)opaque;
    size_t tail = pipe->head + pipe->len, room = SIM_PIPE_LEN - tail;
    if (room == 0)
        return 0;
    ssize_t n = sim_stream_take((struct sim_stream *)s, pipe->bytes + tail,
                                max_len < room ? max_len : room);
    if (n > 0)
        pipe->len += (size_t)n;
    return n;
}

ssize_t sim_pipe_out(struct moon_stream *s, struct moon_pipe *opaque, size_t max_len)
{
    struct sim_pipe *pipe = (struct sim_pipe *)opaque;
    struct iovec iov = {pipe->bytes + pipe->head, max_len < pipe->len ? max_len : pipe->len};
    ssize_t n = iov.iov_len ? sim_stream_put((struct sim_stream *)s, &iov, 1) : 0;
    if (n > 0) {
        pipe->head += (size_t)n;
        pipe->len -= (size_t)n;
    }
    if (pipe->len == 0)
        pipe->head = 0;
    return n;
}
