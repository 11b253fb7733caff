// Request heads: what is accepted, stripped, written and read again is the same request. First
// byte: choices.
#include "heads.h"

static void check_request(const struct moon_head *head, const struct moon_head_limits *limits)
{
    check_fields(&head->headers);
    HOLDS(head->minor <= 1);
    HOLDS(head->method_id != MOON_METHOD_OTHER && head->method_id != MOON_METHOD_CONNECT);
    HOLDS(head->target.path.len > 0);
    HOLDS(head->target.path.ptr[0] == '/' || head->target.path.ptr[0] == '*');
    HOLDS(head->host_text.len > 0 || head->minor == 0);
    HOLDS(head->body != MOON_BODY_CLOSE);
    HOLDS(head->headers.count <= limits->field_count);
    HOLDS(!(moon_headers_has(&head->headers, MOON_H_CONTENT_LENGTH) &&
            moon_headers_has(&head->headers, MOON_H_TRANSFER_ENCODING)));
}

// Joining, setting and deleting each name in turn: a name set reads as set, a name deleted is gone.
static void edit_fields(struct moon_arena *arena, struct moon_headers *h)
{
    for (int round = 0; h->count > 0 && round < 4; round++) {
        struct moon_slice name = h->fields[h->count - 1].name, set = MOON_SLICE("set");
        uint32_t at = 0, count = h->count;
        struct moon_slice joined = moon_headers_join(h, arena, name);
        HOLDS(joined.ptr && moon_header_value_is_valid(joined));
        HOLDS(moon_headers_set(h, arena, name, set) == 0);
        HOLDS(moon_slice_equal(moon_headers_join(h, arena, name), set));
        check_fields(h);
        HOLDS(moon_headers_add(h, arena, name, joined) == 0);
        HOLDS(moon_headers_del(h, name) == 2 && h->count < count);
        HOLDS(!moon_headers_next(h, name, &at));
        check_fields(h);
        if (round == 0)
            HOLDS(moon_headers_add_id(h, arena, MOON_H_VIA, set) == 0);
    }
    moon_headers_del_id(h, MOON_H_VIA);
    HOLDS(!moon_headers_get(h, MOON_H_VIA));
}

static void write_and_read(struct moon_arena *arena, struct moon_head *head,
                           const struct moon_head_limits *limits)
{
    const struct moon_field *upgrade = moon_headers_get(&head->headers, MOON_H_UPGRADE);
    struct moon_framing framing = {
        .body = head->body, .content_length = head->content_length, .close = !head->keep_alive};
    if (head->has_upgrade)
        framing.upgrade = upgrade->value;
    moon_head_strip_hop(head);
    check_fields(&head->headers);
    size_t size = moon_head_size(head);
    char *text = malloc(size);
    size_t len = moon_request_write(head, &framing, text);
    HOLDS(len <= size);
    struct moon_head_limits wide = *limits;
    wide.head_bytes += 4096;
    wide.target_bytes *= 3;
    wide.field_count += 8;
    wide.escaped_slash =
        limits->escaped_slash == MOON_SLASH_REJECT ? MOON_SLASH_REJECT : MOON_SLASH_KEEP;
    struct moon_slice written = {text, len};
    struct moon_head again;
    struct moon_fault fault;
    HOLDS(scan_both(written, len, &wide, true) == (ssize_t)len);
    HOLDS(moon_request_parse(arena, written, &wide, &again, &fault) == 0);
    HOLDS(moon_slice_equal(head->method, again.method));
    HOLDS(moon_slice_equal(head->target.path, again.target.path));
    HOLDS(head->target.has_query == again.target.has_query &&
          moon_slice_equal(head->target.query, again.target.query));
    HOLDS(moon_slice_equal(head->host_text, again.host_text));
    HOLDS(head->body == again.body && head->content_length == again.content_length);
    HOLDS(head->keep_alive == again.keep_alive && head->has_upgrade == again.has_upgrade);
    check_same_fields(&head->headers, &again.headers);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct moon_slice in = {(const char *)bytes, len};
    uint8_t choice = fuzz_choice(&in);
    struct moon_head_limits limits = moon_head_limits_default;
    limits.allow_underscore = choice & 1;
    limits.escaped_slash = (enum moon_escaped_slash)((choice >> 1 & 3) % 3);
    if (choice & 8)
        limits.head_bytes = 256, limits.target_bytes = 32, limits.field_count = 6;
    ssize_t head_len = scan_both(in, 1 + (choice >> 4), &limits, true);
    struct fuzz_arena f = fuzz_arena_new();
    struct moon_head head;
    struct moon_fault fault = {0, NULL};
    // What the scan refused goes to the parser as well: it must stand alone.
    struct moon_slice text = moon_arena_try_copy(
        f.arena, head_len > 0 ? (struct moon_slice){in.ptr, (size_t)head_len} : in);
    int err = moon_request_parse(f.arena, text, &limits, &head, &fault);
    HOLDS(err == 0 || (fault.reason && fault.status >= 400 && fault.status <= 505));
    if (err == 0) {
        check_oracle(&head.headers, text, true);
        check_request(&head, &limits);
    }
    if (err == 0 && head_len > 0 && head.host_text.len > 0)
        write_and_read(f.arena, &head, &limits);
    if (err == 0)
        edit_fields(f.arena, &head.headers);
    fuzz_arena_free(&f);
    return 0;
}
