// Reading the request's body in rewrite and access: whole into memory of its own, or piece by piece. One reader an exchange.
#include "base/arena.h"
#include "filter/filter.h"
#include "script/abi.h"
#include "script/vm_priv.h"

#include <stdlib.h>
#include <string.h>

enum { PIECE_MAX_LEN = 65536 };

struct moon_collect {
    struct moon_slot *slot;
    struct moon_body_reader reader;
    struct moon_coroutine *coroutine; // who waits, and with which wait
    uint32_t wait;
    char *bytes;
    size_t len, cap, max;
    bool is_whole; // the end has come
    bool is_over;  // more than max
    bool in_pieces, has_piece;
    bool is_replaced; // the body is this text, whatever was read before
    struct moon_slice text;
};

void moon_collect_free(struct moon_collect *collect)
{
    if (!collect)
        return;
    free(collect->bytes);
    free(collect);
}

static struct moon_slot *slot_of(const void *handle, int *code)
{
    const struct moon_abi_exchange *exchange = handle;
    struct moon_slot *slot = exchange->slot;
    *code = MOON_ABI_ENDED;
    if (!slot || slot->generation != exchange->generation || !slot->flow)
        return NULL;
    *code = moon_slot_check(slot, 1u << MOON_ABI_REWRITE | 1u << MOON_ABI_ACCESS);
    if (!*code && slot->vm->current->is_task)
        *code = MOON_ABI_PHASE;
    return *code ? NULL : slot;
}

static void tell(struct moon_collect *collect)
{
    moon_coroutine_wake(collect->coroutine, collect->wait);
}

static bool append(struct moon_collect *collect, struct moon_slice bytes)
{
    if (collect->len + bytes.len > collect->cap) {
        size_t cap = collect->cap ? collect->cap * 2 : 4096;
        cap = cap < collect->len + bytes.len ? collect->len + bytes.len : cap;
        char *more = realloc(collect->bytes, cap);
        if (!more)
            return false;
        collect->bytes = more;
        collect->cap = cap;
    }
    memcpy(collect->bytes + collect->len, bytes.ptr, bytes.len);
    collect->len += bytes.len;
    return true;
}

static ssize_t take_piece(struct moon_collect *collect, struct moon_slice bytes)
{
    if (collect->has_piece)
        return MOON_BODY_WAIT;
    size_t len = bytes.len < PIECE_MAX_LEN ? bytes.len : PIECE_MAX_LEN;
    collect->len = 0;
    if (!append(collect, (struct moon_slice){bytes.ptr, len}))
        return MOON_BODY_FAIL;
    collect->has_piece = true;
    tell(collect);
    return (ssize_t)len;
}

static ssize_t on_body(void *owner, struct moon_slice bytes, bool end)
{
    struct moon_collect *collect = owner;
    if (end) {
        collect->is_whole = true;
        tell(collect);
        return 0;
    }
    if (collect->in_pieces)
        return take_piece(collect, bytes);
    if (collect->len + bytes.len > collect->max || !append(collect, bytes)) {
        collect->is_over = true;
        tell(collect);
        return MOON_BODY_WAIT;
    }
    return (ssize_t)bytes.len;
}

static struct moon_collect *collect_of(struct moon_slot *slot)
{
    if (slot->collect)
        return slot->collect;
    slot->collect = calloc(1, sizeof *slot->collect);
    if (!slot->collect)
        abort();
    slot->collect->slot = slot;
    slot->collect->reader = (struct moon_body_reader){on_body, slot->collect};
    return slot->collect;
}

static void wait_for(struct moon_collect *collect)
{
    struct moon_flow *flow = collect->slot->flow;
    collect->coroutine = collect->slot->vm->current;
    collect->wait = moon_coroutine_wait(collect->coroutine, NULL, NULL);
    flow->ops->read_request(flow, &collect->reader);
}

// The body is these bytes from now on, for who reads it anew, too. They are the arena's, NULL for none.
static void replace(struct moon_collect *collect, char *bytes, size_t len)
{
    struct moon_flow *flow = collect->slot->flow;
    moon_arena_on_free(flow->arena, free, bytes);
    collect->text = bytes ? (struct moon_slice){bytes, len} : MOON_SLICE("");
    collect->bytes = NULL;
    collect->len = collect->cap = 0;
    collect->is_replaced = true;
    collect->is_whole = collect->is_over = collect->in_pieces = collect->has_piece = false;
    flow->ops->replace_request(flow, collect->text);
}

// ---- the whole body

int moon_abi_body_collect(const void *handle, size_t max)
{
    int code;
    struct moon_slot *slot = slot_of(handle, &code);
    if (!slot)
        return code;
    struct moon_collect *collect = collect_of(slot);
    collect->max = max;
    if (collect->is_replaced)
        return MOON_ABI_NONE;
    if (collect->in_pieces)
        return MOON_ABI_INVALID;
    if (collect->is_whole || (collect->is_over && collect->len >= max))
        return MOON_ABI_NONE;
    collect->is_over = false;
    wait_for(collect);
    return MOON_ABI_OK;
}

int moon_abi_body_collected(const void *handle, struct moon_abi_text *out)
{
    int code;
    struct moon_slot *slot = slot_of(handle, &code);
    if (!slot)
        return code;
    struct moon_collect *collect = slot->collect;
    if (!collect || (!collect->is_whole && !collect->is_replaced))
        return MOON_ABI_NONE;
    if (!collect->is_replaced)
        replace(collect, collect->bytes, collect->len); // the backend gets what was read
    *out = (struct moon_abi_text){collect->text.ptr, collect->text.len};
    return out->len <= collect->max ? MOON_ABI_OK : MOON_ABI_NONE;
}

int moon_abi_body_replace(const void *handle, const char *ptr, size_t len)
{
    int code;
    struct moon_slot *slot = slot_of(handle, &code);
    if (!slot)
        return code;
    char *copy = malloc(len + 1);
    if (!copy)
        return MOON_ABI_MEMORY;
    if (len)
        memcpy(copy, ptr, len);
    struct moon_collect *collect = collect_of(slot);
    free(collect->bytes);
    replace(collect, copy, len);
    return MOON_ABI_OK;
}

// ---- piece by piece

int moon_abi_chunk_ask(const void *handle)
{
    int code;
    struct moon_slot *slot = slot_of(handle, &code);
    if (!slot)
        return code;
    struct moon_collect *collect = collect_of(slot);
    if (!collect->in_pieces && collect->cap && !collect->is_replaced)
        return MOON_ABI_INVALID;
    collect->in_pieces = true;
    if (collect->has_piece || collect->is_whole)
        return MOON_ABI_NONE;
    wait_for(collect);
    return MOON_ABI_OK;
}

int moon_abi_chunk_take(const void *handle, struct moon_abi_text *out)
{
    int code;
    struct moon_slot *slot = slot_of(handle, &code);
    if (!slot)
        return code;
    struct moon_collect *collect = slot->collect;
    if (!collect || !collect->has_piece)
        return MOON_ABI_NONE;
    collect->has_piece = false;
    *out = (struct moon_abi_text){collect->bytes, collect->len};
    return MOON_ABI_OK;
}
