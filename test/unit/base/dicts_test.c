// Unit tests of base/dicts: one dictionary a name, for all threads.
#include "base/dicts.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const uint64_t seed[2] = {3, 4};

static int setup(void **state)
{
    *state = moon_dicts_new(seed);
    return 0;
}

static int teardown(void **state)
{
    moon_dicts_free(*state);
    return 0;
}

static void a_name_keeps_its_dictionary(void **state)
{
    struct moon_dicts *dicts = *state;
    struct moon_dict *a, *b, *again;
    assert_int_equal(moon_dicts_get(dicts, "a", 1, 0, &a), MOON_DICTS_OK);
    assert_int_equal(moon_dict_capacity(a), MOON_DICT_DEFAULT_LEN);
    assert_int_equal(moon_dicts_get(dicts, "b", 1, 100000, &b), MOON_DICTS_OK);
    assert_int_equal(moon_dict_capacity(b), 100000);
    assert_ptr_not_equal(a, b);
    assert_int_equal(moon_dicts_get(dicts, "b", 1, 100000, &again), MOON_DICTS_OK);
    assert_ptr_equal(again, b);
    assert_int_equal(moon_dicts_get(dicts, "b", 1, 0, &again), MOON_DICTS_OK);
    assert_ptr_equal(again, b);
    assert_int_equal(moon_dicts_get(dicts, "b", 1, 200000, &again), MOON_DICTS_OTHER_LEN);
    assert_ptr_equal(again, b);
    assert_int_equal(moon_dict_capacity(b), 100000);
    assert_int_equal(moon_dicts_get(dicts, "a", 1, 1, &again), MOON_DICTS_OTHER_LEN);
    assert_ptr_equal(again, a);
}

static void another_length_is_told_once(void **state)
{
    struct moon_dicts *dicts = *state;
    struct moon_dict *dict;
    assert_false(moon_dicts_tell(dicts, "a", 1, 20000));
    assert_int_equal(moon_dicts_get(dicts, "a", 1, 20000, &dict), MOON_DICTS_OK);
    assert_false(moon_dicts_tell(dicts, "a", 1, 20000));
    assert_true(moon_dicts_tell(dicts, "a", 1, 30000));
    assert_false(moon_dicts_tell(dicts, "a", 1, 30000));
    assert_true(moon_dicts_tell(dicts, "a", 1, 40000));
    assert_false(moon_dicts_tell(dicts, "a", 1, 20000));
}

static void what_cannot_be_is_refused(void **state)
{
    struct moon_dicts *dicts = *state;
    static const char name[MOON_DICTS_NAME_MAX_LEN + 1];
    struct moon_dict *dict = (struct moon_dict *)dicts;
    assert_int_equal(moon_dicts_get(dicts, name, 0, 0, &dict), MOON_DICTS_BAD_NAME);
    assert_int_equal(moon_dicts_get(dicts, name, sizeof name, 0, &dict), MOON_DICTS_BAD_NAME);
    assert_int_equal(moon_dicts_get(dicts, "a", 1, MOON_DICT_MIN_LEN - 1, &dict),
                     MOON_DICTS_BAD_LEN);
    assert_int_equal(moon_dicts_get(dicts, "a", 1, SIZE_MAX, &dict), MOON_DICTS_BAD_LEN);
    assert_null(dict);
    assert_int_equal(moon_dicts_get(dicts, name, sizeof name - 1, 0, &dict), MOON_DICTS_OK);
    assert_non_null(dict);
    moon_dicts_free(NULL);
}

static void there_is_an_end_to_it(void **state)
{
    struct moon_dicts *dicts = *state;
    struct moon_dict *dict;
    char name[16];
    for (int i = 0; i < MOON_DICTS_MAX_COUNT; i++) {
        snprintf(name, sizeof name, "n%d", i);
        assert_int_equal(moon_dicts_get(dicts, name, strlen(name), MOON_DICT_MIN_LEN, &dict),
                         MOON_DICTS_OK);
    }
    assert_int_equal(moon_dicts_get(dicts, "one more", 8, 0, &dict), MOON_DICTS_FULL);
    assert_null(dict);
    assert_int_equal(moon_dicts_get(dicts, "n0", 2, 0, &dict), MOON_DICTS_OK);
}

// ---- threads: each asks for the same names, and counts in what it gets

enum { THREAD_COUNT = 4, NAME_COUNT = 20 };

static void *ask(void *arg)
{
    for (int i = 0; i < NAME_COUNT; i++) {
        struct moon_dict *dict;
        struct moon_dict_incr incr = {.by = 1, .has_init = 1};
        char name[16];
        snprintf(name, sizeof name, "n%d", i);
        if (moon_dicts_get(arg, name, strlen(name), 0, &dict) == MOON_DICTS_OK)
            moon_dict_incr(dict, "asked", 5, 0, &incr);
    }
    return NULL;
}

static void threads_get_the_same(void **state)
{
    struct moon_dicts *dicts = *state;
    pthread_t threads[THREAD_COUNT];
    for (int i = 0; i < THREAD_COUNT; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, ask, dicts), 0);
    for (int i = 0; i < THREAD_COUNT; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < NAME_COUNT; i++) {
        struct moon_dict *dict;
        struct moon_dict_value value = {0};
        char name[16];
        snprintf(name, sizeof name, "n%d", i);
        assert_int_equal(moon_dicts_get(dicts, name, strlen(name), 0, &dict), MOON_DICTS_OK);
        assert_int_equal(moon_dict_get(dict, "asked", 5, 0, &value), MOON_DICT_OK);
        assert_true(value.number == THREAD_COUNT);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_name_keeps_its_dictionary, setup, teardown),
        cmocka_unit_test_setup_teardown(another_length_is_told_once, setup, teardown),
        cmocka_unit_test_setup_teardown(what_cannot_be_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(there_is_an_end_to_it, setup, teardown),
        cmocka_unit_test_setup_teardown(threads_get_the_same, setup, teardown),
    };
    return cmocka_run_group_tests_name("base/dicts", tests, NULL, NULL);
}
