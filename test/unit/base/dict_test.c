// Unit tests of base/dict by example: what each operation promises, time, eviction, listing.
#include "base/dict.c" // to look into the shards

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "regions.h"

static const uint64_t seed[2] = {1, 2};

static int setup_len(void **state, size_t len)
{
    *state = moon_dict_try_new(len, seed);
    assert_non_null(*state);
    return 0;
}

static int setup(void **state)
{
    return setup_len(state, MOON_DICT_DEFAULT_LEN);
}

static int setup_small(void **state)
{
    return setup_len(state, MOON_DICT_MIN_LEN);
}

static int teardown(void **state)
{
    struct moon_dict *dict = *state;
    for (uint32_t i = 0; i < dict->shard_count; i++)
        check_region(&shard_at(dict, i)->region);
    moon_dict_free(dict);
    return 0;
}

// ---- short words for the tests

struct put {
    uint8_t mode;
    uint64_t ttl_ms, now_ms;
};

static int put_bytes(struct moon_dict *dict, const char *key, const char *string, size_t len,
                     struct put put)
{
    struct moon_dict_set set = {.type = MOON_DICT_STRING,
                                .string = string,
                                .len = len,
                                .mode = put.mode,
                                .ttl_ms = put.ttl_ms,
                                .flags = 7};
    int result = moon_dict_set(dict, key, strlen(key), put.now_ms, &set);
    return set.is_forcible ? -result - 100 : result; // -100: it was, and all was well
}

static int put(struct moon_dict *dict, const char *key, const char *string, struct put how)
{
    return put_bytes(dict, key, string, strlen(string), how);
}

static bool has_at(struct moon_dict *dict, const char *key, const char *wanted, uint64_t now_ms)
{
    char buffer[64];
    struct moon_dict_value value = {.buffer = buffer, .buffer_len = sizeof buffer};
    if (moon_dict_get(dict, key, strlen(key), now_ms, &value) != MOON_DICT_OK)
        return false;
    assert_int_equal(value.type, MOON_DICT_STRING);
    assert_int_equal(value.len, strlen(wanted));
    assert_memory_equal(buffer, wanted, value.len);
    return true;
}

static bool has(struct moon_dict *dict, const char *key, const char *wanted)
{
    return has_at(dict, key, wanted, 0);
}

// ---- values

static void values_keep_their_type(void **state)
{
    struct moon_dict *dict = *state;
    struct moon_dict_set set = {.type = MOON_DICT_NUMBER, .number = -0.125, .flags = UINT32_MAX};
    struct moon_dict_value value = {.len = 9, .is_stale = 1};
    assert_int_equal(moon_dict_set(dict, "n", 1, 5, &set), MOON_DICT_OK);
    assert_int_equal(moon_dict_get(dict, "n", 1, 5, &value), MOON_DICT_OK);
    assert_int_equal(value.type, MOON_DICT_NUMBER);
    assert_true(value.number == -0.125 && value.flags == UINT32_MAX && !value.is_stale);
    set = (struct moon_dict_set){.type = MOON_DICT_BOOLEAN, .number = 1};
    assert_int_equal(moon_dict_set(dict, "n", 1, 5, &set), MOON_DICT_OK);
    assert_int_equal(moon_dict_get(dict, "n", 1, 5, &value), MOON_DICT_OK);
    assert_int_equal(value.type, MOON_DICT_BOOLEAN);
    assert_true(value.number == 1 && value.flags == 0);
    assert_int_equal(put(dict, "n", "text", (struct put){0}), MOON_DICT_OK);
    assert_true(has(dict, "n", "text"));
    assert_int_equal(put(dict, "n", "", (struct put){0}), MOON_DICT_OK);
    assert_true(has(dict, "n", ""));
}

static void strings_and_keys_are_any_bytes(void **state)
{
    struct moon_dict *dict = *state;
    char buffer[16];
    struct moon_dict_set set = {.type = MOON_DICT_STRING, .string = "\0\xff\0", .len = 3};
    struct moon_dict_value value = {.buffer = buffer, .buffer_len = sizeof buffer};
    assert_int_equal(moon_dict_set(dict, "a\0b", 3, 0, &set), MOON_DICT_OK);
    assert_int_equal(moon_dict_get(dict, "a\0c", 3, 0, &value), MOON_DICT_NOT_FOUND);
    assert_int_equal(moon_dict_get(dict, "a", 1, 0, &value), MOON_DICT_NOT_FOUND);
    assert_int_equal(moon_dict_get(dict, "a\0b", 3, 0, &value), MOON_DICT_OK);
    assert_int_equal(value.len, 3);
    assert_memory_equal(buffer, "\0\xff\0", 3);
}

static void a_short_buffer_is_told_the_length(void **state)
{
    struct moon_dict *dict = *state;
    char buffer[8] = "xxxxxxx";
    struct moon_dict_value value = {.buffer = buffer, .buffer_len = 4};
    put(dict, "k", "12345", (struct put){0});
    assert_int_equal(moon_dict_get(dict, "k", 1, 0, &value), MOON_DICT_TOO_LONG);
    assert_int_equal(value.len, 5);
    assert_int_equal(value.type, MOON_DICT_STRING);
    assert_string_equal(buffer, "xxxxxxx");
    value = (struct moon_dict_value){0};
    assert_int_equal(moon_dict_get(dict, "k", 1, 0, &value), MOON_DICT_TOO_LONG);
    put(dict, "k", "", (struct put){0});
    assert_int_equal(moon_dict_get(dict, "k", 1, 0, &value), MOON_DICT_OK);
}

static void keys_have_bounds(void **state)
{
    struct moon_dict *dict = *state;
    char *key = calloc(1, MOON_DICT_KEY_MAX_LEN + 1);
    struct moon_dict_set set = {.type = MOON_DICT_NUMBER};
    struct moon_dict_value value = {0};
    struct moon_dict_incr incr = {.has_init = 1};
    size_t len = MOON_DICT_KEY_MAX_LEN;
    double ttl_ms;
    assert_int_equal(moon_dict_set(dict, key, len, 0, &set), MOON_DICT_OK);
    assert_int_equal(moon_dict_get(dict, key, len, 0, &value), MOON_DICT_OK);
    assert_int_equal(moon_dict_get(dict, key, len - 1, 0, &value), MOON_DICT_NOT_FOUND);
    for (int turn = 0; turn < 2; turn++, len = 0) {
        len += turn == 0;
        assert_int_equal(moon_dict_set(dict, key, len, 0, &set), MOON_DICT_BAD_KEY);
        assert_int_equal(moon_dict_get(dict, key, len, 0, &value), MOON_DICT_BAD_KEY);
        assert_int_equal(moon_dict_get_stale(dict, key, len, 0, &value), MOON_DICT_BAD_KEY);
        assert_int_equal(moon_dict_incr(dict, key, len, 0, &incr), MOON_DICT_BAD_KEY);
        assert_int_equal(moon_dict_del(dict, key, len), MOON_DICT_BAD_KEY);
        assert_int_equal(moon_dict_ttl(dict, key, len, 0, &ttl_ms), MOON_DICT_BAD_KEY);
        assert_int_equal(moon_dict_expire(dict, key, len, 0, 1), MOON_DICT_BAD_KEY);
    }
    free(key);
}

static void add_replace_and_del(void **state)
{
    struct moon_dict *dict = *state;
    assert_int_equal(put(dict, "k", "0", (struct put){MOON_DICT_REPLACE, 0, 0}),
                     MOON_DICT_NOT_FOUND);
    assert_int_equal(put(dict, "k", "1", (struct put){MOON_DICT_ADD, 100, 0}), MOON_DICT_OK);
    assert_int_equal(put(dict, "k", "2", (struct put){MOON_DICT_ADD, 0, 99}), MOON_DICT_EXISTS);
    assert_true(has_at(dict, "k", "1", 99));
    assert_int_equal(put(dict, "k", "3", (struct put){MOON_DICT_REPLACE, 100, 99}), MOON_DICT_OK);
    assert_true(has_at(dict, "k", "3", 198));
    assert_int_equal(put(dict, "k", "4", (struct put){MOON_DICT_REPLACE, 0, 199}),
                     MOON_DICT_NOT_FOUND);
    assert_int_equal(put(dict, "k", "5", (struct put){MOON_DICT_ADD, 0, 199}), MOON_DICT_OK);
    assert_true(has_at(dict, "k", "5", UINT64_MAX));
    assert_int_equal(moon_dict_del(dict, "k", 1), MOON_DICT_OK);
    assert_int_equal(moon_dict_del(dict, "k", 1), MOON_DICT_NOT_FOUND);
    assert_false(has(dict, "k", ""));
}

static void incr_counts(void **state)
{
    struct moon_dict *dict = *state;
    double ttl_ms;
    struct moon_dict_value value = {0};
    struct moon_dict_incr incr = {.by = 2, .init = 40, .init_ttl_ms = 100};
    assert_int_equal(moon_dict_incr(dict, "k", 1, 0, &incr), MOON_DICT_NOT_FOUND);
    incr.has_init = 1;
    assert_int_equal(moon_dict_incr(dict, "k", 1, 0, &incr), MOON_DICT_OK);
    assert_true(incr.number == 42);
    assert_int_equal(moon_dict_incr(dict, "k", 1, 50, &incr), MOON_DICT_OK);
    assert_true(incr.number == 44);
    assert_int_equal(moon_dict_ttl(dict, "k", 1, 50, &ttl_ms), MOON_DICT_OK);
    assert_true(ttl_ms == 50); // of the first
    assert_int_equal(moon_dict_incr(dict, "k", 1, 100, &incr), MOON_DICT_OK);
    assert_true(incr.number == 42); // anew
    assert_int_equal(moon_dict_get(dict, "k", 1, 199, &value), MOON_DICT_OK);
    assert_true(value.number == 42);
    put(dict, "k", "text", (struct put){0});
    assert_int_equal(moon_dict_incr(dict, "k", 1, 0, &incr), MOON_DICT_NOT_NUMBER);
    assert_true(has(dict, "k", "text"));
}

// ---- time

static void what_expired_is_stale(void **state)
{
    struct moon_dict *dict = *state;
    char buffer[8];
    double ttl_ms = -1;
    struct moon_dict_value value = {.buffer = buffer, .buffer_len = sizeof buffer};
    put(dict, "k", "v", (struct put){0, 10, 1000});
    assert_true(has_at(dict, "k", "v", 1009));
    assert_int_equal(moon_dict_ttl(dict, "k", 1, 1001, &ttl_ms), MOON_DICT_OK);
    assert_true(ttl_ms == 9);
    assert_int_equal(moon_dict_get_stale(dict, "k", 1, 1009, &value), MOON_DICT_OK);
    assert_false(value.is_stale);
    assert_false(has_at(dict, "k", "v", 1010));
    assert_int_equal(moon_dict_ttl(dict, "k", 1, 1010, &ttl_ms), MOON_DICT_NOT_FOUND);
    assert_int_equal(moon_dict_expire(dict, "k", 1, 1010, 5), MOON_DICT_NOT_FOUND);
    assert_int_equal(moon_dict_get_stale(dict, "k", 1, 1010, &value), MOON_DICT_OK);
    assert_true(value.is_stale && value.len == 1 && value.flags == 7 && buffer[0] == 'v');
    assert_int_equal(moon_dict_get_stale(dict, "none", 4, 1010, &value), MOON_DICT_NOT_FOUND);
}

static void expire_moves_the_end(void **state)
{
    struct moon_dict *dict = *state;
    double ttl_ms = -1;
    assert_int_equal(moon_dict_expire(dict, "k", 1, 0, 5), MOON_DICT_NOT_FOUND);
    assert_int_equal(moon_dict_ttl(dict, "k", 1, 0, &ttl_ms), MOON_DICT_NOT_FOUND);
    put(dict, "k", "v", (struct put){0});
    assert_int_equal(moon_dict_ttl(dict, "k", 1, 0, &ttl_ms), MOON_DICT_OK);
    assert_true(ttl_ms == 0);
    assert_int_equal(moon_dict_expire(dict, "k", 1, 10, 5), MOON_DICT_OK);
    assert_true(has_at(dict, "k", "v", 14));
    assert_false(has_at(dict, "k", "v", 15));
    assert_int_equal(moon_dict_expire(dict, "k", 1, 14, 0), MOON_DICT_OK);
    assert_true(has_at(dict, "k", "v", UINT64_MAX));
    assert_int_equal(moon_dict_expire(dict, "k", 1, 14, UINT64_MAX - 3), MOON_DICT_OK);
    assert_true(has_at(dict, "k", "v", UINT64_MAX - 1)); // a sum that does not wrap
}

static void flush_all_hides_and_flush_expired_frees(void **state)
{
    struct moon_dict *dict = *state;
    size_t free_space = moon_dict_free_space(dict);
    struct moon_dict_value value = {0};
    char key[16];
    for (int i = 0; i < 100; i++) {
        snprintf(key, sizeof key, "k%d", i);
        put(dict, key, "", (struct put){0, i < 30 ? 10 : 0, 0});
    }
    assert_int_equal(moon_dict_flush_expired(dict, 0, 9), 0);
    assert_int_equal(moon_dict_flush_expired(dict, 20, 10), 20);
    assert_int_equal(moon_dict_flush_expired(dict, 20, 10), 10);
    assert_true(has(dict, "k30", ""));
    moon_dict_flush_all(dict);
    assert_false(has(dict, "k30", ""));
    assert_int_equal(moon_dict_get_stale(dict, "k30", 3, 0, &value), MOON_DICT_OK);
    assert_true(value.is_stale);
    put(dict, "k30", "new", (struct put){0});
    assert_true(has(dict, "k30", "new"));
    assert_true(moon_dict_flush_expired(dict, 0, 0) >= 60); // some went with the write
    assert_true(has(dict, "k30", "new"));
    assert_int_equal(moon_dict_del(dict, "k30", 3), MOON_DICT_OK);
    assert_int_equal(moon_dict_free_space(dict), free_space);
}

static void nothing_comes_back_after_many_flushes(void **state)
{
    struct moon_dict *dict = *state;
    put(dict, "old", "v", (struct put){0});
    for (int i = 0; i < 1000; i++) {
        moon_dict_flush_all(dict);
        assert_false(has(dict, "old", "v"));
        if (i % 100 == 0)
            put(dict, "k", "v", (struct put){0});
    }
    put(dict, "k", "v", (struct put){0});
    assert_true(has(dict, "k", "v"));
}

// ---- room

static void sizes_have_bounds(void **state)
{
    (void)state;
    assert_null(moon_dict_try_new(MOON_DICT_MIN_LEN - 1, seed));
    assert_null(moon_dict_try_new(MOON_DICT_MAX_LEN + 1, seed));
    assert_null(moon_dict_try_new(SIZE_MAX, seed));
    moon_dict_free(NULL);
    static const size_t lens[] = {MOON_DICT_MIN_LEN, 100001, 1048576, 12345678, 1u << 30};
    for (size_t i = 0; i < sizeof lens / sizeof lens[0]; i++) {
        struct moon_dict *dict = moon_dict_try_new(lens[i], seed);
        assert_int_equal(moon_dict_capacity(dict), lens[i]);
        size_t free_space = moon_dict_free_space(dict);
        assert_in_range(free_space, lens[i] / 100 * 84, lens[i]);
        if (lens[i] >= 100001)
            assert_in_range(free_space, lens[i] / 100 * 92, lens[i]);
        assert_in_range(moon_dict_max_len(dict), free_space / dict->shard_count - 64, free_space);
        moon_dict_free(dict);
    }
}

// The whole of a shard for one value, and not a byte more.
static void the_longest_value_always_fits(void **state)
{
    struct moon_dict *dict = *state;
    size_t max_len = moon_dict_max_len(dict) - 1;
    char *text = malloc(max_len + 1), *back = malloc(max_len + 1), key[16];
    memset(text, 'x', max_len + 1);
    for (int i = 0; i < 20000; i++) {
        snprintf(key, sizeof key, "key-%d", i);
        put(dict, key, "some text", (struct put){0});
    }
    assert_int_equal(put_bytes(dict, "k", text, max_len + 1, (struct put){0}), MOON_DICT_NO_MEMORY);
    assert_int_equal(put_bytes(dict, "k", text, max_len, (struct put){MOON_DICT_SAFE, 0, 0}),
                     MOON_DICT_NO_MEMORY);
    assert_int_equal(put_bytes(dict, "k", text, max_len, (struct put){0}), -100);
    struct moon_dict_value value = {.buffer = back, .buffer_len = max_len};
    assert_int_equal(moon_dict_get(dict, "k", 1, 0, &value), MOON_DICT_OK);
    assert_int_equal(value.len, max_len);
    assert_memory_equal(text, back, max_len);
    assert_int_equal(put_bytes(dict, "k", text, SIZE_MAX, (struct put){0}), MOON_DICT_NO_MEMORY);
    assert_int_equal(moon_dict_get(dict, "k", 1, 0, &value), MOON_DICT_OK); // still there
    free(text);
    free(back);
}

static void the_least_used_goes_first(void **state)
{
    struct moon_dict *dict = *state;
    char key[16];
    int count = 0;
    for (; snprintf(key, sizeof key, "key-%05d", count) &&
           put(dict, key, "v", (struct put){MOON_DICT_SAFE, 0, 0}) == MOON_DICT_OK;
         count++)
        ;
    assert_in_range(count, MOON_DICT_MIN_LEN / 64 * 8 / 10, MOON_DICT_MIN_LEN / 64);
    assert_true(has(dict, "key-00000", "v")); // used: 1 is the oldest now
    assert_int_equal(put(dict, "key-00002", "w", (struct put){0}), MOON_DICT_OK); // 3 comes next
    assert_int_equal(put(dict, "new-00000", "v", (struct put){0}), -100);
    assert_int_equal(put(dict, "new-00001", "v", (struct put){0}), -100);
    assert_true(has(dict, "key-00000", "v"));
    assert_false(has(dict, "key-00001", "v"));
    assert_true(has(dict, "key-00002", "w"));
    assert_false(has(dict, "key-00003", "v"));
    for (int i = 4; i < count; i++) {
        snprintf(key, sizeof key, "key-%05d", i);
        assert_true(has(dict, key, "v"));
    }
}

static void what_expired_makes_room_unforced(void **state)
{
    struct moon_dict *dict = *state;
    char key[16];
    for (int i = 0; i < 2000; i++) {
        snprintf(key, sizeof key, "key-%d", i);
        assert_int_equal(put(dict, key, "v", (struct put){i % 2 ? MOON_DICT_SAFE : 0, 10, i}),
                         MOON_DICT_OK);
    }
}

// A safe set of a key that is there keeps the old value until the new one has room, but may use the old one's.
static void a_safe_set_loses_nothing(void **state)
{
    struct moon_dict *dict = *state;
    size_t third_len = moon_dict_max_len(dict) / 3;
    char *text = malloc(3 * third_len), key[16];
    struct moon_dict_value value = {0};
    const struct put safe = {MOON_DICT_SAFE, 0, 0};
    memset(text, 'x', 3 * third_len);
    assert_int_equal(put_bytes(dict, "a", text, third_len, safe), MOON_DICT_OK);
    assert_int_equal(put_bytes(dict, "b", text, third_len, safe), MOON_DICT_OK);
    for (int i = 0; snprintf(key, sizeof key, "k%d", i) && put(dict, key, "", safe) == MOON_DICT_OK;
         i++)
        ;
    assert_int_equal(put_bytes(dict, "b", text, 2 * third_len, safe), MOON_DICT_NO_MEMORY);
    assert_int_equal(moon_dict_get(dict, "b", 1, 0, &value), MOON_DICT_TOO_LONG);
    assert_int_equal(value.len, third_len);
    assert_int_equal(moon_dict_del(dict, "a", 1), MOON_DICT_OK); // lies before b
    assert_int_equal(put_bytes(dict, "b", text, third_len * 3 / 2, safe), MOON_DICT_OK);
    assert_int_equal(moon_dict_get(dict, "b", 1, 0, &value), MOON_DICT_TOO_LONG);
    assert_int_equal(value.len, third_len * 3 / 2);
    free(text);
}

// ---- listing

enum { LISTED_COUNT = 3000 };

static void read_keys(const struct moon_dict_keys *keys, unsigned char *seen)
{
    const char *at = keys->buffer;
    for (size_t i = 0; i < keys->count; i++) {
        uint16_t len;
        char text[32] = "";
        memcpy(&len, at, sizeof len);
        assert_in_range(len, 5, sizeof text - 1);
        memcpy(text, at + sizeof len, len);
        at += sizeof len + len;
        assert_memory_equal(text, "key-", 4);
        seen[strtol(text + 4, NULL, 10)]++;
    }
    assert_int_equal(at - keys->buffer, keys->len);
}

static void keys_are_listed_once(void **state)
{
    struct moon_dict *dict = *state;
    static const size_t buffer_lens[] = {100, 1000, 1000000};
    char key[16], *buffer = malloc(1000000);
    for (int i = 0; i < LISTED_COUNT; i++) {
        snprintf(key, sizeof key, "key-%d", i);
        put(dict, key, "v", (struct put){0, i % 3 ? 0 : 10, 0});
    }
    for (int turn = 0; turn < 3; turn++) {
        unsigned char seen[LISTED_COUNT] = {0};
        struct moon_dict_keys keys = {
            .buffer = buffer, .buffer_len = buffer_lens[turn], .max_count = SIZE_MAX};
        while (!keys.is_last) {
            assert_int_equal(moon_dict_keys(dict, 10, &keys), MOON_DICT_OK);
            read_keys(&keys, seen);
        }
        for (int i = 0; i < LISTED_COUNT; i++)
            assert_int_equal(seen[i], i % 3 != 0);
    }
    free(buffer);
}

static void a_listing_has_bounds(void **state)
{
    struct moon_dict *dict = *state;
    char buffer[2000];
    struct moon_dict_keys keys = {.max_count = 10};
    assert_int_equal(moon_dict_keys(dict, 0, &keys), MOON_DICT_OK);
    assert_true(keys.is_last && keys.count == 0);
    for (int i = 0; i < 50; i++) {
        snprintf(buffer, sizeof buffer, "key-%d", i);
        put(dict, buffer, "v", (struct put){0});
    }
    keys = (struct moon_dict_keys){.max_count = 10};
    assert_int_equal(moon_dict_keys(dict, 0, &keys), MOON_DICT_TOO_LONG);
    assert_in_range(keys.len, 7, 30);
    keys.buffer = buffer;
    keys.buffer_len = keys.len;
    assert_int_equal(moon_dict_keys(dict, 0, &keys), MOON_DICT_OK); // goes on where it was
    assert_true(keys.count >= 1 && !keys.is_last);
    unsigned char seen[50] = {0};
    keys = (struct moon_dict_keys){.buffer = buffer, .buffer_len = sizeof buffer, .max_count = 10};
    assert_int_equal(moon_dict_keys(dict, 0, &keys), MOON_DICT_OK);
    assert_true(keys.is_last && keys.count == 10);
    read_keys(&keys, seen);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define TEST_SMALL(name) cmocka_unit_test_setup_teardown(name, setup_small, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(values_keep_their_type),
        TEST(strings_and_keys_are_any_bytes),
        TEST(a_short_buffer_is_told_the_length),
        TEST(keys_have_bounds),
        TEST(add_replace_and_del),
        TEST(incr_counts),
        TEST(what_expired_is_stale),
        TEST(expire_moves_the_end),
        TEST(flush_all_hides_and_flush_expired_frees),
        TEST(nothing_comes_back_after_many_flushes),
        cmocka_unit_test(sizes_have_bounds),
        TEST(the_longest_value_always_fits),
        TEST_SMALL(the_least_used_goes_first),
        TEST_SMALL(what_expired_makes_room_unforced),
        TEST_SMALL(a_safe_set_loses_nothing),
        TEST(keys_are_listed_once),
        TEST(a_listing_has_bounds),
    };
    return cmocka_run_group_tests_name("base/dict", tests, NULL, NULL);
}
