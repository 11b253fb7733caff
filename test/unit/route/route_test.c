// Unit tests of routing: what each kind of match takes, names, mistakes, and regexes that give up.
#include "routes.h"

static void expect_problem(struct routes *routes, const char *const *texts)
{
    assert_int_equal(routes_try_compile(routes), MOON_ECONFIG);
    char *report = moon_report_text(routes->report);
    for (; *texts; texts++)
        if (!strstr(report, *texts))
            fail_msg("no \"%s\" in:\n%s", *texts, report);
    free(report);
    routes_free(routes);
}

#define PROBLEM(routes, ...) expect_problem(routes, (const char *const[]){__VA_ARGS__, NULL})
#define FIND(...) routes_find(&routes, __VA_ARGS__)

static void prefixes_match_whole_segments(void **state)
{
    (void)state;
    struct routes routes = routes_new();
    routes_add(&routes, TABLE(PATH("/users")));
    routes_add(&routes, TABLE(PATH("/users/admin/")));
    routes_compile(&routes);
    assert_int_equal(FIND("GET", "a", "/users", NULL), 0);
    assert_int_equal(FIND("GET", "a", "/users/", NULL), 0);
    assert_int_equal(FIND("GET", "a", "/users//x?y", NULL), 0);
    assert_int_equal(FIND("GET", "a", "/usersx", NULL), -1);
    assert_int_equal(FIND("GET", "a", "/Users", NULL), -1);
    assert_int_equal(FIND("GET", "a", "/", NULL), -1);
    assert_int_equal(FIND("GET", "a", "/users/administrator", NULL), 0);
    assert_int_equal(FIND("GET", "a", "/users/admin", NULL), 1);
    assert_int_equal(FIND("GET", "a", "/x/../users/%61dmin/7", NULL), 1);
    routes_free(&routes);
}

static void hosts_by_specificity(void **state)
{
    (void)state;
    struct routes routes = routes_new();
    routes_add(&routes, TABLE(PATH("/")));
    routes_add(&routes, TABLE(HOSTS(TEXT("*.example.org")), PATH("/deep")));
    routes_add(&routes, TABLE(HOSTS(TEXT("*.b.example.org"), TEXT("Other.Example.")), PATH("/")));
    routes_add(&routes, TABLE(HOSTS(TEXT("a.b.example.org")), PATH("/only")));
    routes_compile(&routes);
    assert_int_equal(FIND("GET", "a.b.example.org", "/only", NULL), 3);
    assert_int_equal(FIND("GET", "A.B.Example.ORG.:8080", "/only", NULL), 3);
    assert_int_equal(FIND("GET", "a.b.example.org", "/other", NULL), 2); // falls on
    assert_int_equal(FIND("GET", "x.a.b.example.org", "/deep", NULL), 2);
    assert_int_equal(FIND("GET", "b.example.org", "/deep", NULL), 1);
    assert_int_equal(FIND("GET", "b.example.org", "/", NULL), 0);
    assert_int_equal(FIND("GET", "example.org", "/deep", NULL),
                     0); // a wildcard is one label or more
    assert_int_equal(FIND("GET", "badexample.org", "/deep", NULL), 0);
    assert_int_equal(FIND("GET", "other.example:1", "/", NULL), 2);
    assert_int_equal(FIND("GET", NULL, "/only", NULL), 0); // HTTP/1.0 without Host
    assert_int_equal(FIND("GET", "other.example", "http://Other.Example/x", NULL), 2);
    routes_free(&routes);
}

static void the_order_of_paths(void **state)
{
    (void)state;
    struct routes routes = routes_new();
    routes_add(&routes, TABLE(PATH("/")));
    routes_add(&routes, TABLE(PATH("/a/b/c")));
    routes_add(&routes, TABLE(REGEX("/a/.*")));
    routes_add(&routes, TABLE(EXACT("/a/b")));
    routes_add(&routes, TABLE(REGEX("/a/b/[a-z]"), METHODS(TEXT("POST"))));
    routes_compile(&routes);
    assert_int_equal(FIND("GET", "a", "/a/b", NULL), 3);
    assert_int_equal(FIND("GET", "a", "/a/b/", NULL), 2);
    assert_int_equal(FIND("GET", "a", "/a/b/c", NULL), 2);
    assert_int_equal(FIND("POST", "a", "/a/b/c", NULL), 4);
    assert_int_equal(FIND("GET", "a", "/a", NULL), 0);
    routes_free(&routes);
}

static void a_candidate_that_fails_gives_way(void **state)
{
    (void)state;
    struct routes routes = routes_new();
    routes_add(&routes, TABLE(HOSTS(TEXT("a.example")), EXACT("/x"), METHODS(TEXT("POST"))));
    routes_add(&routes, TABLE(HOSTS(TEXT("a.example")), PATH("/x"),
                              KEY("headers", TABLE(KEY("x-env", TEXT("test"))))));
    routes_add(&routes, TABLE(HOSTS(TEXT("*.example")), EXACT("/x"),
                              KEY("query", TABLE(KEY("v", TEXT("2"))))));
    routes_add(&routes, TABLE(PATH("/")));
    routes_compile(&routes);
    assert_int_equal(FIND("POST", "a.example", "/x", NULL), 0);
    assert_int_equal(FIND("GET", "a.example", "/x", "X-Env: test\r\n"), 1);
    assert_int_equal(FIND("GET", "a.example", "/x?v=2", "X-Env: tests\r\n"), 2);
    assert_int_equal(FIND("GET", "a.example", "/x?v=3", NULL), 3);
    routes_free(&routes);
}

static void methods(void **state)
{
    (void)state;
    struct routes routes = routes_new();
    routes_add(&routes, TABLE(PATH("/"), METHODS(TEXT("GET"), TEXT("PROPFIND"))));
    routes_add(&routes, TABLE(PATH("/"), METHODS(TEXT("PURGE"))));
    routes_compile(&routes);
    assert_int_equal(FIND("GET", "a", "/", NULL), 0);
    assert_int_equal(FIND("HEAD", "a", "/", NULL), -1);
    assert_int_equal(FIND("PROPFIND", "a", "/", NULL), 0);
    assert_int_equal(FIND("PURGE", "a", "/", NULL), 1);
    assert_int_equal(FIND("REPORT", "a", "/", NULL), -1);
    routes_free(&routes);
}

static void headers_with_all_their_values(void **state)
{
    (void)state;
    struct routes routes = routes_new();
    routes_add(&routes, TABLE(KEY("headers", TABLE(KEY("X-List", TEXT("a, b"))))));
    routes_add(&routes, TABLE(KEY("headers", TABLE(KEY("cookie", TEXT("a=1; b=2"))))));
    routes_add(&routes,
               TABLE(KEY("headers", TABLE(KEY("x-list", TABLE(KEY("regex", TEXT("(c|, )+"))))))));
    routes_add(&routes, TABLE(KEY("headers", TABLE(KEY("x-none", TEXT(""))))));
    routes_compile(&routes);
    assert_int_equal(FIND("GET", "a", "/", "x-list: a\r\nX-LIST: b\r\n"), 0);
    assert_int_equal(FIND("GET", "a", "/", "x-list: a, b\r\n"), 0);
    assert_int_equal(FIND("GET", "a", "/", "x-list: a\r\n"), -1);
    assert_int_equal(FIND("GET", "a", "/", "x-list: a, b\r\nx-list: c\r\n"), -1);
    assert_int_equal(FIND("GET", "a", "/", "cookie: a=1\r\ncookie: b=2\r\n"), 1);
    assert_int_equal(FIND("GET", "a", "/", "x-list: c\r\nx-other: 1\r\nx-list: c\r\n"), 2);
    assert_int_equal(FIND("GET", "a", "/", "x-list: ccc\r\n"), 2);
    assert_int_equal(FIND("GET", "a", "/", "x-none:\r\n"), 3);
    assert_int_equal(FIND("GET", "a", "/", NULL), -1);
    routes_free(&routes);
}

static void query_by_first_value_decoded(void **state)
{
    (void)state;
    struct routes routes = routes_new();
    routes_add(&routes, TABLE(KEY("query", TABLE(KEY("a b", TEXT("x&y"))))));
    routes_add(&routes, TABLE(KEY("query", TABLE(KEY("v", TEXT("1"))))));
    routes_add(&routes, TABLE(KEY("query", TABLE(KEY("flag", TEXT(""))))));
    routes_add(&routes, TABLE(KEY("query", TABLE(KEY("n", TABLE(KEY("regex", TEXT("[0-9 ]+"))))))));
    routes_compile(&routes);
    assert_int_equal(FIND("GET", "a", "/?a+b=x%26y", NULL), 0);
    assert_int_equal(FIND("GET", "a", "/?a%20b=%78%26y", NULL), 0);
    assert_int_equal(FIND("GET", "a", "/?v=1&v=2", NULL), 1);
    assert_int_equal(FIND("GET", "a", "/?v=2&v=1", NULL), -1);
    assert_int_equal(FIND("GET", "a", "/?V=1", NULL), -1);
    assert_int_equal(FIND("GET", "a", "/?x&flag", NULL), 2);
    assert_int_equal(FIND("GET", "a", "/?flag=", NULL), 2);
    assert_int_equal(FIND("GET", "a", "/?n=1+%32", NULL), 3);
    assert_int_equal(FIND("GET", "a", "/?n=", NULL), -1);
    assert_int_equal(FIND("GET", "a", "/?v=1%", NULL), -1);
    assert_int_equal(FIND("GET", "a", "/", NULL), -1);
    routes_free(&routes);
}

static void any_of_several_matches(void **state)
{
    (void)state;
    struct routes routes = routes_new();
    routes_add(&routes, TABLE(PATH("/")));
    routes_add(&routes, TABLE(KEY("matches", LIST(TABLE(PATH("/a")),
                                                  TABLE(PATH("/b"), METHODS(TEXT("GET")))))));
    routes_compile(&routes);
    assert_int_equal(FIND("GET", "a", "/a", NULL), 1);
    assert_int_equal(FIND("GET", "a", "/b", NULL), 1);
    assert_int_equal(FIND("PUT", "a", "/b", NULL), 0);
    routes_free(&routes);
}

static void the_server_as_a_whole(void **state)
{
    (void)state;
    struct routes routes = routes_new();
    routes_add(&routes, TABLE(HOSTS(TEXT("a.example")), PATH("/"), METHODS(TEXT("OPTIONS"))));
    routes_add(&routes, TABLE(HOSTS(TEXT("b.example")), PATH("/x")));
    routes_add(&routes, TABLE(HOSTS(TEXT("b.example")), REGEX(".*")));
    routes_add(&routes, TABLE(HOSTS(TEXT("b.example")), EXACT("/")));
    routes_compile(&routes);
    assert_int_equal(FIND("OPTIONS", "a.example", "*", NULL), 0);
    assert_int_equal(FIND("OPTIONS", "b.example", "*", NULL), -1);
    routes_free(&routes);
}

static void long_paths(void **state)
{
    (void)state;
    struct routes routes = routes_new();
    char target[3000] = "/a";
    routes_add(&routes, TABLE(PATH("/a")));
    routes_add(&routes, TABLE(PATH("/a/b/b/b/b/b/b/b/b/b/b")));
    routes_compile(&routes);
    for (int i = 0; i < 1000; i++)
        strcat(target, "/c");
    assert_int_equal(FIND("GET", "a", target, NULL), 0);
    memset(target + 2, '/', 1000);
    assert_int_equal(FIND("GET", "a", target, NULL), 0);
    memset(target + 2, 'c', sizeof target - 3);
    assert_int_equal(FIND("GET", "a", target, NULL), -1);
    assert_int_equal(FIND("GET", "a", "/a/b/b/b/b/b/b/b/b/b/b/b", NULL), 1);
    assert_int_equal(FIND("GET", "a", "/a/b/b/b/b/b/b/b/b/b/", NULL), 0);
    routes_free(&routes);
}

static void no_routes(void **state)
{
    (void)state;
    struct routes routes = routes_new();
    routes_compile(&routes);
    assert_int_equal(FIND("GET", "a.example", "/", NULL), -1);
    assert_int_equal(FIND("OPTIONS", "a.example", "*", NULL), -1);
    routes_free(&routes);
}

static void a_regex_that_gives_up_fails_the_lookup(void **state)
{
    (void)state;
    static const char runaway[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!b!";
    char target[200], fields[200];
    struct routes routes = routes_new();
    routes_add(&routes, TABLE(PATH("/")));
    routes_add(&routes, TABLE(REGEX("/r/(a+)+b")));
    routes_add(
        &routes,
        TABLE(PATH("/h"), KEY("headers", TABLE(KEY("x", TABLE(KEY("regex", TEXT("(a+)+b"))))))));
    routes_add(&routes, TABLE(PATH("/q"),
                              KEY("query", TABLE(KEY("x", TABLE(KEY("regex", TEXT("(a+)+b"))))))));
    routes_compile(&routes);
    snprintf(target, sizeof target, "/r/%s", runaway);
    assert_int_equal(FIND("GET", "a", target, NULL), MOON_ELIMIT);
    snprintf(fields, sizeof fields, "X: %s\r\n", runaway);
    assert_int_equal(FIND("GET", "a", "/h", fields), MOON_ELIMIT);
    snprintf(target, sizeof target, "/q?x=%s", runaway);
    assert_int_equal(FIND("GET", "a", target, NULL), MOON_ELIMIT);
    assert_int_equal(FIND("GET", "a", "/", fields), 0); // the expression is not asked
    assert_int_equal(FIND("GET", "a", "/h", "X: aaab\r\n"), 2);
    routes_free(&routes);
}

static void a_scratch_too_small_fails_the_lookup(void **state)
{
    (void)state;
    struct routes routes = routes_new();
    moon_route_scratch_free(routes.scratch);
    routes.scratch = moon_route_scratch_new(4);
    routes_add(&routes, TABLE(KEY("headers", TABLE(KEY("x", TABLE(KEY("regex", TEXT(".*"))))))));
    routes_add(&routes, TABLE(KEY("query", TABLE(KEY("x", TABLE(KEY("regex", TEXT(".*"))))))));
    routes_compile(&routes);
    assert_int_equal(FIND("GET", "a", "/", "X: 12345\r\n"), 0); // in one piece already
    assert_int_equal(FIND("GET", "a", "/", "X: 1\r\nX: 2\r\n"), 0);
    assert_int_equal(FIND("GET", "a", "/", "X: 1\r\nX: 23\r\n"), MOON_ELIMIT);
    assert_int_equal(FIND("GET", "a", "/?x=1234", NULL), 1);
    assert_int_equal(FIND("GET", "a", "/?x=12345", NULL), MOON_ELIMIT);
    routes_free(&routes);
}

static void names(void **state)
{
    (void)state;
    const struct {
        struct moon_value route;
        const char *name;
    } rows[] = {
        {TABLE(KEY("name", TEXT("users")), PATH("/x")), "users"},
        {EMPTY, "/"},
        {TABLE(PATH("/users")), "/users"},
        {TABLE(HOSTS(TEXT("api.example.com"), TEXT("b")), PATH("/users"), METHODS(TEXT("GET"))),
         "GET api.example.com/users"},
        {TABLE(EXACT("/users"), METHODS(TEXT("GET"), TEXT("POST"))), "GET,POST =/users"},
        {TABLE(HOSTS(TEXT("*.example.com")), REGEX("/v[0-9]+")), "*.example.com ~/v[0-9]+"},
        {TABLE(KEY("headers",
                   TABLE(KEY("x-a", TEXT("1")), KEY("x-b", TABLE(KEY("regex", TEXT(".*")))))),
               KEY("query", TABLE(KEY("v", TEXT("2"))))),
         "/ x-a=1 x-b~.* ?v=2"},
        {TABLE(HOSTS(TEXT("h")), KEY("matches", LIST(TABLE(PATH("/a")), TABLE(PATH("/b"))))),
         "h/a"},
        {TABLE(REGEX("/a\n|/b\x7f")), "~/a?|/b?"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char *name = moon_route_name(&rows[i].route);
        assert_string_equal(name, rows[i].name);
        free(name);
    }
}

static void mistakes(void **state)
{
    (void)state;
    const struct {
        struct moon_value route;
        const char *path, *text;
    } rows[] = {
        {TABLE(HOSTS(TEXT("a.*.com"))), "hosts[1]: ", "only the whole leftmost label"},
        {TABLE(HOSTS(TEXT("a"), TEXT("*.*.com"))), "hosts[2]: ", "only the leftmost label"},
        {TABLE(HOSTS(TEXT("*"))), "hosts[1]: ", "leave it out"},
        {TABLE(HOSTS(TEXT("*com"))), "hosts[1]: ", "whole labels"},
        {TABLE(HOSTS(TEXT("*.0.0.1"))), "hosts[1]: ", "a name under"},
        {TABLE(HOSTS(TEXT("*."))), "hosts[1]: ", "a name under"},
        {TABLE(HOSTS(TEXT("a:80"))), "hosts[1]: ", "without a port"},
        {TABLE(HOSTS(TEXT("a b"))), "hosts[1]: ", "\"a b\""},
        {TABLE(HOSTS(TEXT(""))), "hosts[1]: ", "leave it out"},
        {TABLE(HOSTS(TEXT("http://a/"))), "hosts[1]: ", "without a scheme"},
        {TABLE(KEY("hosts", EMPTY)), "hosts: ", "an empty list"},
        {TABLE(KEY("hosts", TEXT("a"))), "hosts: ", "expected a list"},
        {TABLE(KEY("methods", EMPTY)), "methods: ", "an empty list"},
        {TABLE(METHODS(TEXT("get"))), "methods[1]: ", "upper-case: \"GET\""},
        {TABLE(METHODS(TEXT("GET"), TEXT("DELET"))), "methods[2]: ", "did you mean \"DELETE\"?"},
        {TABLE(METHODS(TEXT("*"))), "methods[1]: ", "no method \"*\""},
        {TABLE(PATH("")), "path: ", "not a path"},
        {TABLE(PATH("/a?b")), "path: ", "not a path"},
        {TABLE(PATH("/a/%41")), "path: ", "write \"/a/A\""},
        {TABLE(PATH("/a%2fb")), "path: ", "no request ever has"},
        {TABLE(EXACT("x")), "path.exact: ", "not a path"},
        {TABLE(REGEX("/a(")), "path.regex: ", "at offset 3"},
        {TABLE(KEY("path", EMPTY)), "path: ", "{ exact = "},
        {TABLE(KEY("path", TABLE(KEY("exact", TEXT("/")), KEY("regex", TEXT("/"))))),
         "path: ", "not both"},
        {TABLE(KEY("headers", TABLE(KEY("a b", TEXT("1"))))), "headers.a b: ", "not a name"},
        {TABLE(KEY("headers", TABLE(KEY("X", TEXT("1")), KEY("x", TEXT("1"))))),
         "headers.x: ", "twice"},
        {TABLE(KEY("headers", TABLE(KEY("x", TEXT(" 1"))))), "headers.x: ", "no request ever has"},
        {TABLE(KEY("headers", TABLE(KEY("x", TABLE(KEY("regex", TEXT("["))))))),
         "headers.x.regex: ", "at offset 1"},
        {TABLE(KEY("query", TABLE(KEY("", TEXT("1"))))), "query.: ", "not a name"},
        {TABLE(KEY("query", TABLE(KEY("x", EMPTY)))), "query.x: ", "an empty table"},
        {TABLE(KEY("matches", EMPTY)), "matches: ", "an empty list"},
        {TABLE(KEY("matches", LIST(TABLE(PATH("/a")))), PATH("/")),
         "path: ", "each of the matches"},
        {TABLE(KEY("matches", LIST(TABLE(PATH("/a")), TABLE(METHODS(TEXT("get")))))),
         "matches[2].methods[1]: ", "\"GET\""},
        {TABLE(KEY("matches", LIST(TABLE(KEY("host", TEXT("a")))))),
         "matches[1].host: ", "unknown key"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct routes routes = routes_new();
        routes_add(&routes, rows[i].route);
        PROBLEM(&routes, "test.lua:1: ", rows[i].path, rows[i].text);
    }
}

static void too_many_segments(void **state)
{
    (void)state;
    char path[300] = "";
    for (int i = 0; i < 129; i++)
        strcat(path, "/a");
    for (int i = 0; i < 2; i++) {
        struct routes routes = routes_new();
        struct moon_value text = {.kind = MOON_VALUE_STRING,
                                  .string = {path + 2 * i, strlen(path) - 2 * (size_t)i}};
        routes_add(&routes, TABLE(KEY("path", text)));
        routes_add(&routes, TABLE(KEY("path", TABLE(KEY("exact", text)))));
        if (i == 0) {
            PROBLEM(&routes, "path: a path of 129 segments", "path.exact: a path of 129 segments");
            continue;
        }
        routes_compile(&routes);
        assert_int_equal(FIND("GET", "a", path + 2, NULL), 1);
        assert_int_equal(FIND("GET", "a", path, NULL), 0);
        routes_free(&routes);
    }
}

static void what_is_there_twice(void **state)
{
    (void)state;
    struct routes routes = routes_new();
    routes_add(&routes,
               TABLE(HOSTS(TEXT("a"), TEXT("b")), PATH("/x"), METHODS(TEXT("GET"), TEXT("PUT"))));
    routes_add(&routes,
               TABLE(HOSTS(TEXT("c"), TEXT("B.")), PATH("/x/"), METHODS(TEXT("PUT"), TEXT("GET"))));
    PROBLEM(&routes, "test.lua:2: ", "for the host \"b\" the same match stands in line 1");

    routes = routes_new();
    routes_add(&routes, TABLE(HOSTS(TEXT("*.a")), REGEX(".*")));
    routes_add(&routes, TABLE(PATH("/")));
    routes_add(&routes, TABLE(HOSTS(TEXT("*.a")), REGEX(".*")));
    routes_add(&routes, EMPTY);
    PROBLEM(&routes, "test.lua:3: route: for the host \"*.a\"",
            "test.lua:4: route: the same match stands in line 2");

    routes = routes_new();
    routes_add(&routes, TABLE(KEY("name", TEXT("x")), PATH("/a")));
    routes_add(&routes, TABLE(KEY("name", TEXT("x")), PATH("/b")));
    PROBLEM(&routes, "test.lua:2: route \"x\": name: ", "line 1", "names are unique");

    routes = routes_new();
    routes_add(&routes, TABLE(KEY("name", TEXT("/b")), PATH("/a")));
    routes_add(&routes, TABLE(PATH("/b")));
    PROBLEM(&routes, "test.lua:2: ", "\"/b\" is the name of the route in line 1", "give it one");

    // the same path in other ways is no other time
    routes = routes_new();
    routes_add(&routes, TABLE(PATH("/a")));
    routes_add(&routes, TABLE(EXACT("/a")));
    routes_add(&routes, TABLE(REGEX("/a")));
    routes_add(&routes, TABLE(PATH("/a"), METHODS(TEXT("GET"))));
    routes_add(&routes, TABLE(PATH("/a"), KEY("query", TABLE(KEY("x", TEXT("1"))))));
    routes_add(&routes, TABLE(PATH("/a"), KEY("headers", TABLE(KEY("x", TEXT("1"))))));
    routes_add(&routes,
               TABLE(PATH("/a"), KEY("headers", TABLE(KEY("x", TABLE(KEY("regex", TEXT("1"))))))));
    routes_compile(&routes);
    routes_free(&routes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prefixes_match_whole_segments),
        cmocka_unit_test(hosts_by_specificity),
        cmocka_unit_test(the_order_of_paths),
        cmocka_unit_test(a_candidate_that_fails_gives_way),
        cmocka_unit_test(methods),
        cmocka_unit_test(headers_with_all_their_values),
        cmocka_unit_test(query_by_first_value_decoded),
        cmocka_unit_test(any_of_several_matches),
        cmocka_unit_test(the_server_as_a_whole),
        cmocka_unit_test(long_paths),
        cmocka_unit_test(no_routes),
        cmocka_unit_test(a_regex_that_gives_up_fails_the_lookup),
        cmocka_unit_test(a_scratch_too_small_fails_the_lookup),
        cmocka_unit_test(names),
        cmocka_unit_test(mistakes),
        cmocka_unit_test(too_many_segments),
        cmocka_unit_test(what_is_there_twice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
