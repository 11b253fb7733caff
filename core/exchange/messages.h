// Messages: a WebSocket tunnel whose messages go through the filters of its exchange (filter.h, "WebSocket"). The exchange lives
// as long as the tunnel, which belongs to it; tunnels that nobody reads are relays.
#pragma once

#include <stdbool.h>

struct moon_exchange;
struct moon_messages;
struct moon_relay_identity;

// Takes both lanes of the exchange over. May end it.
void moon_messages_start(struct moon_exchange *ex);
// A hook that waited may go on. May end the exchange.
void moon_messages_resume(struct moon_messages *all);
// Tells both sides 1001 and gives them a moment to answer. May end the exchange.
void moon_messages_close(struct moon_messages *all);
// Ends the tunnel, and with it the exchange, now. `is_error`: the peers see a reset.
void moon_messages_end(struct moon_messages *all, bool is_error);
const struct moon_relay_identity *moon_messages_identity(const struct moon_messages *all);
