// Manual poisoning for AddressSanitizer builds: a block on a free list, or not yet handed out,
// traps when touched. In other builds both calls are empty. The one place outside io/ with #ifdef:
// nothing else tells the compilers apart.
#pragma once

#include <stddef.h>

#ifndef __has_feature
#define __has_feature(name) 0
#endif

#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#include <sanitizer/asan_interface.h>
static inline void moon_poison_add(const void *ptr, size_t len)
{
    __asm__("" : "+r"(ptr)); // or gcc warns that a const pointer leads to uninitialised bytes
    __asan_poison_memory_region(ptr, len);
}
static inline void moon_poison_del(const void *ptr, size_t len)
{
    __asan_unpoison_memory_region(ptr, len);
}
#else
static inline void moon_poison_add(const void *ptr, size_t len)
{
    (void)ptr;
    (void)len;
}
static inline void moon_poison_del(const void *ptr, size_t len)
{
    (void)ptr;
    (void)len;
}
#endif
