// Sessions of peers of our own connections, for one worker and one client: by whom a peer was asked for, and where, since
// addresses of one name may not know each other's. The newest of each kind is kept, and a bound of kinds.
#include "io/tls_priv.h"

#include <stdlib.h>
#include <string.h>

enum { SESSION_COUNT = 64 };

struct tls_session {
    char *host;
    struct moon_address address;
    SSL_SESSION *session;
};

static struct tls_session *find(struct tls_sessions *all, const char *host,
                                const struct moon_address *address)
{
    for (unsigned i = 0; all->sessions && i < SESSION_COUNT; i++) {
        struct tls_session *session = &all->sessions[i];
        if (session->host && moon_address_equal(&session->address, address) &&
            strcmp(session->host, host) == 0)
            return session;
    }
    return NULL;
}

static struct tls_session *make(struct tls_sessions *all, const char *host,
                                const struct moon_address *address)
{
    if (!all->sessions)
        all->sessions = calloc(SESSION_COUNT, sizeof *all->sessions);
    if (!all->sessions)
        abort();
    struct tls_session *session = &all->sessions[all->next++ % SESSION_COUNT];
    free(session->host);
    SSL_SESSION_free(session->session);
    *session = (struct tls_session){strdup(host), *address, NULL};
    return session;
}

void tls_sessions_fini(struct tls_sessions *all)
{
    for (unsigned i = 0; all->sessions && i < SESSION_COUNT; i++) {
        free(all->sessions[i].host);
        SSL_SESSION_free(all->sessions[i].session);
    }
    free(all->sessions);
    all->sessions = NULL;
}

// What was agreed on under other files is not gone back to.
static void follow(struct tls_sessions *all, uint32_t epoch)
{
    if (all->epoch == epoch)
        return;
    tls_sessions_fini(all);
    all->epoch = epoch;
}

SSL_SESSION *tls_sessions_get(struct tls_sessions *all, uint32_t epoch, const char *host,
                              const struct moon_address *address)
{
    follow(all, epoch);
    const struct tls_session *session = find(all, host, address);
    return session ? session->session : NULL;
}

void tls_sessions_keep(struct tls_sessions *all, uint32_t epoch, const char *host,
                       const struct moon_address *address, SSL_SESSION *given)
{
    follow(all, epoch);
    struct tls_session *session = find(all, host, address);
    if (!session)
        session = make(all, host, address);
    SSL_SESSION_free(session->session);
    session->session = given;
}
