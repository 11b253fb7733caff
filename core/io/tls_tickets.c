// Session tickets (RFC 5077, RFC 8446 4.6.1): sealed with keys that all workers share, so that any of them resumes what another
// began, and that nobody else ever has: made here, changed every hour, forgotten after two more. What a ticket may be
// used for (the listener, the CAs of clients) is in the session itself: OpenSSL compares its id context.
//
//   keys: [now] [before] [the one before that]      a ticket under an old key is taken and renewed
//
// Workers read copies of their own, which they refresh when the number of the newest has changed.
#include "io/tls_priv.h"
#include "io/world.h"

#include <openssl/core_names.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_COUNT = 3, ROTATE_MS = 3600000, NAME_LEN = 16 };

struct ticket_key {
    uint8_t name[NAME_LEN], aes[32], hmac[32];
};

struct tls_ticket_keys {
    uint64_t number;
    struct ticket_key keys[KEY_COUNT]; // the newest first
    unsigned count;
};

struct tls_tickets {
    struct moon_world *world;
    pthread_mutex_t lock;
    atomic_ullong number, due_ms; // of the newest keys; when they change
    struct tls_ticket_keys keys;
};

struct tls_tickets *tls_tickets_new(struct moon_world *world)
{
    struct tls_tickets *tickets = calloc(1, sizeof *tickets);
    if (!tickets)
        abort();
    tickets->world = world;
    pthread_mutex_init(&tickets->lock, NULL);
    return tickets;
}

void tls_tickets_free(struct tls_tickets *tickets)
{
    if (!tickets)
        return;
    pthread_mutex_destroy(&tickets->lock);
    OPENSSL_clear_free(tickets, sizeof *tickets);
}

void tls_tickets_sit(struct tls_tickets *tickets, struct tls_seat *seat)
{
    seat->tickets = tickets;
    seat->keys = calloc(1, sizeof *seat->keys);
    seat->cipher = EVP_CIPHER_fetch(seat->library, "AES-256-CBC", NULL);
    if (!seat->keys || !seat->cipher)
        abort();
}

void tls_tickets_stand(struct tls_seat *seat)
{
    OPENSSL_cleanse(seat->keys, sizeof *seat->keys);
    free(seat->keys);
    EVP_CIPHER_free(seat->cipher);
}

static bool rotate(struct tls_tickets *tickets, struct tls_seat *seat, uint64_t now_ms)
{
    struct tls_ticket_keys *keys = &tickets->keys;
    struct ticket_key fresh;
    if (now_ms < atomic_load(&tickets->due_ms))
        return true; // another worker was faster
    if (RAND_priv_bytes_ex(seat->library, (uint8_t *)&fresh, sizeof fresh, 256) <= 0)
        return false;
    memmove(&keys->keys[1], &keys->keys[0], (KEY_COUNT - 1) * sizeof keys->keys[0]);
    keys->keys[0] = fresh;
    OPENSSL_cleanse(&fresh, sizeof fresh);
    keys->count += keys->count < KEY_COUNT;
    keys->number++;
    atomic_store(&tickets->due_ms, now_ms + ROTATE_MS);
    atomic_store(&tickets->number, keys->number);
    return true;
}

// The seat's copy, up to date.
static const struct tls_ticket_keys *keys_of(struct tls_seat *seat)
{
    struct tls_tickets *tickets = seat->tickets;
    uint64_t now_ms = moon_world_wall_ms(tickets->world);
    bool is_due = now_ms >= atomic_load(&tickets->due_ms);
    if (!is_due && seat->keys->number == atomic_load(&tickets->number))
        return seat->keys;
    pthread_mutex_lock(&tickets->lock);
    bool is_fine = !is_due || rotate(tickets, seat, now_ms);
    *seat->keys = tickets->keys;
    pthread_mutex_unlock(&tickets->lock);
    return is_fine && seat->keys->count ? seat->keys : NULL;
}

static int seal(struct tls_seat *seat, const struct ticket_key *key, uint8_t *iv,
                EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, bool is_sealing)
{
    char digest[] = "SHA256";
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, (void *)key->hmac, sizeof key->hmac),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end()};
    return EVP_CipherInit_ex2(cipher, seat->cipher, key->aes, iv, is_sealing, NULL) > 0 &&
           EVP_MAC_CTX_set_params(mac, params) > 0;
}

// 1: done; 2: done, and the client gets a new one; 0: no such key; -1: error. `mac` is an HMAC.
static int on_ticket(SSL *ssl, unsigned char name[NAME_LEN], unsigned char iv[EVP_MAX_IV_LENGTH],
                     EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int is_sealing)
{
    const struct tls_stream *stream = SSL_get_app_data(ssl);
    const struct tls_ticket_keys *keys = keys_of(stream->seat);
    if (!keys)
        return -1;
    if (is_sealing) {
        memcpy(name, keys->keys[0].name, NAME_LEN);
        if (RAND_bytes_ex(stream->seat->library, iv, 16, 128) <= 0)
            return -1;
        return seal(stream->seat, &keys->keys[0], iv, cipher, mac, true) ? 1 : -1;
    }
    for (unsigned i = 0; i < keys->count; i++) {
        if (memcmp(name, keys->keys[i].name, NAME_LEN) != 0)
            continue;
        if (!seal(stream->seat, &keys->keys[i], iv, cipher, mac, false))
            return -1;
        // Clients use a ticket of TLS 1.3 once (RFC 8446 C.4): each resumption brings the next.
        return i == 0 && SSL_version(ssl) < TLS1_3_VERSION ? 1 : 2;
    }
    return 0;
}

void tls_tickets_use(SSL_CTX *context)
{
    SSL_CTX_set_tlsext_ticket_key_evp_cb(context, on_ticket);
    SSL_CTX_set_timeout(context, 2 * ROTATE_MS / 1000);
}
