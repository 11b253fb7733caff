// Speakers: at which destinations the server spoke first, as the last silent client there found; so that the next one does not wait
// as long. A destination is where the client meant to go, as the kernel or a PROXY header says, on a port of ours; where nobody
// says, the port alone.
//
// One per worker, of a fixed size: 256 sets of 4, within which the one that is remembered for the shortest time yet gives way. Who
// is forgotten costs its next client a longer wait, nothing else.
#pragma once

#include "base/address.h"

#include <stdbool.h>
#include <stdint.h>

struct moon_speakers;

struct moon_destination {
    struct moon_address port, meant; // meant: MOON_FAMILY_NONE: not told
};

enum { MOON_SPEAKERS_MS = 600000 }; // so long one is remembered

struct moon_speakers *moon_speakers_new(void);
// NULL is fine.
void moon_speakers_free(struct moon_speakers *speakers);
// Of a silent client: who spoke first there, the server or it.
void moon_speakers_set(struct moon_speakers *speakers, const struct moon_destination *destination,
                       bool is_server, uint64_t now_ms);
// Whether the server is known to speak first there.
bool moon_speakers_has(const struct moon_speakers *speakers,
                       const struct moon_destination *destination, uint64_t now_ms);
