// Choice: the say that filters of a listener have about the certificate of a connection (filter/opening.h), from its ClientHello on
// until its handshake is over. It holds the snapshot that the connection began on.
#pragma once

struct moon_choice;
struct moon_hold;
struct moon_resources;
struct moon_stream;

// For a stream from moon_tls_accept of that bind of the hold's listeners. NULL: no listener there wants a say.
struct moon_choice *moon_choice_new(struct moon_resources *res, struct moon_hold *hold,
                                    unsigned bind, struct moon_stream *stream);
// The handshake is over, or the stream closed: what waits is dropped. NULL is fine.
void moon_choice_free(struct moon_choice *choice);
