// See websocket_key.h. SHA-1 proves nothing here but that the peer has understood the question.
#include "io/websocket_key.h"

#include "io/loop.h"

#include <openssl/evp.h>
#include <openssl/sha.h>
#include <string.h>

static const char suffix[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"; // RFC 6455 1.3

enum { NONCE_LEN = 16, SUFFIX_LEN = sizeof suffix - 1 };

void moon_websocket_key_make(struct moon_loop *loop, char to[MOON_WEBSOCKET_KEY_LEN])
{
    unsigned char nonce[NONCE_LEN], text[MOON_WEBSOCKET_KEY_LEN + 1];
    moon_loop_random(loop, nonce, sizeof nonce);
    EVP_EncodeBlock(text, nonce, sizeof nonce);
    memcpy(to, text, MOON_WEBSOCKET_KEY_LEN);
}

bool moon_websocket_key_is_accepted(struct moon_slice key, struct moon_slice accept)
{
    unsigned char asked[MOON_WEBSOCKET_KEY_LEN + SUFFIX_LEN], digest[SHA_DIGEST_LENGTH];
    unsigned char text[MOON_WEBSOCKET_ACCEPT_LEN + 1];
    if (key.len != MOON_WEBSOCKET_KEY_LEN || accept.len != MOON_WEBSOCKET_ACCEPT_LEN)
        return false;
    memcpy(asked, key.ptr, key.len);
    memcpy(asked + key.len, suffix, SUFFIX_LEN);
    if (!SHA1(asked, sizeof asked, digest))
        return false;
    EVP_EncodeBlock(text, digest, sizeof digest);
    return memcmp(text, accept.ptr, accept.len) == 0;
}
