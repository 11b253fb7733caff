// What a client of ACME (RFC 8555) needs of OpenSSL: keys, signatures, requests for certificates, and what stands in those that
// come. Bytes in, text out; nothing here knows the protocol, and nothing blocks but by computing. Keys are ECDSA on P-256.
// Everything uses OpenSSL's default library context, which no worker does: on control, or in a test.
//
// Weighed: lua-luaossl, a good library. It has all but the thumbprint, but the answer to TLS-ALPN-01 and the placeholder are made
// for workers in C anyway, and a gateway without ACME would carry a second binding of OpenSSL.
#pragma once

#include "base/slice.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    MOON_ACME_NUMBER_LEN = 43,    // 32 bytes in base64url: a coordinate, a digest
    MOON_ACME_SIGNATURE_LEN = 86, // 64 bytes
};

// Base64url without padding (RFC 7515 2), malloc'd and NUL-terminated.
char *moon_acme_base64(struct moon_slice bytes);
// The bytes of a base64url text, with or without padding, malloc'd. False: it is none.
bool moon_acme_unbase64(struct moon_slice text, char **out, size_t *len);

// SHA-256, in base64url; `out` is NUL-terminated.
void moon_acme_digest(struct moon_slice bytes, char out[MOON_ACME_NUMBER_LEN + 1]);
// HMAC-SHA-256 (HS256 of RFC 7518), in base64url.
void moon_acme_hmac(struct moon_slice key, struct moon_slice bytes,
                    char out[MOON_ACME_NUMBER_LEN + 1]);

// A new key, PEM (PKCS #8), malloc'd and NUL-terminated.
char *moon_acme_key_new(void);
// The public part of a key, the members "x" and "y" of its JWK (RFC 7518 6.2.1). False: the text holds no key on P-256.
bool moon_acme_key_public(struct moon_slice pem, char x[MOON_ACME_NUMBER_LEN + 1],
                          char y[MOON_ACME_NUMBER_LEN + 1]);
// The signature ES256 of the bytes (RFC 7518 3.4). False as above.
bool moon_acme_sign(struct moon_slice pem, struct moon_slice bytes,
                    char out[MOON_ACME_SIGNATURE_LEN + 1]);
// A request for a certificate of one host (PKCS #10 with a subject alternative name), signed by the key: DER in base64url,
// malloc'd. NULL: the text holds no key, or the host can't stand there.
char *moon_acme_request_new(struct moon_slice key_pem, struct moon_slice host);

struct moon_acme_validity {
    int64_t not_before_s, not_after_s; // 1970
};

// Looks at PEM with a key and a chain, its own certificate first: whether they belong together and are for the host. NULL, and
// the times are filled; or what is wrong, static.
const char *moon_acme_inspect(struct moon_slice pem, struct moon_slice host,
                              struct moon_acme_validity *out);
