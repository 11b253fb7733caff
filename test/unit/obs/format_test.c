// Formats of the access log: every field with everything absent, with every byte, and longer than it may be (A67).
#include "obs/format.h"

#include "base/address.h"
#include "obs/escape.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char line[MOON_FORMAT_RECORD_LEN + 64];

// The line with a NUL in place of its '\n'; nothing was written behind it.
static const char *write_line(const struct moon_format *format, const struct moon_record *record)
{
    struct moon_format_clock clock = {0};
    memset(line, '#', sizeof line);
    size_t len = moon_format_write(format, &clock, record, line);
    assert_true(len > 0 && len <= MOON_FORMAT_RECORD_LEN);
    assert_int_equal(line[len - 1], '\n');
    assert_int_equal(line[len], '#');
    assert_ptr_equal(memchr(line, '\n', len), line + len - 1);
    line[len - 1] = '\0';
    assert_int_equal(strlen(line), len - 1);
    return line;
}

static struct moon_format *text_new(const char *template)
{
    struct moon_slice bad;
    struct moon_format *format = moon_format_new_text(moon_slice_from(template), &bad);
    assert_non_null(format);
    return format;
}

static struct moon_format *json_new(const char *name)
{
    struct moon_slice bad, names[] = {moon_slice_from(name)};
    struct moon_format *format = moon_format_new_json(names, 1, &bad);
    assert_non_null(format);
    return format;
}

static void each_field_may_be_absent(void **state)
{
    (void)state;
    static const char *const numbers[] = {"request_bytes", "response_bytes", "attempts"};
    struct moon_slice nothing = {NULL, 0};
    struct moon_record record = {.headers = &nothing};
    for (size_t i = 0; moon_format_names[i]; i++) {
        const char *name = moon_format_names[i];
        char template[64], json[80];
        snprintf(template, sizeof template, "[${%s}]", name);
        struct moon_format *text = text_new(template), *object = json_new(name);
        const char *absent = NULL;
        for (int k = 0; k < 3; k++)
            absent = strcmp(name, numbers[k]) == 0 ? "0" : absent;
        if (strcmp(name, "duration") == 0)
            absent = "0.000000";
        if (strcmp(name, "complete") == 0)
            absent = "false";
        snprintf(template, sizeof template, "[%s]", absent ? absent : "-");
        snprintf(json, sizeof json, "{\"%s\":%s}", name, absent ? absent : "null");
        assert_string_equal(write_line(text, &record), template);
        assert_string_equal(write_line(object, &record), json);
        moon_format_free(text);
        moon_format_free(object);
    }
}

static void all_fields_are_written(void **state)
{
    (void)state;
    struct moon_address client, endpoint;
    assert_true(moon_address_parse(MOON_SLICE("10.0.0.250:4711"), &client));
    assert_true(moon_address_parse(MOON_SLICE("[2001:db8::1]:80"), &endpoint));
    struct moon_slice headers[] = {MOON_SLICE("yes")};
    struct moon_record record = {.wall_ms = 1700000000007,
                                 .client = &client,
                                 .endpoint = &endpoint,
                                 .method = MOON_SLICE("GET"),
                                 .scheme = MOON_SLICE("http"),
                                 .host = MOON_SLICE("h.example"),
                                 .path = MOON_SLICE("/a"),
                                 .query = MOON_SLICE("b=c"),
                                 .protocol = MOON_SLICE("HTTP/1.1"),
                                 .route = MOON_SLICE("r"),
                                 .upstream = MOON_SLICE("u"),
                                 .id = MOON_SLICE("77"),
                                 .user_agent = MOON_SLICE("agent"),
                                 .referer = MOON_SLICE("from"),
                                 .headers = headers,
                                 .request_len = 5,
                                 .response_len = 18446744073709551615u,
                                 .us = 61000123,
                                 .upstream_us = 999,
                                 .has_upstream_us = true,
                                 .attempt_count = 2,
                                 .status = 200,
                                 .is_complete = true};
    struct moon_format *format =
        text_new("$time|$client:$port|$endpoint|$request|$status|$request_bytes|$response_bytes|"
                 "$duration|$upstream_duration|$attempts|$complete|$id|$route|$upstream|$scheme|"
                 "$host|${request.header.X-A}$$");
    assert_string_equal(write_line(format, &record),
                        "2023-11-14T22:13:20.007Z|10.0.0.250:4711|[2001:db8::1]:80|"
                        "GET /a?b=c HTTP/1.1|200|5|18446744073709551615|61.000123|0.000999|2|true|"
                        "77|r|u|http|h.example|yes$");
    assert_int_equal(moon_format_header_count(format), 1);
    assert_string_equal(moon_format_header(format, 0)->name.ptr, "X-A");
    assert_true(moon_format_has(format, MOON_FORMAT_id));
    assert_false(moon_format_has(format, MOON_FORMAT_referer));
    moon_format_free(format);
    struct moon_slice bad;
    format = moon_format_new_text(moon_format_combined, &bad);
    assert_string_equal(write_line(format, &record),
                        "10.0.0.250 - - [14/Nov/2023:22:13:20 +0000] \"GET /a?b=c HTTP/1.1\" 200 "
                        "18446744073709551615 \"from\" \"agent\"");
    moon_format_free(format);
}

static void every_byte_is_made_safe(void **state)
{
    (void)state;
    char bytes[256];
    for (int i = 0; i < 256; i++)
        bytes[i] = (char)i;
    struct moon_slice all = {bytes, 256};
    struct moon_record record = {.path = all, .user_agent = all};
    struct moon_format *text = text_new("$path"), *json = json_new("user_agent");
    for (const char *at = write_line(text, &record); *at; at++)
        assert_true(*at >= 0x20 && *at < 0x7f && *at != '"');
    assert_non_null(strstr(line, "\\x00\\x01"));
    assert_non_null(strstr(line, "\\x22"));
    assert_non_null(strstr(line, "\\xff"));
    const char *at = write_line(json, &record) + strlen("{\"user_agent\":\"");
    assert_memory_equal(at, "\\u0000\\u0001", 12);
    for (; *at; at++)
        assert_true(*at >= 0x20 && *at < 0x7f);
    assert_non_null(strstr(line, "!\\\"#"));
    assert_non_null(strstr(line, "[\\\\]"));
    moon_format_free(text);
    moon_format_free(json);
}

static void check_escape(const char *from, size_t len, const char *json, const char *text)
{
    char out[128];
    struct moon_slice given = {from, len};
    size_t used = moon_escape_json(given, out, sizeof out);
    assert_int_equal(used, strlen(json));
    assert_memory_equal(out, json, used);
    used = moon_escape_text(given, out, sizeof out);
    assert_int_equal(used, strlen(text));
    assert_memory_equal(out, text, used);
}

#define ESCAPE(from, json, text) check_escape(from, sizeof(from) - 1, json, text)

static void utf8_is_kept_when_it_is_right(void **state)
{
    (void)state;
    ESCAPE("gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f");
    ESCAPE("\xe2\x82\xac\xf0\x9f\x98\x80", "\xe2\x82\xac\xf0\x9f\x98\x80",
           "\xe2\x82\xac\xf0\x9f\x98\x80");
    ESCAPE("\xc3", "\\ufffd", "\\xc3");                 // cut
    ESCAPE("\xc0\xaf", "\\ufffd\\ufffd", "\\xc0\\xaf"); // overlong
    ESCAPE("\xe0\x80\xaf", "\\ufffd\\ufffd\\ufffd", "\\xe0\\x80\\xaf");
    ESCAPE("\xed\xa0\x80", "\\ufffd\\ufffd\\ufffd", "\\xed\\xa0\\x80"); // surrogate
    ESCAPE("\xf4\x90\x80\x80", "\\ufffd\\ufffd\\ufffd\\ufffd", "\\xf4\\x90\\x80\\x80");
    ESCAPE("\xc2\x9b[31m", "\\u009b[31m", "\\xc2\\x9b[31m"); // a control of eight bits
    ESCAPE("\x1b[31m\x7f", "\\u001b[31m\\u007f", "\\x1b[31m\\x7f");
    ESCAPE("0123456789\"abcdefgh", "0123456789\\\"abcdefgh", "0123456789\\x22abcdefgh");
}

static void labels_are_escaped(void **state)
{
    (void)state;
    char out[64];
    size_t len = moon_escape_label(MOON_SLICE("a\"b\\c\nd\xff"), out, sizeof out);
    assert_int_equal(len, 13);
    assert_memory_equal(out, "a\\\"b\\\\c\\nd\xef\xbf\xbd", len);
}

// No escape and no character is cut in two.
static void a_cut_is_clean(void **state)
{
    (void)state;
    char out[16];
    for (size_t cap = 0; cap <= 12; cap++)
        assert_int_equal(moon_escape_json(MOON_SLICE("\x01\x01"), out, cap), cap / 6 * 6);
    for (size_t cap = 0; cap <= 6; cap++)
        assert_int_equal(moon_escape_text(MOON_SLICE("\xe2\x82\xac\xe2\x82\xac"), out, cap),
                         cap / 3 * 3);
}

static void long_fields_are_cut_and_the_record_ends(void **state)
{
    (void)state;
    static char big[100000];
    memset(big, 1, sizeof big); // six bytes each, escaped
    struct moon_slice huge = {big, sizeof big}, bad;
    struct moon_record record = {.path = huge, .host = huge};
    struct moon_format *format = json_new("path");
    size_t len = strlen(write_line(format, &record));
    assert_true(len <= MOON_FORMAT_FIELD_LEN + 16 && len > MOON_FORMAT_FIELD_LEN - 16);
    assert_string_equal(line + len - 2, "\"}");
    moon_format_free(format);
    struct moon_slice names[MOON_FORMAT_ITEM_COUNT];
    for (size_t i = 0; i < MOON_FORMAT_ITEM_COUNT; i++)
        names[i] = i % 2 ? MOON_SLICE("host") : MOON_SLICE("path");
    format = moon_format_new_json(names, MOON_FORMAT_ITEM_COUNT, &bad);
    len = strlen(write_line(format, &record));
    assert_true(len > 60000);
    assert_string_equal(line + len - 2, "\"}");
    moon_format_free(format);
}

static void mistakes_are_named(void **state)
{
    (void)state;
    struct moon_slice bad, names[65];
    assert_null(moon_format_new_text(MOON_SLICE("$path $nothing x"), &bad));
    assert_true(moon_slice_equal(bad, MOON_SLICE("nothing")));
    assert_null(moon_format_new_text(MOON_SLICE("$path ${host"), &bad));
    assert_true(moon_slice_equal(bad, MOON_SLICE("${host")));
    assert_null(moon_format_new_text(MOON_SLICE("$"), &bad));
    assert_null(moon_format_new_text(MOON_SLICE("${request.header.}"), &bad));
    names[0] = MOON_SLICE("wat");
    assert_null(moon_format_new_json(names, 1, &bad));
    assert_true(moon_slice_equal(bad, MOON_SLICE("wat")));
    for (int i = 0; i < 65; i++)
        names[i] = MOON_SLICE("path");
    assert_null(moon_format_new_json(names, 65, &bad));
    assert_int_equal(bad.len, 0);
    char *huge = calloc(1, 20001);
    memset(huge, 'x', 20000);
    assert_null(moon_format_new_text((struct moon_slice){huge, 20000}, &bad));
    free(huge);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_field_may_be_absent),
        cmocka_unit_test(all_fields_are_written),
        cmocka_unit_test(every_byte_is_made_safe),
        cmocka_unit_test(utf8_is_kept_when_it_is_right),
        cmocka_unit_test(labels_are_escaped),
        cmocka_unit_test(a_cut_is_clean),
        cmocka_unit_test(long_fields_are_cut_and_the_record_ends),
        cmocka_unit_test(mistakes_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
