// The canonical path (A19): what each spelling becomes, with each choice for escaped slashes; NULL
// is a refusal.
#include "fixture.h"

struct row {
    struct moon_slice path;
    const char *reject, *keep, *decode;
};

#define SAME(path, to)        \
    {                         \
        RAW(path), to, to, to \
    }
#define BAD(path)                   \
    {                               \
        RAW(path), NULL, NULL, NULL \
    }

static const struct row rows[] = {
    SAME("/", "/"),
    SAME("/a/b", "/a/b"),
    SAME("//", "//"),
    SAME("//a///b//", "//a///b//"),
    SAME("/a/./b", "/a/b"),
    SAME("/a/../b", "/b"),
    SAME("/a/..", "/"),
    SAME("/a/.", "/a/"),
    SAME("/.", "/"),
    SAME("/..", "/"),
    SAME("/../../etc/passwd", "/etc/passwd"),
    SAME("/a/b/../../../c", "/c"),
    SAME("/a//../b", "/a/b"),
    SAME("//..//x", "//x"),
    SAME("/...", "/..."),
    SAME("/.../.a/..b/c..", "/.../.a/..b/c.."),
    SAME("/.well-known/acme", "/.well-known/acme"),
    SAME("/a./b.", "/a./b."),
    SAME("/%61%7e%2D%5F%2e%41", "/a~-_.A"),
    SAME("/a/%2e%2e/b", "/b"),
    SAME("/a/%2E./b", "/b"),
    SAME("/a/.%2e", "/"),
    SAME("/%2e", "/"),
    SAME("/%252e%252e/a", "/%252e%252e/a"),
    SAME("/%252f", "/%252f"),
    SAME("/%c3%a9", "/%C3%A9"),
    SAME("/%e9", "/%E9"),
    SAME("/%C0", "/%C0"),
    SAME("/%0d%0a", "/%0D%0A"),
    SAME("/%20", "/%20"),
    BAD("/a b"),
    SAME("/a;x=1/b", "/a;x=1/b"),
    SAME("/!$&'()*+,;=:@", "/!$&'()*+,;=:@"),
    SAME("/%21%3b", "/%21%3B"),
    SAME("/{a}|\"<>^`[]", "/%7Ba%7D%7C%22%3C%3E%5E%60%5B%5D"),
    SAME("/%7ba%7d", "/%7Ba%7D"),
    SAME("/%3f", "/%3F"),
    SAME("/%23", "/%23"),
    {RAW("/a%2fb"), NULL, "/a%2Fb", "/a/b"},
    {RAW("/a%2Fb"), NULL, "/a%2Fb", "/a/b"},
    {RAW("/a%5cb"), NULL, "/a%5Cb", "/a/b"},
    {RAW("/a\\b"), NULL, "/a%5Cb", "/a/b"},
    {RAW("/a/..%2fb"), NULL, "/a/..%2Fb", "/b"},
    {RAW("/a/%2e%2e%2fb"), NULL, "/a/..%2Fb", "/b"},
    {RAW("/a/..\\b"), NULL, "/a/..%5Cb", "/b"},
    {RAW("/%2f"), NULL, "/%2F", "//"},
    BAD("/%00"),
    BAD("/a%00b"),
    BAD("/%"),
    BAD("/%2"),
    BAD("/%zz"),
    BAD("/%u002e"),
    BAD("/%%34%31"),
    BAD("/%c0%ae"),
    BAD("/%c0%af"),
    BAD("/%c1%9c"),
    BAD("/%e0%80%af"),
    BAD("/%f0%80%80%af"),
    BAD("/..;/a"),
    BAD("/a/..;x=1/b"),
    BAD("/a/%2e%2e;/b"),
    BAD("/.;/a"),
    BAD("/a\0b"),
    BAD("/a\tb"),
    BAD("/a\x7f"),
    BAD("/\xc3\xa9"),
    BAD("/a#b"),
    BAD("/a?b"),
    BAD(""),
    BAD("a"),
    BAD("*"),
};

static void check(struct fixture *f, const struct row *row, enum moon_escaped_slash slash,
                  const char *expected)
{
    const char *reason = NULL;
    struct moon_slice got = moon_path_normalise(f->arena, row->path, slash, &reason);
    if (!expected) {
        if (got.ptr)
            fail_msg("%.*s was taken as %.*s", MOON_SLICE_ARG(row->path), MOON_SLICE_ARG(got));
        assert_non_null(reason);
        return;
    }
    if (!got.ptr || !moon_slice_equal(got, moon_slice_from(expected)))
        fail_msg("%.*s became %.*s, not %s (%s)", MOON_SLICE_ARG(row->path), MOON_SLICE_ARG(got),
                 expected, reason);
    if (moon_slice_equal(got, row->path))
        assert_ptr_equal(got.ptr, row->path.ptr);
    struct moon_slice again = moon_path_normalise(
        f->arena, got, slash == MOON_SLASH_REJECT ? slash : MOON_SLASH_KEEP, &reason);
    assert_ptr_equal(again.ptr, got.ptr);
}

static void table(void **state)
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        check(*state, &rows[i], MOON_SLASH_REJECT, rows[i].reject);
        check(*state, &rows[i], MOON_SLASH_KEEP, rows[i].keep);
        check(*state, &rows[i], MOON_SLASH_DECODE, rows[i].decode);
    }
}

static void over_the_cap(void **state)
{
    struct fixture *f = *state;
    struct moon_arena *arena = moon_arena_new(f->pool, 4);
    const char *reason = NULL;
    assert_null(moon_path_normalise(arena, MOON_SLICE("/a/../b"), MOON_SLASH_REJECT, &reason).ptr);
    assert_string_equal(reason, "path too long");
    moon_arena_free(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(table), TEST(over_the_cap)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
