// Memory of an nghttp2 session, which is some 9 KB of tables that are nearly empty, and a frame buffer of 16 KiB of which a head
// uses the first few hundred bytes and a body none. All of it lies on pages of its own, in one region:
//
//   region:  [ tables, from the session's making ... | frame buffer ............ ]      of which touched pages cost memory
//
// What comes later (streams, fields, entries of HPACK's tables) is malloc's. A connection that idles sleeps: the words of the
// tables that are not zero go into an image (1 to 2 KB), and the pages back to the system; the addresses stay, so that nothing
// notices. It wakes when anything is asked of the session. Idle connections in clear cost 14.3 KB each without, 3 with this.
#include "http/h2_priv.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    TABLES_LEN = 12288, // 9.1 KB with nghttp2 1.52; what does not fit is malloc's
    LARGE_LEN = 16384,
    REGION_LEN = 32768,
    ALIGN_LEN = 16,
    GROUP_COUNT = 64, // words, of which one mask tells
};

static bool is_in_region(const struct moon_h2 *h2, const void *ptr)
{
    const char *at = ptr;
    return h2->region && at >= h2->region && at < h2->region + REGION_LEN;
}

// Only while the session is being made: what it has then it has for its life.
static void *region_take(struct moon_h2 *h2, size_t len)
{
    if (!h2->region || !h2->is_making)
        return NULL;
    if (len >= LARGE_LEN) {
        if (h2->has_frame_buffer || len > REGION_LEN - TABLES_LEN)
            return NULL;
        h2->has_frame_buffer = true;
        return h2->region + TABLES_LEN;
    }
    size_t at = h2->tables_len, end = (at + len + ALIGN_LEN - 1) / ALIGN_LEN * ALIGN_LEN;
    if (end > TABLES_LEN)
        return NULL;
    h2->tables_len = (uint32_t)end;
    return h2->region + at; // zeroed, as all new pages are
}

static void mem_free(void *ptr, void *owner)
{
    if (!is_in_region(owner, ptr))
        free(ptr);
}

static void *mem_malloc(size_t len, void *owner)
{
    void *ptr = region_take(owner, len);
    return ptr ? ptr : malloc(len);
}

static void *mem_calloc(size_t count, size_t len, void *owner)
{
    void *ptr = region_take(owner, count * len);
    return ptr ? ptr : calloc(count, len);
}

static void *mem_realloc(void *ptr, size_t len, void *owner)
{
    struct moon_h2 *h2 = owner;
    if (!ptr)
        return mem_malloc(len, owner);
    if (!is_in_region(h2, ptr))
        return realloc(ptr, len);
    void *to = malloc(len);
    size_t left = (size_t)(h2->region + REGION_LEN - (const char *)ptr);
    if (to)
        memcpy(to, ptr,
               len < left ? len : left); // its own length is not known: the rest is not read
    return to;
}

nghttp2_mem moon_h2_memory_init(struct moon_h2 *h2)
{
    void *region =
        mmap(NULL, REGION_LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    h2->region = region == MAP_FAILED ? NULL : region;
    h2->is_making = true;
    return (nghttp2_mem){.mem_user_data = h2,
                         .malloc = mem_malloc,
                         .free = mem_free,
                         .calloc = mem_calloc,
                         .realloc = mem_realloc};
}

void moon_h2_memory_fini(struct moon_h2 *h2)
{
    free(h2->image);
    if (h2->region)
        munmap(h2->region, REGION_LEN);
}

// ---- sleep

static size_t group_count(const struct moon_h2 *h2)
{
    return (h2->tables_len / sizeof(uint64_t) + GROUP_COUNT - 1) / GROUP_COUNT;
}

static uint64_t mask_of(const uint64_t *words)
{
    uint64_t mask = 0;
    for (unsigned i = 0; i < GROUP_COUNT; i++)
        mask |= (uint64_t)(words[i] != 0) << i;
    return mask;
}

void moon_h2_sleep(struct moon_h2 *h2)
{
    const uint64_t *words = (const uint64_t *)(const void *)h2->region;
    uint64_t masks[TABLES_LEN / sizeof(uint64_t) / GROUP_COUNT];
    size_t groups = group_count(h2), count = 0;
    if (!h2->region || h2->image || h2->error || h2->has_terminated || moon_h2_is_busy(h2) ||
        nghttp2_session_want_write(h2->session)) // the frame buffer is not kept
        return;
    for (size_t i = 0; i < groups; i++) {
        masks[i] = mask_of(words + i * GROUP_COUNT);
        count += (size_t)__builtin_popcountll(masks[i]);
    }
    h2->image = malloc((groups + count) * sizeof *h2->image);
    if (!h2->image)
        return;
    memcpy(h2->image, masks, groups * sizeof *masks);
    uint64_t *to = h2->image + groups;
    for (size_t i = 0; i < groups; i++)
        for (uint64_t mask = masks[i]; mask; mask &= mask - 1)
            *to++ = words[i * GROUP_COUNT + (unsigned)__builtin_ctzll(mask)];
    madvise(h2->region, REGION_LEN, MADV_DONTNEED);
}

void moon_h2_wake(struct moon_h2 *h2)
{
    uint64_t *words = (uint64_t *)(void *)h2->region;
    size_t groups = group_count(h2);
    const uint64_t *from = h2->image ? h2->image + groups : NULL;
    if (!from)
        return;
    for (size_t i = 0; i < groups; i++)
        for (uint64_t mask = h2->image[i]; mask; mask &= mask - 1)
            words[i * GROUP_COUNT + (unsigned)__builtin_ctzll(mask)] = *from++;
    free(h2->image);
    h2->image = NULL;
}
