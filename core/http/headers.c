// Header table: see headers.h. Ids are found by length and first letter, then confirmed by one
// case-folding compare; names that share both have a rival in a second table. The table owns its
// array of fields only through the arena.
#include "http/headers.h"

#include "base/arena.h"
#include "http/chars.h"
#include "http/head_priv.h"

#include <errno.h>
#include <string.h>

enum { NAME_MAX_LEN = 23 };

static const struct moon_slice names[MOON_H_COUNT] = {[MOON_H_OTHER] = {"", 0},
#define X(id, name) [MOON_H_##id] = {name, sizeof(name) - 1},
                                                      MOON_HEADER_NAMES(X)
#undef X
};

// By length and the low five bits of the first letter. headers_test.c finds names that are missing
// here.
#define AT(len, letter) [len][(letter)&31]
static const uint8_t candidates[NAME_MAX_LEN + 1][32] = {
    AT(2, 't') = MOON_H_TE,
    AT(3, 'v') = MOON_H_VIA,
    AT(4, 'd') = MOON_H_DATE,
    AT(4, 'e') = MOON_H_ETAG,
    AT(4, 'f') = MOON_H_FROM,
    AT(4, 'h') = MOON_H_HOST,
    AT(6, 'a') = MOON_H_ACCEPT,
    AT(6, 'c') = MOON_H_COOKIE,
    AT(6, 'e') = MOON_H_EXPECT,
    AT(6, 'o') = MOON_H_ORIGIN,
    AT(6, 's') = MOON_H_SERVER,
    AT(7, 'r') = MOON_H_REFERER,
    AT(7, 't') = MOON_H_TRAILER,
    AT(7, 'u') = MOON_H_UPGRADE,
    AT(8, 'l') = MOON_H_LOCATION,
    AT(9, 'f') = MOON_H_FORWARDED,
    AT(10, 'c') = MOON_H_CONNECTION,
    AT(10, 'k') = MOON_H_KEEP_ALIVE,
    AT(10, 's') = MOON_H_SET_COOKIE,
    AT(10, 'u') = MOON_H_USER_AGENT,
    AT(11, 'r') = MOON_H_RETRY_AFTER,
    AT(12, 'c') = MOON_H_CONTENT_TYPE,
    AT(12, 'm') = MOON_H_MAX_FORWARDS,
    AT(12, 'x') = MOON_H_X_REQUEST_ID,
    AT(13, 'a') = MOON_H_AUTHORIZATION,
    AT(13, 'c') = MOON_H_CACHE_CONTROL,
    AT(13, 'i') = MOON_H_IF_NONE_MATCH,
    AT(13, 'l') = MOON_H_LAST_MODIFIED,
    AT(14, 'c') = MOON_H_CONTENT_LENGTH,
    AT(14, 'h') = MOON_H_HTTP2_SETTINGS,
    AT(15, 'a') = MOON_H_ACCEPT_ENCODING,
    AT(15, 'x') = MOON_H_X_FORWARDED_FOR,
    AT(16, 'c') = MOON_H_CONTENT_ENCODING,
    AT(16, 'p') = MOON_H_PROXY_CONNECTION,
    AT(16, 'x') = MOON_H_X_FORWARDED_HOST,
    AT(17, 'i') = MOON_H_IF_MODIFIED_SINCE,
    AT(17, 't') = MOON_H_TRANSFER_ENCODING,
    AT(17, 'x') = MOON_H_X_FORWARDED_PROTO,
    AT(18, 'p') = MOON_H_PROXY_AUTHENTICATE,
    AT(19, 'p') = MOON_H_PROXY_AUTHORIZATION,
    AT(23, 'x') = MOON_H_X_FORWARDED_CLIENT_CERT,
};
#undef AT

static const uint8_t rivals[MOON_H_COUNT] = {
    [MOON_H_ACCEPT_ENCODING] = MOON_H_ACCEPT_LANGUAGE,
    [MOON_H_CACHE_CONTROL] = MOON_H_CONTENT_RANGE,
    [MOON_H_CONTENT_LENGTH] = MOON_H_CONTENT_DIGEST,
};

static uint64_t load_folded(const char *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof word);
    return word | 0x2020202020202020;
}

// Equal but for the bit 0x20 of each byte, which among tokens is the case of letters; controls may
// match punctuation.
static bool equal_but_bit(const char *a, const char *b, size_t len)
{
    if (len < sizeof(uint64_t)) {
        for (size_t i = 0; i < len; i++) {
            if (((a[i] ^ b[i]) & 0xdf) != 0)
                return false;
        }
        return true;
    }
    for (size_t i = 0; i + sizeof(uint64_t) <= len; i += sizeof(uint64_t)) {
        if (load_folded(a + i) != load_folded(b + i))
            return false;
    }
    return load_folded(a + len - sizeof(uint64_t)) == load_folded(b + len - sizeof(uint64_t));
}

static enum moon_header_id token_id(struct moon_slice name)
{
    if (name.len < 2 || name.len > NAME_MAX_LEN)
        return MOON_H_OTHER;
    uint8_t id = candidates[name.len][name.ptr[0] & 31];
    while (id != MOON_H_OTHER && !equal_but_bit(name.ptr, names[id].ptr, name.len))
        id = rivals[id];
    return (enum moon_header_id)id;
}

enum moon_header_id moon_header_id(struct moon_slice name)
{
    enum moon_header_id id = token_id(name);
    if (id == MOON_H_OTHER || !moon_slice_equal_fold(name, names[id]))
        return MOON_H_OTHER;
    return id;
}

struct moon_slice moon_header_name(enum moon_header_id id)
{
    return names[id];
}

bool moon_header_name_is_valid(struct moon_slice name)
{
    return name.len > 0 && moon_chars_all(name, MOON_CHAR_TOKEN);
}

bool moon_header_value_is_valid(struct moon_slice value)
{
    size_t at = moon_chars_find_control(value.ptr, value.len);
    while (at < value.len && value.ptr[at] == '\t') {
        at++;
        at += moon_chars_find_control(value.ptr + at, value.len - at);
    }
    return at == value.len;
}

int moon_headers_init(struct moon_headers *h, struct moon_arena *arena, uint32_t cap)
{
    *h = (struct moon_headers){0};
    h->fields = moon_arena_try_alloc(arena, (cap ? cap : 1) * sizeof *h->fields);
    if (!h->fields)
        return -ENOMEM;
    h->cap = cap ? cap : 1;
    return 0;
}

const struct moon_field *moon_headers_get(const struct moon_headers *h, enum moon_header_id id)
{
    if (!moon_headers_has(h, id))
        return NULL;
    for (uint32_t i = 0; i < h->count; i++) {
        if (h->fields[i].id == id)
            return &h->fields[i];
    }
    return NULL;
}

static bool field_is(const struct moon_field *field, enum moon_header_id id, struct moon_slice name)
{
    return field->id == id && (id != MOON_H_OTHER || moon_slice_equal_fold(field->name, name));
}

static const struct moon_field *next_field(const struct moon_headers *h, enum moon_header_id id,
                                           struct moon_slice name, uint32_t *at)
{
    while (*at < h->count) {
        const struct moon_field *field = &h->fields[(*at)++];
        if (field_is(field, id, name))
            return field;
    }
    return NULL;
}

const struct moon_field *moon_headers_next(const struct moon_headers *h, struct moon_slice name,
                                           uint32_t *at)
{
    enum moon_header_id id = moon_header_id(name);
    return moon_headers_has(h, id) ? next_field(h, id, name, at) : NULL;
}

struct moon_slice moon_headers_join(const struct moon_headers *h, struct moon_arena *arena,
                                    struct moon_slice name)
{
    enum moon_header_id id = moon_header_id(name);
    struct moon_slice glue = id == MOON_H_COOKIE ? MOON_SLICE("; ") : MOON_SLICE(", ");
    size_t len = 0;
    uint32_t at = 0, count = 0;
    const struct moon_field *first = NULL, *field;
    while ((field = next_field(h, id, name, &at)) != NULL) {
        first = first ? first : field;
        len += field->value.len + (count++ ? glue.len : 0);
    }
    if (count <= 1)
        return first ? first->value : (struct moon_slice){NULL, 0};
    char *text = moon_arena_try_bytes(arena, len ? len : 1);
    if (!text)
        return (struct moon_slice){NULL, 1};
    char *to = text;
    for (at = 0; (field = next_field(h, id, name, &at)) != NULL;) {
        if (to != text)
            to = (char *)memcpy(to, glue.ptr, glue.len) + glue.len;
        if (field->value.len)
            memcpy(to, field->value.ptr, field->value.len);
        to += field->value.len;
    }
    return (struct moon_slice){text, (size_t)(to - text)};
}

static int grow(struct moon_headers *h, struct moon_arena *arena)
{
    uint32_t cap = h->cap ? h->cap * 2 : 8;
    struct moon_field *fields = moon_arena_try_alloc(arena, cap * sizeof *fields);
    if (!fields)
        return -ENOMEM;
    if (h->count)
        memcpy(fields, h->fields, h->count * sizeof *fields);
    h->fields = fields;
    h->cap = cap;
    return 0;
}

static int add(struct moon_headers *h, struct moon_arena *arena, struct moon_field field)
{
    if (h->count == h->cap && grow(h, arena) != 0)
        return -ENOMEM;
    h->fields[h->count++] = field;
    h->present |= UINT64_C(1) << field.id;
    return 0;
}

int moon_headers_add(struct moon_headers *h, struct moon_arena *arena, struct moon_slice name,
                     struct moon_slice value)
{
    return add(h, arena, (struct moon_field){name, value, (uint8_t)moon_header_id(name), false});
}

int moon_headers_add_id(struct moon_headers *h, struct moon_arena *arena, enum moon_header_id id,
                        struct moon_slice value)
{
    return add(h, arena, (struct moon_field){names[id], value, (uint8_t)id, false});
}

int moon_headers_add_received(struct moon_headers *h, struct moon_arena *arena,
                              struct moon_slice name, struct moon_slice value, bool is_verbatim)
{
    return add(h, arena, (struct moon_field){name, value, (uint8_t)token_id(name), is_verbatim});
}

// Removes the fields of that name from index `from` on.
static uint32_t del_from(struct moon_headers *h, enum moon_header_id id, struct moon_slice name,
                         uint32_t from)
{
    uint32_t kept = from;
    uint64_t present = 0;
    for (uint32_t i = 0; i < from; i++)
        present |= UINT64_C(1) << h->fields[i].id;
    for (uint32_t i = from; i < h->count; i++) {
        if (field_is(&h->fields[i], id, name))
            continue;
        present |= UINT64_C(1) << h->fields[i].id;
        h->fields[kept++] = h->fields[i];
    }
    uint32_t removed = h->count - kept;
    h->count = kept;
    h->present = present;
    return removed;
}

int moon_headers_set(struct moon_headers *h, struct moon_arena *arena, struct moon_slice name,
                     struct moon_slice value)
{
    enum moon_header_id id = moon_header_id(name);
    uint32_t at = 0;
    if (!moon_headers_has(h, id) || !next_field(h, id, name, &at))
        return add(h, arena, (struct moon_field){name, value, (uint8_t)id, false});
    h->fields[at - 1] = (struct moon_field){name, value, (uint8_t)id, false};
    del_from(h, id, name, at);
    return 0;
}

uint32_t moon_headers_del(struct moon_headers *h, struct moon_slice name)
{
    enum moon_header_id id = moon_header_id(name);
    return moon_headers_has(h, id) ? del_from(h, id, name, 0) : 0;
}

uint32_t moon_headers_del_id(struct moon_headers *h, enum moon_header_id id)
{
    if (id == MOON_H_OTHER || !moon_headers_has(h, id))
        return 0;
    return del_from(h, id, names[id], 0);
}
