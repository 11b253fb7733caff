// base/dict with several threads at once; ThreadSanitizer watches. Sums of increments are exact, a value is never a mixture of two, and
// nothing breaks while items are evicted, listed and flushed all the time.
#include "base/dict.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { THREAD_COUNT = 4, ROUNDS = 20000, BUFFER_LEN = 8192 };

static const uint64_t seed[2] = {5, 6};

struct thread {
    pthread_t id;
    struct moon_dict *dict;
    uint32_t seed;
    size_t faults; // cmocka's asserts are for the main thread
    size_t hits, forced;
};

static uint32_t draw(struct thread *thread, uint32_t bound)
{
    thread->seed ^= thread->seed << 13;
    thread->seed ^= thread->seed >> 17;
    thread->seed ^= thread->seed << 5;
    return thread->seed % bound;
}

static size_t key_of(uint32_t id, char key[16])
{
    return (size_t)snprintf(key, 16, "key-%u", id);
}

static void run(struct moon_dict *dict, void *(*work)(void *), struct thread threads[THREAD_COUNT])
{
    for (uint32_t i = 0; i < THREAD_COUNT; i++) {
        threads[i] = (struct thread){.dict = dict, .seed = 7919 * (i + 1)};
        assert_int_equal(pthread_create(&threads[i].id, NULL, work, &threads[i]), 0);
    }
    for (int i = 0; i < THREAD_COUNT; i++) {
        pthread_join(threads[i].id, NULL);
        assert_int_equal(threads[i].faults, 0);
    }
}

static void *count(void *arg)
{
    struct thread *thread = arg;
    char key[16];
    for (int i = 0; i < ROUNDS; i++) {
        struct moon_dict_incr incr = {.by = 1, .has_init = 1};
        size_t len = key_of(draw(thread, 10), key);
        if (moon_dict_incr(thread->dict, key, len, 0, &incr) != MOON_DICT_OK || incr.number < 1)
            thread->faults++;
    }
    return NULL;
}

static void no_increment_is_lost(void **state)
{
    (void)state;
    struct moon_dict *dict = moon_dict_try_new(MOON_DICT_DEFAULT_LEN, seed);
    struct thread threads[THREAD_COUNT];
    char key[16];
    double sum = 0;
    run(dict, count, threads);
    for (uint32_t i = 0; i < 10; i++) {
        struct moon_dict_value value = {0};
        assert_int_equal(moon_dict_get(dict, key, key_of(i, key), 0, &value), MOON_DICT_OK);
        sum += value.number;
    }
    assert_true(sum == (double)ROUNDS * THREAD_COUNT);
    moon_dict_free(dict);
}

// A value is one byte over and over, and its flags are that byte.
static void set_some(struct thread *thread, char *buffer)
{
    char key[16];
    struct moon_dict_set set = {.type = MOON_DICT_STRING,
                                .string = buffer,
                                .len = draw(thread, draw(thread, 10) ? 300 : BUFFER_LEN),
                                .ttl_ms = draw(thread, 20),
                                .flags = draw(thread, 256),
                                .mode = (uint8_t)draw(thread, 8)};
    memset(buffer, (int)set.flags, set.len);
    size_t len = key_of(draw(thread, 500), key);
    moon_dict_set(thread->dict, key, len, draw(thread, 100), &set);
    thread->forced += set.is_forcible;
}

static void get_some(struct thread *thread, char *buffer)
{
    char key[16];
    struct moon_dict_value value = {.buffer = buffer, .buffer_len = BUFFER_LEN};
    size_t len = key_of(draw(thread, 500), key);
    if (moon_dict_get_stale(thread->dict, key, len, 0, &value) != MOON_DICT_OK)
        return;
    thread->hits++;
    for (size_t i = 0; i < value.len; i++)
        thread->faults += (unsigned char)buffer[i] != value.flags;
}

static void list_some(struct thread *thread, char *buffer)
{
    struct moon_dict_keys keys = {.buffer = buffer, .buffer_len = 500, .max_count = 1000};
    while (!keys.is_last) {
        if (moon_dict_keys(thread->dict, 0, &keys) != MOON_DICT_OK)
            thread->faults++;
        size_t at = 0;
        for (uint16_t len; at < keys.len; at += sizeof len + len) {
            memcpy(&len, buffer + at, sizeof len);
            thread->faults += memcmp(buffer + at + sizeof len, "key-", 4) != 0;
        }
        thread->faults += at != keys.len;
    }
}

static void *use(void *arg)
{
    struct thread *thread = arg;
    char *buffer = malloc(BUFFER_LEN), key[16];
    for (int i = 0; i < ROUNDS; i++) {
        uint32_t what = draw(thread, 1000);
        size_t len = key_of(draw(thread, 500), key);
        if (what < 500)
            set_some(thread, buffer);
        else if (what < 900)
            get_some(thread, buffer);
        else if (what < 950)
            moon_dict_del(thread->dict, key, len);
        else if (what < 990)
            moon_dict_expire(thread->dict, key, len, 0, 10);
        else if (what < 994)
            list_some(thread, buffer);
        else if (what < 997)
            moon_dict_flush_expired(thread->dict, 50, 50);
        else if (what < 999)
            moon_dict_free_space(thread->dict);
        else
            moon_dict_flush_all(thread->dict);
    }
    free(buffer);
    return NULL;
}

static void values_are_whole(void **state)
{
    (void)state;
    static const size_t lens[] = {100000, MOON_DICT_DEFAULT_LEN};
    for (size_t i = 0; i < 2; i++) {
        struct moon_dict *dict = moon_dict_try_new(lens[i], seed);
        struct thread threads[THREAD_COUNT];
        size_t hits = 0, forced = 0;
        size_t free_space = moon_dict_free_space(dict);
        run(dict, use, threads);
        for (int t = 0; t < THREAD_COUNT; t++) {
            hits += threads[t].hits;
            forced += threads[t].forced;
        }
        assert_true(hits > ROUNDS / 4);
        assert_true(forced > 0 || lens[i] > 100000);
        moon_dict_flush_all(dict);
        moon_dict_flush_expired(dict, 0, 0);
        assert_int_equal(moon_dict_free_space(dict), free_space);
        moon_dict_free(dict);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_increment_is_lost),
        cmocka_unit_test(values_are_whole),
    };
    return cmocka_run_group_tests_name("base/dict_threads", tests, NULL, NULL);
}
