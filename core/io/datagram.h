// Datagrams of the world. A bound socket (moon_world_bind) and one that is connected to a peer are both a struct moon_socket, told
// when something can be received by moon_loop_accept_start. Sending never waits: what does not fit the kernel's queue is lost, as
// datagrams may be. Several are moved by one system call.
#pragma once

#include "base/address.h"

#include <stddef.h>

struct moon_loop;
struct moon_socket;
struct moon_world;

enum { MOON_DATAGRAM_LEN = 65536, MOON_DATAGRAM_BATCH_COUNT = 16 };

struct moon_datagram {
    char *ptr; // has MOON_DATAGRAM_LEN bytes where it is received into
    size_t len;
    struct moon_address peer; // who sent it, or is sent it; not looked at on a connected socket
    // our own address that it came to, or is sent from; MOON_FAMILY_NONE: that of the socket
    struct moon_address local;
};

// Binds `count` sockets to one address, as moon_world_listen does for streams. -ENOTSUP where the world has no datagrams.
int moon_world_bind(struct moon_world *world, const struct moon_address *at, size_t count,
                    struct moon_socket **out);
// A socket that sends to that peer and receives from it alone. Close it with moon_loop_datagram_close.
int moon_loop_datagram_open(struct moon_loop *loop, const struct moon_address *to,
                            struct moon_socket **out);
// Safe from inside any on_ready, which is not called again.
void moon_loop_datagram_close(struct moon_loop *loop, struct moon_socket *socket);
// At most MOON_DATAGRAM_BATCH_COUNT. How many came; 0 would block; -errno (of a connected socket: that its peer is not there).
int moon_datagrams_receive(struct moon_socket *socket, struct moon_datagram *out, int count);
// How many the kernel took; -errno when that was none.
int moon_datagrams_send(struct moon_socket *socket, const struct moon_datagram *list, int count);
