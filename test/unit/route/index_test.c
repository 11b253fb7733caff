// Property test of routing: random routes and requests, the index against a naive matcher that looks at every match of every
// route and compares the ones that match by the rules as they are written in route.h. The naive side shares no code with the
// core: it keeps routes in its own form, joins and decodes by itself, and asks POSIX for regular expressions.
#include "routes.h"

#include <regex.h>
#include <string.h>

enum {
    SETS = 600,
    REQUESTS = 500,
    ROUTES_MAX = 60,
    MATCHES_MAX = 3,
    HOSTS_MAX = 3,
    KEYS_LEN = 400000
};

static const char *const hosts[] = {
    "c",        "b.c",   "a.b.c",   "x.a.b.c",   "long-label.example",   "d.long-label.example",
    "*.c",      "*.b.c", "*.a.b.c", "*.example", "*.long-label.example", "under_score.c",
    "10.0.0.1", "[::1]", "b.b.c",   "*.b.b.c"};
static const char *const asked_hosts[] = {"c",
                                          "b.c",
                                          "a.b.c",
                                          "x.a.b.c",
                                          "y.x.a.b.c",
                                          "long-label.example",
                                          "A.B.C",
                                          "b.C.",
                                          "d.long-label.example",
                                          "e.d.LONG-label.example.",
                                          "unknown.test",
                                          "xb.c",
                                          "under_score.c",
                                          "10.0.0.1",
                                          "10.0.0.2",
                                          "[::1]",
                                          "b.b.c",
                                          "q.b.b.c",
                                          "example",
                                          "z.example",
                                          "ab.c",
                                          ""};
static const char *const segments[] = {
    "", "a", "b", "ab", "seven77", "eight888", "nine99999", "a-long-segment-of-a-path"};
static const char *const path_patterns[] = {"/a/.*",        "/[ab]+",    "/a(/b)?",       ".*",
                                            "/ab*",         "/a/b|/b/a", "/(a|ab)(/.*)?", "/a\\.?b",
                                            "/eight888/.*", "/.+/",      "^/a$"};
static const char *const methods[] = {"GET", "POST", "HEAD", "PROPFIND", "PURGE"};
static const char *const header_names[] = {"x-a", "X-B", "cookie", "accept"};
static const char *const values[] = {"1", "2", "", "1, 2", "a b", "1; 2"};
static const char *const value_patterns[] = {"[0-9]", ".*", "1.*", "a b|1", "(1|2)(, 2)?"};
static const char *const query_names[] = {"p", "q", "a b"};
static const char *const pairs[] = {"p=1", "p=2",   "q=a+b", "p=a%20b", "%70=1", "p",       "q=",
                                    "",    "q=%zz", "a+b=1", "a%20b=2", "pp=1",  "q=1%2C+2"};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

enum kind { EXACT_PATH, REGEX_PATH, PREFIX_PATH };

struct text_rule {
    bool is_set, is_regex;
    const char *text;
};

struct match {
    enum kind kind;
    char path[160];
    unsigned methods; // bits of the table above; 0: any
    struct text_rule headers[COUNT(header_names)], query[COUNT(query_names)];
};

struct route {
    const char *hosts[HOSTS_MAX];
    int host_count;
    struct match matches[MATCHES_MAX];
    int match_count;
};

struct request {
    const char *host;
    char path[200], query[100];
    int method; // index
    int field_count;
    int names[5];
    const char *fields[5];
};

static uint64_t seed;

static unsigned roll(unsigned sides)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (unsigned)(seed >> 33) % sides;
}

#define PICK(array) ((array)[roll(COUNT(array))])

// ---- random routes

static void random_path(char *path, bool is_asked)
{
    unsigned depth = roll(is_asked ? 5 : 4);
    path[0] = '\0';
    for (unsigned i = 0; i < depth; i++) {
        strcat(path, "/");
        strcat(path, segments[roll(roll(3) ? 4 : COUNT(segments))]);
    }
    if (path[0] == '\0')
        strcpy(path, "/");
    else if (roll(4) == 0)
        strcat(path, "/");
}

static struct text_rule random_rule(bool is_header)
{
    struct text_rule rule = {.is_set = roll(6) == 0, .is_regex = roll(3) == 0};
    rule.text = rule.is_regex ? PICK(value_patterns) : PICK(values);
    (void)is_header;
    return rule;
}

static struct match random_match(void)
{
    struct match match = {.kind = roll(5) == 0   ? REGEX_PATH
                                  : roll(3) == 0 ? EXACT_PATH
                                                 : PREFIX_PATH};
    if (match.kind == REGEX_PATH)
        strcpy(match.path, PICK(path_patterns));
    else
        random_path(match.path, false);
    if (roll(3) == 0)
        match.methods = 1 + roll((1u << COUNT(methods)) - 1);
    for (size_t i = 0; i < COUNT(header_names); i++)
        match.headers[i] = random_rule(true);
    for (size_t i = 0; i < COUNT(query_names); i++)
        match.query[i] = random_rule(false);
    return match;
}

static void put_rules(char **at, const struct text_rule *rules, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (rules[i].is_set)
            *at += sprintf(*at, "|%zu%c%s", i, rules[i].is_regex ? '~' : '=', rules[i].text);
    *at += sprintf(*at, "|");
}

// Notes the match under that host; false when an equal one is there, which the gateway would refuse.
static bool claim(char *keys, const char *host, const struct match *match)
{
    char key[1024], *at = key;
    size_t len = strlen(match->path);
    if (match->kind == PREFIX_PATH && match->path[len - 1] == '/')
        len--;
    at += sprintf(at, "\n%s %d%.*s %u", host, match->kind, (int)len, match->path, match->methods);
    put_rules(&at, match->headers, COUNT(match->headers));
    put_rules(&at, match->query, COUNT(match->query));
    strcpy(at, "\n");
    if (strstr(keys, key) || strlen(keys) + strlen(key) >= KEYS_LEN)
        return false;
    strcat(keys, key);
    return true;
}

static bool claim_all(char *keys, const struct route *route, const struct match *match)
{
    bool is_new = true;
    for (int i = 0; i < route->host_count; i++)
        is_new = claim(keys, route->hosts[i], match) && is_new;
    return route->host_count ? is_new : claim(keys, "-", match);
}

static struct route random_route(char *keys)
{
    struct route route = {.host_count = roll(4) ? 1 + (int)roll(HOSTS_MAX) : 0};
    unsigned first = roll(COUNT(hosts));
    for (int i = 0; i < route.host_count; i++)
        route.hosts[i] = hosts[(first + (unsigned)i * 5) % COUNT(hosts)];
    int wanted = roll(3) ? 1 : 1 + (int)roll(MATCHES_MAX);
    while (route.match_count < wanted) {
        struct match match = random_match();
        if (claim_all(keys, &route, &match))
            route.matches[route.match_count++] = match;
    }
    return route;
}

// ---- the same as values of the model

static struct moon_value text_of(struct moon_model *model, const char *text)
{
    return (struct moon_value){.kind = MOON_VALUE_STRING,
                               .string = moon_model_copy(model, moon_slice_from(text))};
}

static struct moon_value table_of(struct moon_model *model, const struct moon_entry *entries,
                                  uint32_t count)
{
    struct moon_entry *copy = moon_model_alloc(model, (count + 1) * sizeof *copy);
    struct moon_value value = {.kind = MOON_VALUE_TABLE};
    memcpy(copy, entries, count * sizeof *copy);
    value.table.entries = copy;
    value.table.entry_count = count;
    return value;
}

static struct moon_value list_of(struct moon_model *model, const struct moon_value *items,
                                 uint32_t count)
{
    struct moon_value *copy = moon_model_alloc(model, (count + 1) * sizeof *copy);
    struct moon_value value = {.kind = MOON_VALUE_TABLE};
    memcpy(copy, items, count * sizeof *copy);
    value.table.items = copy;
    value.table.item_count = count;
    return value;
}

static struct moon_value rule_value(struct moon_model *model, const char *key, const char *text)
{
    struct moon_entry entry = {moon_slice_from(key), text_of(model, text)};
    return table_of(model, &entry, 1);
}

static struct moon_value rules_value(struct moon_model *model, const struct text_rule *rules,
                                     const char *const *names, size_t count)
{
    struct moon_entry entries[8];
    uint32_t used = 0;
    for (size_t i = 0; i < count; i++)
        if (rules[i].is_set)
            entries[used++] =
                (struct moon_entry){moon_slice_from(names[i]),
                                    rules[i].is_regex ? rule_value(model, "regex", rules[i].text)
                                                      : text_of(model, rules[i].text)};
    return table_of(model, entries, used);
}

static uint32_t match_entries(struct moon_model *model, const struct match *match,
                              struct moon_entry *out)
{
    struct moon_value list[COUNT(methods)];
    uint32_t used = 0, count = 0;
    for (size_t i = 0; i < COUNT(methods); i++)
        if (match->methods & (1u << i))
            list[count++] = text_of(model, methods[i]);
    out[used++] =
        (struct moon_entry){MOON_SLICE("headers"),
                            rules_value(model, match->headers, header_names, COUNT(header_names))};
    if (count)
        out[used++] = (struct moon_entry){MOON_SLICE("methods"), list_of(model, list, count)};
    out[used++] = (struct moon_entry){
        MOON_SLICE("path"), match->kind == PREFIX_PATH  ? text_of(model, match->path)
                            : match->kind == EXACT_PATH ? rule_value(model, "exact", match->path)
                                                        : rule_value(model, "regex", match->path)};
    out[used++] = (struct moon_entry){
        MOON_SLICE("query"), rules_value(model, match->query, query_names, COUNT(query_names))};
    return used;
}

static void add_route(struct routes *routes, const struct route *route, int index)
{
    struct moon_model *model = routes->model;
    struct moon_entry entries[8], inner[8];
    struct moon_value items[8];
    char name[16];
    uint32_t used = 0;
    snprintf(name, sizeof name, "r%d", index);
    if (route->match_count == 1) {
        used = match_entries(model, &route->matches[0], entries);
    } else {
        for (int i = 0; i < route->match_count; i++)
            items[i] = table_of(model, inner, match_entries(model, &route->matches[i], inner));
        entries[used++] = (struct moon_entry){MOON_SLICE("matches"),
                                              list_of(model, items, (uint32_t)route->match_count)};
    }
    for (int i = 0; i < route->host_count; i++)
        items[i] = text_of(model, route->hosts[i]);
    if (route->host_count)
        entries[used++] = (struct moon_entry){MOON_SLICE("hosts"),
                                              list_of(model, items, (uint32_t)route->host_count)};
    entries[used++] = (struct moon_entry){MOON_SLICE("name"), text_of(model, name)};
    routes_add(routes, table_of(model, entries, used));
}

// ---- the naive matcher

static bool posix_match(const char *pattern, const char *text)
{
    static struct {
        const char *pattern;
        regex_t code;
    } known[32];
    size_t at = 0;
    while (known[at].pattern && known[at].pattern != pattern &&
           strcmp(known[at].pattern, pattern) != 0)
        at++;
    assert_true(at < COUNT(known) - 1);
    if (!known[at].pattern) {
        char whole[100];
        snprintf(whole, sizeof whole, "^(%s)$", pattern);
        assert_int_equal(regcomp(&known[at].code, whole, REG_EXTENDED | REG_NOSUB), 0);
        known[at].pattern = strdup(pattern);
    }
    return regexec(&known[at].code, text, 0, NULL, 0) == 0;
}

static bool rule_holds(const struct text_rule *rule, const char *text)
{
    if (!rule->is_set)
        return true;
    if (!text)
        return false;
    return rule->is_regex ? posix_match(rule->text, text) : strcmp(rule->text, text) == 0;
}

static const char *joined(const struct request *request, int name, char *to)
{
    bool is_there = false;
    to[0] = '\0';
    for (int i = 0; i < request->field_count; i++) {
        if (request->names[i] != name)
            continue;
        if (is_there)
            strcat(to, strcmp(header_names[name], "cookie") == 0 ? "; " : ", ");
        strcat(to, request->fields[i]);
        is_there = true;
    }
    return is_there ? to : NULL;
}

static void decode(const char *from, const char *end, char *to)
{
    while (from < end) {
        unsigned byte;
        if (*from == '%' && end - from >= 3 && sscanf(from + 1, "%2x", &byte) == 1 &&
            from[1] != 'z') {
            *to++ = (char)byte;
            from += 3;
        } else {
            *to++ = *from == '+' ? ' ' : *from;
            from++;
        }
    }
    *to = '\0';
}

static const char *parameter(const struct request *request, const char *name, char *to)
{
    const char *at = request->query;
    for (;;) {
        const char *end = strchrnul(at, '&'), *equal = memchr(at, '=', (size_t)(end - at));
        decode(at, equal ? equal : end, to);
        if (strcmp(to, name) == 0) {
            decode(equal ? equal + 1 : end, end, to);
            return to;
        }
        if (!*end)
            return NULL;
        at = end + 1;
    }
}

static bool path_holds(const struct match *match, const char *path)
{
    size_t len = strlen(match->path);
    switch (match->kind) {
    case EXACT_PATH:
        return strcmp(match->path, path) == 0;
    case REGEX_PATH:
        return posix_match(match->path, path);
    case PREFIX_PATH:
        len -= match->path[len - 1] == '/';
        return strncmp(match->path, path, len) == 0 && (path[len] == '\0' || path[len] == '/');
    }
    return false;
}

static bool holds(const struct match *match, const struct request *request)
{
    char text[400];
    if (!path_holds(match, request->path))
        return false;
    if (match->methods && !(match->methods & (1u << request->method)))
        return false;
    for (int i = 0; i < (int)COUNT(header_names); i++)
        if (!rule_holds(&match->headers[i], joined(request, i, text)))
            return false;
    for (size_t i = 0; i < COUNT(query_names); i++)
        if (!rule_holds(&match->query[i], parameter(request, query_names[i], text)))
            return false;
    return true;
}

// 0: it does not match; 1: no host asked; else the more, the more specific.
static int host_rank(const char *pattern, const char *asked)
{
    char host[100];
    size_t len = strlen(asked);
    for (size_t i = 0; i <= len; i++)
        host[i] = (char)(asked[i] >= 'A' && asked[i] <= 'Z' ? asked[i] + 32 : asked[i]);
    if (len && host[len - 1] == '.')
        host[--len] = '\0';
    if (pattern[0] != '*')
        return strcmp(pattern, host) == 0 ? 1000 : 0;
    size_t suffix = strlen(pattern + 1);
    return len > suffix && strcmp(host + len - suffix, pattern + 1) == 0 ? 1 + (int)suffix : 0;
}

static int best_host_rank(const struct route *route, const struct request *request)
{
    int best = route->host_count == 0;
    for (int i = 0; i < route->host_count; i++) {
        int rank = host_rank(route->hosts[i], request->host);
        best = rank > best ? rank : best;
    }
    return best;
}

static int count_set(const struct text_rule *rules, size_t count)
{
    int n = 0;
    for (size_t i = 0; i < count; i++)
        n += rules[i].is_set;
    return n;
}

// What decides, the most important first; the greater wins.
static void rank(const struct match *match, int host, int out[7])
{
    size_t len = strlen(match->path);
    out[0] = host;
    out[1] = match->kind == EXACT_PATH ? 2 : match->kind == REGEX_PATH ? 1 : 0;
    out[2] = match->kind == PREFIX_PATH ? (int)(len - (match->path[len - 1] == '/')) : 0;
    out[3] = match->methods != 0;
    out[4] = count_set(match->headers, COUNT(match->headers));
    out[5] = count_set(match->query, COUNT(match->query));
}

static int naive_find(const struct route *routes, int count, const struct request *request)
{
    int best[7] = {0}, found = -1;
    for (int i = 0; i < count; i++) {
        int host = best_host_rank(&routes[i], request);
        for (int k = 0; host && k < routes[i].match_count; k++) {
            int mine[7] = {0}, at = 0;
            if (!holds(&routes[i].matches[k], request))
                continue;
            rank(&routes[i].matches[k], host, mine);
            while (at < 6 && mine[at] == best[at])
                at++;
            if (found >= 0 && mine[at] <= best[at])
                continue;
            memcpy(best, mine, sizeof best);
            found = i;
        }
    }
    return found;
}

// ---- random requests

static struct request random_request(void)
{
    struct request request = {.host = PICK(asked_hosts),
                              .method = (int)roll(COUNT(methods)),
                              .field_count = (int)roll(5)};
    random_path(request.path, true);
    for (unsigned i = roll(4); i > 0; i--) {
        strcat(request.query, PICK(pairs));
        if (i > 1)
            strcat(request.query, "&");
    }
    for (int i = 0; i < request.field_count; i++) {
        request.names[i] = (int)roll(COUNT(header_names));
        request.fields[i] = PICK(values);
    }
    return request;
}

static int index_find(struct routes *routes, struct moon_arena_pool *pool,
                      const struct request *request)
{
    struct moon_arena *arena = moon_arena_new(pool, 1 << 16);
    struct moon_slice path = moon_slice_from(request->path),
                      query = moon_slice_from(request->query);
    struct moon_head head = {.method = moon_slice_from(methods[request->method])};
    head.method_id = moon_method_from(head.method);
    // copies that end where they end, for AddressSanitizer
    head.target.path = (struct moon_slice){memcpy(malloc(path.len), path.ptr, path.len), path.len};
    head.target.query = query;
    head.host.host = moon_slice_from(request->host);
    moon_headers_init(&head.headers, arena, 8);
    for (int i = 0; i < request->field_count; i++)
        moon_headers_add(&head.headers, arena,
                         moon_slice_from(i % 2 ? header_names[request->names[i]]
                                         : request->names[i] == 0
                                             ? "X-A"
                                             : header_names[request->names[i]]),
                         moon_slice_from(request->fields[i]));
    int got = moon_routes_find(moon_snapshot_routes(routes->snapshot), 0, &head, routes->scratch);
    free((void *)head.target.path.ptr);
    moon_arena_free(arena);
    return got;
}

static void the_index_agrees_with_the_rules(void **state)
{
    (void)state;
    struct moon_arena_pool *pool = moon_arena_pool_new(4);
    char *keys = malloc(KEYS_LEN);
    unsigned hits = 0, total = 0;
    for (int set = 0; set < SETS; set++) {
        static struct route all[ROUTES_MAX];
        struct routes routes = routes_new();
        seed = (uint64_t)set + 1;
        keys[0] = '\0';
        int count = 1 + (int)roll(ROUTES_MAX);
        for (int i = 0; i < count; i++) {
            all[i] = random_route(keys);
            add_route(&routes, &all[i], i);
        }
        routes_compile(&routes);
        for (int i = 0; i < REQUESTS; i++) {
            struct request request = random_request();
            int expected = naive_find(all, count, &request);
            int got = index_find(&routes, pool, &request);
            hits += expected >= 0;
            total++;
            if (got != expected)
                fail_msg("set %d: %s %s%s?%s: route %d instead of %d", set, methods[request.method],
                         request.host, request.path, request.query, got, expected);
        }
        routes_free(&routes);
    }
    printf("%u lookups, %u found a route\n", total, hits);
    assert_true(total >= 200000 && hits > total / 4 && hits < total * 19 / 20);
    free(keys);
    moon_arena_pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_index_agrees_with_the_rules)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
