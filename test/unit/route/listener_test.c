// Which listener of a port takes a host, and which hosts have a name in common.
#include "routes.h"

#include "route/host.h"
#include "route/listener.h"

#include <string.h>

static void hosts_meet(void **state)
{
    (void)state;
    static const struct {
        const char *a, *b;
        bool meet;
    } cases[] = {
        {"", "", true},         {"", "a.b", true},       {"", ".b", true},
        {"a.b", "a.b", true},   {"a.b", "c.b", false},   {"a.b", ".b", true},
        {"b", ".b", false},     {"x.a.b", ".b", true},   {"ab", ".b", false},
        {".b", ".b", true},     {".a.b", ".b", true},    {".a.b", ".c.b", false},
        {".a.b", "a.b", false}, {".a.b", "x.a.b", true}, {".xb", ".b", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct moon_slice a = moon_slice_from(cases[i].a), b = moon_slice_from(cases[i].b);
        if (moon_hosts_meet(a, b) != cases[i].meet || moon_hosts_meet(b, a) != cases[i].meet)
            fail_msg("\"%s\" and \"%s\"", cases[i].a, cases[i].b);
    }
}

#define PORT KEY("port", (struct moon_value){.kind = MOON_VALUE_NUMBER, .number = 80})

static const char *const hostnames[] = {"api.example.com", "*.example.com", "*.deep.example.com",
                                        "*.COM", "under_score.example.org"};

static struct moon_snapshot *compile(struct moon_model *model, bool has_rest)
{
    static const struct moon_section *const sections[] = {&moon_listener_section};
    struct moon_report *report = moon_report_new();
    struct moon_snapshot *snapshot = NULL;
    for (size_t i = 0; i < sizeof hostnames / sizeof *hostnames + has_rest; i++) {
        struct moon_entry *entries = moon_model_alloc(model, 2 * sizeof *entries);
        struct moon_object object = {.kind = "listener", .place = {"test.lua", (unsigned)i + 1}};
        bool is_rest = i == sizeof hostnames / sizeof *hostnames;
        entries[1] = (struct moon_entry)PORT;
        if (!is_rest)
            entries[0] = (struct moon_entry){
                MOON_SLICE("hostname"),
                {.kind = MOON_VALUE_STRING, .string = moon_slice_from(hostnames[i])}};
        object.value.kind = MOON_VALUE_TABLE;
        object.value.table.entries = is_rest ? entries + 1 : entries;
        object.value.table.entry_count = is_rest ? 1 : 2;
        moon_model_add(model, &object);
    }
    struct moon_conf_args args = {
        .model = model, .sections = sections, .section_count = 1, .report = report};
    if (moon_conf_compile(&args, &snapshot) != 0)
        fail_msg("%s", moon_report_text(report));
    moon_report_free(report);
    return snapshot;
}

static int find(const struct moon_snapshot *snapshot, const char *host)
{
    struct moon_route_scratch *scratch = moon_route_scratch_new(1024);
    struct moon_head head = {.host.host = moon_slice_from(host), .target.path = MOON_SLICE("/a/b")};
    int got = moon_listeners_find(moon_snapshot_listeners(snapshot), 0, false, &head, scratch);
    moon_route_scratch_free(scratch);
    return got;
}

static void the_most_specific_has_it(void **state)
{
    (void)state;
    static const struct {
        const char *host;
        int listener;
    } cases[] = {{"api.example.com", 0},
                 {"API.example.com", 0},
                 {"api.example.com.", 0},
                 {"x.example.com", 1},
                 {"x.api.example.com", 1},
                 {"deep.example.com", 1},
                 {"x.deep.example.com", 2},
                 {"a.b.deep.example.com", 2},
                 {"example.com", 3},
                 {"a.b.COM", 3},
                 {"com", 5},
                 {"under_score.example.org", 4},
                 {"example.org", 5},
                 {"", 5},
                 {"10.0.0.1", 5}};
    struct moon_model *model = moon_model_new(), *other = moon_model_new();
    struct moon_snapshot *all = compile(model, true), *without = compile(other, false);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int wanted = cases[i].listener;
        assert_int_equal(find(all, cases[i].host), wanted);
        assert_int_equal(find(without, cases[i].host), wanted == 5 ? -1 : wanted);
    }
    moon_snapshot_unref(all);
    moon_snapshot_unref(without);
    moon_model_free(model);
    moon_model_free(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hosts_meet),
        cmocka_unit_test(the_most_specific_has_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
