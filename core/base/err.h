// Error space of the whole core: 0 is success, -errno comes from the system, ours go from -10000 down.
#pragma once

enum moon_err {
    MOON_EOF = -10000,       // the peer ended its side in good order
    MOON_ETIMEOUT = -10001,  // a deadline of ours passed
    MOON_EPROTO = -10002,    // the peer broke the protocol
    MOON_ELIMIT = -10003,    // a configured bound was reached
    MOON_ECONFIG = -10004,   // the configuration is wrong; the report says where
    MOON_ECANCELED = -10005, // the work was withdrawn by its owner
    MOON_ENAME = -10006,     // a host name could not be resolved
};

// A short static text for any error of the space ("connection refused"); never NULL. Thread safe.
const char *moon_err_text(int err);
