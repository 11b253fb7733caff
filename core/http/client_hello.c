// See client_hello.h.
#include "http/client_hello.h"

#include "base/err.h"

enum {
    RECORD_HEAD_LEN = 5,
    RECORD_MAX_LEN = 16384,
    RECORD_HANDSHAKE = 22,
    MESSAGE_HEAD_LEN = 4,
    MESSAGE_CLIENT_HELLO = 1,
    RANDOM_LEN = 32,
    SESSION_MAX_LEN = 32,
    EXTENSION_SNI = 0,
    EXTENSION_ALPN = 16,
    EXTENSION_VERSIONS = 43,
};

// ---- pieces

static unsigned number(const char *at, unsigned len)
{
    unsigned out = 0;
    for (unsigned i = 0; i < len; i++)
        out = out << 8 | (unsigned char)at[i];
    return out;
}

// Takes `len` bytes off; false: there are not so many.
static bool take(struct moon_slice *rest, size_t len, struct moon_slice *out)
{
    if (rest->len < len)
        return false;
    *out = (struct moon_slice){rest->ptr, len};
    *rest = moon_slice_skip(*rest, len);
    return true;
}

// Takes a piece off that stands behind its length, of 1 or 2 bytes.
static bool take_piece(struct moon_slice *rest, unsigned length_len, struct moon_slice *out)
{
    struct moon_slice head;
    return take(rest, length_len, &head) && take(rest, number(head.ptr, length_len), out);
}

// ---- extensions

static bool read_name(struct moon_slice value, struct moon_client_hello *out)
{
    struct moon_slice list, type, name;
    if (out->sni.len || !take_piece(&value, 2, &list) || value.len || !take(&list, 1, &type) ||
        type.ptr[0] != 0 || !take_piece(&list, 2, &name) || list.len)
        return false;
    if (name.len == 0 || name.len > MOON_HELLO_NAME_LEN)
        return false;
    char *text = (char *)name.ptr; // in the caller's bytes
    for (size_t i = 0; i < name.len; i++) {
        if (text[i] <= ' ' || text[i] >= 0x7f)
            return false;
        if (text[i] >= 'A' && text[i] <= 'Z')
            text[i] |= 0x20;
    }
    name.len -= text[name.len - 1] == '.';
    out->sni = name;
    return name.len != 0;
}

static bool read_alpn(struct moon_slice value, struct moon_client_hello *out)
{
    struct moon_slice list, protocol;
    if (out->alpn.len || !take_piece(&value, 2, &list) || value.len || list.len == 0)
        return false;
    out->alpn = list;
    while (list.len)
        if (!take_piece(&list, 1, &protocol) || protocol.len == 0)
            return false;
    return true;
}

static bool is_grease(unsigned value)
{
    return (value & 0x0f0f) == 0x0a0a && value >> 8 == (value & 0xff);
}

static bool read_versions(struct moon_slice value, struct moon_client_hello *out)
{
    struct moon_slice list, version;
    if (!take_piece(&value, 1, &list) || value.len || list.len == 0 || list.len % 2)
        return false;
    while (take(&list, 2, &version)) {
        unsigned offered = number(version.ptr, 2);
        if (!is_grease(offered) && offered > out->version)
            out->version = (uint16_t)offered;
    }
    return true;
}

static bool read_extensions(struct moon_slice rest, struct moon_client_hello *out)
{
    struct moon_slice list, type, value;
    if (rest.len == 0) // TLS 1.2 may have none
        return true;
    if (!take_piece(&rest, 2, &list) || rest.len)
        return false;
    while (list.len) {
        if (!take(&list, 2, &type) || !take_piece(&list, 2, &value))
            return false;
        bool is_fine = true;
        switch (number(type.ptr, 2)) {
        case EXTENSION_SNI:
            is_fine = read_name(value, out);
            break;
        case EXTENSION_ALPN:
            is_fine = read_alpn(value, out);
            break;
        case EXTENSION_VERSIONS:
            is_fine = read_versions(value, out);
            break;
        default: // whatever it is, grease included
            break;
        }
        if (!is_fine)
            return false;
    }
    return true;
}

static bool read_message(struct moon_slice rest, struct moon_client_hello *out)
{
    struct moon_slice version, random, session, ciphers, compressions;
    *out = (struct moon_client_hello){.sni = MOON_SLICE(""), .alpn = MOON_SLICE("")};
    if (!take(&rest, 2, &version) || version.ptr[0] != 3 || !take(&rest, RANDOM_LEN, &random) ||
        !take_piece(&rest, 1, &session) || session.len > SESSION_MAX_LEN ||
        !take_piece(&rest, 2, &ciphers) || ciphers.len < 2 || ciphers.len % 2 ||
        !take_piece(&rest, 1, &compressions) || compressions.len == 0)
        return false;
    out->version = (uint16_t)number(version.ptr, 2);
    return read_extensions(rest, out);
}

// ---- records

// What of the message has come, put together at the front of `bytes` behind the first record's head.
struct gathering {
    size_t at;  // of the next record
    size_t len; // of the message so far
};

// False: a record of it is none.
static bool gather(char *bytes, size_t len, size_t wanted_len, struct gathering *to)
{
    while (to->len < wanted_len && len - to->at >= RECORD_HEAD_LEN) {
        const char *head = bytes + to->at;
        size_t record_len = number(head + 3, 2), left = len - to->at - RECORD_HEAD_LEN;
        if (head[0] != RECORD_HANDSHAKE || head[1] != 3 || record_len == 0 ||
            record_len > RECORD_MAX_LEN)
            return false;
        size_t part = record_len < left ? record_len : left;
        if (to->at)
            memmove(bytes + RECORD_HEAD_LEN + to->len, head + RECORD_HEAD_LEN, part);
        to->len += part;
        to->at += RECORD_HEAD_LEN + part; // where the rest is on its way, at the end
    }
    return true;
}

int moon_client_hello_read(char *bytes, size_t len, struct moon_client_hello *out)
{
    struct gathering got = {0, 0};
    const char *message = bytes + RECORD_HEAD_LEN;
    len = len < MOON_HELLO_PEEK_LEN ? len : MOON_HELLO_PEEK_LEN;
    if (len && bytes[0] != RECORD_HANDSHAKE)
        return MOON_EPROTO;
    if (len > 1 && bytes[1] != 3)
        return MOON_EPROTO;
    if (!gather(bytes, len, MESSAGE_HEAD_LEN, &got))
        return MOON_EPROTO;
    if (got.len && message[0] != MESSAGE_CLIENT_HELLO)
        return MOON_EPROTO;
    size_t message_len = 0;
    if (got.len >= MESSAGE_HEAD_LEN) {
        message_len = number(message + 1, 3);
        if (message_len > MOON_HELLO_MAX_LEN)
            return MOON_ELIMIT;
        if (!gather(bytes, len, MESSAGE_HEAD_LEN + message_len, &got))
            return MOON_EPROTO;
    }
    if (got.len < MESSAGE_HEAD_LEN || got.len < MESSAGE_HEAD_LEN + message_len)
        return len >= MOON_HELLO_PEEK_LEN ? MOON_ELIMIT : 0;
    struct moon_slice body = {message + MESSAGE_HEAD_LEN, message_len};
    return read_message(body, out) ? 1 : MOON_EPROTO;
}

bool moon_alpn_next(struct moon_slice *rest, struct moon_slice *protocol)
{
    while (take_piece(rest, 1, protocol))
        if (protocol->len != 2 || !is_grease(number(protocol->ptr, 2)))
            return true;
    return false;
}
