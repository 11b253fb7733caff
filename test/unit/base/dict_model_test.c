// base/dict at random against a naive model: a table of what each key was last set to. A dictionary may forget only where it says so
// (or where a stale item was in the way), and must never tell anything else than the model. After every few steps each shard is
// walked: every block of its region is in its table and in its list by use, once.
#include "base/dict.c" // to look into the shards

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "regions.h"

enum { KEY_COUNT = 400, STEPS = 30000, TEXT_LEN = 400000 };

struct expected {
    uint64_t expires_ms; // 0: never
    double number;
    const char *string; // into the text
    size_t len;
    uint32_t flags;
    uint8_t type;     // 0: there is none
    bool may_be_gone; // something made room since
};

struct model {
    struct moon_dict *dict;
    struct expected keys[KEY_COUNT];
    uint64_t now_ms;
    uint32_t seed;
    size_t max_len; // of values
    size_t forced, refused, hits, forgotten;
    char *text, *buffer;
};

static uint32_t draw(struct model *m, uint32_t bound)
{
    m->seed ^= m->seed << 13;
    m->seed ^= m->seed >> 17;
    m->seed ^= m->seed << 5;
    return m->seed % bound;
}

// Few keys are long, and all are different.
static size_t key_of(uint32_t id, char key[512])
{
    size_t len = (size_t)snprintf(key, 512, "key-%u", id);
    if (id % 16 != 0)
        return len;
    memset(key + len, 'x', id);
    return len + id;
}

static bool is_live(const struct model *m, const struct expected *e)
{
    return e->type && (e->expires_ms == 0 || e->expires_ms > m->now_ms);
}

static void something_was_forced(struct model *m)
{
    m->forced++;
    for (int i = 0; i < KEY_COUNT; i++)
        m->keys[i].may_be_gone = true;
}

static void check_get(struct model *m, uint32_t id)
{
    struct expected *e = &m->keys[id];
    char key[512];
    struct moon_dict_value value = {.buffer = m->buffer, .buffer_len = TEXT_LEN};
    int result = moon_dict_get(m->dict, key, key_of(id, key), m->now_ms, &value);
    if (result == MOON_DICT_NOT_FOUND) {
        assert_true(!is_live(m, e) || e->may_be_gone);
        m->forgotten += is_live(m, e);
        if (is_live(m, e))
            e->type = 0;
        return;
    }
    assert_int_equal(result, MOON_DICT_OK);
    assert_true(is_live(m, e));
    assert_int_equal(value.type, e->type);
    assert_int_equal(value.flags, e->flags);
    if (e->type == MOON_DICT_STRING) {
        assert_int_equal(value.len, e->len);
        assert_memory_equal(m->buffer, e->string, e->len);
    } else {
        assert_true(value.number == e->number);
    }
    m->hits++;
}

static size_t draw_len(struct model *m)
{
    switch (draw(m, 8)) {
    case 0:
        return draw(m, (uint32_t)m->max_len);
    case 1:
        return draw(m, (uint32_t)m->max_len / 8);
    default:
        return draw(m, 200);
    }
}

static void set_some(struct model *m, uint32_t id)
{
    static const uint8_t types[] = {MOON_DICT_STRING, MOON_DICT_STRING, MOON_DICT_NUMBER,
                                    MOON_DICT_BOOLEAN};
    static const uint8_t modes[] = {0,
                                    0,
                                    0,
                                    MOON_DICT_SAFE,
                                    MOON_DICT_ADD,
                                    MOON_DICT_REPLACE,
                                    MOON_DICT_ADD | MOON_DICT_SAFE,
                                    MOON_DICT_REPLACE | MOON_DICT_SAFE};
    check_get(m, id); // so that we know whether it is there
    char key[512];
    struct expected *e = &m->keys[id];
    struct moon_dict_set set = {.len = draw_len(m),
                                .string = m->text + draw(m, TEXT_LEN / 2),
                                .number = draw(m, 2),
                                .ttl_ms = draw(m, 3) ? 0 : 1 + draw(m, 300),
                                .flags = draw(m, 1000),
                                .type = types[draw(m, 4)],
                                .mode = modes[draw(m, 8)]};
    bool was_live = is_live(m, e);
    int result = moon_dict_set(m->dict, key, key_of(id, key), m->now_ms, &set);
    if (set.is_forcible)
        something_was_forced(m);
    if (result == MOON_DICT_EXISTS)
        assert_true(was_live && (set.mode & MOON_DICT_ADD));
    if (result == MOON_DICT_NOT_FOUND)
        assert_true(!was_live && (set.mode & MOON_DICT_REPLACE));
    if (result == MOON_DICT_NO_MEMORY) {
        assert_true(set.mode & MOON_DICT_SAFE);
        m->refused++;
    }
    assert_false(set.is_forcible && (set.mode & MOON_DICT_SAFE));
    if (result == MOON_DICT_OK)
        *e = (struct expected){set.ttl_ms ? m->now_ms + set.ttl_ms : 0,
                               set.number,
                               set.string,
                               set.len,
                               set.flags,
                               set.type,
                               false};
    check_get(m, id);
}

static void incr_some(struct model *m, uint32_t id)
{
    check_get(m, id);
    char key[512];
    struct expected *e = &m->keys[id];
    struct moon_dict_incr incr = {
        .by = draw(m, 9), .init = 3, .init_ttl_ms = draw(m, 2) * 50, .has_init = draw(m, 2) == 0};
    int result = moon_dict_incr(m->dict, key, key_of(id, key), m->now_ms, &incr);
    if (incr.is_forcible)
        something_was_forced(m);
    if (is_live(m, e) && e->type != MOON_DICT_NUMBER) {
        assert_int_equal(result, MOON_DICT_NOT_NUMBER);
    } else if (is_live(m, e)) {
        assert_int_equal(result, MOON_DICT_OK);
        e->number += incr.by;
        assert_true(incr.number == e->number);
    } else if (incr.has_init) {
        assert_int_equal(result, MOON_DICT_OK);
        *e = (struct expected){.expires_ms = incr.init_ttl_ms ? m->now_ms + incr.init_ttl_ms : 0,
                               .number = 3 + incr.by,
                               .type = MOON_DICT_NUMBER};
        assert_true(incr.number == e->number);
    } else {
        assert_int_equal(result, MOON_DICT_NOT_FOUND);
    }
}

static void change_end(struct model *m, uint32_t id)
{
    check_get(m, id);
    char key[512];
    struct expected *e = &m->keys[id];
    size_t len = key_of(id, key);
    double ttl_ms = -1;
    uint64_t new_ms = draw(m, 200);
    int result = moon_dict_ttl(m->dict, key, len, m->now_ms, &ttl_ms);
    assert_int_equal(result, is_live(m, e) ? MOON_DICT_OK : MOON_DICT_NOT_FOUND);
    if (result == MOON_DICT_OK)
        assert_true(ttl_ms == (e->expires_ms ? (double)(e->expires_ms - m->now_ms) : 0));
    assert_int_equal(moon_dict_expire(m->dict, key, len, m->now_ms, new_ms), result);
    if (result == MOON_DICT_OK)
        e->expires_ms = new_ms ? m->now_ms + new_ms : 0;
}

static void del_some(struct model *m, uint32_t id)
{
    check_get(m, id);
    char key[512];
    struct expected *e = &m->keys[id];
    int result = moon_dict_del(m->dict, key, key_of(id, key));
    assert_true(result == MOON_DICT_OK || !is_live(m, e)); // a stale one may be there or not
    e->type = 0;
}

static void check_shards(const struct model *m)
{
    for (uint32_t i = 0; i < m->dict->shard_count; i++) {
        const struct moon_dict_shard *shard = shard_at(m->dict, i);
        uint32_t in_buckets = 0, in_list = 0, newer = 0;
        for (uint32_t bucket = 0; bucket <= shard->bucket_mask; bucket++)
            for (uint32_t at = shard->buckets[bucket]; at; in_buckets++) {
                const struct moon_dict_item *item = moon_dict_shard_item(shard, at);
                assert_int_equal(item->hash & shard->bucket_mask, bucket);
                assert_true(item->block.span & 1);
                at = item->next;
            }
        for (uint32_t at = shard->newest; at; in_list++) {
            const struct moon_dict_item *item = moon_dict_shard_item(shard, at);
            assert_int_equal(item->newer, newer);
            newer = at;
            at = item->older;
        }
        assert_int_equal(shard->oldest, newer);
        assert_int_equal(in_list, in_buckets);
        assert_int_equal(in_list, check_region(&shard->region));
    }
}

static void step(struct model *m)
{
    uint32_t id = draw(m, KEY_COUNT), what = draw(m, 1000);
    m->now_ms += draw(m, 3);
    if (what < 500) {
        set_some(m, id);
    } else if (what < 600) {
        incr_some(m, id);
    } else if (what < 650) {
        change_end(m, id);
    } else if (what < 700) {
        del_some(m, id);
    } else if (what < 710) {
        moon_dict_flush_expired(m->dict, draw(m, 10), m->now_ms);
    } else if (what == 710) {
        moon_dict_flush_all(m->dict);
        for (int i = 0; i < KEY_COUNT; i++)
            m->keys[i].type = 0;
    } else {
        check_get(m, id);
    }
}

static struct model *run(uint32_t seed, size_t dict_len)
{
    struct model *m = calloc(1, sizeof *m);
    const uint64_t hash_seed[2] = {seed, ~(uint64_t)seed};
    m->seed = seed * 2654435761u | 1;
    m->dict = moon_dict_try_new(dict_len, hash_seed);
    m->text = malloc(TEXT_LEN);
    m->buffer = malloc(TEXT_LEN);
    m->max_len = moon_dict_max_len(m->dict) - 512;
    m->max_len = m->max_len < TEXT_LEN / 2 ? m->max_len : TEXT_LEN / 2;
    for (int i = 0; i < TEXT_LEN; i++)
        m->text[i] = (char)draw(m, 256);
    for (int i = 0; i < STEPS; i++) {
        step(m);
        if (i % (dict_len > MOON_DICT_DEFAULT_LEN ? 3000 : 100) == 0)
            check_shards(m);
    }
    return m;
}

static void end(struct model *m)
{
    for (uint32_t id = 0; id < KEY_COUNT; id++)
        del_some(m, id);
    moon_dict_flush_all(m->dict);
    moon_dict_flush_expired(m->dict, 0, m->now_ms);
    struct moon_dict *fresh = moon_dict_try_new(moon_dict_capacity(m->dict), m->dict->seed);
    assert_int_equal(moon_dict_free_space(m->dict), moon_dict_free_space(fresh));
    moon_dict_free(fresh);
    moon_dict_free(m->dict);
    free(m->text);
    free(m->buffer);
    free(m);
}

static void with_room_enough_nothing_is_forgotten(void **state)
{
    (void)state;
    struct model *m = run(1, 64u << 20);
    assert_int_equal(m->forced, 0);
    assert_int_equal(m->refused, 0);
    assert_true(m->hits > STEPS / 4);
    end(m);
}

static void without_it_only_what_is_told(void **state)
{
    (void)state;
    static const size_t lens[] = {MOON_DICT_MIN_LEN, 100000, 600000, MOON_DICT_DEFAULT_LEN};
    for (size_t i = 0; i < sizeof lens / sizeof lens[0]; i++) {
        struct model *m = run((uint32_t)i + 2, lens[i]);
        assert_true(m->forced > 50);
        assert_true(m->refused > 50);
        assert_true(m->forgotten > 50);
        assert_true(m->hits > 1000);
        end(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(with_room_enough_nothing_is_forgotten),
        cmocka_unit_test(without_it_only_what_is_told),
    };
    return cmocka_run_group_tests_name("base/dict_model", tests, NULL, NULL);
}
