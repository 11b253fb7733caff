// Two TLS streams face to face over a wire in memory that takes and gives as much as chance says: what is written on one side is
// what is read on the other, whatever the wire did, and ends are what they were.
#include "base/err.h"
#include "io/loop.h"
#include "io/tls.h"
#include "io/world.h"

#include <errno.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { WIRE_LEN = 40000, DATA_LEN = 700000, STEP_MAX_COUNT = 2000000 };

// One direction.
struct wire {
    char bytes[WIRE_LEN];
    size_t len;
    bool has_ended;
};

struct end {
    struct moon_stream base; // first
    struct wire *in, *out;
    struct fixture *fixture;
    bool wants_write, is_closed;
};

struct side {
    struct moon_stream *stream;
    size_t sent_len, received_len;
    bool is_connected, was_shut, has_ended;
    int error;
};

struct fixture {
    struct moon_loop loop;
    struct moon_world *world;
    struct moon_tls_hub *hub;
    struct moon_tls_server *server;
    struct moon_tls_terms *terms;
    struct moon_tls_client *client;
    char dir[64], cert[96], key[96];
    struct wire wires[2];
    struct end ends[2];
    struct side sides[2];
    uint64_t random;
};

static size_t below(struct fixture *f, size_t bound)
{
    f->random ^= f->random << 13;
    f->random ^= f->random >> 7;
    f->random ^= f->random << 17;
    return (size_t)(f->random % bound);
}

static char data_at(size_t side, size_t at)
{
    return (char)((at * 2654435761u >> 7) + side * 91);
}

// ---- the wire

static ssize_t end_read(struct moon_stream *s, void *to, size_t len)
{
    struct end *end = (struct end *)s;
    struct wire *in = end->in;
    if (in->len == 0)
        return in->has_ended ? MOON_EOF : 0;
    size_t n = 1 + below(end->fixture, in->len);
    if (n > len)
        n = len;
    memcpy(to, in->bytes, n);
    in->len -= n;
    memmove(in->bytes, in->bytes + n, in->len);
    return (ssize_t)n;
}

static ssize_t end_writev(struct moon_stream *s, const struct iovec *iov, int iov_count)
{
    struct end *end = (struct end *)s;
    struct wire *out = end->out;
    assert_int_equal(iov_count, 1);
    assert_false(out->has_ended);
    size_t room = WIRE_LEN - out->len, n = room ? below(end->fixture, room + 1) : 0;
    if (n > iov->iov_len)
        n = iov->iov_len;
    memcpy(out->bytes + out->len, iov->iov_base, n);
    out->len += n;
    end->wants_write = n < iov->iov_len;
    return (ssize_t)n;
}

static int end_shutdown(struct moon_stream *s)
{
    ((struct end *)s)->out->has_ended = true;
    return 0;
}

static void end_close(struct moon_stream *s)
{
    struct end *end = (struct end *)s;
    end->is_closed = true;
    end->out->has_ended = true;
}

static void end_again(struct moon_stream *s)
{
    (void)s; // it is asked at every step
}

static int end_connected(struct moon_stream *s)
{
    (void)s;
    return 0;
}

static void end_address(const struct moon_stream *s, bool peer, struct moon_address *out)
{
    (void)s;
    (void)peer;
    *out = (struct moon_address){.family = MOON_FAMILY_IPV4, .port = 1};
}

static const struct moon_stream_ops end_ops = {.read = end_read,
                                               .writev = end_writev,
                                               .shutdown = end_shutdown,
                                               .close = end_close,
                                               .abort = end_close,
                                               .again = end_again,
                                               .connected = end_connected,
                                               .address = end_address};

// ---- certificates

static void make_certificate(struct fixture *f)
{
    X509 *x509 = X509_new();
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509_set_version(x509, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x509), 1);
    X509_gmtime_adj(X509_getm_notBefore(x509), -60);
    X509_gmtime_adj(X509_getm_notAfter(x509), 3600);
    X509_set_pubkey(x509, key);
    X509_NAME *name = X509_get_subject_name(x509);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"site", -1, -1, 0);
    X509_set_issuer_name(x509, name);
    X509_EXTENSION *sans = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, "DNS:site");
    X509_add_ext(x509, sans, -1);
    assert_true(X509_sign(x509, key, EVP_sha256()) > 0);
    snprintf(f->dir, sizeof f->dir, "/tmp/moongate-unit-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->cert, sizeof f->cert, "%s/site.crt", f->dir);
    snprintf(f->key, sizeof f->key, "%s/site.key", f->dir);
    FILE *file = fopen(f->cert, "w");
    PEM_write_X509(file, x509);
    fclose(file);
    file = fopen(f->key, "w");
    PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL);
    fclose(file);
    X509_EXTENSION_free(sans);
    X509_free(x509);
    EVP_PKEY_free(key);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct moon_tls_problem problem = {"", ""};
    make_certificate(f);
    moon_list_init(&f->loop.tasks);
    f->world = moon_world_new_real();
    f->hub = moon_tls_hub_new(f->world);
    struct moon_tls_pair pair = {.cert = f->cert, .key = f->key};
    struct moon_tls_options options = {
        .hostname = MOON_SLICE(""), .pairs = &pair, .pair_count = 1, .has_tickets = true};
    assert_int_equal(moon_tls_terms_load(f->hub, &options, &problem, &f->terms), 0);
    f->server = moon_tls_server_new(f->hub, &f->terms, 1);
    struct moon_tls_client_options client = {.ca = f->cert};
    assert_int_equal(moon_tls_client_get(f->hub, &client, &problem, &f->client), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    moon_tls_server_free(f->server);
    moon_tls_terms_unref(f->terms);
    moon_tls_client_unref(f->client);
    moon_tls_hub_free(f->hub);
    moon_world_free(f->world);
    unlink(f->cert);
    unlink(f->key);
    rmdir(f->dir);
    free(f);
    return 0;
}

// ---- the two sides

static void on_ready(void *owner, unsigned ready)
{
    struct side *side = owner;
    (void)ready;
    int err = moon_stream_connected(side->stream);
    side->is_connected = err == 0;
    if (err && err != -EINPROGRESS)
        side->error = err;
}

static void open_pair(struct fixture *f, uint64_t seed)
{
    f->random = seed * 0x9e3779b97f4a7c15u + 1;
    for (int i = 0; i < 2; i++) {
        f->wires[i].len = 0;
        f->wires[i].has_ended = false;
        f->sides[i] = (struct side){.stream = NULL};
        f->ends[i] = (struct end){
            .base.ops = &end_ops, .in = &f->wires[i], .out = &f->wires[1 - i], .fixture = f};
    }
    f->sides[0].stream = moon_tls_connect(f->client, 0, &f->loop, &f->ends[0].base, "site",
                                          MOON_SLICE("\x08http/1.1"));
    f->sides[1].stream = moon_tls_accept(f->server, 0, &f->loop, &f->ends[1].base);
    for (int i = 0; i < 2; i++)
        moon_stream_set_owner(f->sides[i].stream, on_ready, &f->sides[i]);
    f->ends[0].base.on_ready(f->ends[0].base.owner, MOON_READY_WRITE);
}

static void close_pair(struct fixture *f)
{
    for (int i = 0; i < 2; i++)
        moon_stream_close(f->sides[i].stream);
    moon_loop_run_tasks(&f->loop);
}

static void take(struct fixture *f, size_t i)
{
    struct side *side = &f->sides[i];
    char to[70000];
    ssize_t n = moon_stream_read(side->stream, to, 1 + below(f, sizeof to));
    for (ssize_t k = 0; k < n; k++)
        assert_int_equal(to[k], data_at(1 - i, side->received_len + (size_t)k));
    if (n > 0)
        side->received_len += (size_t)n;
    side->has_ended = side->has_ended || n == MOON_EOF;
    if (n < 0 && n != MOON_EOF)
        side->error = (int)n;
}

// Offers what was not taken so far, in pieces of any length.
static void give(struct fixture *f, size_t i)
{
    static char bytes[150000];
    struct side *side = &f->sides[i];
    struct iovec iov[4];
    size_t at = 0, left = DATA_LEN - side->sent_len;
    int count = 0;
    if (left > sizeof bytes)
        left = sizeof bytes;
    for (size_t k = 0; k < left; k++)
        bytes[k] = data_at(i, side->sent_len + k);
    while (count < 4 && at < left) {
        size_t len = count == 3 ? left - at : 1 + below(f, count < 2 ? 300 : 40000);
        if (len > left - at)
            len = left - at;
        iov[count++] = (struct iovec){bytes + at, len};
        at += len;
    }
    if (count == 0)
        return;
    ssize_t n = moon_stream_writev(side->stream, iov, count);
    assert_true(n >= 0 && (size_t)n <= at);
    side->sent_len += (size_t)n;
}

static void step(struct fixture *f)
{
    size_t i = below(f, 2);
    struct end *end = &f->ends[i];
    struct side *side = &f->sides[i];
    unsigned ready = 0;
    if (end->in->len || end->in->has_ended)
        ready |= MOON_READY_READ;
    if (end->wants_write && end->out->len < WIRE_LEN)
        ready |= MOON_READY_WRITE;
    if (ready & MOON_READY_WRITE)
        end->wants_write = false;
    if (ready)
        end->base.on_ready(end->base.owner, ready);
    moon_loop_run_tasks(&f->loop);
    if (!side->is_connected || side->error)
        return;
    if (below(f, 2))
        take(f, i);
    if (below(f, 2) && !side->was_shut)
        give(f, i);
    if (side->sent_len == DATA_LEN && !side->was_shut) {
        side->was_shut = true;
        assert_int_equal(moon_stream_shutdown(side->stream), 0);
    }
}

static void both_sides_get_everything_and_the_end(void **state)
{
    struct fixture *f = *state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        open_pair(f, seed);
        for (int i = 0; i < STEP_MAX_COUNT; i++) {
            step(f);
            if (f->sides[0].has_ended && f->sides[1].has_ended)
                break;
        }
        for (int i = 0; i < 2; i++) {
            assert_int_equal(f->sides[i].error, 0);
            assert_true(f->sides[i].has_ended);
            assert_int_equal(f->sides[i].sent_len, DATA_LEN);
            assert_int_equal(f->sides[i].received_len, DATA_LEN);
        }
        assert_int_equal(moon_stream_tls(f->sides[1].stream)->is_resumed, seed > 1);
        close_pair(f);
    }
}

// The wire ends without close_notify: that is no end in good order.
static void a_cut_is_no_end(void **state)
{
    struct fixture *f = *state;
    open_pair(f, 99);
    while (f->sides[1].received_len < 1000)
        step(f);
    f->wires[0].has_ended = true;
    f->wires[0].len = 0;
    for (int i = 0; i < STEP_MAX_COUNT && !f->sides[0].error; i++) {
        f->ends[0].base.on_ready(f->ends[0].base.owner, MOON_READY_READ);
        take(f, 0);
    }
    assert_int_equal(f->sides[0].error, MOON_ECUT);
    assert_false(f->sides[0].has_ended);
    close_pair(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_sides_get_everything_and_the_end),
        cmocka_unit_test(a_cut_is_no_end),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
