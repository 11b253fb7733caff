// Removal of what belongs to one hop (RFC 9110 7.6.1), in place and in one pass. A sender may name
// its own fields in Connection, but not take away those that policy and backends rely on. And removal of what
// an edited body makes untrue.
#include "http/head.h"

#define BIT(id) (UINT64_C(1) << MOON_H_##id)
static const uint64_t hop_ids = BIT(CONNECTION) | BIT(KEEP_ALIVE) | BIT(PROXY_CONNECTION) |
                                BIT(PROXY_AUTHENTICATE) | BIT(PROXY_AUTHORIZATION) | BIT(TE) |
                                BIT(TRAILER) | BIT(TRANSFER_ENCODING) | BIT(UPGRADE) |
                                BIT(HTTP2_SETTINGS) | BIT(CONTENT_LENGTH);
// A Connection field whose names are dropped has become a Keep-Alive.
static const uint64_t named_ids = BIT(CONNECTION) | BIT(KEEP_ALIVE);
#undef BIT

static bool starts_fold(struct moon_slice name, struct moon_slice prefix)
{
    return name.len >= prefix.len &&
           moon_slice_equal_fold((struct moon_slice){name.ptr, prefix.len}, prefix);
}

// Names without an id that Connection cannot take away; those with one are all protected, but for
// the hop's own.
static bool is_protected(struct moon_slice name)
{
    static const struct moon_slice prefixes[] = {{"content-", 8},
                                                 {"x-forwarded-", 12},
                                                 {"x-real-ip", 9},
                                                 {"x-client-", 9},
                                                 {"x-original-", 11},
                                                 {"sec-", 4},
                                                 {"access-control-", 15},
                                                 {"www-authenticate", 16},
                                                 {"vary", 4},
                                                 {"range", 5},
                                                 {"if-", 3}};
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
        if (starts_fold(name, prefixes[i]))
            return true;
    }
    return false;
}

// Drops the fields without an id that `item` names.
static void drop_named(struct moon_headers *h, struct moon_slice item)
{
    bool is_common = moon_slice_equal_fold(item, MOON_SLICE("close"));
    if (item.len == 0 || is_common || moon_header_id(item) != MOON_H_OTHER || is_protected(item))
        return;
    moon_headers_del(h, item);
}

// The fields shift while names are dropped, so the next Connection field is looked for each time;
// its own value is a slice that stays.
static void drop_all_named(struct moon_headers *h)
{
    if (!moon_headers_has(h, MOON_H_CONNECTION))
        return;
    for (uint32_t i = 0; i < h->count; i++) {
        if (h->fields[i].id != MOON_H_CONNECTION)
            continue;
        struct moon_slice rest = h->fields[i].value, item;
        h->fields[i].id = MOON_H_KEEP_ALIVE; // done; it goes with the hop's fields
        while (moon_slice_next_item(&rest, &item))
            drop_named(h, item);
        i = UINT32_MAX;
    }
}

static void drop_ids(struct moon_headers *h, uint64_t ids)
{
    uint32_t kept = 0;
    uint64_t present = 0;
    for (uint32_t i = 0; i < h->count; i++) {
        if (ids >> h->fields[i].id & 1)
            continue;
        present |= UINT64_C(1) << h->fields[i].id;
        if (kept != i)
            h->fields[kept] = h->fields[i];
        kept++;
    }
    h->count = kept;
    h->present = present;
}

void moon_head_forget_digests(struct moon_headers *headers)
{
    static const struct moon_slice names[] = {
        {"Repr-Digest", 11}, {"Digest", 6}, {"Content-MD5", 11}};
    if (moon_headers_has(headers, MOON_H_CONTENT_DIGEST))
        moon_headers_del_id(headers, MOON_H_CONTENT_DIGEST);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        moon_headers_del(headers, names[i]);
}

void moon_head_strip_named(struct moon_head *head)
{
    struct moon_headers *h = &head->headers;
    if (!moon_headers_has(h, MOON_H_CONNECTION))
        return;
    if (!head->names_no_field)
        drop_all_named(h);
    drop_ids(h, named_ids);
}

void moon_head_strip_hop(struct moon_head *head)
{
    struct moon_headers *h = &head->headers;
    if ((h->present & hop_ids) == 0)
        return;
    if (!head->names_no_field)
        drop_all_named(h);
    drop_ids(h, hop_ids);
}
