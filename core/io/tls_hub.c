// See tls.h. Library contexts by worker, and the servers whose files are looked at.
#include "base/err.h"
#include "io/tls_priv.h"

#include <errno.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>

static void seat_init(struct moon_tls_hub *hub, struct tls_seat *seat)
{
    seat->library = OSSL_LIB_CTX_new();
    seat->scratch = malloc(TLS_SCRATCH_LEN);
    if (!seat->library || !seat->scratch)
        abort();
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
        OSSL_LIB_CTX_free(hub->seats[i]->library);
        free(hub->seats[i]->scratch);
        free(hub->seats[i]);
    }
    free((void *)hub->seats);
    BIO_meth_free(hub->bio);
    tls_tickets_free(hub->tickets);
    if (hub->key_log)
        fclose(hub->key_log);
    pthread_mutex_destroy(&hub->lock);
    pthread_mutex_destroy(&hub->seat_lock);
    free(hub);
}

int moon_tls_hub_log_keys(struct moon_tls_hub *hub, const char *path)
{
    FILE *file = path ? fopen(path, "ae") : NULL;
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

static void look(struct moon_tls_server *server,
                 void (*tell)(void *owner, bool is_fine, const char *text), void *owner)
{
    struct moon_tls_problem problem;
    struct moon_tls_terms **fresh = calloc(server->term_count, sizeof *fresh);
    if (!fresh)
        abort();
    int result = renew(server, fresh, &problem);
    if (result < 0 && strcmp(problem.text, server->refused) != 0) {
        snprintf(server->refused, sizeof server->refused, "%s", problem.text);
        server->refused_count = 0;
    }
    // A certificate and its key are written one after the other: what is wrong for a moment is not told.
    if (result < 0 && ++server->refused_count == 2)
        tell(owner, false, problem.text);
    if (result == 1 && tls_server_swap(server, fresh)) {
        server->refused[0] = '\0';
        tell(owner, true, server->terms[0]->certificates[0].cert.path);
        return;
    }
    for (size_t i = 0; i < server->term_count; i++)
        moon_tls_terms_unref(fresh[i]);
    free((void *)fresh);
}

void moon_tls_hub_poll(struct moon_tls_hub *hub,
                       void (*tell)(void *owner, bool is_fine, const char *text), void *owner)
{
    pthread_mutex_lock(&hub->lock);
    for (struct moon_list *at = hub->servers.next; at != &hub->servers; at = at->next)
        look(MOON_CONTAINER(at, struct moon_tls_server, node), tell, owner);
    pthread_mutex_unlock(&hub->lock);
}
