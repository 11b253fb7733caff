// Handshake: what a connection to a TLS port does before it can be read. It has a deadline, costs no buffers, and its end is
// counted, by reason where it failed. Who speaks plain HTTP is told so.
//
//   accepted -> handshake --done--> the stream goes to whoever asked
//                         --no TLS--> 400, end our side, wait for the other's --> over
//                         --failed, too slow--> over
#pragma once

struct moon_handshake;
struct moon_resources;
struct moon_stream;

// Told once, never under moon_handshake_new: the stream, which is the receiver's now, or NULL: it was closed.
typedef void moon_handshake_fn(void *owner, struct moon_stream *stream);

// Takes a stream from moon_tls_accept.
struct moon_handshake *moon_handshake_new(struct moon_resources *res, struct moon_stream *stream,
                                          moon_handshake_fn *done, void *owner);
// Takes a stream as it was accepted, whose first bytes are no TLS: counts that, and says so as to one who speaks HTTP. `done` is told
// NULL.
struct moon_handshake *moon_handshake_refuse(struct moon_resources *res, struct moon_stream *stream,
                                             moon_handshake_fn *done, void *owner);
// Breaks it off without telling. NULL is fine; not after `done`.
void moon_handshake_free(struct moon_handshake *handshake);
const struct moon_stream *moon_handshake_stream(const struct moon_handshake *handshake);
