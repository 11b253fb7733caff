// Unit tests of routing by gRPC service and method: precedence as GRPCRoute has it, and which requests are calls.
#include "routes.h"

#define GRPC(...) KEY("grpc", TABLE(__VA_ARGS__))
#define SERVICE(text) KEY("service", TEXT(text))
#define METHOD(text) KEY("method", TEXT(text))
#define SERVICE_REGEX(text) KEY("service", TABLE(KEY("regex", TEXT(text))))
#define METHOD_REGEX(text) KEY("method", TABLE(KEY("regex", TEXT(text))))
#define CALL(path) FIND_WITH("application/grpc", path)
#define FIND_WITH(type, path) \
    routes_find(&routes, "POST", "a.example", path, "Content-Type: " type "\r\n")

static void expect_problem(struct routes *routes, const char *text)
{
    assert_int_equal(routes_try_compile(routes), MOON_ECONFIG);
    char *report = moon_report_text(routes->report);
    if (!strstr(report, text))
        fail_msg("no \"%s\" in:\n%s", text, report);
    free(report);
    routes_free(routes);
}

static void the_more_is_named_the_earlier(void **state)
{
    (void)state;
    struct routes routes = routes_new();
    routes_add(&routes, TABLE(KEY("name", TEXT("all")), KEY("grpc", EMPTY)));
    routes_add(&routes, TABLE(GRPC(METHOD("Get"))));
    routes_add(&routes, TABLE(GRPC(SERVICE_REGEX("shop\\.O.*"))));
    routes_add(&routes, TABLE(GRPC(SERVICE_REGEX("shop\\..*"), METHOD("Get"))));
    routes_add(&routes, TABLE(GRPC(SERVICE("shop.Orders"))));
    routes_add(&routes, TABLE(GRPC(SERVICE("shop.Orders"), METHOD_REGEX("List.*"))));
    routes_add(&routes, TABLE(GRPC(SERVICE("shop.Orders"), METHOD("ListAll"))));
    routes_compile(&routes);
    assert_int_equal(CALL("/shop.Orders/ListAll"), 6);
    assert_int_equal(CALL("/shop.Orders/ListMine"), 5);
    assert_int_equal(CALL("/shop.Orders/Get"), 4); // a service by its name, before any expression
    assert_int_equal(CALL("/shop.Offers/Get"), 2); // the longer expression
    assert_int_equal(CALL("/shop.Users/Get"), 3);
    assert_int_equal(CALL("/other.Users/Get"), 1);
    assert_int_equal(CALL("/other.Users/get"), 0); // case matters
    assert_int_equal(CALL("/shop.Orders2/Put"), 2);
    routes_free(&routes);
}

static void hosts_and_headers_decide_as_ever(void **state)
{
    (void)state;
    struct routes routes = routes_new();
    routes_add(&routes, TABLE(GRPC(SERVICE("s"), METHOD("M"))));
    routes_add(&routes, TABLE(GRPC(SERVICE("s"), METHOD("M")), HOSTS(TEXT("*.example"))));
    routes_add(&routes, TABLE(GRPC(SERVICE("s")), HOSTS(TEXT("a.example"))));
    routes_add(&routes, TABLE(GRPC(SERVICE("s"), METHOD("M")),
                              KEY("headers", TABLE(KEY("x-env", TEXT("test"))))));
    routes_compile(&routes);
    const char *fields = "Content-Type: application/grpc\r\n";
    assert_int_equal(routes_find(&routes, "POST", "a.example", "/s/M", fields), 2);
    assert_int_equal(routes_find(&routes, "POST", "b.example", "/s/M", fields), 1);
    assert_int_equal(routes_find(&routes, "POST", "other", "/s/M", fields), 0);
    assert_int_equal(routes_find(&routes, "POST", "other", "/s/M",
                                 "Content-Type: application/grpc\r\nx-env: test\r\n"),
                     3);
    assert_int_equal(routes_find(&routes, "POST", "other", "/s/Other", fields), -1);
    routes_free(&routes);
}

static void what_is_no_call_falls_on_to_paths(void **state)
{
    (void)state;
    struct routes routes = routes_new();
    routes_add(&routes, TABLE(GRPC(SERVICE("s"))));
    routes_add(&routes, TABLE(PATH("/")));
    routes_compile(&routes);
    assert_int_equal(CALL("/s/M"), 0);
    assert_int_equal(FIND_WITH("application/grpc+proto", "/s/M"), 0);
    assert_int_equal(FIND_WITH("Application/GRPC;charset=utf-8", "/s/M"), 0);
    assert_int_equal(FIND_WITH("application/grpc-web", "/s/M"), 0);
    assert_int_equal(FIND_WITH("application/grpc-web-text+proto", "/s/M"), 0);
    assert_int_equal(FIND_WITH("application/grpcish", "/s/M"), 1);
    assert_int_equal(FIND_WITH("application/json", "/s/M"), 1);
    assert_int_equal(CALL("/s"), 1);
    assert_int_equal(CALL("/s/"), 1);
    assert_int_equal(CALL("/s/M/more"), 1);
    assert_int_equal(CALL("//M"), 1);
    assert_int_equal(CALL("/other/M"), 1);
    assert_int_equal(routes_find(&routes, "GET", "a", "/s/M", "Content-Type: application/grpc\r\n"),
                     1);
    assert_int_equal(routes_find(&routes, "OPTIONS", "a", "/s/M",
                                 "Access-Control-Request-Headers: content-type,X-Grpc-Web\r\n"),
                     0);
    assert_int_equal(routes_find(&routes, "OPTIONS", "a", "/s/M",
                                 "Access-Control-Request-Headers: content-type\r\n"),
                     1);
    routes_free(&routes);
}

static void a_route_of_matches_may_mix(void **state)
{
    (void)state;
    struct routes routes = routes_new();
    routes_add(&routes,
               TABLE(KEY("matches", LIST(TABLE(GRPC(SERVICE("s"))), TABLE(PATH("/rest"))))));
    routes_compile(&routes);
    assert_int_equal(CALL("/s/M"), 0);
    assert_int_equal(routes_find(&routes, "GET", "a", "/rest/x", NULL), 0);
    assert_int_equal(routes_find(&routes, "GET", "a", "/s/M", NULL), -1);
    routes_free(&routes);
}

static void mistakes_are_told(void **state)
{
    (void)state;
    struct routes routes = routes_new();
    routes_add(&routes, TABLE(GRPC(SERVICE("a/b"))));
    expect_problem(&routes, "grpc.service: no call ever has the service \"a/b\"");
    routes = routes_new();
    routes_add(&routes, TABLE(GRPC(METHOD("a.b"))));
    expect_problem(&routes, "grpc.method: no call ever has the method \"a.b\"");
    routes = routes_new();
    routes_add(&routes, TABLE(GRPC(SERVICE_REGEX("("))));
    expect_problem(&routes, "grpc.service.regex");
    routes = routes_new();
    routes_add(&routes, TABLE(GRPC(SERVICE("s")), PATH("/x")));
    expect_problem(&routes, "path: beside grpc it has no meaning");
    routes = routes_new();
    routes_add(&routes, TABLE(GRPC(SERVICE("s"))));
    routes_add(&routes, TABLE(KEY("name", TEXT("twice")), GRPC(SERVICE("s"))));
    expect_problem(&routes, "the same match stands in line 1 already");
}

static void names_are_the_match_written_out(void **state)
{
    (void)state;
    const struct {
        struct moon_value route;
        const char *name;
    } rows[] = {
        {TABLE(GRPC(SERVICE("s"), METHOD("M"))), "grpc s/M"},
        {TABLE(GRPC(SERVICE("s")), HOSTS(TEXT("a"))), "a grpc s/*"},
        {TABLE(GRPC(METHOD_REGEX("Get.*"))), "grpc */~Get.*"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *name = moon_route_name(&rows[i].route);
        assert_string_equal(name, rows[i].name);
        free(name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_more_is_named_the_earlier),
        cmocka_unit_test(hosts_and_headers_decide_as_ever),
        cmocka_unit_test(what_is_no_call_falls_on_to_paths),
        cmocka_unit_test(a_route_of_matches_may_mix),
        cmocka_unit_test(mistakes_are_told),
        cmocka_unit_test(names_are_the_match_written_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
