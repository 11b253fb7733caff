// What a world, its bound sockets and its mailboxes are made of, real or simulated: a table of operations each, first in the
// body of either kind. world.c dispatches to them; none of it is on the way of a request.
#pragma once

#include "io/file.h"
#include "io/loop.h"
#include "io/mailbox.h"
#include "io/world.h"

struct moon_world_ops {
    void (*free)(struct moon_world *world);
    struct moon_loop *(*loop_new)(struct moon_world *world);
    int (*listen)(struct moon_world *world, const struct moon_address *at, size_t count,
                  struct moon_socket **out);
    // These may be NULL: the world has no such sockets.
    int (*bind)(struct moon_world *world, const struct moon_address *at, size_t count,
                struct moon_socket **out);
    int (*listen_path)(struct moon_world *world, const char *path, unsigned mode, size_t count,
                       struct moon_socket **out);
    int (*listen_local)(struct moon_world *world, const char *path, struct moon_socket **out);
    void (*notify)(struct moon_world *world, const char *state);
    int (*ask_local)(struct moon_world *world, const char *path, struct moon_slice question,
                     int timeout_ms, char **out, size_t *out_len);
    int (*sleep)(struct moon_world *world, uint64_t ms);
    int (*write_file)(struct moon_world *world, const char *path, struct moon_slice text);
    int (*make_directory)(struct moon_world *world, const char *path);
    // NULL in a world that has no such thing.
    void (*yield)(void);
    void (*hold_signals)(void);
    void (*trim_memory)(struct moon_world *world);
    // The world has no files to append to; its memory is not known.
    int (*file_open)(struct moon_world *world, const char *path, struct moon_file **out);
    size_t (*resident_len)(const struct moon_world *world);
    struct moon_mailbox *(*mailbox_new)(struct moon_loop *loop,
                                        void (*on_message)(void *owner,
                                                           struct moon_message *message),
                                        void *owner);
    size_t (*memory_len)(const struct moon_world *world);
    uint64_t (*wall_ms)(const struct moon_world *world);
    void (*print)(struct moon_world *world, const char *text, size_t len);
    unsigned (*cpu_count)(const struct moon_world *world);
    int (*read_file)(struct moon_world *world, const char *path, size_t max_len, char **out,
                     size_t *out_len);
    int (*thread_start)(struct moon_world *world, void (*fn)(void *arg), void *arg,
                        struct moon_thread **out);
};

struct moon_world {
    const struct moon_world_ops *ops;
    size_t descriptor_limit;
};

struct moon_socket_ops {
    void (*address)(const struct moon_socket *socket, struct moon_address *out);
    void (*free)(struct moon_socket *socket);
    int (*set_transparent)(struct moon_socket *socket, bool is_transparent); // NULL: it can't be
    int (*set_mode)(struct moon_socket *socket, unsigned mode);              // NULL: it has no file
};

struct moon_socket {
    const struct moon_socket_ops *ops;
    moon_ready_fn *on_ready;
    void *owner;
};

struct moon_mailbox_ops {
    void (*free)(struct moon_mailbox *mailbox);
    void (*post)(struct moon_mailbox *mailbox, struct moon_message *message);
};

struct moon_mailbox {
    const struct moon_mailbox_ops *ops;
    void (*on_message)(void *owner, struct moon_message *message);
    void *owner;
};
