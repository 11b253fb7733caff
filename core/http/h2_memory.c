// Memory of an nghttp2 session, which is some 9 KB of tables that are nearly empty, and a frame buffer of 16 KiB of which a head
// uses the first few hundred bytes and a body none. All of it lies on pages of its own, in one region:
//
//   region:  [ tables, from the session's making ... | frame buffer ............ ]      of which touched pages cost memory
//
// What comes later (streams, fields, entries of HPACK's tables) is malloc's. A connection that idles sleeps: what its tables say is
// kept in an image of a few hundred bytes, and the pages go back to the system; the addresses stay, so that nothing notices.
// It wakes when anything is asked of the session.
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
    DIFFERENCE_MAX_LEN = 2 + sizeof(uint64_t), // of a word, in an image
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

// ---- the image
//
// Most words are as in any other session: those of the first that slept are the shape, and an image has only what differs from
// it. Pointers into the region are taken for places in it, so that they do not differ.

struct moon_h2_shape {
    uint64_t words[TABLES_LEN / sizeof(uint64_t)];
    uint32_t len; // of the tables, in words; 0: none has slept
};

struct moon_h2_shape *moon_h2_shape_new(void)
{
    return calloc(1, sizeof(struct moon_h2_shape));
}

void moon_h2_shape_free(struct moon_h2_shape *shape)
{
    free(shape);
}

// No pointer, and no number that a session counts to.
static const uint64_t places = UINT64_C(0x8e5a7c0000000000);

static bool is_place(uint64_t word)
{
    return word - places < REGION_LEN;
}

static uint64_t place_of(const struct moon_h2 *h2, uint64_t word)
{
    uint64_t at = word - (uint64_t)(uintptr_t)h2->region;
    return at < REGION_LEN ? places + at : word;
}

static uint64_t word_of(const struct moon_h2 *h2, uint64_t place)
{
    return is_place(place) ? place - places + (uint64_t)(uintptr_t)h2->region : place;
}

static uint32_t word_count(const struct moon_h2 *h2)
{
    return (uint32_t)(h2->tables_len / sizeof(uint64_t));
}

// How many words before it are as they are in the shape, which bytes differ, and those.
static uint8_t *difference_write(uint8_t *to, uint8_t skip, uint64_t difference)
{
    uint8_t *mask = to + 1;
    *to = skip;
    *mask = 0;
    to += 2;
    for (unsigned i = 0; i < sizeof difference; i++, difference >>= 8) {
        if (!(difference & 0xff))
            continue;
        *mask |= (uint8_t)(1u << i);
        *to++ = (uint8_t)difference;
    }
    return to;
}

static const uint8_t *difference_read(const uint8_t *from, uint8_t *skip, uint64_t *difference)
{
    uint8_t mask = from[1];
    *skip = from[0];
    *difference = 0;
    from += 2;
    for (unsigned i = 0; i < sizeof *difference; i++)
        if (mask >> i & 1)
            *difference |= (uint64_t)*from++ << 8 * i;
    return from;
}

// Its length; 0: it cannot be told.
static size_t pack(const struct moon_h2 *h2, uint8_t *to)
{
    const uint64_t *words = (const uint64_t *)(const void *)h2->region;
    const uint64_t *shape = h2->args.shape->words;
    uint8_t *at = to, skip = 0;
    for (uint32_t i = 0; i < word_count(h2); i++) {
        uint64_t difference = place_of(h2, words[i]) ^ shape[i];
        if (is_place(words[i]))
            return 0;
        if (difference || skip == UINT8_MAX) {
            at = difference_write(at, skip, difference);
            skip = 0;
        } else {
            skip++;
        }
    }
    at = difference_write(at, skip, 0); // the end: as many words as were left
    return (size_t)(at - to);
}

static void unpack(struct moon_h2 *h2)
{
    uint64_t *words = (uint64_t *)(void *)h2->region, difference;
    const uint64_t *shape = h2->args.shape->words;
    const uint8_t *from = h2->image;
    uint8_t skip;
    for (uint32_t i = 0, count = word_count(h2); i < count; i++) {
        from = difference_read(from, &skip, &difference);
        for (; skip && i < count; skip--, i++)
            words[i] = word_of(h2, shape[i]);
        if (i < count)
            words[i] = word_of(h2, shape[i] ^ difference);
    }
}

// The first that sleeps: false when there is no shape, or one of another kind of session.
static bool has_shape(const struct moon_h2 *h2)
{
    struct moon_h2_shape *shape = h2->args.shape;
    const uint64_t *words = (const uint64_t *)(const void *)h2->region;
    if (shape && !shape->len) {
        shape->len = word_count(h2);
        for (uint32_t i = 0; i < shape->len; i++)
            shape->words[i] = place_of(h2, words[i]);
    }
    return shape && shape->len == word_count(h2);
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
    uint8_t packed[(TABLES_LEN / sizeof(uint64_t) + 1) * DIFFERENCE_MAX_LEN];
    if (!may_sleep(h2))
        return;
    drop_encoder_table(h2);
    size_t len = !h2->error && has_shape(h2) ? pack(h2, packed) : 0;
    h2->image = len ? malloc(len) : NULL;
    if (!h2->image)
        return;
    memcpy(h2->image, packed, len);
    madvise(h2->region, REGION_LEN, MADV_DONTNEED);
}

void moon_h2_wake(struct moon_h2 *h2)
{
    if (!h2->image)
        return;
    unpack(h2);
    free(h2->image);
    h2->image = NULL;
}
