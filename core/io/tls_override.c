// Certificates that were given to the gateway while it runs (an order, a script), in the place of those in files.
//
//   given -> stands in for (name, files, their times of change) -> taken by every load of such terms
//   a file changes -> its time is another: nothing stands in for it any more
//
// Invariant: under the lock, which who loads terms takes, never a worker.
#include "io/tls_priv.h"

#include <stdlib.h>
#include <string.h>

struct override {
    struct moon_list node;
    uint64_t id;
    bool is_new;             // neither committed nor undone yet
    struct override *before; // of a new one: what it has replaced, in no list
    struct tls_certificate
        // name, paths and times as those that it stands in for; the texts that were given
        certificate;
};

struct tls_overrides {
    pthread_mutex_t lock;
    struct moon_list list;
    uint64_t last_id;
};

struct tls_overrides *tls_overrides_new(void)
{
    struct tls_overrides *overrides = calloc(1, sizeof *overrides);
    if (!overrides)
        abort();
    pthread_mutex_init(&overrides->lock, NULL);
    moon_list_init(&overrides->list);
    return overrides;
}

static void override_free(struct override *override)
{
    if (!override)
        return;
    override_free(override->before);
    moon_list_del(&override->node);
    tls_certificate_fini(&override->certificate);
    free(override);
}

void tls_overrides_free(struct tls_overrides *overrides)
{
    while (!moon_list_is_empty(&overrides->list))
        override_free(MOON_CONTAINER(overrides->list.next, struct override, node));
    pthread_mutex_destroy(&overrides->lock);
    free(overrides);
}

static struct moon_slice copy(struct moon_slice text)
{
    char *out = malloc(text.len + 1);
    if (!out)
        abort();
    memcpy(out, text.ptr, text.len);
    out[text.len] = '\0';
    return (struct moon_slice){out, text.len};
}

static void file_init(struct tls_file *out, const struct tls_file *like, struct moon_slice bytes)
{
    *out = *like;
    out->path = strdup(like->path);
    out->bytes = copy(bytes);
}

// The one for these files, whatever their times.
static struct override *find(const struct tls_overrides *overrides,
                             const struct tls_certificate *certificate)
{
    for (struct moon_list *at = overrides->list.next; at != &overrides->list; at = at->next) {
        struct override *override = MOON_CONTAINER(at, struct override, node);
        const struct tls_certificate *own = &override->certificate;
        if (strcmp(own->name, certificate->name) == 0 &&
            strcmp(own->cert.path, certificate->cert.path) == 0 &&
            strcmp(own->key.path, certificate->key.path) == 0)
            return override;
    }
    return NULL;
}

static bool is_as_it_was(const struct tls_file *a, const struct tls_file *b)
{
    return a->mtime_ns == b->mtime_ns && a->size == b->size;
}

// The one that holds.
static struct override *find_valid(const struct tls_overrides *overrides,
                                   const struct tls_certificate *certificate)
{
    struct override *override = find(overrides, certificate);
    bool is_valid = override && is_as_it_was(&override->certificate.cert, &certificate->cert) &&
                    is_as_it_was(&override->certificate.key, &certificate->key);
    return is_valid ? override : NULL;
}

void tls_override_add(struct tls_overrides *overrides, const struct tls_certificate *certificate,
                      const struct moon_tls_gift *gift)
{
    struct override *override = calloc(1, sizeof *override);
    if (!override)
        abort();
    override->certificate.name = strdup(certificate->name);
    file_init(&override->certificate.cert, &certificate->cert, gift->cert);
    file_init(&override->certificate.key, &certificate->key, gift->key);
    pthread_mutex_lock(&overrides->lock);
    override->before = find(overrides, certificate);
    if (override->before)
        moon_list_del(&override->before->node);
    override->is_new = true;
    override->id = ++overrides->last_id;
    moon_list_add_before(&overrides->list, &override->node);
    pthread_mutex_unlock(&overrides->lock);
}

void tls_overrides_commit(struct tls_overrides *overrides)
{
    pthread_mutex_lock(&overrides->lock);
    for (struct moon_list *at = overrides->list.next; at != &overrides->list; at = at->next) {
        struct override *override = MOON_CONTAINER(at, struct override, node);
        override->is_new = false;
        override_free(override->before);
        override->before = NULL;
    }
    pthread_mutex_unlock(&overrides->lock);
}

void tls_overrides_undo(struct tls_overrides *overrides)
{
    pthread_mutex_lock(&overrides->lock);
    for (struct moon_list *at = overrides->list.next, *next; at != &overrides->list; at = next) {
        struct override *override = MOON_CONTAINER(at, struct override, node);
        next = at->next;
        if (!override->is_new)
            continue;
        if (override->before) { // which may be new as well, of a name that several listeners have
            moon_list_add_before(&override->node, &override->before->node);
            next = &override->before->node;
        }
        override->before = NULL;
        override_free(override);
    }
    pthread_mutex_unlock(&overrides->lock);
}

uint64_t tls_override_find(struct tls_overrides *overrides,
                           const struct tls_certificate *certificate)
{
    pthread_mutex_lock(&overrides->lock);
    const struct override *override = find_valid(overrides, certificate);
    uint64_t id = override ? override->id : 0;
    pthread_mutex_unlock(&overrides->lock);
    return id;
}

bool tls_override_take(struct tls_overrides *overrides, struct tls_certificate *certificate)
{
    pthread_mutex_lock(&overrides->lock);
    const struct override *override = find_valid(overrides, certificate);
    if (override) {
        certificate->override_id = override->id;
        certificate->cert.bytes = copy(override->certificate.cert.bytes);
        certificate->key.bytes = copy(override->certificate.key.bytes);
    }
    pthread_mutex_unlock(&overrides->lock);
    return override != NULL;
}
