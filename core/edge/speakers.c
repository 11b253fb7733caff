// See speakers.h. A slot whose time is over is an empty one.
#include "edge/speakers.h"

#include <stdlib.h>

enum { SET_COUNT = 256, WAY_COUNT = 4 };

struct slot {
    struct moon_destination destination;
    uint64_t until_ms; // 0: empty
};

struct moon_speakers {
    struct slot sets[SET_COUNT][WAY_COUNT];
};

struct moon_speakers *moon_speakers_new(void)
{
    struct moon_speakers *speakers = calloc(1, sizeof *speakers);
    if (!speakers)
        abort();
    return speakers;
}

void moon_speakers_free(struct moon_speakers *speakers)
{
    free(speakers);
}

static size_t set_of(const struct moon_destination *destination)
{
    uint32_t hash = moon_address_hash(&destination->meant);
    return (hash ^ moon_address_hash(&destination->port) * 0x9e3779b1u) % SET_COUNT;
}

static bool is_of(const struct slot *slot, const struct moon_destination *destination)
{
    return slot->until_ms && moon_address_equal(&slot->destination.meant, &destination->meant) &&
           moon_address_equal(&slot->destination.port, &destination->port);
}

// Its slot; where there is none, the one that it is to have.
static struct slot *find(struct slot *set, const struct moon_destination *destination)
{
    struct slot *oldest = set;
    for (int i = 0; i < WAY_COUNT; i++) {
        if (is_of(&set[i], destination))
            return &set[i];
        if (set[i].until_ms < oldest->until_ms)
            oldest = &set[i];
    }
    return oldest;
}

void moon_speakers_set(struct moon_speakers *speakers, const struct moon_destination *destination,
                       bool is_server, uint64_t now_ms)
{
    struct slot *slot = find(speakers->sets[set_of(destination)], destination);
    if (is_server)
        *slot = (struct slot){*destination, now_ms + MOON_SPEAKERS_MS};
    else if (is_of(slot, destination))
        slot->until_ms = 0;
}

bool moon_speakers_has(const struct moon_speakers *speakers,
                       const struct moon_destination *destination, uint64_t now_ms)
{
    const struct slot *set = speakers->sets[set_of(destination)];
    for (int i = 0; i < WAY_COUNT; i++)
        if (is_of(&set[i], destination))
            return now_ms < set[i].until_ms;
    return false;
}
