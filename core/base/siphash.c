// SipHash with one round for each word and three at the end: what Rust and Python hash their tables with.
// Invariant: reads exactly `len` bytes; words are little-endian, whatever the machine.
#include "base/siphash.h"

#include <endian.h>
#include <string.h>

struct state {
    uint64_t v0, v1, v2, v3;
};

static inline uint64_t rotate(uint64_t word, int bits)
{
    return word << bits | word >> (64 - bits);
}

static inline uint64_t load(const unsigned char *from)
{
    uint64_t word;
    memcpy(&word, from, sizeof word);
    return le64toh(word);
}

static inline void round_once(struct state *s)
{
    s->v0 += s->v1;
    s->v2 += s->v3;
    s->v1 = rotate(s->v1, 13) ^ s->v0;
    s->v3 = rotate(s->v3, 16) ^ s->v2;
    s->v0 = rotate(s->v0, 32);
    s->v2 += s->v1;
    s->v0 += s->v3;
    s->v1 = rotate(s->v1, 17) ^ s->v2;
    s->v3 = rotate(s->v3, 21) ^ s->v0;
    s->v2 = rotate(s->v2, 32);
}

static inline void absorb(struct state *s, uint64_t word)
{
    s->v3 ^= word;
    round_once(s);
    s->v0 ^= word;
}

// The bytes after the last whole word. Of eight bytes and more they are the end of a word that overlaps the one before.
static inline uint64_t load_rest(const unsigned char *end, size_t len)
{
    size_t rest_len = len % 8;
    uint64_t word = 0;
    if (rest_len == 0)
        return 0;
    if (len >= 8)
        return load(end - 8) >> (64 - 8 * rest_len);
    for (size_t i = 0; i < rest_len; i++)
        word |= (uint64_t)end[(ptrdiff_t)i - (ptrdiff_t)rest_len] << (8 * i);
    return word;
}

uint64_t moon_siphash(const uint64_t seed[2], const void *bytes, size_t len)
{
    struct state s = {seed[0] ^ 0x736f6d6570736575u, seed[1] ^ 0x646f72616e646f6du,
                      seed[0] ^ 0x6c7967656e657261u, seed[1] ^ 0x7465646279746573u};
    const unsigned char *at = bytes;
    for (size_t left_len = len; left_len >= 8; left_len -= 8, at += 8)
        absorb(&s, load(at));
    absorb(&s, load_rest(len % 8 ? at + len % 8 : at, len) | (uint64_t)len << 56);
    s.v2 ^= 0xff;
    round_once(&s);
    round_once(&s);
    round_once(&s);
    return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}
