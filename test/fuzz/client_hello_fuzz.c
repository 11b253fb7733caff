// ClientHello peek: what is accepted is accepted at its last byte and at every later one, its texts lie in what came and are
// clean, and cut into other records it says the same.
#include "fuzz.h"

#include "base/err.h"
#include "http/client_hello.h"
#include "http/first_bytes.h"

#include <stdlib.h>
#include <string.h>

static char scratch[65536 + 1], wire[65536 * 6];

static int read_copy(const uint8_t *bytes, size_t len, struct moon_client_hello *out)
{
    memcpy(scratch, bytes, len);
    return moon_client_hello_read(scratch, len, out);
}

static void check_texts(const struct moon_client_hello *hello, size_t len)
{
    struct moon_slice rest = hello->alpn, protocol;
    HOLDS(hello->sni.len <= MOON_HELLO_NAME_LEN);
    for (size_t i = 0; i < hello->sni.len; i++)
        HOLDS(hello->sni.ptr[i] > ' ' && hello->sni.ptr[i] < 0x7f);
    HOLDS(hello->sni.len == 0 ||
          (hello->sni.ptr >= scratch && hello->sni.ptr + hello->sni.len <= scratch + len));
    while (moon_alpn_next(&rest, &protocol))
        HOLDS(protocol.len && protocol.ptr >= scratch &&
              protocol.ptr + protocol.len <= scratch + len);
}

// The message of an accepted one, in records of one byte less each time.
static void check_again(const uint8_t *bytes, size_t len, const struct moon_client_hello *hello)
{
    static char message[MOON_HELLO_MAX_LEN + 4], sni[MOON_HELLO_NAME_LEN];
    struct moon_client_hello again;
    size_t count = 0, sni_len = hello->sni.len, alpn_len = hello->alpn.len, wire_len = 0;
    memcpy(sni, hello->sni.ptr, sni_len);
    for (size_t at = 0; at + 5 <= len && count < sizeof message;) {
        size_t record_len = (size_t)bytes[at + 3] << 8 | bytes[at + 4];
        size_t part = record_len < len - at - 5 ? record_len : len - at - 5;
        part = part < sizeof message - count ? part : sizeof message - count;
        memcpy(message + count, bytes + at + 5, part);
        count += part;
        at += 5 + record_len;
    }
    size_t message_len = 4 + ((size_t)(uint8_t)message[1] << 16 | (size_t)(uint8_t)message[2] << 8 |
                              (uint8_t)message[3]);
    HOLDS(message_len <= count);
    for (size_t at = 0, step = 1 + message_len / 9; at < message_len; at += step) {
        size_t part = step < message_len - at ? step : message_len - at;
        memcpy(wire + wire_len, "\x16\x03\x03", 3);
        wire[wire_len + 3] = (char)(part >> 8);
        wire[wire_len + 4] = (char)part;
        memcpy(wire + wire_len + 5, message + at, part);
        wire_len += 5 + part;
    }
    HOLDS(moon_client_hello_read(wire, wire_len, &again) == 1);
    HOLDS(again.sni.len == sni_len && memcmp(again.sni.ptr, sni, sni_len) == 0);
    HOLDS(again.alpn.len == alpn_len && again.version == hello->version);
}

static void check_first(struct moon_slice in)
{
    enum moon_first before = MOON_FIRST_MORE;
    for (size_t len = 0; len <= in.len && len <= 40; len++) {
        enum moon_first now = moon_first_bytes((struct moon_slice){in.ptr, len});
        HOLDS(before == MOON_FIRST_MORE || now == before);
        HOLDS(now != MOON_FIRST_MORE || len < 24);
        before = now;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct moon_client_hello hello, part;
    if (len > 65536)
        return 0;
    check_first((struct moon_slice){(const char *)bytes, len});
    int n = read_copy(bytes, len, &hello);
    HOLDS(n == 1 || n == 0 || n == MOON_EPROTO || n == MOON_ELIMIT);
    if (n == 0)
        HOLDS(len < MOON_HELLO_PEEK_LEN);
    if (n != 1)
        return 0;
    check_texts(&hello, len);
    check_again(bytes, len, &hello);
    int last = 1;
    for (size_t i = len, step = 1 + len / 64; i > step; i -= step) {
        int shorter = read_copy(bytes, i - step, &part);
        HOLDS(shorter == 1 || shorter == 0);
        HOLDS(last == 1 || shorter != 1);
        last = shorter;
    }
    return 0;
}
