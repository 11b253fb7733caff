// SipHash-1-3 (Aumasson and Bernstein, 2012): a keyed hash for tables whose keys come from the network. Who does not know the
// seed cannot make keys collide.
#pragma once

#include <stddef.h>
#include <stdint.h>

// `bytes` may be NULL where `len` is 0. Pure.
uint64_t moon_siphash(const uint64_t seed[2], const void *bytes, size_t len);
