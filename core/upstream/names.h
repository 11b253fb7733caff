// Names: the host names that one worker has asked for, with the addresses it was told; for connections to where no configuration
// points. An answer serves for its time to live. Then the old one serves on while another is asked for, for a while, and without
// end (but for resolver.stale) while the resolver fails. That there is no such name is remembered, too, for less long.
//
// At most MOON_NAME_MAX_COUNT names: the one that was used least recently goes. Those who ask for the same wait together.
#pragma once

#include "base/list.h"
#include "base/slice.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct moon_address;
struct moon_name_desk;
struct moon_names;
struct moon_resources;

enum { MOON_NAME_MAX_COUNT = 1024 };

// Dies with the call that brought it.
struct moon_name_answer {
    int err; // 0, MOON_ENAME, MOON_EBUSY (too many names are being asked for), or of the resolver
    const struct moon_address *addresses; // ports are 0
    size_t count;
    uint32_t turn; // another one at each answer: take them in turn
};

// Zeroed, with fn set; embedded in the one who waits.
struct moon_name_wait {
    struct moon_list node;
    void (*fn)(struct moon_name_wait *wait, const struct moon_name_answer *answer);
};

struct moon_names *moon_names_new(struct moon_resources *res, struct moon_name_desk *desk);
// Nobody waits, and the desk was freed. NULL is fine.
void moon_names_free(struct moon_names *names);
// True: *answer stands. False: wait->fn is called once, from the loop. Case does not matter.
bool moon_names_ask(struct moon_names *names, struct moon_slice host, struct moon_name_wait *wait,
                    struct moon_name_answer *answer);
// Harmless on one that does not wait.
void moon_name_wait_stop(struct moon_name_wait *wait);
