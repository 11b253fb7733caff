// Host tables: the exact name, then the longest wildcard, then whoever takes every name.
#include "routes.h"

#include "route/host_table.h"

#include <string.h>

static int find(const struct moon_host_table *table, const char *name)
{
    return moon_host_table_find(table, moon_slice_from(name));
}

static void the_best_is_found(void **state)
{
    (void)state;
    static const char *const hosts[] = {".example", "a.example", ".b.example",
                                        "",         "a.example", "example"};
    struct moon_host_entry entries[6];
    for (int i = 0; i < 6; i++)
        entries[i] = (struct moon_host_entry){moon_slice_from(hosts[i]), i};
    struct moon_host_table *table = moon_host_table_new(entries, 6);
    static const struct {
        const char *name;
        int value;
    } cases[] = {{"a.example", 1},     {"b.example", 0}, {"x.b.example", 2}, {"x.y.b.example", 2},
                 {"x.a.example", 0},   {"example", 5},   {"xexample", 3},    {"", 3},
                 {"a.example.org", 3}, {".example", 3},  {"..b.example", 2}, {"b..example", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (find(table, cases[i].name) != cases[i].value)
            fail_msg("\"%s\": %d", cases[i].name, find(table, cases[i].name));
    moon_host_table_free(table);
}

static void nobody_is_found(void **state)
{
    (void)state;
    struct moon_host_entry entry = {MOON_SLICE(".example"), 7};
    struct moon_host_table *table = moon_host_table_new(&entry, 1),
                           *empty = moon_host_table_new(NULL, 0);
    assert_int_equal(find(table, "a.example"), 7);
    assert_int_equal(find(table, "example"), -1);
    assert_int_equal(find(table, ""), -1);
    assert_int_equal(find(empty, "a.example"), -1);
    assert_int_equal(find(NULL, "a.example"), -1);
    moon_host_table_free(table);
    moon_host_table_free(empty);
}

// Among many, against a walk over all of them.
static void finds_as_a_walk_does(void **state)
{
    (void)state;
    enum { COUNT = 600 };
    static char texts[COUNT][32];
    static struct moon_host_entry entries[COUNT];
    uint32_t seed = 7;
    for (int i = 0; i < COUNT; i++) {
        seed = seed * 1664525 + 1013904223;
        snprintf(texts[i], sizeof texts[i], "%sh%u.d%u", seed >> 30 ? "" : ".", seed >> 8 & 15,
                 seed >> 16 & 7);
        entries[i] = (struct moon_host_entry){moon_slice_from(texts[i]), i};
    }
    struct moon_host_table *table = moon_host_table_new(entries, COUNT);
    for (int n = 0; n < 2000; n++) {
        char name[64];
        seed = seed * 1664525 + 1013904223;
        snprintf(name, sizeof name, "%sh%u.d%u", seed >> 31 ? "" : "x.", seed >> 8 & 15,
                 seed >> 16 & 7);
        int want = -1;
        size_t want_len = 0, len = strlen(name);
        for (int i = 0; i < COUNT; i++) {
            size_t own_len = strlen(texts[i]);
            bool is_exact = strcmp(texts[i], name) == 0;
            bool fits = is_exact || (texts[i][0] == '.' && own_len < len &&
                                     strcmp(name + len - own_len, texts[i]) == 0);
            if (fits && own_len > want_len) {
                want = i;
                want_len = own_len;
            }
        }
        assert_int_equal(find(table, name), want);
    }
    moon_host_table_free(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_best_is_found),
        cmocka_unit_test(nobody_is_found),
        cmocka_unit_test(finds_as_a_walk_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
