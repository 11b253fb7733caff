// Staples: the OCSP responses of the gateway's certificates are fetched here, on the control thread, and renewed before their time is
// over (io/tls.h). No handshake waits for one.
#pragma once

struct moon_gateway;

// Asks for what is due.
void moon_staples_ask(struct moon_gateway *gateway);
// Takes back what is under way; before control's worker ends.
void moon_staples_stop(struct moon_gateway *gateway);
