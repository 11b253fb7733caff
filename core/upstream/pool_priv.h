// The bodies of the pool, and the seams between its files:
//   pool_slot.c  the slots, found by identity    pool_link.c  a link's life in its slot: connect, idle, close
//   pool.c       endpoints and whose turn it is, lending, waiting, tunnels
#pragma once

#include "base/list.h"
#include "base/slice.h"
#include "upstream/limit.h"
#include "upstream/pool.h"
#include "upstream/registry.h"

#include <stdbool.h>
#include <stdint.h>

struct moon_endpoint_set;
struct moon_endpoint_state;
struct moon_link;
struct moon_resources;
struct moon_tls_client;

// What makes links interchangeable.
struct identity {
    struct moon_endpoint_state *state; // unique by address, so it stands for it
    struct moon_limit *limit;          // NULL: none
    // NULL: plain; clients are one where their settings and files are equal
    struct moon_tls_client *tls;
    struct moon_slice host; // whom TLS asks for; empty: the address itself
    uint64_t patron;        // the number of the client connection that they are for; 0: any
    uint8_t proxy;          // a kind of introduction (upstream/patron.h)
    uint8_t protocol;       // enum moon_upstream_protocol
    // How long to connect; 0: as the settings say. Only where requests share what is connecting: for a link of HTTP/1.1 who has it
    // says.
    uint32_t connect_ms;
};

struct slot {
    struct slot *next; // in its bucket
    struct moon_endpoint_state *state;
    struct moon_limit *limit;    // NULL: none
    struct moon_tls_client *tls; // NULL: plain
    char *host;                  // whom TLS asks for; NULL: the address itself
    uint64_t patron;
    uint8_t proxy, protocol;
    uint32_t connect_ms;
    bool speaks_h2;                  // of AUTO: as far as is known
    uint32_t lane_cap;               // of each of its links, as its upstream has it of late
    uint32_t peer_stream_count;      // that its links were allowed of late; 0: none has said yet
    struct moon_list idle;           // of struct moon_pooled, the newest first; HTTP/1.1
    struct moon_list shared;         // of HTTP/2, idle or not; those known to be full are last
    uint32_t idle_count, link_count; // links: idle, kept for a waiter and lent
    uint32_t mark;                   // of the last change whose new endpoints it is among
    struct moon_tally tally;         // of the state
    bool is_gone; // its upstream has lost the endpoint: no idle links, freed with the last link
};

struct moon_pooled {
    struct moon_list node; // in slot->shared; HTTP/1.1: in slot->idle while it idles
    struct moon_list kept; // in pool->kept while it, or a lane of it, waits for a waiter
    struct moon_link *link;
    struct slot *slot;
    struct moon_pool *pool;
    uint32_t lane_count, reserved_count; // HTTP/2: open; kept for waiters
    bool is_h2;
    bool is_retiring; // HTTP/2: no more lanes, closed with the last
    bool is_idle;     // no lane is open
    bool is_load;     // counts in state->in_flight; HTTP/2: each lane for itself
    bool is_claimed;
};

// The newest endpoints of an upstream as this worker knows them.
struct seat {
    uint64_t stamp;
    struct moon_endpoint_set *set;
};

// Where this worker stands in sequences that are compiled once. Each starts anywhere, so that the workers together do not all
// begin with the same choice.
struct phases {
    uint64_t *at;
    uint32_t count;
};

struct moon_pool {
    struct moon_resources *res;
    struct moon_wake wake;
    struct slot **buckets;
    uint32_t bucket_count, slot_count; // a power of two
    uint32_t patron_count;             // slots with a patron
    struct moon_list kept;             // links for waiters that were granted one
    struct seat *seats;                // of each upstream, by its index
    uint32_t seat_count;
    struct phases turns;  // of each upstream's cycle, by its index
    struct phases splits; // of each split, by its index
    uint64_t random, swept_ms;
    uint32_t mark; // of the newest change of endpoints
    bool is_draining;
};

// SplitMix64 (Steele, Lea, Flood, 2014).
static inline uint64_t pool_mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

// pool_slot.c

// Slots with a patron lie together, so that they are found when it goes. `state` is not looked at where there is a patron.
struct slot **slot_bucket(struct moon_pool *pool, const struct moon_endpoint_state *state,
                          uint64_t patron);
// Twice as many buckets; the first ones of a new pool.
void slots_grow(struct moon_pool *pool);
// Frees the slots that hold no link.
void slots_sweep(struct moon_pool *pool);
// Whether the slot is for such links, whatever the address and the client.
bool slot_is_of(const struct slot *slot, const struct identity *identity);
// NULL: there is none.
struct slot *slot_find(struct moon_pool *pool, const struct identity *identity);
// Made when there is none; in use again when its endpoint was gone.
struct slot *slot_get(struct moon_pool *pool, const struct identity *identity);
// No new request goes there. May free it.
void slot_leave(struct moon_pool *pool, struct slot *slot);
// Frees it when it is gone and has no link.
void slot_free_gone(struct moon_pool *pool, struct slot *slot);
// NULL: none idles.
struct moon_pooled *slot_oldest_idle(const struct slot *slot);

// pool_link.c

// A new connection, not lent yet. 0 or -errno, which was counted.
int pooled_connect(struct moon_pool *pool, struct slot *slot, const struct moon_patron *patron,
                   struct moon_pooled **out);
void pooled_leave_idle(struct moon_pooled *pooled);
// False: files of its TLS have changed since. It takes nothing new.
bool pooled_is_current(const struct moon_pooled *pooled);
// The newest idle link that may serve, of HTTP/1.1; those that may not are closed. NULL: there is none.
struct moon_pooled *pooled_newest_idle(struct slot *slot);
// The link of the slot that may have another lane, of so many: not for HTTP/1.1. `was_lost`: only one that has not stood yet. NULL:
// none.
struct moon_pooled *pooled_shared(struct slot *slot, uint32_t cap, bool was_lost);
// Whether it may have another lane.
bool pooled_has_room(struct moon_pooled *pooled, uint32_t cap);
// What was kept, or not to be lent after all, is for others.
void pooled_reoffer(struct moon_pooled *pooled);
// Takes it off those that are kept, or one of its lanes.
void pooled_take_kept(struct moon_pooled *pooled);
// Its link has become idle: kept, or given to one who waits, or closed.
void pooled_offer(struct moon_pooled *pooled);
// Closes the link, gives its permit back, frees both.
void pooled_close(struct moon_pooled *pooled);
// The link is closed or will be; its permit, if any, stays with the caller.
void pooled_forget(struct moon_pooled *pooled);
