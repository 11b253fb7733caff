// Preface: what stands before the protocol of a connection: the PROXY header of a proxy in front. It has a bound and a deadline,
// costs no buffer (the bytes stay in the kernel until the header is there whole), and its failures are counted by reason.
//
//   accepted -> preface --header--> the stream, whose peer is the client now
//                       --none, malformed, cut short, too slow--> over
//
// Room for more of the kind: a peek at a ClientHello, and telling protocols apart by their first bytes.
#pragma once

struct moon_preface;
struct moon_proxied;
struct moon_resources;
struct moon_stream;

// Told once, never under moon_preface_new: the stream, which is the receiver's now, with what the header said (the
// receiver's, too; NULL: the proxy spoke for itself and said nothing), or NULL: it was closed.
typedef void moon_preface_fn(void *owner, struct moon_stream *stream, struct moon_proxied *proxied);

// Takes a stream as it was accepted.
struct moon_preface *moon_preface_new(struct moon_resources *res, struct moon_stream *stream,
                                      moon_preface_fn *done, void *owner);
// Breaks it off without telling. NULL is fine; not after `done`.
void moon_preface_free(struct moon_preface *preface);
const struct moon_stream *moon_preface_stream(const struct moon_preface *preface);
// Closes a stream that was only accepted: what has come of it is taken first, so that its peer sees an end and no reset.
void moon_preface_refuse(struct moon_resources *res, struct moon_stream *stream);
