// See precedence.h.
#include "route/precedence.h"

#include "route/match.h"

#include <stdlib.h>
#include <string.h>

static int compare_texts(struct moon_slice a, struct moon_slice b)
{
    size_t len = a.len < b.len ? a.len : b.len;
    int order = len ? memcmp(a.ptr, b.ptr, len) : 0;
    return order ? order : (a.len > b.len) - (a.len < b.len);
}

static int compare_lens(size_t a, size_t b)
{
    return a > b ? -1 : a < b;
}

// The longer service, then the longer method; what a path says already is equal in both.
static int compare_grpc(const struct moon_grpc_match *a, const struct moon_grpc_match *b)
{
    int order = compare_lens(a->service.text.len, b->service.text.len);
    return order ? order : compare_lens(a->method.text.len, b->method.text.len);
}

// -1: a comes first. Of two matches whose host and path are as specific.
static int compare_precedence(const struct moon_match *a, const struct moon_match *b)
{
    uint32_t a_query = a->condition_count - a->header_count,
             b_query = b->condition_count - b->header_count;
    int order = a->grpc && b->grpc ? compare_grpc(a->grpc, b->grpc) : 0;
    if (order)
        return order;
    if (!a->methods != !b->methods)
        return a->methods ? -1 : 1;
    if (a->header_count != b->header_count)
        return a->header_count > b->header_count ? -1 : 1;
    if (a_query != b_query)
        return a_query > b_query ? -1 : 1;
    return a < b ? -1 : a > b; // they stand in one array, in the order they were written
}

static int compare_entries(const void *x, const void *y)
{
    const struct moon_sorted *a = x, *b = y;
    int order = compare_texts(a->host, b->host);
    if (order)
        return order;
    if (a->match->kind != b->match->kind)
        return a->match->kind < b->match->kind ? -1 : 1;
    if (a->match->kind != MOON_PATH_REGEX)
        order = compare_texts(a->match->path, b->match->path);
    return order ? order : compare_precedence(a->match, b->match);
}

struct moon_sorted *moon_precedence_sort(const struct moon_match *matches, size_t count,
                                         bool is_grpc, size_t *out)
{
    size_t entry_count = 0, at = 0;
    for (size_t i = 0; i < count; i++)
        entry_count += matches[i].host_count ? matches[i].host_count : 1;
    struct moon_sorted *entries = calloc(entry_count + 1, sizeof *entries);
    if (!entries)
        abort();
    for (size_t i = 0; i < count; i++) {
        const struct moon_match *match = &matches[i];
        if (is_grpc != (match->grpc != NULL))
            continue;
        for (uint32_t k = 0; k < match->host_count; k++)
            entries[at++] = (struct moon_sorted){match->hosts[k], match};
        if (match->host_count == 0)
            entries[at++] = (struct moon_sorted){MOON_SLICE(""), match};
    }
    qsort(entries, at, sizeof *entries, compare_entries);
    *out = at;
    return entries;
}
