// The simulated world's insides, shared by its files.
//
//   sim_world.c   clock, random numbers, trace, files, limits     sim_loop.c     turns, and who has the next one
//   sim_wire.c    what is under way, by time of arrival           sim_stream.c   the two ends of a connection
//   sim_socket.c  listening, connecting, accepting                sim_pipe.c, sim_mailbox.c
//
// Everything belongs to the thread that calls moon_sim_run. A connection is one block with both ends; it is freed between turns,
// when both were closed and nothing of it is under way.
#pragma once

#include "base/list.h"
#include "io/sim.h"
#include "io/world_priv.h"

enum { SIM_PIPE_COUNT = 64, SIM_PIPE_LEN = 262144, SIM_BUFFER_LEN = 65536 };

enum sim_source_kind { SIM_STREAM, SIM_ACCEPTOR };

// What a loop tells about in its next turn.
struct sim_source {
    struct moon_list node; // in loop->ready while `ready`
    enum sim_source_kind kind;
    unsigned ready;
};

struct sim_loop {
    struct moon_loop base; // first
    struct moon_list node; // in world->loops
    struct moon_list ready, mailboxes;
    struct sim_source **turn; // what is told in this turn
    size_t turn_cap;
    unsigned pipe_count;
    bool is_stopped, is_outside;
};

struct sim_conn;

struct sim_stream {
    struct moon_stream base; // first
    struct sim_source source;
    struct sim_conn *conn;
    struct sim_loop *loop; // NULL: not accepted yet
    struct moon_address address;
    // received: the first arrived_len bytes can be read, the rest is under way
    char *bytes;
    size_t head, len, cap, arrived_len;
    size_t sent_len;     // written here and not yet acknowledged
    uint64_t arrival_ms; // of the last thing that was sent from here: nothing overtakes it
    int error;           // told once, by the first call that can
    bool is_closed;      // by its owner; the other end may still be told
    bool is_connecting, was_reset, has_fin, sent_fin;
    bool is_readable, is_writable, wants_write, has_ended; // as in the real world
    bool has_peer;                                         // a proxy spoke for another
    struct moon_address peer;
};

struct sim_conn {
    struct moon_list node; // in world->conns
    struct sim_world *world;
    struct sim_stream ends[2]; // 0 connected, 1 was connected to
    uint64_t id;
    unsigned event_count; // under way
};

enum sim_event_kind {
    SIM_CONNECT, // arrives at the server end
    SIM_ESTABLISHED,
    SIM_REFUSED,
    SIM_SEGMENT,
    SIM_FIN,
    SIM_RESET,
    SIM_ACK,
    SIM_READABLE, // the rest after a short read
    SIM_WRITABLE, // room after a short write
};

struct sim_event {
    uint64_t at_ms, order;
    struct sim_stream *to;
    size_t len;
    enum sim_event_kind kind;
};

struct sim_socket {
    struct moon_socket base; // first
    struct sim_source source;
    struct moon_list node; // in world->sockets, later in world->dead_sockets
    struct sim_world *world;
    struct sim_loop *loop;
    struct moon_address address;
    struct sim_stream **waiting; // accepted by nobody yet
    size_t waiting_count, waiting_cap;
    bool is_closed;
};

struct sim_file;

struct sim_world {
    struct moon_world base; // first
    struct moon_sim_faults faults;
    uint64_t random, hash, now_ms, wall_ms; // wall_ms: at time 0
    uint64_t event_order, conn_count;
    struct sim_event *events; // a heap, the next one first
    size_t event_count, event_cap;
    struct moon_list loops, conns, sockets, dead_sockets;
    struct sim_file *files;
    uint8_t *ports; // enum moon_sim_port by number; NULL: all open
    size_t live_count, descriptor_count;
    uint16_t next_port;
};

static inline struct sim_world *sim_world(struct moon_world *world)
{
    return (struct sim_world *)world;
}

static inline struct sim_loop *sim_loop(struct moon_loop *loop)
{
    return (struct sim_loop *)loop;
}

static inline struct sim_world *sim_world_of(const struct sim_loop *loop)
{
    return (struct sim_world *)loop->base.world;
}

// sim_world.c
uint64_t sim_below(struct sim_world *world, uint64_t bound); // bound > 0
bool sim_chance(struct sim_world *world, uint32_t permille);
uint64_t sim_latency_ms(struct sim_world *world);
// A part of `len` when the faults say so: 1 to len.
size_t sim_short(struct sim_world *world, size_t len);
void sim_trace(struct sim_world *world, unsigned what, uint64_t whom, uint64_t how_much);
// Counts a descriptor of that loop; false at the limit. `loop` may be NULL.
bool sim_descriptor_take(struct sim_world *world, const struct sim_loop *loop, size_t count);
void sim_descriptor_give(struct sim_world *world, const struct sim_loop *loop, size_t count);

// sim_loop.c
struct moon_loop *sim_loop_new(struct moon_world *world);
void sim_ready(struct sim_loop *loop, struct sim_source *source, unsigned ready);

// sim_wire.c
void sim_send(struct sim_stream *to, enum sim_event_kind kind, size_t len);
// The same, not before `at_ms` and with no regard to what was sent before.
void sim_send_at(struct sim_stream *to, enum sim_event_kind kind, size_t len, uint64_t at_ms);
// UINT64_MAX when nothing is under way.
uint64_t sim_wire_next_ms(const struct sim_world *world);
void sim_wire_deliver(struct sim_world *world);

// sim_stream.c
struct sim_conn *sim_conn_new(struct sim_world *world);
void sim_conns_sweep(struct sim_world *world, bool all);
struct sim_stream *sim_peer(const struct sim_stream *stream);
void sim_stream_give(struct sim_stream *stream, struct sim_loop *loop); // to its owner
void sim_stream_tell(struct sim_stream *stream, unsigned ready);
void sim_stream_arrive(struct sim_stream *to, const struct sim_event *event);
void sim_stream_reset(struct sim_stream *stream, int err);
// Takes up to len arrived bytes off / puts up to len bytes on their way; results as read and writev.
ssize_t sim_stream_take(struct sim_stream *stream, char *to, size_t len);
ssize_t sim_stream_put(struct sim_stream *stream, const struct iovec *iov, int iov_count);

// sim_socket.c
int sim_listen(struct moon_world *world, const struct moon_address *at, size_t count,
               struct moon_socket **out);
int sim_connect(struct moon_loop *loop, const struct moon_address *to, struct moon_stream **out);
int sim_accept_start(struct moon_loop *loop, struct moon_socket *socket, moon_ready_fn *on_ready,
                     void *owner);
void sim_accept_stop(struct moon_loop *loop, struct moon_socket *socket);
int sim_accept(struct moon_loop *loop, struct moon_socket *socket, struct moon_stream **out);
void sim_connect_arrive(struct sim_stream *server);
void sim_sockets_sweep(struct sim_world *world);

// sim_pipe.c
int sim_pipe_open(struct moon_loop *loop, struct moon_pipe **out);
void sim_pipe_close(struct moon_loop *loop, struct moon_pipe *pipe);
ssize_t sim_pipe_in(struct moon_stream *s, struct moon_pipe *pipe, size_t max_len);
ssize_t sim_pipe_out(struct moon_stream *s, struct moon_pipe *pipe, size_t max_len);

// sim_mailbox.c
struct moon_mailbox *sim_mailbox_new(struct moon_loop *loop,
                                     void (*on_message)(void *owner, struct moon_message *message),
                                     void *owner);
bool sim_mailboxes_have(const struct sim_loop *loop);
void sim_mailboxes_deliver(struct sim_loop *loop);
