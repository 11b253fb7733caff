// The header table: ids, look-ups, edits, joins.
#include "fixture.h"

static void ids_of_all_names(void **state)
{
    (void)state;
    char folded[32];
    for (int id = 1; id < MOON_H_COUNT; id++) {
        struct moon_slice name = moon_header_name((enum moon_header_id)id);
        assert_int_equal(moon_header_id(name), id);
        for (size_t i = 0; i < name.len; i++)
            folded[i] =
                (char)(name.ptr[i] >= 'a' && name.ptr[i] <= 'z' ? name.ptr[i] - 32 : name.ptr[i]);
        assert_int_equal(moon_header_id((struct moon_slice){folded, name.len}), id);
        for (size_t i = 0; i < name.len; i++) { // no name is found by a part or a neighbour
            char kept = folded[i];
            folded[i] = (char)(kept ^ 0x01);
            assert_int_equal(moon_header_id((struct moon_slice){folded, name.len}), MOON_H_OTHER);
            folded[i] = (char)(kept & ~0x20);
            if (kept == '-')
                assert_int_equal(moon_header_id((struct moon_slice){folded, name.len}),
                                 MOON_H_OTHER);
            folded[i] = kept;
        }
    }
    assert_int_equal(moon_header_id(MOON_SLICE("X-Other")), MOON_H_OTHER);
    assert_int_equal(moon_header_id(MOON_SLICE("")), MOON_H_OTHER);
    assert_int_equal(moon_header_name(MOON_H_OTHER).len, 0);
}

static void names_and_values(void **state)
{
    (void)state;
    assert_true(moon_header_name_is_valid(MOON_SLICE("X-a_b!#$%&'*+.^`|~09")));
    static const struct moon_slice bad_names[] = {
        RAW(""), RAW("a b"), RAW("a:"), RAW("a\x80"), RAW("a\0b"), RAW("a(b"), RAW("\xc3\xa9")};
    for (size_t i = 0; i < sizeof bad_names / sizeof bad_names[0]; i++)
        assert_false(moon_header_name_is_valid(bad_names[i]));
    assert_true(moon_header_value_is_valid(MOON_SLICE("")));
    assert_true(moon_header_value_is_valid(
        MOON_SLICE("tab\tand \x80\xff, a value longer than one block\t")));
    static const struct moon_slice bad_values[] = {
        RAW("a\rb"),    RAW("a\nb"), RAW("a\0b"),
        RAW("\x7f"),    RAW("a\vb"), RAW("0123456789abcdef0123456789abcdef\x01"),
        RAW("\t\t\x1f")};
    for (size_t i = 0; i < sizeof bad_values / sizeof bad_values[0]; i++)
        assert_false(moon_header_value_is_valid(bad_values[i]));
}

static void edits(void **state)
{
    struct fixture *f = *state;
    struct moon_headers h;
    uint32_t at = 0;
    assert_int_equal(moon_headers_init(&h, f->arena, 1), 0);
    assert_null(moon_headers_get(&h, MOON_H_HOST));
    moon_headers_add(&h, f->arena, MOON_SLICE("hOST"), MOON_SLICE("a"));
    moon_headers_add(&h, f->arena, MOON_SLICE("X-One"), MOON_SLICE("1"));
    moon_headers_add(&h, f->arena, MOON_SLICE("x-one"), MOON_SLICE("2"));
    moon_headers_add_id(&h, f->arena, MOON_H_COOKIE, MOON_SLICE("c=1"));
    moon_headers_add(&h, f->arena, MOON_SLICE("X-One"), MOON_SLICE(""));
    assert_int_equal(h.count, 5);
    assert_slice(moon_headers_get(&h, MOON_H_HOST)->value, "a");
    assert_slice(moon_headers_next(&h, MOON_SLICE("X-ONE"), &at)->value, "1");
    assert_slice(moon_headers_next(&h, MOON_SLICE("X-ONE"), &at)->value, "2");
    assert_slice(moon_headers_next(&h, MOON_SLICE("X-ONE"), &at)->value, "");
    assert_null(moon_headers_next(&h, MOON_SLICE("X-ONE"), &at));
    assert_int_equal(moon_headers_set(&h, f->arena, MOON_SLICE("X-one"), MOON_SLICE("new")), 0);
    assert_int_equal(h.count, 3);
    assert_slice(h.fields[1].value, "new");
    assert_int_equal(moon_headers_set(&h, f->arena, MOON_SLICE("Via"), MOON_SLICE("m")), 0);
    assert_true(moon_headers_has(&h, MOON_H_VIA));
    assert_int_equal(moon_headers_del_id(&h, MOON_H_VIA), 1);
    assert_false(moon_headers_has(&h, MOON_H_VIA));
    assert_int_equal(moon_headers_del_id(&h, MOON_H_VIA), 0);
    assert_int_equal(moon_headers_del(&h, MOON_SLICE("x-ONE")), 1);
    assert_int_equal(moon_headers_del(&h, MOON_SLICE("absent")), 0);
    assert_int_equal(moon_headers_del(&h, MOON_SLICE("host")), 1);
    assert_int_equal(h.count, 1);
    assert_int_equal(h.present, UINT64_C(1) << MOON_H_COOKIE);
}

static void joins(void **state)
{
    struct fixture *f = *state;
    struct moon_headers h;
    moon_headers_init(&h, f->arena, 0);
    static const char lone[] = "lone";
    moon_headers_add(&h, f->arena, MOON_SLICE("X-Lone"), moon_slice_from(lone));
    moon_headers_add(&h, f->arena, MOON_SLICE("Cookie"), MOON_SLICE("a=1"));
    moon_headers_add(&h, f->arena, MOON_SLICE("X-Two"), MOON_SLICE("1"));
    moon_headers_add(&h, f->arena, MOON_SLICE("x-two"), MOON_SLICE(""));
    moon_headers_add(&h, f->arena, MOON_SLICE("cookie"), MOON_SLICE("b=2"));
    moon_headers_add(&h, f->arena, MOON_SLICE("X-TWO"), MOON_SLICE("3"));
    assert_ptr_equal(moon_headers_join(&h, f->arena, MOON_SLICE("x-lone")).ptr, lone);
    assert_slice(moon_headers_join(&h, f->arena, MOON_SLICE("Cookie")), "a=1; b=2");
    assert_slice(moon_headers_join(&h, f->arena, MOON_SLICE("x-two")), "1, , 3");
    assert_null(moon_headers_join(&h, f->arena, MOON_SLICE("absent")).ptr);
    assert_int_equal(moon_headers_join(&h, f->arena, MOON_SLICE("absent")).len, 0);
}

static void refuses_over_the_cap(void **state)
{
    struct fixture *f = *state;
    struct moon_arena *arena = moon_arena_new(f->pool, 64);
    struct moon_headers h;
    assert_true(moon_headers_init(&h, arena, 1000) < 0);
    moon_headers_init(&h, f->arena, 1);
    moon_headers_add(&h, f->arena, MOON_SLICE("A"),
                     MOON_SLICE("0123456789012345678901234567890123456789"));
    moon_headers_add(&h, f->arena, MOON_SLICE("A"),
                     MOON_SLICE("0123456789012345678901234567890123456789"));
    struct moon_slice joined = moon_headers_join(&h, arena, MOON_SLICE("a"));
    assert_null(joined.ptr);
    assert_int_equal(joined.len, 1);
    h.cap = h.count;
    assert_true(moon_headers_add(&h, arena, MOON_SLICE("B"), MOON_SLICE("")) < 0);
    assert_true(moon_headers_set(&h, arena, MOON_SLICE("B"), MOON_SLICE("")) < 0);
    moon_arena_free(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(ids_of_all_names), TEST(names_and_values), TEST(edits),
                                       TEST(joins), TEST(refuses_over_the_cap)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
