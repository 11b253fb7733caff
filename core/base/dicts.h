// The shared dictionaries of a process by name. One is made when its name is first asked for, and stays, whatever is reloaded, until
// the registry goes: a pointer to one is good as long as the registry is. Thread safe but for free.
#pragma once

#include "base/dict.h"

#include <stdbool.h>

struct moon_dicts;

enum {
    MOON_DICTS_NAME_MAX_LEN = 255,
    MOON_DICTS_MAX_COUNT = 1024, // names made up at run time are a mistake
};

enum moon_dicts_result {
    MOON_DICTS_OK = 0,
    MOON_DICTS_OTHER_LEN = 1, // there is one of another length: here it is, and keeps its own
    MOON_DICTS_BAD_NAME = 2,  // empty, or too long
    MOON_DICTS_BAD_LEN = 3,   // not from MOON_DICT_MIN_LEN to MOON_DICT_MAX_LEN
    MOON_DICTS_FULL = 4,
    MOON_DICTS_NO_MEMORY = 5, // the system gives none
};

// The seed is random, and known to nobody outside; each dictionary gets one of its own from it.
struct moon_dicts *moon_dicts_new(const uint64_t seed[2]);
// Nobody uses any of the dictionaries any more. NULL is fine.
void moon_dicts_free(struct moon_dicts *dicts);

// The dictionary of that name, made with `len` bytes if there is none; 0 is whatever length it has, or MOON_DICT_DEFAULT_LEN. *dict is
// NULL but for the first two results. Takes a lock and perhaps memory: for when code is loaded, not for each request.
int moon_dicts_get(struct moon_dicts *dicts, const char *name, size_t name_len, size_t len,
                   struct moon_dict **dict);

// Whether nobody was told yet that the dictionary of that name keeps another length than `len`: true once for each new `len`.
bool moon_dicts_tell(struct moon_dicts *dicts, const char *name, size_t name_len, size_t len);
