// What leaves: hop-by-hop removal (A21) and the exact bytes of written heads.
#include "fixture.h"

#define H "GET / HTTP/1.1\r\nHost: a\r\n"
#define END "\r\n"

struct row {
    struct moon_slice raw;
    struct moon_framing framing;
    const char *expected;
};

static const struct row requests[] = {
    {RAW(H END), {0}, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"},
    {RAW("GET /a/../b?c HTTP/1.1\r\nX:1\r\nhOsT:  a \r\nY: 2\r\nZ: 3\r\n" END),
     {0},
     "GET /b?c HTTP/1.1\r\nHost: a\r\nX: 1\r\nY: 2\r\nZ: 3\r\n\r\n"},
    {RAW("GET http://a/b? HTTP/1.0\r\nE:\r\n" END),
     {0},
     "GET /b? HTTP/1.1\r\nHost: a\r\nE: \r\n\r\n"},
    {RAW("OPTIONS * HTTP/1.1\r\nHost: a\r\n" END), {0}, "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"},
    {RAW("PROPFIND /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n" END),
     {.body = MOON_BODY_LENGTH, .content_length = 3},
     "PROPFIND /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n"},
    {RAW("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nA: b\r\n" END),
     {.body = MOON_BODY_CHUNKED, .te_trailers = true},
     "GET / HTTP/1.1\r\nHost: a\r\nA: b\r\nTransfer-Encoding: chunked\r\nConnection: TE\r\nTE: "
     "trailers\r\n\r\n"},
    {RAW(H "Connection: upgrade\r\nUpgrade: websocket\r\n" END),
     {.upgrade = {"websocket", 9}},
     "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"},
    {RAW(H "A: 1\r\nConnection: keep-alive, X-Hop, x-other,close\r\nX-Hop: 1\r\nB: "
           "2\r\nKeep-Alive: 5\r\nX-OTHER: 3\r\n"
           "TE: trailers\r\nTrailer: x\r\nUpgrade: h2c\r\nHTTP2-Settings: A\r\nProxy-Connection: "
           "k\r\n"
           "Proxy-Authorization: p\r\nProxy-Authenticate: q\r\nC: 3\r\n" END),
     {.close = true},
     "GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nB: 2\r\nC: 3\r\nConnection: close\r\n\r\n"},
    {RAW(H "Connection: Host, Content-Type, Authorization, Cookie, X-Forwarded-For, X-Real-IP, "
           "Via\r\nContent-Type: t\r\n"
           "Authorization: u\r\nCookie: c\r\nX-Forwarded-For: f\r\nX-Real-IP: "
           "r\r\nX-Forwarded-Port: 1\r\nVia: v\r\n" END),
     {0},
     H "Content-Type: t\r\nAuthorization: u\r\nCookie: c\r\nX-Forwarded-For: f\r\nX-Real-IP: "
       "r\r\nX-Forwarded-Port: 1\r\n"
       "Via: v\r\n\r\n"},
    {RAW(H "Connection: one\r\nOne: 1\r\nConnection: two\r\nTwo: 2\r\nOne: 1\r\nThree: 3\r\n" END),
     {0},
     H "Three: 3\r\n\r\n"},
};

static const struct row responses[] = {
    {RAW("HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 18446\r\n" END),
     {.body = MOON_BODY_LENGTH, .content_length = 18446},
     "HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 18446\r\n\r\n"},
    {RAW("HTTP/1.0 404\r\n" END),
     {.body = MOON_BODY_CLOSE, .close = true},
     "HTTP/1.1 404 \r\nConnection: close\r\n\r\n"},
    {RAW("HTTP/1.1 204 Nothing at all\r\n" END), {0}, "HTTP/1.1 204 Nothing at all\r\n\r\n"},
    {RAW("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" END),
     {.body = MOON_BODY_CHUNKED, .keep_alive = true},
     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n"},
    {RAW("HTTP/1.1 101 S\r\nUpgrade: x\r\nConnection: upgrade\r\n" END),
     {.upgrade = {"x", 1}},
     "HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"},
};

static void check(struct fixture *f, const struct row *row, bool is_request)
{
    int status = is_request ? take_request(f, row->raw, &moon_head_limits_default)
                            : take_response(f, row->raw, MOON_METHOD_GET);
    assert_int_equal(status, 0);
    moon_head_strip_hop(&f->head);
    size_t size = moon_head_size(&f->head);
    char *to = malloc(size);
    size_t len = is_request ? moon_request_write(&f->head, &row->framing, to)
                            : moon_response_write(&f->head, &row->framing, to);
    assert_true(len <= size);
    assert_slice((struct moon_slice){to, len}, row->expected);
    free(to);
}

static void written_requests(void **state)
{
    for (size_t i = 0; i < sizeof requests / sizeof requests[0]; i++)
        check(*state, &requests[i], true);
}

static void written_responses(void **state)
{
    for (size_t i = 0; i < sizeof responses / sizeof responses[0]; i++)
        check(*state, &responses[i], false);
}

// Edited fields stand in the middle of verbatim ones; a framing field that someone added is passed
// over.
static void edited(void **state)
{
    struct fixture *f = *state;
    char to[1024];
    const struct moon_framing framing = {.body = MOON_BODY_LENGTH, .content_length = 0};
    take_request(f, MOON_SLICE(H "A: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\n" END),
                 &moon_head_limits_default);
    moon_headers_set(&f->head.headers, f->arena, MOON_SLICE("B"), MOON_SLICE("two"));
    moon_headers_del(&f->head.headers, MOON_SLICE("c"));
    moon_headers_add_id(&f->head.headers, f->arena, MOON_H_VIA, MOON_SLICE("m"));
    moon_headers_add(&f->head.headers, f->arena, MOON_SLICE("content-length"), MOON_SLICE("9"));
    size_t len = moon_request_write(&f->head, &framing, to);
    assert_slice((struct moon_slice){to, len},
                 H "A: 1\r\nB: two\r\nD: 4\r\nVia: m\r\nContent-Length: 0\r\n\r\n");
}

// What Connection names goes before the table is edited, and never what was added afterwards; the hop's own fields stay until
// the end.
static void named_first(void **state)
{
    struct fixture *f = *state;
    char to[1024];
    const struct moon_framing framing = {.body = MOON_BODY_NONE};
    take_request(f,
                 MOON_SLICE(H
                            "X-A: 1\r\nConnection: x-a, TE, Cookie\r\nTE: trailers\r\nCookie: c\r\n"
                            "Keep-Alive: 5\r\nConnection: x-b\r\nX-B: 2\r\n" END),
                 &moon_head_limits_default);
    moon_head_strip_named(&f->head);
    assert_int_equal(f->head.headers.count, 3); // Host, TE, Cookie
    assert_true(moon_headers_has(&f->head.headers, MOON_H_TE));
    assert_false(moon_headers_has(&f->head.headers, MOON_H_CONNECTION));
    moon_headers_set(&f->head.headers, f->arena, MOON_SLICE("x-a"), MOON_SLICE("ours"));
    moon_head_strip_hop(&f->head);
    size_t len = moon_request_write(&f->head, &framing, to);
    assert_slice((struct moon_slice){to, len}, H "Cookie: c\r\nx-a: ours\r\n\r\n");
}

static void made_here(void **state)
{
    (void)state;
    char to[1024];
    const struct moon_framing framing = {.body = MOON_BODY_LENGTH, .content_length = UINT64_MAX};
    struct moon_head head = {.status = 503};
    assert_true(moon_head_size(&head) <= sizeof to);
    size_t len = moon_response_write(&head, &framing, to);
    assert_slice(
        (struct moon_slice){to, len},
        "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 18446744073709551615\r\n\r\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(written_requests), TEST(written_responses),
                                       TEST(edited), TEST(named_first), TEST(made_here)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
