// The two fields of the opening handshake of WebSocket that are neither text nor taste (RFC 6455 4.1, 4.2.2), for who asks a
// server for one. Here because SHA-1, Base64 and chance are io's.
#pragma once

#include "base/slice.h"

#include <stdbool.h>

struct moon_loop;

enum { MOON_WEBSOCKET_KEY_LEN = 24, MOON_WEBSOCKET_ACCEPT_LEN = 28 };

// A new Sec-WebSocket-Key, without NUL.
void moon_websocket_key_make(struct moon_loop *loop, char to[MOON_WEBSOCKET_KEY_LEN]);
// Whether this Sec-WebSocket-Accept is the answer to that key.
bool moon_websocket_key_is_accepted(struct moon_slice key, struct moon_slice accept);
