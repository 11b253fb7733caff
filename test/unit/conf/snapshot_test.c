// Unit tests of snapshots: which parts the next one keeps, and when they go.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h> // after what it needs

#include "base/err.h"
#include "conf/conf.h"

static unsigned compile_count, live_count; // of all sections

static int compile(const struct moon_compile *args, void **part)
{
    size_t *count = malloc(sizeof *count);
    *count = args->object_count;
    *part = count;
    compile_count++;
    live_count++;
    return 0;
}

static void unref(void *part)
{
    if (part)
        live_count--;
    free(part);
}

static bool is_free_of_others(const struct moon_snapshot *before, const struct moon_snapshot *now)
{
    (void)before;
    (void)now;
    return true;
}

// The dependent section takes the number of inputs, nothing else.
static bool has_same_count(const struct moon_snapshot *before, const struct moon_snapshot *now)
{
    return *(size_t *)moon_snapshot_part(before, "inputs") ==
           *(size_t *)moon_snapshot_part(now, "inputs");
}

static const struct moon_schema_key keys[] = {
    {.name = "n", .types = MOON_TYPE_NUMBER}, {.name = "f", .types = MOON_TYPE_FUNCTION}, {NULL}};
static const struct moon_schema schema = {keys, NULL, NULL};
static const struct moon_section inputs = {.name = "inputs",
                                           .kind = "upstream",
                                           .schema = &schema,
                                           .compile = compile,
                                           .unref = unref,
                                           .is_same = is_free_of_others};
static const struct moon_section dependent = {.name = "dependent",
                                              .kind = "route",
                                              .schema = &schema,
                                              .compile = compile,
                                              .unref = unref,
                                              .is_same = has_same_count};
static const struct moon_section always = {
    .name = "always", .kind = "route", .compile = compile, .unref = unref};
static const struct moon_section *const sections[] = {&inputs, &dependent, &always};

static void add(struct moon_model *model, const char *kind, unsigned line, const char *key,
                struct moon_value value)
{
    struct moon_entry *entry = moon_model_alloc(model, sizeof *entry);
    struct moon_object object = {.kind = kind, .place = {"x.lua", line}};
    entry->key = moon_slice_from(key);
    entry->value = value;
    object.value.kind = MOON_VALUE_TABLE;
    object.value.table.entries = entry;
    object.value.table.entry_count = 1;
    moon_model_add(model, &object);
}

static struct moon_value number(double n)
{
    return (struct moon_value){.kind = MOON_VALUE_NUMBER, .number = n};
}

// One upstream and one route, with these numbers, from that line on.
static struct moon_model *model_of(unsigned line, double upstream, double route)
{
    struct moon_model *model = moon_model_new();
    add(model, "upstream", line, "n", number(upstream));
    add(model, "route", line + 1, "n", number(route));
    return model;
}

// NULL: it is refused.
static struct moon_snapshot *follow(const struct moon_snapshot *before, struct moon_model *model)
{
    struct moon_report *report = moon_report_new();
    struct moon_snapshot *snapshot = NULL;
    struct moon_conf_args args = {.model = model,
                                  .sections = sections,
                                  .section_count = 3,
                                  .before = before,
                                  .report = report};
    if (moon_conf_compile(&args, &snapshot) == 0)
        moon_snapshot_adopt(snapshot, model);
    else
        moon_model_free(model);
    moon_report_free(report);
    return snapshot;
}

static void test_keeps_what_says_the_same(void **state)
{
    (void)state;
    struct moon_snapshot *one = follow(NULL, model_of(1, 1, 1));
    compile_count = 0;
    struct moon_snapshot *two = follow(one, model_of(7, 1, 1)); // elsewhere in the file
    assert_int_equal(compile_count, 1);
    assert_true(moon_snapshot_shares(one, two, "inputs"));
    assert_true(moon_snapshot_shares(one, two, "dependent"));
    assert_false(moon_snapshot_shares(one, two, "always"));
    moon_snapshot_unref(one);
    assert_int_equal(live_count, 3);
    assert_int_equal(*(size_t *)moon_snapshot_part(two, "dependent"), 1);
    moon_snapshot_unref(two);
    assert_int_equal(live_count, 0);
}

static void test_compiles_what_changed(void **state)
{
    (void)state;
    struct moon_snapshot *one = follow(NULL, model_of(1, 1, 1));
    struct moon_snapshot *two = follow(one, model_of(1, 2, 1));
    assert_false(moon_snapshot_shares(one, two, "inputs"));
    assert_true(moon_snapshot_shares(one, two, "dependent")); // their count is the same
    struct moon_snapshot *three = follow(two, model_of(1, 2, 3));
    assert_true(moon_snapshot_shares(two, three, "inputs"));
    assert_false(moon_snapshot_shares(two, three, "dependent"));
    struct moon_model *model = model_of(1, 2, 3);
    add(model, "upstream", 3, "n", number(4));
    struct moon_snapshot *four = follow(three, model);
    assert_false(moon_snapshot_shares(three, four, "inputs"));
    assert_false(moon_snapshot_shares(three, four, "dependent"));
    moon_snapshot_unref(one);
    moon_snapshot_unref(two);
    moon_snapshot_unref(three);
    moon_snapshot_unref(four);
    assert_int_equal(live_count, 0);
}

static void test_a_function_is_never_the_same(void **state)
{
    (void)state;
    struct moon_snapshot *snapshots[2] = {NULL, NULL};
    for (int i = 0; i < 2; i++) {
        struct moon_model *model = moon_model_new();
        add(model, "upstream", 1, "f", (struct moon_value){.kind = MOON_VALUE_FUNCTION});
        snapshots[i] = follow(i ? snapshots[0] : NULL, model);
    }
    assert_false(moon_snapshot_shares(snapshots[0], snapshots[1], "inputs"));
    moon_snapshot_unref(snapshots[0]);
    moon_snapshot_unref(snapshots[1]);
    assert_int_equal(live_count, 0);
}

static void test_what_is_refused_keeps_nothing(void **state)
{
    (void)state;
    struct moon_snapshot *one = follow(NULL, model_of(1, 1, 1));
    struct moon_model *model = model_of(1, 1, 1);
    add(model, "route", 3, "nonsense", number(1)); // upstreams are kept, then routes are refused
    assert_null(follow(one, model));
    assert_true(moon_snapshot_is_last(one));
    assert_int_equal(*(size_t *)moon_snapshot_part(one, "inputs"), 1);
    moon_snapshot_unref(one);
    assert_int_equal(live_count, 0);
}

static void test_a_lenient_producer_makes_another_object(void **state)
{
    (void)state;
    struct moon_snapshot *one = follow(NULL, model_of(1, 1, 1));
    struct moon_model *model = moon_model_new(), *strict = model_of(1, 1, 1);
    for (size_t i = 0; i < moon_model_count(strict); i++) {
        struct moon_object object = *moon_model_at(strict, i);
        object.is_lenient = strcmp(object.kind, "route") == 0;
        moon_model_add(model, &object);
    }
    struct moon_snapshot *two = follow(one, model);
    assert_true(moon_snapshot_shares(one, two, "inputs"));
    assert_false(moon_snapshot_shares(one, two, "dependent"));
    moon_snapshot_unref(one);
    moon_snapshot_unref(two);
    moon_model_free(strict);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keeps_what_says_the_same),
        cmocka_unit_test(test_compiles_what_changed),
        cmocka_unit_test(test_a_function_is_never_the_same),
        cmocka_unit_test(test_what_is_refused_keeps_nothing),
        cmocka_unit_test(test_a_lenient_producer_makes_another_object),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
