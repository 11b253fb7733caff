// One connection of a test, of either side, on a loop outside of the gateway's process: bytes that came and bytes to send, as
// fast as the other side allows or at a crawl. Embedded in its owner.
#pragma once

#include "base/wheel.h"
#include "io/stream.h"

#include <stdbool.h>
#include <stddef.h>

struct moon_loop;

// Bytes that grow at one end and are taken at the other.
struct text {
    char *bytes;
    size_t head, len, cap;
};

void text_add(struct text *text, const void *bytes, size_t len);
void text_take(struct text *text, size_t len);
void text_fini(struct text *text);

struct peer {
    struct moon_loop *loop;
    struct moon_stream *stream; // NULL: closed
    struct text in, out;
    size_t in_total, out_total; // bytes ever received, ever written
    size_t slow_len, slow_ms;   // that many bytes each way in that time; 0: no bound
    size_t read_credit, write_credit;
    struct moon_timer timer;
    void (*on_change)(void *owner); // something came, or went out, or ended; may close
    void *owner;
    int error;             // of reading, or of connecting
    bool is_paused;        // reads nothing
    bool is_connecting;    // no verdict yet
    bool has_ended;        // FIN was read
    bool has_hup;          // the other side has ended, perhaps behind unread bytes
    bool has_write_failed; // what is to be sent is dropped
    bool wants_end;        // our side ends behind what is to be sent
};

// Both leave on_change to be set by the owner before the loop runs again.
void peer_open(struct peer *peer, struct moon_loop *loop, const struct moon_address *to);
void peer_adopt(struct peer *peer, struct moon_loop *loop, struct moon_stream *stream);
// `len` bytes each way every `ms` from now on.
void peer_slow(struct peer *peer, size_t len, size_t ms);
void peer_send(struct peer *peer, const void *bytes, size_t len);
void peer_shutdown(struct peer *peer); // behind what is to be sent
// One read of at most `len` bytes, paused or not. False when nothing came.
bool peer_read(struct peer *peer, size_t len);
// Reads and writes what it may.
void peer_pump(struct peer *peer);
void peer_close(struct peer *peer);
void peer_reset(struct peer *peer);
// Closes and frees what it holds.
void peer_fini(struct peer *peer);
// Nothing more will come.
bool peer_is_over(const struct peer *peer);
