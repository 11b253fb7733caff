// A survey: what the connections of one worker do right now, told one by one to whoever asks. Nothing is kept for it while
// nobody asks.
#pragma once

#include "base/address.h"
#include "base/slice.h"

#include <stdbool.h>
#include <stdint.h>

struct moon_service;

struct moon_survey_row {
    uint64_t number; // of the connection, unique in the worker
    // "idle", "head", "exchange", "tunnel", "websocket", "tcp", "tls", "ending"
    const char *state;
    uint64_t age_ms;                             // of the connection
    uint32_t request_count;                      // begun on it
    struct moon_address client, endpoint;        // MOON_FAMILY_NONE: a unix socket; there is none
    struct moon_slice listener, route, upstream; // NULL: not known yet, or none
};

// Borrows the row. False: it wants no more.
typedef bool moon_survey_fn(void *owner, const struct moon_survey_row *row);

// The connections with an exchange, then the tunnels, as long as `fn` wants more. What was asked last comes last.
bool moon_exchange_survey(const struct moon_service *service, moon_survey_fn *fn, void *owner);
