// The abi of shared dictionaries: base/dict.h with the VM's clock, and times in seconds as Lua has them. abi.h repeats the plain
// structs, because it is all that the FFI reads; fields are copied, so that either side may change its own.
#include "base/dict.h"
#include "base/dicts.h"
#include "io/loop.h"
#include "script/abi.h"
#include "script/generation.h"
#include "script/vm_priv.h"

#include <assert.h>
#include <string.h>

#define SAME(abi, own) static_assert((int)(abi) == (int)(own), #abi)
SAME(MOON_ABI_OK, MOON_DICT_OK);
SAME(MOON_ABI_DICT_NOT_FOUND, MOON_DICT_NOT_FOUND);
SAME(MOON_ABI_DICT_EXISTS, MOON_DICT_EXISTS);
SAME(MOON_ABI_DICT_NO_MEMORY, MOON_DICT_NO_MEMORY);
SAME(MOON_ABI_DICT_NOT_NUMBER, MOON_DICT_NOT_NUMBER);
SAME(MOON_ABI_DICT_TOO_LONG, MOON_DICT_TOO_LONG);
SAME(MOON_ABI_DICT_BAD_KEY, MOON_DICT_BAD_KEY);
SAME(MOON_ABI_DICT_BOOLEAN, MOON_DICT_BOOLEAN);
SAME(MOON_ABI_DICT_NUMBER, MOON_DICT_NUMBER);
SAME(MOON_ABI_DICT_STRING, MOON_DICT_STRING);
SAME(MOON_ABI_DICT_ADD, MOON_DICT_ADD);
SAME(MOON_ABI_DICT_REPLACE, MOON_DICT_REPLACE);
SAME(MOON_ABI_DICT_SAFE, MOON_DICT_SAFE);
SAME(MOON_ABI_OK, MOON_DICTS_OK);
SAME(MOON_ABI_DICTS_OTHER_LEN, MOON_DICTS_OTHER_LEN);
SAME(MOON_ABI_DICTS_BAD_NAME, MOON_DICTS_BAD_NAME);
SAME(MOON_ABI_DICTS_BAD_LEN, MOON_DICTS_BAD_LEN);
SAME(MOON_ABI_DICTS_FULL, MOON_DICTS_FULL);
SAME(MOON_ABI_DICTS_NO_MEMORY, MOON_DICTS_NO_MEMORY);
SAME(MOON_ABI_DICTS_NAME_MAX_LEN, MOON_DICTS_NAME_MAX_LEN);
SAME(MOON_ABI_DICTS_MAX_COUNT, MOON_DICTS_MAX_COUNT);
SAME(MOON_ABI_DICTS_MIN_LEN, MOON_DICT_MIN_LEN);
static_assert((size_t)MOON_ABI_DICTS_MAX_GIB << 30 == MOON_DICT_MAX_LEN, "MOON_ABI_DICTS_MAX_GIB");

static uint64_t now_ms(const void *vm)
{
    return moon_loop_now_ms(((const struct moon_vm *)vm)->seat.loop);
}

// Nothing that was to expire lives for ever.
static uint64_t ms_of(double seconds)
{
    double ms = seconds * 1000 + 0.5;
    return !(seconds > 0) ? 0 : ms < 1 ? 1 : ms > 1e15 ? UINT64_C(1000000000000000) : (uint64_t)ms;
}

int moon_abi_dict_open(void *vm, const char *name, size_t len, double size, void **out)
{
    const struct moon_vm *self = vm;
    struct moon_dicts *dicts = self->host->dicts;
    struct moon_dict *dict;
    // What a script does while it is evaluated must not depend on what happened before.
    if (!self->current || !dicts)
        return MOON_ABI_PHASE;
    if (!(size >= 0 && size <= (double)MOON_DICT_MAX_LEN))
        return MOON_ABI_DICTS_BAD_LEN;
    int result = moon_dicts_get(dicts, name, len, (size_t)size, &dict);
    *out = dict;
    if (result == MOON_DICTS_OTHER_LEN && !moon_dicts_tell(dicts, name, len, (size_t)size))
        return MOON_ABI_OK;
    return result;
}

// ---- one key

static int get(int (*look)(struct moon_dict *, const char *, size_t, uint64_t,
                           struct moon_dict_value *),
               void *vm, void *dict, struct moon_abi_text key, struct moon_abi_dict_value *value)
{
    struct moon_dict_value own = {.buffer = value->buffer, .buffer_len = value->buffer_len};
    int result = look(dict, key.ptr, key.len, now_ms(vm), &own);
    value->len = own.len;
    value->number = own.number;
    value->flags = own.flags;
    value->type = own.type;
    value->is_stale = own.is_stale;
    return result;
}

int moon_abi_dict_get(void *vm, void *dict, const char *key, size_t len,
                      struct moon_abi_dict_value *value)
{
    return get(moon_dict_get, vm, dict, (struct moon_abi_text){key, len}, value);
}

int moon_abi_dict_get_stale(void *vm, void *dict, const char *key, size_t len,
                            struct moon_abi_dict_value *value)
{
    return get(moon_dict_get_stale, vm, dict, (struct moon_abi_text){key, len}, value);
}

int moon_abi_dict_set(void *vm, void *dict, const char *key, size_t len,
                      struct moon_abi_dict_set *set)
{
    struct moon_dict_set own = {.string = set->string,
                                .len = set->len,
                                .number = set->number,
                                .ttl_ms = ms_of(set->ttl),
                                .flags = set->flags,
                                .type = set->type,
                                .mode = set->mode};
    int result = moon_dict_set(dict, key, len, now_ms(vm), &own);
    set->is_forcible = own.is_forcible;
    return result;
}

int moon_abi_dict_incr(void *vm, void *dict, const char *key, size_t len,
                       struct moon_abi_dict_incr *incr)
{
    struct moon_dict_incr own = {.by = incr->by,
                                 .init = incr->init,
                                 .init_ttl_ms = ms_of(incr->init_ttl),
                                 .has_init = incr->has_init};
    int result = moon_dict_incr(dict, key, len, now_ms(vm), &own);
    incr->number = own.number;
    incr->is_forcible = own.is_forcible;
    return result;
}

int moon_abi_dict_del(void *dict, const char *key, size_t len)
{
    return moon_dict_del(dict, key, len);
}

int moon_abi_dict_ttl(void *vm, void *dict, const char *key, size_t len, double *seconds)
{
    double ms = 0;
    int result = moon_dict_ttl(dict, key, len, now_ms(vm), &ms);
    *seconds = ms / 1000;
    return result;
}

int moon_abi_dict_expire(void *vm, void *dict, const char *key, size_t len, double seconds)
{
    return moon_dict_expire(dict, key, len, now_ms(vm), ms_of(seconds));
}

// ---- all of them

int moon_abi_dict_keys(void *vm, void *dict, struct moon_abi_dict_keys *keys)
{
    struct moon_dict_keys own = {.buffer = keys->buffer,
                                 .buffer_len = keys->buffer_len,
                                 .max_count = keys->max_count,
                                 .shard = keys->shard,
                                 .bucket = keys->bucket};
    int result = moon_dict_keys(dict, now_ms(vm), &own);
    keys->count = own.count;
    keys->len = own.len;
    keys->shard = own.shard;
    keys->bucket = own.bucket;
    keys->is_last = own.is_last;
    return result;
}

void moon_abi_dict_flush_all(void *dict)
{
    moon_dict_flush_all(dict);
}

double moon_abi_dict_flush_expired(void *vm, void *dict, double max)
{
    size_t count = !(max > 0) || max > 1e15 ? 0 : max < 1 ? 1 : (size_t)max;
    return (double)moon_dict_flush_expired(dict, count, now_ms(vm));
}

double moon_abi_dict_capacity(void *dict)
{
    return (double)moon_dict_capacity(dict);
}

double moon_abi_dict_free_space(void *dict)
{
    return (double)moon_dict_free_space(dict);
}
