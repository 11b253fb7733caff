// gRPC: base64 in pieces decodes as it does whole, and what was encoded decodes to itself; frames walk the same over any cut; health
// messages and timeouts are read within bounds, and a timeout that is written reads the same or, where it is rounded, less.
#include "fuzz.h"

#include "http/grpc.h"
#include "http/grpc_health.h"

#include <string.h>

enum { MAX_LEN = 4096 };

struct decoded {
    char bytes[MAX_LEN + 3];
    size_t len;
    bool is_fine;
};

// With so much room for output at a time, and so much input.
static void decode(struct moon_slice text, size_t cap, size_t piece_len, struct decoded *out)
{
    struct moon_base64 at = {0};
    out->len = 0;
    out->is_fine = true;
    while (text.len && out->is_fine) {
        struct moon_slice piece = {text.ptr, text.len < piece_len ? text.len : piece_len};
        size_t len;
        ssize_t taken = moon_base64_decode(&at, piece, out->bytes + out->len, cap, &len);
        HOLDS(taken <= (ssize_t)piece.len && len <= cap);
        out->is_fine = taken >= 0;
        if (!out->is_fine)
            return;
        HOLDS(taken > 0);
        out->len += len;
        text = moon_slice_skip(text, (size_t)taken);
    }
    out->is_fine = out->is_fine && !moon_base64_is_open(&at);
}

static void check_base64(struct moon_slice in, uint8_t choice)
{
    static struct decoded whole, pieces;
    static char text[(MAX_LEN + 2) / 3 * 4];
    decode(in, MAX_LEN, MAX_LEN, &whole);
    decode(in, 3 + choice % 16, 1 + choice / 16, &pieces);
    HOLDS(whole.is_fine == pieces.is_fine);
    if (whole.is_fine)
        HOLDS(whole.len == pieces.len && memcmp(whole.bytes, pieces.bytes, whole.len) == 0);
    size_t len = moon_base64_encode(in, text);
    HOLDS(len == (in.len + 2) / 3 * 4);
    decode((struct moon_slice){text, len}, MAX_LEN, MAX_LEN, &whole);
    HOLDS(whole.is_fine && whole.len == in.len && memcmp(whole.bytes, in.ptr, in.len) == 0);
}

static void check_frames(struct moon_slice in, uint8_t choice)
{
    struct moon_grpc_frames whole = {0}, pieces = {0};
    bool is_fine = moon_grpc_frames_walk(&whole, in), was_fine = true;
    size_t piece_len = 1 + choice % 32;
    for (size_t at = 0; at < in.len && was_fine; at += piece_len) {
        size_t len = in.len - at < piece_len ? in.len - at : piece_len;
        was_fine = moon_grpc_frames_walk(&pieces, (struct moon_slice){in.ptr + at, len});
    }
    HOLDS(is_fine == was_fine);
    if (is_fine)
        HOLDS(moon_grpc_frames_are_whole(&whole) == moon_grpc_frames_are_whole(&pieces));
}

static void check_timeout(struct moon_slice in)
{
    char text[MOON_GRPC_TIMEOUT_LEN];
    uint64_t ms, again;
    if (!moon_grpc_timeout_read(in, &ms))
        return;
    struct moon_slice written = {text, moon_grpc_timeout_write(ms, text)};
    HOLDS(written.len <= MOON_GRPC_TIMEOUT_LEN && moon_grpc_timeout_read(written, &again));
    HOLDS(again <= ms || (ms == 0 && again == 1));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct moon_slice in = {(const char *)bytes, len};
    struct fuzz_arena f = fuzz_arena_new();
    uint8_t choice = fuzz_choice(&in);
    if (in.len > MAX_LEN)
        in.len = MAX_LEN;
    int status = moon_grpc_health_read(in);
    HOLDS(status >= -1 && status <= 3);
    if (in.len) {
        check_base64(in, choice);
        check_frames(in, choice);
    }
    check_timeout(in);
    struct moon_slice message = moon_grpc_message(f.arena, in);
    for (size_t i = 0; i < message.len; i++)
        HOLDS(message.ptr[i] >= 0x20 && message.ptr[i] <= 0x7e);
    struct moon_slice ask = moon_grpc_health_ask(f.arena, in);
    HOLDS(ask.len >= MOON_GRPC_FRAME_HEAD_LEN);
    fuzz_arena_free(&f);
    return 0;
}
