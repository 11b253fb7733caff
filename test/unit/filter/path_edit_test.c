// Path edits: the table of HTTPPathModifier, and what a replaced path may never become.
#include "filter/path_edit.h"
#include "test/unit/http/fixture.h"

struct row {
    const char *path, *matched, *replacement, *expected;
};

// `matched` without a slash at its end, as exchange/ gives it; `replacement` as it is compiled.
static const struct row rows[] = {
    {"/foo/bar", "/foo", "/xyz", "/xyz/bar"},
    {"/foo", "/foo", "/xyz", "/xyz"},
    {"/foo/", "/foo", "/xyz", "/xyz/"},
    {"/foo/bar", "/foo", "", "/bar"},
    {"/foo/", "/foo", "", "/"},
    {"/foo", "/foo", "", "/"},
    {"/", "", "/xyz", "/xyz/"},
    {"/a/b", "", "/xyz", "/xyz/a/b"},
    {"/a", "", "", "/a"},
    {"/foo/%2Fx", "/foo", "/x", "/x/%2Fx"}, // a listener that keeps escaped slashes
    {"/foo//x", "/foo", "", "//x"},
    {"/other", "/foo", "/xyz", "/other"}, // moved by another filter
    {"*", "/foo", "/xyz", "*"},
};

static struct moon_slice apply(struct fixture *f, enum moon_path_edit_kind kind, const char *text,
                               const char *path, const char *matched)
{
    const char *reason = NULL;
    struct moon_path_edit edit = {kind, moon_slice_from(text)};
    return moon_path_edit_apply(&edit, f->arena, moon_slice_from(path), moon_slice_from(matched),
                                &reason);
}

static void prefixes(void **state)
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_slice(
            apply(*state, MOON_PATH_PREFIX, rows[i].replacement, rows[i].path, rows[i].matched),
            rows[i].expected);
}

static void whole_paths(void **state)
{
    assert_slice(apply(*state, MOON_PATH_FULL, "/new", "/old/deep", "/old"), "/new");
    assert_slice(apply(*state, MOON_PATH_KEEP, "", "/old/deep", "/old"), "/old/deep");
}

// Whatever comes out has been through the one normaliser.
static void normalised(void **state)
{
    const char *reason = NULL;
    struct fixture *f = *state;
    struct moon_path_edit edit = {MOON_PATH_PREFIX, MOON_SLICE("/a")};
    assert_slice(apply(f, MOON_PATH_PREFIX, "/a", "/foo/../b", "/foo"), "/b");
    assert_slice(apply(f, MOON_PATH_PREFIX, "/a", "/foo/\"", "/foo"), "/a/%22");
    struct moon_slice path = moon_path_edit_apply(&edit, f->arena, MOON_SLICE("/foo/\r\nX: y"),
                                                  MOON_SLICE("/foo"), &reason);
    assert_null(path.ptr);
    assert_string_equal(reason, "forbidden byte in the path");
}

static struct moon_value text_value(const char *text)
{
    return (struct moon_value){.kind = MOON_VALUE_STRING, .string = moon_slice_from(text)};
}

static int compile(struct moon_report *report, const char *text, bool is_prefix, bool has_prefix,
                   struct moon_path_edit *edit)
{
    const struct moon_filter_compile at = {
        report, {"gateway.lua", 7}, "route \"users\"", "plugins[2]", has_prefix};
    struct moon_entry inner = {MOON_SLICE("prefix"), text_value(text)};
    struct moon_entry entry = {MOON_SLICE("path"), text_value(text)};
    struct moon_value value = {.kind = MOON_VALUE_TABLE};
    if (is_prefix) {
        entry.value = (struct moon_value){.kind = MOON_VALUE_TABLE};
        entry.value.table.entries = &inner;
        entry.value.table.entry_count = 1;
    }
    value.table.entries = &entry;
    value.table.entry_count = 1;
    return moon_path_edit_compile(&at, &value, edit);
}

static void compiled(void **state)
{
    (void)state;
    struct moon_report *report = moon_report_new();
    struct moon_path_edit edit;
    assert_int_equal(compile(report, "/a/", true, true, &edit), 0);
    assert_int_equal(edit.kind, MOON_PATH_PREFIX);
    assert_slice(edit.text, "/a");
    moon_filter_copy_free(edit.text);
    assert_int_equal(compile(report, "/", true, true, &edit), 0);
    assert_slice(edit.text, "");
    moon_filter_copy_free(edit.text);
    assert_int_equal(compile(report, "/a/", false, false, &edit), 0);
    assert_int_equal(edit.kind, MOON_PATH_FULL);
    assert_slice(edit.text, "/a/");
    moon_filter_copy_free(edit.text);
    assert_int_equal(moon_report_count(report), 0);
    moon_report_free(report);
}

// An exact path, a regular expression, several matches: no prefix to replace.
static void without_a_prefix(void **state)
{
    (void)state;
    struct moon_report *report = moon_report_new();
    struct moon_path_edit edit;
    assert_true(compile(report, "/a", true, false, &edit) < 0);
    char *text = moon_report_text(report);
    assert_string_equal(text, "gateway.lua:7: route \"users\": plugins[2].path.prefix: the route "
                              "matches no path prefix that could be replaced; give the route one "
                              "path prefix: path = \"/old\"\n");
    free(text);
    moon_report_free(report);
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(prefixes), TEST(whole_paths), TEST(normalised),
                                       TEST(compiled), TEST(without_a_prefix)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
