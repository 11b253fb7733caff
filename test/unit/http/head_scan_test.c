// Where a head ends, and what is refused on the way, whole and drip by drip (A10, A11, A12, A14,
// A26).
#include "fixture.h"

struct row {
    struct moon_slice bytes;
    int result; // length, 0, or minus the status
};

static const struct row requests[] = {
    {RAW("GET / HTTP/1.1\r\n\r\n"), 18},
    {RAW("GET / HTTP/1.1\r\n\r\nrest\n\0"), 18},
    {RAW("\r\nGET / HTTP/1.1\r\n\r\n"), 20},
    {RAW("GET / HTTP/1.1\r\nA: b\tc\r\n\r\n\r\n"), 26},
    {RAW("GET / HTTP/1.1\r\nA: \x80\xff a value longer than a block\r\n\r\n"), 53},
    {RAW(""), 0},
    {RAW("\r"), 0},
    {RAW("\r\n"), 0},
    {RAW("GET / HTTP/1.1\r\n"), 0},
    {RAW("GET / HTTP/1.1\r\n\r"), 0},
    {RAW("GET / HTTP/1.1\r\nA: b\r\n"), 0},
    {RAW("\r\n\r\nGET / HTTP/1.1\r\n\r\n"), -400},
    {RAW("\r\n\r\n"), -400},
    {RAW("\nGET / HTTP/1.1\r\n\r\n"), -400},
    {RAW("GET / HTTP/1.1\n\n"), -400},
    {RAW("GET / HTTP/1.1\r\nA: b\n\r\n"), -400},
    {RAW("GET / HTTP/1.1\r\nA: b\r\n\n"), -400},
    {RAW("GET / HTTP/1.1\r\nA: b\rc\r\n\r\n"), -400},
    {RAW("GET / HTTP/1.1\r\nA: b\r\r\n\r\n"), -400},
    {RAW("GET / HTTP/1.1\r\n\rA: b\r\n\r\n"), -400},
    {RAW("GET / HTTP/1.1\r\nA: \0\r\n\r\n"), -400},
    {RAW("GET / HTTP/1.1\r\nA: \x0b\r\n\r\n"), -400},
    {RAW("GET / HTTP/1.1\r\nA: \x7f\r\n\r\n"), -400},
    {RAW("GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n"), -400},
    {RAW("GET / HTTP/1.1\r\nA: b\r\n\tc\r\n\r\n"), -400},
    {RAW("GET / HTTP/1.1\r\n A: b\r\n\r\n"), -400},
    {RAW(" GET / HTTP/1.1\r\n\r\n"), -400},
    {RAW("\r\n\tGET / HTTP/1.1\r\n\r\n"), -400},
    {RAW("\x16\x03\x01\x02\x00"), -400},
};

static const struct row responses[] = {
    {RAW("HTTP/1.1 200 OK\r\n\r\n"), 19},
    {RAW("\r\nHTTP/1.1 200 OK\r\n\r\n"), -502},
    {RAW("HTTP/1.1 200 OK\n\n"), -502},
    {RAW("HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n"), -502},
};

static int scan_whole(const struct row *row, bool is_request)
{
    struct moon_head_scan scan = {0};
    struct moon_fault fault = {0, NULL};
    ssize_t len = moon_head_scan(&scan, row->bytes, &moon_head_limits_default, is_request, &fault);
    return len < 0 ? -fault.status : (int)len;
}

static int scan_drips(const struct row *row, bool is_request)
{
    struct moon_head_scan scan = {0};
    struct moon_fault fault = {0, NULL};
    for (size_t len = 0; len <= row->bytes.len; len++) {
        char *copy = malloc(len + 1); // the sanitizer sees a read behind the end
        memcpy(copy, row->bytes.ptr, len);
        struct moon_slice so_far = {copy, len};
        ssize_t got = moon_head_scan(&scan, so_far, &moon_head_limits_default, is_request, &fault);
        free(copy);
        if (got != 0)
            return got < 0 ? -fault.status : (int)got;
    }
    return 0;
}

static void check(const struct row *row, bool is_request)
{
    int whole = scan_whole(row, is_request), drips = scan_drips(row, is_request);
    if (whole != row->result || drips != row->result)
        fail_msg("%.*s: %d whole, %d in drips, not %d", MOON_SLICE_ARG(row->bytes), whole, drips,
                 row->result);
}

static void tables(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof requests / sizeof requests[0]; i++)
        check(&requests[i], true);
    for (size_t i = 0; i < sizeof responses / sizeof responses[0]; i++)
        check(&responses[i], false);
}

static int scan_filled(size_t len, const char *start, bool is_request)
{
    struct moon_fault fault = {0, NULL};
    struct moon_head_scan scan = {0};
    char *text = malloc(len);
    memset(text, 'a', len);
    memcpy(text, start, strlen(start));
    ssize_t got = moon_head_scan(&scan, (struct moon_slice){text, len}, &moon_head_limits_default,
                                 is_request, &fault);
    free(text);
    return got < 0 ? -fault.status : (int)got;
}

static void limits(void **state)
{
    (void)state;
    assert_int_equal(scan_filled(16384, "GET /", true), 0);
    assert_int_equal(scan_filled(16384 + 65, "GET /", true), -414);
    assert_int_equal(scan_filled(16384 + 65, "\r\nGET /", true), -414);
    assert_int_equal(scan_filled(65536, "GET /", true), -414);
    assert_int_equal(scan_filled(32768, "GET / HTTP/1.1\r\nA: ", true), 0);
    assert_int_equal(scan_filled(32769, "GET / HTTP/1.1\r\nA: ", true), -431);
    assert_int_equal(scan_filled(100000, "GET / HTTP/1.1\r\nA: ", true), -431);
    assert_int_equal(scan_filled(100000, "HTTP/1.1 200 ", false), -502);
    assert_int_equal(scan_filled(100000, "GET / HTTP/1.1\r\n\r\n", true), 18);
}

static void exact_limit(void **state)
{
    (void)state;
    struct moon_fault fault = {0, NULL};
    struct moon_head_scan scan = {0};
    struct moon_head_limits tight = moon_head_limits_default;
    tight.head_bytes = 18;
    assert_int_equal(
        moon_head_scan(&scan, MOON_SLICE("GET / HTTP/1.1\r\n\r\n"), &tight, true, &fault), 18);
    tight.head_bytes = 17;
    scan.seen_len = 0;
    assert_int_equal(
        moon_head_scan(&scan, MOON_SLICE("GET / HTTP/1.1\r\n\r\n"), &tight, true, &fault), -1);
    assert_int_equal(fault.status, 431);
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(tables), TEST(limits), TEST(exact_limit)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
