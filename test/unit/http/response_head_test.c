// Response heads: framing by RFC 9112 6.3 and what upstreams get wrong (A12, A13, A14, A23, A25).
#include "fixture.h"

struct row {
    struct moon_slice raw;
    int status; // 0: accepted, else 502
    const char *reason;
};

#define OK "HTTP/1.1 200 OK\r\n"
#define END "\r\n"

static const struct row rows[] = {
    {RAW(OK END), 0, NULL},
    {RAW("HTTP/1.1 200\r\n" END), 0, NULL},
    {RAW("HTTP/1.1 200 \r\n" END), 0, NULL},
    {RAW("HTTP/1.0 599 Odd \t\xff reason\r\n" END), 0, NULL},
    {RAW("HTTP/1.1 2000 OK\r\n" END), 502, "malformed status in the response"},
    {RAW("HTTP/1.1 20 OK\r\n" END), 502, "malformed status in the response"},
    {RAW("HTTP/1.1 2x0 OK\r\n" END), 502, "malformed status in the response"},
    {RAW("HTTP/1.1  200 OK\r\n" END), 502, "malformed status in the response"},
    {RAW("HTTP/1.1 +20 OK\r\n" END), 502, "malformed status in the response"},
    {RAW("HTTP/1.1 099 OK\r\n" END), 502, "status out of range in the response"},
    {RAW("HTTP/1.1 600 OK\r\n" END), 502, "status out of range in the response"},
    {RAW("HTTP/1.1 000 OK\r\n" END), 502, "status out of range in the response"},
    {RAW("HTTP/2.0 200 OK\r\n" END), 502, "HTTP version of the response not supported"},
    {RAW("HTTP/1.2 200 OK\r\n" END), 502, "HTTP version of the response not supported"},
    {RAW("HTTP/0.9 200 OK\r\n" END), 502, "HTTP version of the response not supported"},
    {RAW("HTTP/11 200 OK\r\n" END), 502, "malformed status line in the response"},
    {RAW("HTTP/1.1\r\n" END), 502, "malformed status line in the response"},
    {RAW("HTTP/1.1\t200 OK\r\n" END), 502, "malformed status line in the response"},
    {RAW("RTSP/1.0 200 OK\r\n" END), 502, "malformed status line in the response"},
    {RAW("ICE/1.0 200 OK\r\n" END), 502, "malformed status line in the response"},
    {RAW("<html>\r\n" END), 502, "malformed status line in the response"},
    {RAW("H\r\n" END), 502, "malformed status line in the response"},
    {RAW(" HTTP/1.1 200 OK\r\n" END), 502, "white space before the start line"},
    {RAW("HTTP/1.1 200 O\0K\r\n" END), 502, "NUL in the head"},
    {RAW("HTTP/1.1 200 OK\n\n"), 502, "bare LF in the head"},
    {RAW("HTTP/1.1 200 O\rK\r\n" END), 502, "bare CR in the head"},
    {RAW(OK "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n" END), 502, NULL},
    {RAW(OK "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n" END), 502, NULL},
    {RAW(OK "Content-Length: 5\r\nContent-Length: 5\r\n" END), 502, "repeated Content-Length"},
    {RAW(OK "Content-Length: 5\r\nContent-Length: 6\r\n" END), 502, "repeated Content-Length"},
    {RAW(OK "Content-Length: 5, 5\r\n" END), 502, NULL},
    {RAW(OK "Content-Length: -5\r\n" END), 502, NULL},
    {RAW(OK "Content-Length: 05\r\n" END), 502, NULL},
    {RAW(OK "Content-Length:\r\n" END), 502, NULL},
    {RAW(OK "Content-Length: 9223372036854775808\r\n" END), 502, NULL},
    {RAW(OK "Transfer-Encoding: gzip\r\n" END), 502, NULL},
    {RAW(OK "Transfer-Encoding: gzip, chunked\r\n" END), 502, NULL},
    {RAW(OK "Transfer-Encoding: identity\r\n" END), 502, NULL},
    {RAW(OK "Transfer-Encoding:\r\n" END), 502, NULL},
    {RAW(OK "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n" END), 502, NULL},
    {RAW("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n" END), 502,
     "Transfer-Encoding in an HTTP/1.0 response"},
    {RAW(OK "Location: /a\r\nLocation: /b\r\n" END), 502, "repeated Location"},
    {RAW(OK "X: y\r\n z\r\n" END), 502, "folded header line"},
    {RAW(OK "X : y\r\n" END), 502, "white space before a colon"},
    {RAW(OK ": y\r\n" END), 502, "empty header name"},
    {RAW(OK "nothing\r\n" END), 502, "header line without a colon"},
    {RAW(OK "X\xe9: y\r\n" END), 502, "forbidden byte in a header name"},
    {RAW(OK "X: \x7f\r\n" END), 502, "control byte in the head"},
    {RAW(OK "x_y: z\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n" END), 0, NULL},
};

static void fault_table(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        int status = take_response(f, rows[i].raw, MOON_METHOD_GET);
        if (status != rows[i].status)
            fail_msg("%d (%s):\n%.*s", status, f->fault.reason, MOON_SLICE_ARG(rows[i].raw));
        if (status && rows[i].reason && strcmp(rows[i].reason, f->fault.reason) != 0)
            fail_msg("\"%s\":\n%.*s", f->fault.reason, MOON_SLICE_ARG(rows[i].raw));
        fixture_reset(f);
        int err = moon_response_parse(f->arena, rows[i].raw, &moon_head_limits_default,
                                      MOON_METHOD_GET, &f->head, &f->fault);
        if ((err == 0) != (rows[i].status == 0))
            fail_msg("without scan: %d (%s):\n%.*s", err, f->fault.reason,
                     MOON_SLICE_ARG(rows[i].raw));
    }
}

static void framing(void **state)
{
    struct fixture *f = *state;
    static const struct {
        struct moon_slice raw;
        enum moon_method method;
        enum moon_body_kind body;
        uint64_t content_length;
        bool keep_alive;
    } cases[] = {
        {RAW(OK "Content-Length: 5\r\n" END), MOON_METHOD_GET, MOON_BODY_LENGTH, 5, true},
        {RAW(OK "Content-Length: 0\r\n" END), MOON_METHOD_GET, MOON_BODY_LENGTH, 0, true},
        {RAW(OK "Content-Length: 5\r\nConnection: close\r\n" END), MOON_METHOD_GET,
         MOON_BODY_LENGTH, 5, false},
        {RAW(OK "Transfer-Encoding: Chunked\r\n" END), MOON_METHOD_GET, MOON_BODY_CHUNKED, 0, true},
        {RAW(OK END), MOON_METHOD_GET, MOON_BODY_CLOSE, 0, false},
        {RAW("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n" END), MOON_METHOD_GET, MOON_BODY_LENGTH, 5,
         false},
        {RAW("HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n" END),
         MOON_METHOD_GET, MOON_BODY_LENGTH, 5, true},
        {RAW(OK "Content-Length: 5\r\n" END), MOON_METHOD_HEAD, MOON_BODY_NONE, 5, true},
        {RAW(OK "Transfer-Encoding: chunked\r\n" END), MOON_METHOD_HEAD, MOON_BODY_NONE, 0, true},
        {RAW(OK END), MOON_METHOD_HEAD, MOON_BODY_NONE, 0, true},
        {RAW("HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n" END), MOON_METHOD_GET,
         MOON_BODY_NONE, 7, true},
        {RAW("HTTP/1.1 204 No Content\r\n" END), MOON_METHOD_GET, MOON_BODY_NONE, 0, true},
        {RAW("HTTP/1.1 100 Continue\r\n" END), MOON_METHOD_POST, MOON_BODY_NONE, 0, true},
        {RAW("HTTP/1.1 103 Early Hints\r\nLink: x\r\n" END), MOON_METHOD_GET, MOON_BODY_NONE, 0,
         true},
        {RAW(OK END), MOON_METHOD_CONNECT, MOON_BODY_NONE, 0, true},
        {RAW("HTTP/1.1 407 No\r\n" END), MOON_METHOD_CONNECT, MOON_BODY_CLOSE, 0, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(take_response(f, cases[i].raw, cases[i].method), 0);
        assert_int_equal(f->head.body, cases[i].body);
        assert_int_equal(f->head.content_length, cases[i].content_length);
        assert_int_equal(f->head.keep_alive, cases[i].keep_alive);
    }
}

static void reads_all_parts(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(
        take_response(f,
                      MOON_SLICE("HTTP/1.1 101 Switching  Protocols\r\nUpgrade: websocket\r\n"
                                 "Connection: Upgrade\r\n\r\n\x81\x00"),
                      MOON_METHOD_GET),
        0);
    assert_int_equal(f->head.status, 101);
    assert_slice(f->head.reason, "Switching  Protocols");
    assert_true(f->head.has_upgrade);
    assert_int_equal(f->head.headers.count, 2);
    assert_slice(moon_status_reason(404), "Not Found");
    assert_slice(moon_status_reason(299), "Unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(fault_table), TEST(framing), TEST(reads_all_parts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
