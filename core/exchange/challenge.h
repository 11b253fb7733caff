// HTTP-01 of ACME (RFC 8555 8.3): a request for the answer to a challenge that is pending is answered before any listener or route
// is looked for, whatever they say: it holds for a moment, and nobody else knows the token.
#pragma once

#include <stdbool.h>

struct moon_exchange;

// True: it was one, and was answered. While there is no challenge this costs a look at a counter.
bool moon_exchange_answer_challenge(struct moon_exchange *ex);
