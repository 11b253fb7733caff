// The way from the calls of world.h and mailbox.h to the world that is meant.
#include "io/datagram.h"
#include "io/world_priv.h"

#include <errno.h>

void moon_world_free(struct moon_world *world)
{
    if (world)
        world->ops->free(world);
}

struct moon_loop *moon_loop_new(struct moon_world *world)
{
    return world->ops->loop_new(world);
}

int moon_world_listen(struct moon_world *world, const struct moon_address *at, size_t count,
                      struct moon_socket **out)
{
    return world->ops->listen(world, at, count, out);
}

int moon_world_bind(struct moon_world *world, const struct moon_address *at, size_t count,
                    struct moon_socket **out)
{
    return world->ops->bind ? world->ops->bind(world, at, count, out) : -ENOTSUP;
}

int moon_socket_set_transparent(struct moon_socket *socket, bool is_transparent)
{
    if (!socket->ops->set_transparent)
        return is_transparent ? -ENOTSUP : 0;
    return socket->ops->set_transparent(socket, is_transparent);
}

int moon_socket_set_mode(struct moon_socket *socket, unsigned mode)
{
    return socket->ops->set_mode ? socket->ops->set_mode(socket, mode) : -ENOTSUP;
}

int moon_loop_datagram_open(struct moon_loop *loop, const struct moon_address *to,
                            struct moon_socket **out)
{
    return loop->ops->datagram_open ? loop->ops->datagram_open(loop, to, out) : -ENOTSUP;
}

void moon_loop_datagram_close(struct moon_loop *loop, struct moon_socket *socket)
{
    if (socket)
        loop->ops->datagram_close(loop, socket);
}

int moon_world_listen_path(struct moon_world *world, const char *path, unsigned mode, size_t count,
                           struct moon_socket **out)
{
    return world->ops->listen_path ? world->ops->listen_path(world, path, mode, count, out)
                                   : -ENOTSUP;
}

int moon_world_listen_local(struct moon_world *world, const char *path, struct moon_socket **out)
{
    return world->ops->listen_local ? world->ops->listen_local(world, path, out) : -ENOTSUP;
}

int moon_world_ask_local(struct moon_world *world, const char *path, struct moon_slice question,
                         int timeout_ms, char **out, size_t *out_len)
{
    if (!world->ops->ask_local)
        return -ENOTSUP;
    return world->ops->ask_local(world, path, question, timeout_ms, out, out_len);
}

int moon_world_sleep(struct moon_world *world, uint64_t ms)
{
    return world->ops->sleep ? world->ops->sleep(world, ms) : -ENOTSUP;
}

void moon_world_yield(struct moon_world *world)
{
    if (world->ops->yield)
        world->ops->yield();
}

void moon_world_hold_signals(struct moon_world *world)
{
    if (world->ops->hold_signals)
        world->ops->hold_signals();
}

void moon_world_notify(struct moon_world *world, const char *state)
{
    if (world->ops->notify)
        world->ops->notify(world, state);
}

int moon_file_open(struct moon_world *world, const char *path, struct moon_file **out)
{
    return world->ops->file_open ? world->ops->file_open(world, path, out) : -ENOTSUP;
}

size_t moon_process_resident_len(const struct moon_world *world)
{
    return world->ops->resident_len ? world->ops->resident_len(world) : 0;
}

void moon_socket_address(const struct moon_socket *socket, struct moon_address *out)
{
    socket->ops->address(socket, out);
}

void moon_socket_free(struct moon_socket *socket)
{
    if (socket)
        socket->ops->free(socket);
}

size_t moon_world_descriptor_limit(const struct moon_world *world)
{
    return world->descriptor_limit;
}

size_t moon_world_memory_len(const struct moon_world *world)
{
    return world->ops->memory_len(world);
}

uint64_t moon_world_wall_ms(const struct moon_world *world)
{
    return world->ops->wall_ms(world);
}

void moon_world_print(struct moon_world *world, const char *text, size_t len)
{
    world->ops->print(world, text, len);
}

void moon_world_trim_memory(struct moon_world *world)
{
    if (world->ops->trim_memory)
        world->ops->trim_memory(world);
}

unsigned moon_world_cpu_count(const struct moon_world *world)
{
    return world->ops->cpu_count(world);
}

int moon_world_read_file(struct moon_world *world, const char *path, size_t max_len, char **out,
                         size_t *out_len)
{
    return world->ops->read_file(world, path, max_len, out, out_len);
}

int moon_world_write_file(struct moon_world *world, const char *path, struct moon_slice text)
{
    return world->ops->write_file ? world->ops->write_file(world, path, text) : -ENOTSUP;
}

int moon_world_make_directory(struct moon_world *world, const char *path)
{
    return world->ops->make_directory ? world->ops->make_directory(world, path) : -ENOTSUP;
}

int moon_thread_start(struct moon_world *world, void (*fn)(void *arg), void *arg,
                      struct moon_thread **out)
{
    return world->ops->thread_start(world, fn, arg, out);
}

struct moon_mailbox *moon_mailbox_new(struct moon_loop *loop,
                                      void (*on_message)(void *owner, struct moon_message *message),
                                      void *owner)
{
    return loop->world->ops->mailbox_new(loop, on_message, owner);
}

void moon_mailbox_free(struct moon_mailbox *mailbox)
{
    if (mailbox)
        mailbox->ops->free(mailbox);
}

void moon_mailbox_post(struct moon_mailbox *mailbox, struct moon_message *message)
{
    mailbox->ops->post(mailbox, message);
}
