// Response heads: what is accepted, stripped, written and read again is the same response. First
// byte: choices.
#include "heads.h"

static void check_response(const struct moon_head *head, enum moon_method method)
{
    check_fields(&head->headers);
    HOLDS(head->minor <= 1);
    HOLDS(head->status >= 100 && head->status <= 599);
    HOLDS(moon_status_reason(head->status).len > 0);
    bool has_none = method == MOON_METHOD_HEAD || head->status < 200 || head->status == 204 ||
                    head->status == 304;
    HOLDS(!has_none || head->body == MOON_BODY_NONE);
    HOLDS(head->body != MOON_BODY_CLOSE || !head->keep_alive);
}

static void write_and_read(struct moon_arena *arena, struct moon_head *head,
                           enum moon_method method)
{
    struct moon_framing framing = {
        .body = head->body, .content_length = head->content_length, .close = !head->keep_alive};
    moon_head_strip_hop(head);
    check_fields(&head->headers);
    size_t size = moon_head_size(head);
    char *text = malloc(size);
    size_t len = moon_response_write(head, &framing, text);
    HOLDS(len <= size);
    struct moon_head_limits wide = moon_head_limits_default;
    wide.head_bytes += 4096;
    wide.field_count += 8;
    wide.target_bytes = wide.head_bytes;
    struct moon_slice written = {text, len};
    struct moon_head again;
    struct moon_fault fault;
    HOLDS(scan_both(written, len, &wide, false) == (ssize_t)len);
    HOLDS(moon_response_parse(arena, written, &wide, method, &again, &fault) == 0);
    HOLDS(head->status == again.status && moon_slice_equal(head->reason, again.reason));
    HOLDS(head->body == again.body);
    HOLDS(head->body != MOON_BODY_LENGTH || head->content_length == again.content_length);
    check_same_fields(&head->headers, &again.headers);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    static const enum moon_method methods[] = {MOON_METHOD_GET, MOON_METHOD_HEAD, MOON_METHOD_POST,
                                               MOON_METHOD_CONNECT};
    struct moon_slice in = {(const char *)bytes, len};
    uint8_t choice = fuzz_choice(&in);
    enum moon_method method = methods[choice & 3];
    ssize_t head_len = scan_both(in, 1 + (choice >> 4), &moon_head_limits_default, false);
    struct fuzz_arena f = fuzz_arena_new();
    struct moon_head head;
    struct moon_fault fault = {0, NULL};
    struct moon_slice text = moon_arena_try_copy(
        f.arena, head_len > 0 ? (struct moon_slice){in.ptr, (size_t)head_len} : in);
    int err = moon_response_parse(f.arena, text, &moon_head_limits_default, method, &head, &fault);
    HOLDS(err == 0 || (fault.reason && fault.status == 502));
    if (err == 0) {
        check_oracle(&head.headers, text, false);
        check_response(&head, method);
    }
    if (err == 0 && head_len > 0)
        write_and_read(f.arena, &head, method);
    fuzz_arena_free(&f);
    return 0;
}
