// Memory of an nghttp2 session. Its frame buffer is one block of 16 KiB for the whole life of the connection, of which a head uses
// the first few hundred bytes and a body none: on pages of its own, untouched so far, it costs one of them. From malloc it
// would come out of memory that handshakes have used, and cost all (5,000 idle over TLS: 33.8 KB each, 28.6 so).
#include "http/h2_priv.h"

#include <stdlib.h>
#include <sys/mman.h>

enum { LARGE_LEN = 16384 };

static void *pages_take(struct moon_h2 *h2, size_t len)
{
    void *pages = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED)
        return malloc(len);
    h2->pages = pages;
    h2->pages_len = len;
    return pages;
}

static void mem_free(void *ptr, void *owner)
{
    struct moon_h2 *h2 = owner;
    if (!ptr || ptr != h2->pages) {
        free(ptr);
        return;
    }
    munmap(h2->pages, h2->pages_len);
    h2->pages = NULL;
}

static void *mem_malloc(size_t len, void *owner)
{
    struct moon_h2 *h2 = owner;
    return len >= LARGE_LEN && !h2->pages ? pages_take(h2, len) : malloc(len);
}

static void *mem_calloc(size_t count, size_t len, void *owner)
{
    (void)owner;
    return calloc(count, len);
}

static void *mem_realloc(void *ptr, size_t len, void *owner)
{
    struct moon_h2 *h2 = owner;
    if (!ptr)
        return mem_malloc(len, owner);
    if (ptr != h2->pages)
        return realloc(ptr, len);
    void *to = malloc(len);
    if (!to)
        return NULL;
    memcpy(to, ptr, len < h2->pages_len ? len : h2->pages_len);
    mem_free(ptr, owner);
    return to;
}

nghttp2_mem moon_h2_memory(struct moon_h2 *h2)
{
    return (nghttp2_mem){.mem_user_data = h2,
                         .malloc = mem_malloc,
                         .free = mem_free,
                         .calloc = mem_calloc,
                         .realloc = mem_realloc};
}
