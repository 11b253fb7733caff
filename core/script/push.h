// Values of the core as Lua values.
#pragma once

#include "base/slice.h"

struct lua_State;
struct moon_address;
struct moon_value;

void moon_push_value(struct lua_State *state, const struct moon_value *value);

// Fields of the table on top of the stack, of what scripts see of connections.
// Nothing where the text is empty.
void moon_set_text(struct lua_State *state, const char *key, struct moon_slice text);
// client = { address =, port = }; empty where it came by a unix socket.
void moon_set_client(struct lua_State *state, const struct moon_address *client);
// destination = { address =, port = }; nothing where it came by a unix socket.
void moon_set_destination(struct lua_State *state, const struct moon_address *destination);
// alpn = the protocols that a ClientHello offers (as moon_alpn_next takes them), in its order.
void moon_set_alpn(struct lua_State *state, struct moon_slice alpn);
