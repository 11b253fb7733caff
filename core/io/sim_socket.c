// Listening and connecting in the simulated world. Sockets of one address share it as SO_REUSEPORT does: chance picks.
#include "io/sim_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct sim_socket *socket_of(struct moon_list *node)
{
    return MOON_CONTAINER(node, struct sim_socket, node);
}

// Whether a connect to `to` reaches a socket bound to `at`.
static bool covers(const struct moon_address *at, const struct moon_address *to)
{
    static const uint8_t any[16] = {0};
    struct moon_address bound = *at;
    if (memcmp(at->ip, any, sizeof any) == 0)
        memcpy(bound.ip, to->ip, sizeof any);
    return moon_address_equal(&bound, to);
}

// ---- sockets

static void socket_address(const struct moon_socket *socket, struct moon_address *out)
{
    *out = ((const struct sim_socket *)socket)->address;
}

// Whoever waits in its queue is reset.
static void socket_free(struct moon_socket *base)
{
    struct sim_socket *socket = (struct sim_socket *)base;
    socket->is_closed = true;
    for (size_t i = 0; i < socket->waiting_count; i++)
        moon_stream_abort(&socket->waiting[i]->base);
    sim_descriptor_give(socket->world, NULL, 0);
    moon_list_del(&socket->source.node);
    moon_list_del(&socket->node);
    moon_list_add_before(&socket->world->dead_sockets, &socket->node);
}

static const struct moon_socket_ops socket_ops = {.address = socket_address, .free = socket_free};

void sim_sockets_sweep(struct sim_world *world)
{
    while (!moon_list_is_empty(&world->dead_sockets)) {
        struct sim_socket *socket = socket_of(world->dead_sockets.next);
        moon_list_del(&socket->node);
        free(socket->waiting);
        free(socket);
    }
}

static struct moon_socket *socket_new(struct sim_world *world, const struct moon_address *at)
{
    struct sim_socket *socket = calloc(1, sizeof *socket);
    if (!socket)
        abort();
    socket->base.ops = &socket_ops;
    socket->source.kind = SIM_ACCEPTOR;
    socket->world = world;
    socket->address = *at;
    moon_list_init(&socket->source.node);
    moon_list_add_before(&world->sockets, &socket->node);
    sim_descriptor_take(world, NULL, 0);
    return &socket->base;
}

int sim_listen(struct moon_world *base, const struct moon_address *at, size_t count,
               struct moon_socket **out)
{
    struct sim_world *world = sim_world(base);
    struct moon_address address = *at;
    if (address.port == 0)
        address.port = world->next_port++;
    for (struct moon_list *node = world->sockets.next; node != &world->sockets; node = node->next)
        if (moon_address_equal(&socket_of(node)->address, &address))
            return -EADDRINUSE;
    for (size_t i = 0; i < count; i++)
        out[i] = socket_new(world, &address);
    return 0;
}

// ---- connecting

int sim_connect(struct moon_loop *base, const struct moon_address *to, struct moon_stream **out)
{
    struct sim_loop *loop = sim_loop(base);
    struct sim_world *world = sim_world_of(loop);
    if (!sim_descriptor_take(world, loop, 1))
        return -EMFILE;
    struct sim_conn *conn = sim_conn_new(world);
    struct sim_stream *client = &conn->ends[0], *server = &conn->ends[1];
    client->loop = loop;
    client->is_connecting = true;
    client->address = (struct moon_address){MOON_FAMILY_IPV4, {10, 0, 0, 1}, 0};
    client->address.port = (uint16_t)(1024 + conn->id % 60000);
    server->address = *to;
    sim_send(server, SIM_CONNECT, 0);
    *out = &client->base;
    return 0;
}

static struct sim_socket *choose(struct sim_world *world, const struct moon_address *to)
{
    struct sim_socket *chosen = NULL;
    unsigned count = 0;
    for (struct moon_list *at = world->sockets.next; at != &world->sockets; at = at->next) {
        struct sim_socket *socket = socket_of(at);
        if (covers(&socket->address, to) && (++count == 1 || sim_below(world, count) == 0))
            chosen = socket;
    }
    return chosen;
}

static void queue(struct sim_socket *socket, struct sim_stream *server)
{
    if (socket->waiting_count == socket->waiting_cap) {
        socket->waiting_cap = socket->waiting_cap ? socket->waiting_cap * 2 : 8;
        socket->waiting =
            realloc(socket->waiting, socket->waiting_cap * sizeof(struct sim_stream *));
        if (!socket->waiting)
            abort();
    }
    socket->waiting[socket->waiting_count++] = server;
    if (socket->loop)
        sim_ready(socket->loop, &socket->source, MOON_READY_READ);
}

void sim_connect_arrive(struct sim_stream *server)
{
    struct sim_world *world = server->conn->world;
    struct sim_stream *client = sim_peer(server);
    uint8_t how = world->ports ? world->ports[server->address.port] : MOON_SIM_PORT_OPEN;
    if (client->is_closed || how == MOON_SIM_PORT_HANGS ||
        sim_chance(world, world->faults.hang_permille))
        return;
    struct sim_socket *socket = choose(world, &server->address);
    if (!socket || how == MOON_SIM_PORT_REFUSES ||
        sim_chance(world, world->faults.refuse_permille)) {
        sim_send(client, SIM_REFUSED, 0);
        return;
    }
    server->is_closed = false;
    server->is_writable = true;
    server->address = socket->address;
    sim_send(client, SIM_ESTABLISHED, 0);
    queue(socket, server);
}

// ---- accepting

int sim_accept_start(struct moon_loop *loop, struct moon_socket *base, moon_ready_fn *on_ready,
                     void *owner)
{
    struct sim_socket *socket = (struct sim_socket *)base;
    base->on_ready = on_ready;
    base->owner = owner;
    socket->loop = sim_loop(loop);
    if (socket->waiting_count)
        sim_ready(socket->loop, &socket->source, MOON_READY_READ);
    return 0;
}

void sim_accept_stop(struct moon_loop *loop, struct moon_socket *base)
{
    struct sim_socket *socket = (struct sim_socket *)base;
    (void)loop;
    base->on_ready = NULL;
    socket->loop = NULL;
    moon_list_del(&socket->source.node);
}

int sim_accept(struct moon_loop *base, struct moon_socket *bound, struct moon_stream **out)
{
    struct sim_loop *loop = sim_loop(base);
    struct sim_socket *socket = (struct sim_socket *)bound;
    if (socket->waiting_count == 0)
        return -EAGAIN;
    if (!sim_descriptor_take(socket->world, loop, 1))
        return -EMFILE;
    struct sim_stream *stream = socket->waiting[0];
    socket->waiting_count--;
    for (size_t i = 0; i < socket->waiting_count; i++)
        socket->waiting[i] = socket->waiting[i + 1];
    stream->is_readable = true;
    sim_stream_give(stream, loop);
    *out = &stream->base;
    return 0;
}
