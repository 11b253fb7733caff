// The real world's insides, shared by its files. A loop owns an edge-triggered epoll set for sockets, in which each descriptor
// is registered once and never changed, and a libuv loop for signals and wake-ups, nested as one descriptor of that set.
#pragma once

#include "base/list.h"
#include "io/world_priv.h"

#include <pthread.h>
#include <stdatomic.h>
#include <uv.h>

enum { REAL_EVENT_COUNT = 256, REAL_PIPE_COUNT = 64, REAL_INHERITED_COUNT = 64 };

enum real_kind { REAL_STREAM, REAL_ACCEPTOR, REAL_UV };

// What an epoll event points to: the first member of everything that is registered.
struct real_source {
    uint8_t kind; // enum real_kind
};

struct real_socket {
    struct moon_socket base; // first
    struct real_source source;
    int fd;
    char *path;            // of a unix socket: removed with it; NULL otherwise
    struct moon_list node; // in loop->dead_sockets
    bool is_connected;     // of datagrams: to one peer
    bool has_locals;       // of datagrams: they tell which of our addresses they came to
};

struct real_world {
    struct moon_world base;              // first
    int inherited[REAL_INHERITED_COUNT]; // bound sockets of the service manager
    unsigned inherited_count;
};

struct real_loop {
    struct moon_loop base; // first
    int epoll_fd;
    uv_loop_t uv;
    uv_async_t wake;
    struct real_source uv_source;
    struct moon_list again; // streams that asked for another turn
    struct moon_list
        graveyard; // closed in this turn; freed when no event can point to them any more
    struct moon_list dead_sockets; // the same of datagram sockets
    struct moon_list mailboxes;
    struct moon_list signals;
    struct moon_pipe *pipes; // free ones
    unsigned pipe_count;     // open, free ones included
    atomic_bool is_stopping;
};

static inline struct real_loop *real_loop(struct moon_loop *loop)
{
    return (struct real_loop *)loop;
}

static inline struct real_socket *real_socket(struct moon_socket *socket)
{
    return (struct real_socket *)socket;
}

// real_world.c; `path` may be NULL
struct moon_socket *real_socket_new(int fd, const char *path);

// real_service.c
void real_inherit(struct real_world *world);
// The descriptor that the service manager has bound to an address, or -ENOENT. It stays the world's: duplicate it.
int real_inherited(const struct real_world *world, const struct moon_address *at);
void real_notify(struct moon_world *world, const char *state);

// real_local.c
int real_listen_path(struct moon_world *world, const char *path, unsigned mode, size_t count,
                     struct moon_socket **out);
int real_listen_local(struct moon_world *world, const char *path, struct moon_socket **out);
int real_ask_local(struct moon_world *world, const char *path, struct moon_slice question,
                   int timeout_ms, char **out, size_t *out_len);

// real_file.c
int real_write_file(struct moon_world *world, const char *path, struct moon_slice text);
int real_make_directory(struct moon_world *world, const char *path);
int real_file_open(struct moon_world *world, const char *path, struct moon_file **out);
size_t real_resident_len(const struct moon_world *world);

// real_loop.c
struct moon_loop *real_loop_new(struct moon_world *world);
int real_watch(struct real_loop *loop, int fd, struct real_source *source, uint32_t events);

// real_stream.c
int real_connect(struct moon_loop *loop, const struct moon_address *to, struct moon_stream **out);
int real_accept(struct moon_loop *loop, struct moon_socket *socket, struct moon_stream **out);
void real_stream_event(struct real_source *source, uint32_t events);
void real_streams_again(struct real_loop *loop);
void real_streams_bury(struct real_loop *loop);

// real_pipe.c
int real_pipe_open(struct moon_loop *loop, struct moon_pipe **out);
void real_pipe_close(struct moon_loop *loop, struct moon_pipe *pipe);
void real_pipes_free(struct real_loop *loop);
ssize_t real_pipe_splice(int from, int to, struct moon_pipe *pipe, bool is_in, size_t max_len);

// real_resolver.c
struct moon_resolver *real_resolver_new(struct moon_loop *loop,
                                        const struct moon_resolver_options *options);

// real_mailbox.c
struct moon_mailbox *real_mailbox_new(struct moon_loop *loop,
                                      void (*on_message)(void *owner, struct moon_message *message),
                                      void *owner);
void real_mailboxes_deliver(struct real_loop *loop);

// real_datagram.c
int real_bind(struct moon_world *world, const struct moon_address *at, size_t count,
              struct moon_socket **out);
int real_datagram_open(struct moon_loop *loop, const struct moon_address *to,
                       struct moon_socket **out);
void real_datagram_close(struct moon_loop *loop, struct moon_socket *socket);
void real_sockets_bury(struct real_loop *loop);

// real_listen.c: options that accepted sockets inherit from their listener.
void real_set_tcp_options(int fd);

// real_address.c
#include <sys/socket.h>
socklen_t real_to_sockaddr(const struct moon_address *address, struct sockaddr_storage *out);
void real_from_sockaddr(const struct sockaddr_storage *from, struct moon_address *out);
