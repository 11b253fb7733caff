// Error space of the whole core: 0 is success, -errno comes from the system, ours go from -10000 down.
#pragma once

#include <stdbool.h>

enum moon_err {
    MOON_EOF = -10000,       // the peer ended its side in good order
    MOON_ETIMEOUT = -10001,  // a deadline of ours passed
    MOON_EPROTO = -10002,    // the peer broke the protocol
    MOON_ELIMIT = -10003,    // a configured bound was reached
    MOON_ECONFIG = -10004,   // the configuration is wrong; the report says where
    MOON_ECANCELED = -10005, // the work was withdrawn by its owner
    MOON_ENAME = -10006,     // a host name could not be resolved
    MOON_EBODY = -10007,     // a body is longer than it may be
    MOON_EBUSY = -10008,     // as much as may be is under way already
    MOON_ELATER = -10009,    // right, but not supported yet
    // of requests that the gateway is asked to make
    MOON_EURL = -10010,        // unusable URL
    MOON_EMETHOD = -10011,     // unusable method
    MOON_EFIELD = -10012,      // unusable header field
    MOON_EUPSTREAM = -10013,   // no such upstream
    MOON_ENOENDPOINT = -10014, // the upstream has no endpoint
    // of TLS
    MOON_ETLS = -10015, // the handshake failed, or what came is no TLS; the stream says why
    // the connection ended without the peer's close_notify: what came may not be all
    MOON_ECUT = -10016,
    MOON_ECERT = -10017, // the peer's certificate is not accepted
    // of HTTP/2 to upstreams
    MOON_ENOTBEGUN =
        // the peer has not begun to act upon the request: it may be sent again, whatever it is
    -10018,
    MOON_ERESET = -10019,  // the peer has reset the stream
    MOON_EALPN = -10020,   // the peer does not speak the protocol that it is configured to
    MOON_EGUESS = -10021,  // nor the one that was guessed: nothing was sent, and it is known now
    MOON_ESILENT = -10022, // the peer answers no PING
};

// Errors of HTTP/2 to upstreams that end one stream, or none: the connection is as good as it was, or was never used.
bool moon_err_is_of_stream(int err);
// A short static text for any error of the space ("connection refused"); never NULL. Thread safe.
const char *moon_err_text(int err);
