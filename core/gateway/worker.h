// Worker: one loop with everything a request needs on it. Data workers run on threads of their own; control is a worker too,
// whose only port, if any, is the admin one.
#pragma once

#include "edge/edge.h"
#include "io/mailbox.h"

#include <stdbool.h>
#include <stddef.h>

struct moon_buffer_budget;
struct moon_generation;
struct moon_counters;
struct moon_heartbeat;
struct moon_histogram;
struct moon_log;
struct moon_loop;
struct moon_name_desk;
struct moon_ring;
struct moon_series;
struct moon_service;
struct moon_snapshot;
struct moon_socket;
struct moon_worker;

struct moon_worker_args {
    struct moon_loop *loop;         // the caller's; freed after the worker
    unsigned index;                 // among the data workers; their count: control's own
    struct moon_snapshot *snapshot; // the worker takes a reference of its own
    struct moon_buffer_budget *buffers;
    struct moon_connection_budget *connections;
    const struct moon_log *log;
    struct moon_tls_hub *tls;          // outlives the worker
    struct moon_name_desk *names;      // resolves what calls go to; freed before the worker
    struct moon_mailbox *certificates; // takes orders of scripts; NULL: none can be given
    struct moon_ring *access_ring;     // NULL: no access log
    // the VMs of its snapshot, or NULL; the worker takes a reference of its own
    struct moon_generation *generation;
    // Told when what scripts do at the start is done, with an error when that failed: on the worker's thread, or under
    // moon_worker_new. Until then it takes no connection.
    void (*on_started)(void *owner, struct moon_worker *worker, int err);
    // A generation that it does not need any more: the reference is the receiver's, who may take its time.
    void (*on_retired)(void *owner, struct moon_generation *generation);
    // Told on the worker's thread when it begins to drain: from then on every answer says that it closes. May be NULL.
    void (*on_draining)(void *owner, struct moon_worker *worker);
    // Told on the worker's thread when it has drained: nothing is left on its loop but its mailbox.
    void (*on_drained)(void *owner, struct moon_worker *worker);
    void *owner;
};

// A generation that is to serve: its VM of this worker starts, or, after another's failed, ends again. The sender owns it.
struct moon_worker_start {
    struct moon_message message;        // first
    struct moon_generation *generation; // the sender's reference
    bool is_given_up;                   // the other way round
    // Told on the worker's thread.
    void (*on_done)(void *owner, struct moon_worker_start *start);
    void *owner;
    int err;
};

struct moon_worker_socket {
    struct moon_socket *socket;
    uint32_t bind; // whose it is among the listeners of the new snapshot
};

// What a reload changes for one worker. The sender owns it and everything in it; it comes back with on_switched.
struct moon_worker_switch {
    struct moon_message message;    // first
    struct moon_snapshot *snapshot; // the worker takes a reference of its own
    // of the snapshot, started, or NULL; the worker takes a reference of its own
    struct moon_generation *generation;
    struct moon_worker_socket *added; // the worker takes them
    size_t added_count;
    const struct moon_worker_socket *kept; // handles
    size_t kept_count;
    // handles of sockets that it was given earlier: it closes them
    struct moon_socket *const *removed;
    size_t removed_count;
    struct moon_ring *access_ring; // from now on; NULL: there is no access log
    // Told on the worker's thread. From then on every new exchange stands on the snapshot.
    void (*on_switched)(void *owner, struct moon_worker_switch *change);
    void *owner;
    int err; // of taking the new sockets, or 0; those it could not take are closed
};

// A question for the rows of moon_exchange_survey and moon_edge_survey. The sender owns it; it comes back with on_surveyed.
struct moon_worker_survey {
    struct moon_message message; // first
    size_t limit;                // rows at most
    char *text;                  // malloc'd: rows as JSON objects, ",\n" between them; NULL before
    size_t text_len;
    size_t row_count;
    void (*on_surveyed)(void *owner, struct moon_worker_survey *survey); // on the worker's thread
    void *owner;
    unsigned worker; // its index, for the rows
    bool is_back;    // the sender's own
};

struct moon_worker *moon_worker_new(const struct moon_worker_args *args);
// Its loop does not run any more. NULL is fine.
void moon_worker_free(struct moon_worker *worker);
// Before the loop runs. The worker takes the socket, and closes it when it drains. `bind`: whose it is among the listeners.
int moon_worker_listen(struct moon_worker *worker, struct moon_socket *socket, uint32_t bind);
struct moon_loop *moon_worker_loop(const struct moon_worker *worker);
// For calls, on its thread; lives as long as the worker.
struct moon_service *moon_worker_service(struct moon_worker *worker);
// All thread safe.
const struct moon_counters *moon_worker_counters(const struct moon_worker *worker);
const struct moon_series *moon_worker_series(const struct moon_worker *worker);
const struct moon_heartbeat *moon_worker_heartbeat(const struct moon_worker *worker);
const struct moon_histogram *moon_worker_turns(const struct moon_worker *worker);
size_t moon_worker_buffer_len(const struct moon_worker *worker);
// Thread safe: ends politely (exchanges finish, at most drain_ms), or at once. The loop stops when it is done.
void moon_worker_drain(struct moon_worker *worker);
void moon_worker_stop(struct moon_worker *worker);
// Thread safe. Not before `on_done` of the one before.
void moon_worker_start(struct moon_worker *worker, struct moon_worker_start *start);
// Thread safe.
void moon_worker_switch(struct moon_worker *worker, struct moon_worker_switch *change);
// Thread safe: what TLS asks of clients has changed beside reloads.
void moon_worker_settle(struct moon_worker *worker);
// Thread safe.
void moon_worker_survey(struct moon_worker *worker, struct moon_worker_survey *survey);
