// A shared dictionary: fixed memory, used by all workers at once. Keys are bytes; values are strings, numbers or booleans, with a time
// to live and 32 bits of the user's own. What has not been used for longest makes room for what is new.
//
//   dict: | shard | shard | ... |        shard: | lock, lists | table of buckets | region of items |
//
// A key's seeded hash picks its shard; each operation holds the lock of one shard, for a look-up and a copy, and calls nobody
// meanwhile. Nothing is moved and nothing grows: all memory is one mapping, of which only used pages are paid for. Room is made in a
// shard by its oldest items, then by the neighbours of the last of them: so any value up to moon_dict_max_len finds room, however
// fragmented the shard.
//
// The functions return enum moon_dict_result and are made for Lua's FFI: plain types, structs that caller and callee both fill in.
// Times are monotonic milliseconds of the caller's clock; clocks of callers may differ a little. All but free are thread safe.
#pragma once

#include <stddef.h>
#include <stdint.h>

struct moon_dict;

enum moon_dict_result {
    MOON_DICT_OK = 0,
    MOON_DICT_NOT_FOUND = 1,
    MOON_DICT_EXISTS = 2,
    MOON_DICT_NO_MEMORY =
        3, // longer than moon_dict_max_len, or MOON_DICT_SAFE and no room; nothing live was changed
    MOON_DICT_NOT_NUMBER = 4, // incr of something else
    MOON_DICT_TOO_LONG = 5,   // for the caller's buffer: `len` says what it takes
    MOON_DICT_BAD_KEY = 6,    // empty, or over MOON_DICT_KEY_MAX_LEN
};

enum moon_dict_type {
    MOON_DICT_BOOLEAN = 1,
    MOON_DICT_NUMBER = 2,
    MOON_DICT_STRING = 3,
};

enum moon_dict_mode {      // of set; may be or-ed
    MOON_DICT_ADD = 1,     // only where there is no live item: else MOON_DICT_EXISTS
    MOON_DICT_REPLACE = 2, // only where there is one: else MOON_DICT_NOT_FOUND
    MOON_DICT_SAFE = 4,    // no live item makes room: else MOON_DICT_NO_MEMORY
};

enum {
    MOON_DICT_KEY_MAX_LEN = 65535,
    MOON_DICT_MIN_LEN = 16384,
    MOON_DICT_DEFAULT_LEN = 1048576,
};
#define MOON_DICT_MAX_LEN ((size_t)1 << 38) // 256 GiB

// `len` bytes in all, from MOON_DICT_MIN_LEN to MOON_DICT_MAX_LEN; NULL outside of that and where the system has no memory. The seed
// is random, and known to nobody outside.
struct moon_dict *moon_dict_try_new(size_t len, const uint64_t seed[2]);
// Nobody uses it any more. NULL is fine.
void moon_dict_free(struct moon_dict *dict);

// Zero what is not wanted.
struct moon_dict_value {
    char *buffer;      // in: where a string goes; may be NULL
    size_t buffer_len; // in
    size_t len;        // out: of the string
    double number;     // out: the number; 0 or 1 for a boolean
    uint32_t flags;    // out
    uint8_t type;      // out: enum moon_dict_type
    uint8_t is_stale;  // out, of get_stale: it has expired, or was flushed
};

// MOON_DICT_TOO_LONG tells type, len and flags, and copies nothing: another try may need still more.
int moon_dict_get(struct moon_dict *dict, const char *key, size_t key_len, uint64_t now_ms,
                  struct moon_dict_value *value);
// Finds what has expired as well, as long as nothing needed its room.
int moon_dict_get_stale(struct moon_dict *dict, const char *key, size_t key_len, uint64_t now_ms,
                        struct moon_dict_value *value);

struct moon_dict_set {
    const char *string;  // in
    size_t len;          // in: of the string
    double number;       // in
    uint64_t ttl_ms;     // in: 0 lives until something needs its room
    uint32_t flags;      // in
    uint8_t type;        // in: enum moon_dict_type
    uint8_t mode;        // in: enum moon_dict_mode, 0 for a plain set
    uint8_t is_forcible; // out: a live item made room
};

// Replaces value, flags and time to live. A long value among short items makes room for about 3 ns a byte, under its shard's lock.
int moon_dict_set(struct moon_dict *dict, const char *key, size_t key_len, uint64_t now_ms,
                  struct moon_dict_set *set);

struct moon_dict_incr {
    double by;            // in
    double init;          // in: what a missing item starts from
    uint64_t init_ttl_ms; // in: of an item that is made; 0 for ever
    double number;        // out: the sum
    uint8_t has_init;     // in: else a missing item is MOON_DICT_NOT_FOUND
    uint8_t is_forcible;  // out
};

// An item that is there keeps its flags and its time to live.
int moon_dict_incr(struct moon_dict *dict, const char *key, size_t key_len, uint64_t now_ms,
                   struct moon_dict_incr *incr);

// Frees the item, live or stale; MOON_DICT_NOT_FOUND where there is none.
int moon_dict_del(struct moon_dict *dict, const char *key, size_t key_len);
// What is left to a live item, in milliseconds; 0 lives for ever.
int moon_dict_ttl(struct moon_dict *dict, const char *key, size_t key_len, uint64_t now_ms,
                  double *ttl_ms);
// A new time to live for a live item; 0 lives for ever.
int moon_dict_expire(struct moon_dict *dict, const char *key, size_t key_len, uint64_t now_ms,
                     uint64_t ttl_ms);

// ---- the whole dictionary: shard by shard, so other workers' changes may fall before or behind

struct moon_dict_keys {
    char *
        // in: each key becomes its length (uint16_t, of this machine, not aligned) and its bytes
        buffer;
    size_t buffer_len; // in
    size_t max_count;  // in: at most so many keys; the last of them ends the listing
    size_t count;      // out
    size_t
        // out: bytes of the buffer that were filled; of MOON_DICT_TOO_LONG, that it would take at least
        len;
    uint32_t shard; // the cursor: 0 at first, then as it was left
    uint32_t bucket;
    uint8_t is_last; // out: that was all
};

// The live keys, in no order, a bufferful a call. A key that lives through all calls is listed once. MOON_DICT_TOO_LONG: the next few
// do not fit an empty buffer; go on with a larger one.
int moon_dict_keys(struct moon_dict *dict, uint64_t now_ms, struct moon_dict_keys *keys);

// All items become stale, and are freed as room is needed.
void moon_dict_flush_all(struct moon_dict *dict);
// Frees up to max_count stale items, all for 0; how many. Walks the whole dictionary, a few items under each lock.
size_t moon_dict_flush_expired(struct moon_dict *dict, size_t max_count, uint64_t now_ms);

// The bytes given to it.
size_t moon_dict_capacity(const struct moon_dict *dict);
// Bytes that no item holds; in one piece or not.
size_t moon_dict_free_space(struct moon_dict *dict);
// A key and its string may be this long together. A number counts as no string.
size_t moon_dict_max_len(const struct moon_dict *dict);
