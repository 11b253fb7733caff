// Unit tests of exchange/action: backends, timeouts and retries of a route as compiled.
#include "exchange/action.h"

#include "base/err.h"
#include "exchange/exchange_priv.h"
#include "upstream/registry.h"
#include "upstream/upstream.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h> // after what it needs

enum { ENTRY_MAX_COUNT = 8 };

struct table {
    struct moon_entry entries[ENTRY_MAX_COUNT];
    uint32_t count;
};

static void put(struct table *table, const char *key, struct moon_value value)
{
    assert_true(table->count < ENTRY_MAX_COUNT);
    table->entries[table->count++] = (struct moon_entry){moon_slice_from(key), value};
}

static struct moon_value text(const char *string)
{
    return (struct moon_value){.kind = MOON_VALUE_STRING, .string = moon_slice_from(string)};
}

static struct moon_value number(double n)
{
    return (struct moon_value){.kind = MOON_VALUE_NUMBER, .number = n};
}

static struct moon_value list(const struct moon_value *items, uint32_t count)
{
    struct moon_value value = {.kind = MOON_VALUE_TABLE};
    value.table.items = items;
    value.table.item_count = count;
    return value;
}

static struct moon_value whole(const struct table *table)
{
    struct moon_value value = {.kind = MOON_VALUE_TABLE};
    value.table.entries = table->entries;
    value.table.entry_count = table->count;
    return value;
}

// Compiles the upstream "a" and one route with these keys. 0, or MOON_ECONFIG.
static int compile(struct moon_registry *registry, const struct table *route, bool is_lenient,
                   struct moon_snapshot **out)
{
    struct moon_upstream_parts parts = {.registry = registry};
    static struct moon_section upstreams, actions; // outlive the snapshot
    static const struct moon_section *order[2] = {&upstreams, &actions};
    upstreams = moon_upstream_section;
    upstreams.registry = &parts;
    actions = moon_action_section;
    struct moon_model *model = moon_model_new();
    struct moon_report *report = moon_report_new();
    struct table upstream = {.count = 0};
    put(&upstream, "endpoints", list(NULL, 0));
    put(&upstream, "name", text("a"));
    moon_model_add(model, &(struct moon_object){.kind = "upstream", .value = whole(&upstream)});
    moon_model_add(model, &(struct moon_object){
                              .kind = "route", .value = whole(route), .is_lenient = is_lenient});
    struct moon_conf_args args = {
        .model = model, .sections = order, .section_count = 2, .report = report};
    int err = moon_conf_compile(&args, out);
    moon_report_free(report);
    moon_model_free(model);
    return err;
}

static void an_invalid_backend_keeps_its_share_where_that_is_allowed(void **state)
{
    struct table weights = {.count = 0}, route = {.count = 0};
    struct moon_snapshot *snapshot = NULL;
    put(&weights, "a", number(1));
    put(&weights, "nobody", number(3));
    put(&route, "backends", whole(&weights));
    assert_int_equal(compile(*state, &route, false, &snapshot), MOON_ECONFIG);
    assert_int_equal(compile(*state, &route, true, &snapshot), 0);
    const struct moon_split *split = &moon_actions_at(moon_snapshot_actions(snapshot), 0)->split;
    unsigned invalid_count = 0;
    uint64_t phase = 99;
    for (int i = 0; i < 400; i++)
        invalid_count += moon_split_choose(split, &phase)->upstream == MOON_BACKEND_MISSING;
    assert_in_range(invalid_count, 298, 302);
    moon_snapshot_unref(snapshot);
}

static void a_lenient_route_may_have_no_backend(void **state)
{
    struct table weights = {.count = 0}, route = {.count = 0};
    struct moon_snapshot *snapshot = NULL;
    put(&route, "backends", whole(&weights));
    assert_int_equal(compile(*state, &route, false, &snapshot), MOON_ECONFIG);
    assert_int_equal(compile(*state, &route, true, &snapshot), 0);
    assert_null(
        moon_split_choose(&moon_actions_at(moon_snapshot_actions(snapshot), 0)->split, NULL));
    moon_snapshot_unref(snapshot);
}

static void retries_and_timeouts_are_read(void **state)
{
    struct table retry = {.count = 0}, timeouts = {.count = 0}, route = {.count = 0};
    struct moon_snapshot *snapshot = NULL;
    const struct moon_value conditions[] = {text("connect"), text("503"), text("400"), text("599")};
    put(&retry, "attempts", number(3));
    put(&retry, "backoff", number(0.1));
    put(&retry, "on", list(conditions, 4));
    put(&timeouts, "request", number(1.5));
    put(&route, "backends", text("a"));
    put(&route, "retry", whole(&retry));
    put(&route, "timeouts", whole(&timeouts));
    assert_int_equal(compile(*state, &route, false, &snapshot), 0);
    const struct moon_action *action = moon_actions_at(moon_snapshot_actions(snapshot), 0);
    assert_int_equal(action->retry.attempts, 3);
    assert_int_equal(action->retry.backoff_ms, 100);
    assert_true(action->retry.on_connect);
    assert_false(action->retry.on_reset || action->retry.on_timeout);
    for (uint16_t status = 100; status < 1000; status++)
        assert_int_equal(moon_retry_has_status(&action->retry, status),
                         status == 400 || status == 503 || status == 599);
    assert_int_equal(action->timeouts.request_ms, 1500);
    assert_int_equal(action->timeouts.response_ms, 0);
    moon_snapshot_unref(snapshot);
}

static int setup(void **state)
{
    *state = moon_registry_new();
    return 0;
}

static int teardown(void **state)
{
    moon_registry_free(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_invalid_backend_keeps_its_share_where_that_is_allowed),
        cmocka_unit_test(a_lenient_route_may_have_no_backend),
        cmocka_unit_test(retries_and_timeouts_are_read),
    };
    return cmocka_run_group_tests_name("exchange/action", tests, setup, teardown);
}
