// Unit tests of the model as a script.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h> // after what it needs

#include "conf/conf.h"

#include <errno.h>

static const struct moon_value *string(struct moon_model *model, const char *text, size_t len)
{
    struct moon_value *value = moon_model_alloc(model, sizeof *value);
    *value = (struct moon_value){.kind = MOON_VALUE_STRING};
    value->string = moon_model_copy(model, (struct moon_slice){text, len});
    return value;
}

static void add(struct moon_model *model, const char *key, struct moon_value value)
{
    struct moon_entry *entry = moon_model_alloc(model, sizeof *entry);
    struct moon_object object = {.kind = "route", .place = {"a\nb.lua", 7}};
    entry->key = moon_slice_from(key);
    entry->value = value;
    object.value.kind = MOON_VALUE_TABLE;
    object.value.table.entries = entry;
    object.value.table.entry_count = 1;
    moon_model_add(model, &object);
}

static int write_lua(const struct moon_model *model, char **text,
                     const struct moon_object **refused)
{
    size_t len;
    FILE *out = open_memstream(text, &len);
    int err = moon_model_write_lua(model, out, refused);
    assert_int_equal(fclose(out), 0);
    return err;
}

static void test_writes_a_script(void **state)
{
    (void)state;
    struct moon_model *model = moon_model_new();
    const struct moon_object *refused = NULL;
    char *text = NULL;
    add(model, "end", *string(model, "\0001\"\\\n\xc3\xa9", 7));
    add(model, "n", (struct moon_value){.kind = MOON_VALUE_NUMBER, .number = 0.1});
    struct moon_value list = {.kind = MOON_VALUE_TABLE};
    list.table.items = string(model, "x", 1);
    list.table.item_count = 1;
    add(model, "list", list);
    assert_int_equal(write_lua(model, &text, &refused), 0);
    assert_string_equal(
        text,
        "local moongate = require \"moongate\"\n"
        "-- a?b.lua:7\n"
        ";(function() moongate.route { [\"end\"] = \"\\0001\\\"\\\\\\010\\195\\169\", } end)()\n"
        "-- a?b.lua:7\n"
        ";(function() moongate.route { [\"n\"] = 0.10000000000000001, } end)()\n"
        "-- a?b.lua:7\n"
        ";(function() moongate.route { [\"list\"] = { \"x\", }, } end)()\n");
    assert_null(refused);
    free(text);
    moon_model_free(model);
}

static void test_refuses_functions(void **state)
{
    (void)state;
    struct moon_model *model = moon_model_new();
    const struct moon_object *refused = NULL;
    char *text = NULL;
    add(model, "fine", (struct moon_value){.kind = MOON_VALUE_BOOL, .boolean = true});
    add(model, "access", (struct moon_value){.kind = MOON_VALUE_FUNCTION});
    assert_int_equal(write_lua(model, &text, &refused), -ENOTSUP);
    assert_ptr_equal(refused, moon_model_at(model, 1));
    free(text);
    moon_model_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_writes_a_script),
        cmocka_unit_test(test_refuses_functions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
