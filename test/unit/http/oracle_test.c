// The reader of heads beside llhttp: a hundred thousand heads with damage at random places. What is accepted here is accepted
// there, with the same fields.
#include "fixture.h"

#include "test/support/oracle.h"

static const char *const requests[] = {
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /p?q=1 HTTP/1.1\r\nhost: a.example:80\r\nContent-Length: 5\r\nX-A:b\r\nX-B:  c "
    "\t\r\nEmpty:\r\nSp: \r\n\r\n",
    "PUT /u HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\nConnection: close, "
    "x\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: a\r\nUser-Agent: curl/7.88\r\nAccept: */*\r\nCookie: a=b; "
    "c=d\r\n\r\n",
};

static const char *const responses[] = {
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nServer: x\r\nSet-Cookie: a=b\r\nSet-Cookie: "
    "c=d\r\n\r\n",
    "HTTP/1.1 204 No Content\r\nDate: Tue, 24 Nov 2026 12:00:00 GMT\r\n\r\n",
    "HTTP/1.0 302 \r\nLocation:/x\r\nConnection: keep-alive\r\nX:\ty\r\n\r\n",
};

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

// Changes, doubles or takes away some bytes; most of them are such that mean something in a head.
static size_t damage(char *text, size_t len, uint64_t *state)
{
    static const char bytes[] = "\r\n\t :;,/\"()<>@[]{}\\?=_-+0aZ\x7f\x80\xff\x01";
    for (uint64_t count = next_random(state) % 4; count && len > 1; count--) {
        size_t at = next_random(state) % len;
        char byte = bytes[next_random(state) % sizeof bytes];
        switch (next_random(state) % 3) {
        case 0:
            text[at] = byte;
            break;
        case 1:
            memmove(text + at + 1, text + at, len++ - at);
            text[at] = byte;
            break;
        default:
            memmove(text + at, text + at + 1, --len - at);
        }
    }
    return len;
}

static void compare(const struct moon_headers *headers, const struct oracle *oracle)
{
    assert_true(oracle->is_accepted);
    assert_int_equal(headers->count, oracle->count);
    for (uint32_t i = 0; i < headers->count; i++) {
        assert_true(moon_slice_equal(headers->fields[i].name, oracle->names[i]));
        assert_true(moon_slice_equal(headers->fields[i].value, oracle->values[i]));
    }
}

static void run(const char *const *heads, size_t head_count, bool is_request)
{
    struct moon_arena_pool *pool = moon_arena_pool_new(4);
    uint64_t state = 0x9e3779b97f4a7c15;
    unsigned accepted_count = 0, refused_count = 0;
    for (int round = 0; round < 100000; round++) {
        char text[512];
        const char *head = heads[next_random(&state) % head_count];
        size_t len = strlen(head);
        memcpy(text, head, len);
        len = damage(text, len, &state);
        struct moon_arena *arena = moon_arena_new(pool, 1 << 16);
        struct moon_slice bytes = {text, len};
        struct moon_head parsed;
        struct moon_fault fault;
        struct oracle oracle;
        const struct moon_head_limits *limits = &moon_head_limits_default;
        int err = is_request
                      ? moon_request_parse(arena, bytes, limits, &parsed, &fault)
                      : moon_response_parse(arena, bytes, limits, MOON_METHOD_GET, &parsed, &fault);
        oracle_read(&oracle, bytes, is_request);
        if (err == 0)
            compare(&parsed.headers, &oracle);
        *(err == 0 ? &accepted_count : &refused_count) += 1;
        moon_arena_free(arena);
    }
    assert_true(accepted_count > 30000 && refused_count > 30000); // both were looked at
    moon_arena_pool_free(pool);
}

static void requests_agree(void **state)
{
    (void)state;
    run(requests, sizeof requests / sizeof requests[0], true);
}

static void responses_agree(void **state)
{
    (void)state;
    run(responses, sizeof responses / sizeof responses[0], false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_agree),
        cmocka_unit_test(responses_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
