// Sniff: what a client's first bytes say, before anybody takes them: they stay in the kernel. Ports that speak TLS look for the name
// that is asked for; ports that detect look for the protocol, and who says nothing there is taken for one who waits for the server to
// speak first. It has a deadline, costs no buffer, and its failures are counted by reason.
//
//   accepted -> sniff --a protocol, or silence--> the stream goes to whoever asked
//                     --malformed, too long, cut short, too slow--> over
#pragma once

#include "base/slice.h"
#include "http/first_bytes.h"

#include <stdbool.h>
#include <stdint.h>

struct moon_resources;
struct moon_sniff;
struct moon_stream;

struct moon_sniffed {
    enum moon_first first; // never MOON_FIRST_MORE
    bool is_silent;        // nothing has come: opaque
    bool has_hello;        // of TLS, and the ClientHello was read
    struct moon_slice sni,
        alpn; // of it (http/client_hello.h); valid during the call
};

// Told once, never under moon_sniff_new: the stream, which is the receiver's now, or NULL: it was closed. What has come is news to
// the stream's next owner.
typedef void moon_sniff_fn(void *owner, struct moon_stream *stream,
                           const struct moon_sniffed *sniffed);

struct moon_sniff_args {
    struct moon_resources *res;
    struct moon_stream *stream; // as it was accepted; taken
    bool reads_hello;           // of TLS the name is asked for; else TLS is all that is told
    bool is_tls_alone;          // nobody there has anything else
    bool has_opaque;            // somebody has what is none of the others
    uint32_t silence_ms;        // so long nothing comes: silent; 0: it is waited for
    moon_sniff_fn *done;
    void *owner;
};

struct moon_sniff *moon_sniff_new(const struct moon_sniff_args *args);
// Whether its client has sent nothing yet.
bool moon_sniff_is_silent(const struct moon_sniff *sniff);
// Breaks it off without telling. NULL is fine; not after `done`.
void moon_sniff_free(struct moon_sniff *sniff);

// Closes a stream that was only accepted, with a fatal alert (RFC 8446 6) that says why.
enum { MOON_ALERT_DECODE_ERROR = 50, MOON_ALERT_UNRECOGNIZED_NAME = 112 };
void moon_sniff_refuse(struct moon_resources *res, struct moon_stream *stream, uint8_t alert);
