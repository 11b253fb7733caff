// Datagrams of the real world: recvmmsg and sendmmsg on the descriptor itself.
#include "io/datagram.h"
#include "io/real_priv.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CONTROL_LEN = 64, PORT_TRIES = 16 };

// The room of one batch for the kernel.
struct batch {
    struct mmsghdr headers[MOON_DATAGRAM_BATCH_COUNT];
    struct iovec iov[MOON_DATAGRAM_BATCH_COUNT];
    struct sockaddr_storage names[MOON_DATAGRAM_BATCH_COUNT];
    _Alignas(struct cmsghdr) char control[MOON_DATAGRAM_BATCH_COUNT][CONTROL_LEN];
};

// ---- our own address of a datagram, where the socket is bound to all of them

static void read_local(struct msghdr *header, struct moon_address *local)
{
    *local = (struct moon_address){0};
    for (struct cmsghdr *at = CMSG_FIRSTHDR(header); at; at = CMSG_NXTHDR(header, at)) {
        if (at->cmsg_level == IPPROTO_IP && at->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo info;
            memcpy(&info, CMSG_DATA(at), sizeof info);
            local->family = MOON_FAMILY_IPV4;
            memcpy(local->ip, &info.ipi_addr, 4);
        } else if (at->cmsg_level == IPPROTO_IPV6 && at->cmsg_type == IPV6_PKTINFO) {
            struct in6_pktinfo info;
            memcpy(&info, CMSG_DATA(at), sizeof info);
            local->family = MOON_FAMILY_IPV6;
            memcpy(local->ip, &info.ipi6_addr, 16);
        }
    }
}

static void *put_control(struct msghdr *header, char *control, int level, int type, size_t len)
{
    header->msg_control = control;
    header->msg_controllen = CMSG_SPACE(len);
    struct cmsghdr *at = CMSG_FIRSTHDR(header);
    at->cmsg_level = level;
    at->cmsg_type = type;
    at->cmsg_len = CMSG_LEN(len);
    return CMSG_DATA(at);
}

static void write_local(struct msghdr *header, char *control, const struct moon_address *local)
{
    struct in_pktinfo info4 = {0};
    struct in6_pktinfo info6 = {0};
    if (local->family == MOON_FAMILY_IPV4) {
        memcpy(&info4.ipi_spec_dst, local->ip, 4);
        memcpy(put_control(header, control, IPPROTO_IP, IP_PKTINFO, sizeof info4), &info4,
               sizeof info4);
    } else if (local->family == MOON_FAMILY_IPV6) {
        memcpy(&info6.ipi6_addr, local->ip, 16);
        memcpy(put_control(header, control, IPPROTO_IPV6, IPV6_PKTINFO, sizeof info6), &info6,
               sizeof info6);
    }
}

// ---- moving

int moon_datagrams_receive(struct moon_socket *socket, struct moon_datagram *out, int count)
{
    const struct real_socket *real = real_socket(socket);
    struct batch batch;
    int n;
    for (int i = 0; i < count; i++) {
        batch.iov[i] = (struct iovec){out[i].ptr, MOON_DATAGRAM_LEN};
        batch.headers[i] =
            (struct mmsghdr){.msg_hdr = {.msg_name = &batch.names[i],
                                         .msg_namelen = sizeof batch.names[i],
                                         .msg_iov = &batch.iov[i],
                                         .msg_iovlen = 1,
                                         .msg_control = real->has_locals ? batch.control[i] : NULL,
                                         .msg_controllen = real->has_locals ? CONTROL_LEN : 0}};
    }
    do
        n = recvmmsg(real->fd, batch.headers, (unsigned)count, 0, NULL);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == EAGAIN ? 0 : -errno;
    for (int i = 0; i < n; i++) {
        out[i].len = batch.headers[i].msg_len;
        real_from_sockaddr(&batch.names[i], &out[i].peer);
        read_local(&batch.headers[i].msg_hdr, &out[i].local);
    }
    return n;
}

int moon_datagrams_send(struct moon_socket *socket, const struct moon_datagram *list, int count)
{
    const struct real_socket *real = real_socket(socket);
    struct batch batch;
    int n;
    for (int i = 0; i < count; i++) {
        batch.iov[i] = (struct iovec){list[i].ptr, list[i].len};
        batch.headers[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &batch.iov[i], .msg_iovlen = 1}};
        if (real->is_connected)
            continue;
        batch.headers[i].msg_hdr.msg_name = &batch.names[i];
        batch.headers[i].msg_hdr.msg_namelen = real_to_sockaddr(&list[i].peer, &batch.names[i]);
        write_local(&batch.headers[i].msg_hdr, batch.control[i], &list[i].local);
    }
    do
        n = sendmmsg(real->fd, batch.headers, (unsigned)count, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

// ---- sockets

static bool is_any(const struct moon_address *at)
{
    static const uint8_t zeros[16] = {0};
    return memcmp(at->ip, zeros, sizeof zeros) == 0;
}

static int bind_at(const struct moon_address *at, bool is_shared, struct moon_socket **out)
{
    static const int on = 1;
    struct sockaddr_storage address;
    socklen_t len = real_to_sockaddr(at, &address);
    int fd = socket(address.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (is_shared)
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    if (is_any(at)) {
        setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof on);
        setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof on);
    }
    if (bind(fd, (struct sockaddr *)&address, len) < 0) {
        int err = -errno;
        close(fd);
        return err;
    }
    *out = real_socket_new(fd, NULL);
    real_socket(*out)->has_locals = is_any(at);
    return 0;
}

// Another process that shares its port would let us in: a bind that does not share tells.
static int probe(const struct moon_address *at)
{
    struct moon_socket *socket = NULL;
    int err = at->port ? bind_at(at, false, &socket) : 0;
    moon_socket_free(socket);
    return err;
}

static int bind_all(struct moon_address at, size_t count, struct moon_socket **out)
{
    for (size_t i = 0; i < count; i++) {
        int err = bind_at(&at, true, &out[i]);
        if (err) {
            while (i > 0)
                moon_socket_free(out[--i]);
            return err;
        }
        if (at.port == 0)
            moon_socket_address(out[0], &at);
    }
    return 0;
}

int real_bind(struct moon_world *world, const struct moon_address *at, size_t count,
              struct moon_socket **out)
{
    (void)world;
    int err = probe(at);
    for (int i = 0; !err && i < PORT_TRIES; i++) {
        err = bind_all(*at, count, out);
        if (!err || at->port)
            return err;
        err = 0;
    }
    return err ? err : -EADDRINUSE;
}

int real_datagram_open(struct moon_loop *loop, const struct moon_address *to,
                       struct moon_socket **out)
{
    struct sockaddr_storage at;
    socklen_t len = real_to_sockaddr(to, &at);
    (void)loop;
    int fd = socket(at.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (struct sockaddr *)&at, len) < 0) {
        int err = -errno;
        close(fd);
        return err;
    }
    *out = real_socket_new(fd, NULL);
    real_socket(*out)->is_connected = true;
    return 0;
}

// An event of this turn may point to it still.
void real_datagram_close(struct moon_loop *loop, struct moon_socket *socket)
{
    struct real_socket *real = real_socket(socket);
    socket->on_ready = NULL;
    close(real->fd);
    real->fd = -1;
    moon_list_add_before(&real_loop(loop)->dead_sockets, &real->node);
}

void real_sockets_bury(struct real_loop *loop)
{
    while (!moon_list_is_empty(&loop->dead_sockets)) {
        struct real_socket *socket =
            MOON_CONTAINER(loop->dead_sockets.next, struct real_socket, node);
        moon_list_del(&socket->node);
        free(socket);
    }
}
