// Memory of an nghttp2 session, which is some 9 KB of tables that are nearly empty, and a frame buffer of 16 KiB of which a head
// uses the first few hundred bytes and a body none. All of it lies on pages of its own, in one region:
//
//   region:  [ tables, from the session's making ... | frame buffer ............ ]      of which touched pages cost memory
//
// What comes later (streams, fields, entries of HPACK's tables) is malloc's. A connection that idles sleeps: the words of the
// tables that are not zero go into an image (0.8 KB), and the pages back to the system; the addresses stay, so that nothing
// notices. It wakes when anything is asked of the session. 5,000 that idle in clear cost 14.3 KB each without it, 2.2 with it.
#include "http/h2_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    TABLES_LEN = 12288, // 9.1 KB with nghttp2 1.52; what does not fit is malloc's
    LARGE_LEN = 16384,
    REGION_LEN = 32768,
    ALIGN_LEN = 16,
    GROUP_COUNT = 64,                         // words, of which one mask tells
    PACKED_MAX_LEN = 1 + sizeof(uint64_t) + 1 // of a word, its share of the masks in it
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

// The entries of the encoder's table, some 200 bytes each, go too: a SETTINGS frame that nobody has sent takes its size to 0 and
// back, which the next header block tells the client (RFC 7541 4.2). Its acknowledgement is not sent: moon_h2_before_send.
static void drop_encoder_table(struct moon_h2 *h2)
{
    enum { FRAME_LEN = 21 };
    uint32_t size =
        nghttp2_session_get_remote_settings(h2->session, NGHTTP2_SETTINGS_HEADER_TABLE_SIZE);
    uint8_t frame[FRAME_LEN] = {[2] = FRAME_LEN - 9, [3] = NGHTTP2_SETTINGS};
    frame[10] = frame[16] = NGHTTP2_SETTINGS_HEADER_TABLE_SIZE; // 0, and behind it what it was
    for (unsigned i = 0; i < 4; i++)
        frame[17 + i] = (uint8_t)(size >> (24 - 8 * i));
    h2->is_dropping = true;
    if (nghttp2_session_mem_recv(h2->session, frame, sizeof frame) < 0 ||
        nghttp2_session_send(h2->session) != 0)
        h2->error = -ENOMEM;
    h2->is_dropping = false;
}

int moon_h2_before_send(nghttp2_session *session, const nghttp2_frame *frame, void *owner)
{
    (void)session, (void)frame;
    return ((const struct moon_h2 *)owner)->is_dropping ? NGHTTP2_ERR_CANCEL : 0;
}

static size_t group_count(const struct moon_h2 *h2)
{
    return (h2->tables_len / sizeof(uint64_t) + GROUP_COUNT - 1) / GROUP_COUNT;
}

// Which of the GROUP_COUNT words are not zero.
static uint64_t mask_of(const uint64_t *words)
{
    uint64_t mask = 0;
    for (unsigned i = 0; i < GROUP_COUNT; i++)
        mask |= (uint64_t)(words[i] != 0) << i;
    return mask;
}

// A byte that says which bytes are not zero, then those.
static uint8_t *word_pack(uint64_t word, uint8_t *to)
{
    uint8_t *mask = to++;
    *mask = 0;
    for (unsigned i = 0; i < sizeof word; i++, word >>= 8) {
        if (!(word & 0xff))
            continue;
        *mask |= (uint8_t)(1u << i);
        *to++ = (uint8_t)word;
    }
    return to;
}

static const uint8_t *word_unpack(const uint8_t *from, uint64_t *word)
{
    uint8_t mask = *from++;
    for (unsigned i = 0; i < sizeof *word; i++)
        if (mask >> i & 1)
            *word |= (uint64_t)*from++ << 8 * i;
    return from;
}

// Masks of all groups, then the words that they name, packed. Its length.
static size_t pack(const struct moon_h2 *h2, uint8_t *to)
{
    const uint64_t *words = (const uint64_t *)(const void *)h2->region;
    size_t groups = group_count(h2);
    uint8_t *at = to + groups * sizeof(uint64_t);
    for (size_t i = 0; i < groups; i++, words += GROUP_COUNT) {
        uint64_t mask = mask_of(words);
        memcpy(to + i * sizeof mask, &mask, sizeof mask);
        for (; mask; mask &= mask - 1)
            at = word_pack(words[__builtin_ctzll(mask)], at);
    }
    return (size_t)(at - to);
}

// Between two frames, with nothing to be sent, since the frame buffer is not kept.
static bool may_sleep(const struct moon_h2 *h2)
{
    return h2->region && !h2->image && !h2->error && !h2->has_terminated && !moon_h2_is_busy(h2) &&
           !moon_h2_is_in_block(h2) && h2->payload_len == 0 && h2->frame_head_len == 0 &&
           !nghttp2_session_want_write(h2->session);
}

void moon_h2_sleep(struct moon_h2 *h2)
{
    uint8_t packed[TABLES_LEN / sizeof(uint64_t) * PACKED_MAX_LEN];
    if (!may_sleep(h2))
        return;
    drop_encoder_table(h2);
    size_t len = h2->error ? 0 : pack(h2, packed);
    h2->image = len ? malloc(len) : NULL;
    if (!h2->image)
        return;
    memcpy(h2->image, packed, len);
    madvise(h2->region, REGION_LEN, MADV_DONTNEED);
}

void moon_h2_wake(struct moon_h2 *h2)
{
    uint64_t *words = (uint64_t *)(void *)h2->region;
    size_t groups = group_count(h2);
    if (!h2->image)
        return;
    const uint8_t *from = h2->image + groups * sizeof(uint64_t);
    for (size_t i = 0; i < groups; i++, words += GROUP_COUNT) {
        uint64_t mask;
        memcpy(&mask, h2->image + i * sizeof mask, sizeof mask);
        for (; mask; mask &= mask - 1)
            from = word_unpack(from, &words[__builtin_ctzll(mask)]);
    }
    free(h2->image);
    h2->image = NULL;
}
