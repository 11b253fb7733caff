// TCP: one connection of a TCP or TLS route, from the accepted stream to the end of both sides. The same upstreams, weights, limits and
// connect timeouts as for requests; a failed connect goes on with the next endpoint, as nothing was sent yet.
//
//   open -> route -> [prelude] -> lend a connection (or wait at a limit) -> connected -> relay -> record -> closed
//             |          |             ^--- next endpoint: not connected
//             |          '-- preread closes it, or takes too long -> record -> closed
//             '-- none, or nobody takes it: reset -> record -> closed
#pragma once

#include "exchange/survey.h"

struct moon_arrival;
struct moon_proxied;
struct moon_service;
struct moon_stream;
struct moon_tcp;

struct moon_tcp_args {
    struct moon_service *service;
    const struct moon_arrival *arrival; // looked at at once
    int listener;                       // whose it is, of the snapshot that the arrival stands on
    struct moon_slice sni, alpn;        // of TLS, ended or passed through; empty: none. Copied
    struct moon_stream *stream;         // taken
    const struct moon_proxied *proxied; // outlives the connection; NULL: no PROXY header
    // Told once, never under moon_tcp_open: it is over and frees itself.
    void (*closed)(void *owner);
    // Told at most once, of the first bytes that pass: whose they are. NULL: nobody wants to know.
    void (*spoke)(void *owner, bool is_upstream);
    void *owner;
};

struct moon_tcp *moon_tcp_open(const struct moon_tcp_args *args);
// Resets it now, without telling. NULL is fine; not after `closed`.
void moon_tcp_close(struct moon_tcp *tcp);
// The worker's number for the connection.
uint64_t moon_tcp_number(const struct moon_tcp *tcp);
// Fills the row of one that is not relayed yet; false: it is, and moon_exchange_survey tells of it.
bool moon_tcp_survey(const struct moon_tcp *tcp, struct moon_survey_row *row);
