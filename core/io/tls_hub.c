// See tls.h. Library contexts by worker, and the servers whose files are looked at.
#include "base/err.h"
#include "io/tls_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>

static void seat_init(struct moon_tls_hub *hub, struct tls_seat *seat)
{
    seat->library = OSSL_LIB_CTX_new();
    seat->scratch = malloc(TLS_SCRATCH_LEN);
    if (!seat->library || !seat->scratch)
        abort();
    moon_list_init(&seat->given);
    tls_tickets_sit(hub->tickets, seat);
}

struct moon_tls_hub *moon_tls_hub_new(struct moon_world *world)
{
    struct moon_tls_hub *hub = calloc(1, sizeof *hub);
    if (!hub)
        abort();
    hub->world = world;
    pthread_mutex_init(&hub->lock, NULL);
    pthread_mutex_init(&hub->seat_lock, NULL);
    moon_list_init(&hub->servers);
    moon_list_init(&hub->clients);
    hub->tickets = tls_tickets_new(world);
    hub->challenges = tls_challenges_new();
    hub->overrides = tls_overrides_new();
    hub->proofs = tls_proofs_new(world);
    hub->bio = tls_bio_new();
    hub->worker_count = 1;
    return hub;
}

void tls_hub_fill(struct moon_tls_hub *hub)
{
    pthread_mutex_lock(&hub->seat_lock);
    if (hub->worker_count > hub->seat_count) {
        hub->seats = realloc((void *)hub->seats, hub->worker_count * sizeof(struct tls_seat *));
        if (!hub->seats)
            abort();
    }
    while (hub->seat_count < hub->worker_count) {
        struct tls_seat *seat = calloc(1, sizeof *seat);
        if (!seat)
            abort();
        seat_init(hub, seat);
        hub->seats[hub->seat_count++] = seat;
    }
    pthread_mutex_unlock(&hub->seat_lock);
}

void moon_tls_hub_set_workers(struct moon_tls_hub *hub, size_t count)
{
    hub->worker_count = count;
    if (hub->seat_count == 0) // nobody has needed one yet
        return;
    tls_hub_fill(hub);
    for (struct moon_list *at = hub->servers.next; at != &hub->servers; at = at->next)
        tls_server_fill(MOON_CONTAINER(at, struct moon_tls_server, node));
    tls_clients_fill(hub);
}

void moon_tls_hub_free(struct moon_tls_hub *hub)
{
    if (!hub)
        return;
    for (size_t i = 0; i < hub->seat_count; i++) {
        tls_tickets_stand(hub->seats[i]);
        tls_given_drop(hub->seats[i]);
        OSSL_LIB_CTX_free(hub->seats[i]->library);
        free(hub->seats[i]->scratch);
        free(hub->seats[i]);
    }
    free((void *)hub->seats);
    BIO_meth_free(hub->bio);
    tls_tickets_free(hub->tickets);
    tls_challenges_free(hub->challenges);
    tls_overrides_free(hub->overrides);
    tls_proofs_free(hub->proofs);
    if (hub->key_log)
        fclose(hub->key_log);
    pthread_mutex_destroy(&hub->lock);
    pthread_mutex_destroy(&hub->seat_lock);
    free(hub);
}

// Who can read it can read the connections.
static FILE *open_key_log(const char *path)
{
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    return fd < 0 ? NULL : fdopen(fd, "a");
}

int moon_tls_hub_log_keys(struct moon_tls_hub *hub, const char *path)
{
    FILE *file = path ? open_key_log(path) : NULL;
    if (path && !file)
        return -errno;
    if (hub->key_log)
        fclose(hub->key_log);
    hub->key_log = file;
    for (struct moon_list *at = hub->servers.next; file && at != &hub->servers; at = at->next)
        tls_server_log_keys(MOON_CONTAINER(at, struct moon_tls_server, node));
    return 0;
}

bool moon_tls_hub_is_used(struct moon_tls_hub *hub)
{
    pthread_mutex_lock(&hub->lock);
    bool is_used = !moon_list_is_empty(&hub->servers) || tls_clients_have_files(hub);
    pthread_mutex_unlock(&hub->lock);
    return is_used;
}

// ---- files that change

// 0: nothing is new; 1: new terms; MOON_ECONFIG.
static int renew(struct moon_tls_server *server, struct moon_tls_terms **fresh,
                 struct moon_tls_problem *problem)
{
    int result = 0;
    for (size_t i = 0; i < server->term_count; i++) {
        if (tls_terms_are_read(server->terms[i])) {
            fresh[i] = moon_tls_terms_ref(server->terms[i]);
            continue;
        }
        int err = tls_terms_reload(server->terms[i], problem, &fresh[i]);
        if (err)
            return err;
        result = 1;
    }
    return result;
}

// Takes into use what has changed. As renew; *problem then.
static int refresh(struct moon_tls_server *server, struct moon_tls_problem *problem)
{
    struct moon_tls_terms **fresh = calloc(server->term_count, sizeof *fresh);
    if (!fresh)
        abort();
    int result = renew(server, fresh, problem);
    if (result == 1 && tls_server_swap(server, fresh)) {
        server->refused[0] = '\0';
        return 1;
    }
    for (size_t i = 0; i < server->term_count; i++)
        moon_tls_terms_unref(fresh[i]);
    free((void *)fresh);
    return result == 1 ? tls_refuse(problem, "", "OpenSSL refuses what it accepted before")
                       : result;
}

static void look(struct moon_tls_server *server,
                 void (*tell)(void *owner, bool is_fine, const char *text), void *owner)
{
    struct moon_tls_problem problem;
    int result = refresh(server, &problem);
    if (result == 1)
        tell(owner, true, server->terms[0]->certificates[0].cert.path);
    if (result >= 0)
        return;
    if (strcmp(problem.text, server->refused) != 0) {
        snprintf(server->refused, sizeof server->refused, "%s", problem.text);
        server->refused_count = 0;
    }
    // A certificate and its key are written one after the other: what is wrong for a moment is not told.
    if (++server->refused_count == 2)
        tell(owner, false, problem.text);
}

void moon_tls_hub_poll(struct moon_tls_hub *hub,
                       void (*tell)(void *owner, bool is_fine, const char *text), void *owner)
{
    pthread_mutex_lock(&hub->lock);
    for (struct moon_list *at = hub->servers.next; at != &hub->servers; at = at->next)
        look(MOON_CONTAINER(at, struct moon_tls_server, node), tell, owner);
    pthread_mutex_unlock(&hub->lock);
}

// ---- certificates that are given

static int check_gift(struct moon_tls_hub *hub, const struct moon_tls_gift *gift,
                      struct moon_tls_problem *problem)
{
    struct tls_certificate certificate = {.name = moon_slice_dup(gift->name)};
    if (!certificate.name)
        abort();
    certificate.cert = (struct tls_file){.path = certificate.name, .bytes = gift->cert};
    certificate.key = (struct tls_file){.path = certificate.name, .bytes = gift->key};
    int err = tls_certificate_check(hub, &certificate, problem);
    certificate.cert = certificate.key = (struct tls_file){.path = NULL}; // the caller's
    tls_certificate_fini(&certificate);
    return err;
}

// Those of that name get it; how many there were.
static size_t override_all(struct moon_tls_server *server, const struct moon_tls_gift *gift)
{
    size_t count = 0;
    for (size_t i = 0; i < server->term_count; i++)
        for (size_t k = 0; k < server->terms[i]->certificate_count; k++) {
            const struct tls_certificate *certificate = &server->terms[i]->certificates[k];
            if (certificate->host || // obtained: it is renewed, not given
                !moon_slice_equal(moon_slice_from(certificate->name), gift->name))
                continue;
            tls_override_add(server->hub->overrides, certificate, gift);
            count++;
        }
    return count;
}

// Until one of them has something wrong.
static int refresh_all(struct moon_tls_hub *hub, struct moon_tls_problem *problem)
{
    int err = 0;
    for (struct moon_list *at = hub->servers.next; at != &hub->servers && err >= 0; at = at->next)
        err = refresh(MOON_CONTAINER(at, struct moon_tls_server, node), problem);
    return err;
}

int moon_tls_hub_set(struct moon_tls_hub *hub, const struct moon_tls_gift *gift,
                     struct moon_tls_problem *problem, size_t *count)
{
    struct moon_tls_problem other;
    *count = 0;
    if (hub->seat_count == 0) // no TLS at all
        return -ENOENT;
    int err = check_gift(hub, gift, problem);
    if (err)
        return err;
    pthread_mutex_lock(&hub->lock);
    for (struct moon_list *at = hub->servers.next; at != &hub->servers; at = at->next)
        *count += override_all(MOON_CONTAINER(at, struct moon_tls_server, node), gift);
    if (*count)
        err = refresh_all(hub, problem);
    if (err >= 0) {
        tls_overrides_commit(hub->overrides);
    } else { // what was refused must not serve later, when what stood in its way is gone
        tls_overrides_undo(hub->overrides);
        refresh_all(hub, &other);
    }
    pthread_mutex_unlock(&hub->lock);
    return *count == 0 ? -ENOENT : err < 0 ? err : 0;
}

// Whether one of the servers before has the same, as those of the addresses of one listener have.
static bool is_told(const struct moon_tls_server *server, const struct moon_tls_terms *terms,
                    size_t index)
{
    for (struct moon_list *at = server->hub->servers.next; at != &server->node; at = at->next) {
        const struct moon_tls_server *other = MOON_CONTAINER(at, struct moon_tls_server, node);
        for (size_t i = 0; i < other->term_count; i++)
            if (strcmp(other->terms[i]->hostname, terms->hostname) == 0 &&
                index < other->terms[i]->certificate_count &&
                strcmp(other->terms[i]->certificates[index].name,
                       terms->certificates[index].name) == 0)
                return true;
    }
    return false;
}

static void tell_terms(const struct moon_tls_server *server, const struct moon_tls_terms *terms,
                       void (*tell)(void *owner, const struct moon_tls_certificate_facts *facts),
                       void *owner)
{
    for (size_t i = 0; i < terms->certificate_count; i++) {
        const struct tls_certificate *certificate = &terms->certificates[i];
        if (is_told(server, terms, i))
            continue;
        struct moon_tls_certificate_facts facts = {.name = certificate->name,
                                                   .hostname = terms->hostname,
                                                   .hosts = (const char *const *)certificate->names,
                                                   .host_count = certificate->name_count,
                                                   .path = certificate->cert.path,
                                                   .is_given = certificate->override_id != 0,
                                                   .is_placeholder = certificate->is_placeholder,
                                                   .expires_s = certificate->expires_s};
        tell(owner, &facts);
    }
}

void moon_tls_hub_each(struct moon_tls_hub *hub,
                       void (*tell)(void *owner, const struct moon_tls_certificate_facts *facts),
                       void *owner)
{
    pthread_mutex_lock(&hub->lock);
    for (struct moon_list *at = hub->servers.next; at != &hub->servers; at = at->next) {
        const struct moon_tls_server *server = MOON_CONTAINER(at, struct moon_tls_server, node);
        for (size_t i = 0; i < server->term_count; i++)
            tell_terms(server, server->terms[i], tell, owner);
    }
    pthread_mutex_unlock(&hub->lock);
}
